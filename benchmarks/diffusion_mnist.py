"""Diffusion models of pictures on MNIST, each for some minutes on two cores, held against bars.

    PROBGEN_DATA=folder python benchmarks/diffusion_mnist.py [ddpm edm velocity step few] [--minutes 20] [--draws 10000]
        [--out results.jsonl]

ddpm, edm, velocity   FID of draws by 20 evaluations of the network against the test set, by a classifier trained here, beside the
                      same net in a plain torch loop of equal time (for `velocity` torchcfm's, where it is installed): at most it
step                  a training step beside a hand-written one of the same net, compiled and channels_last: at most 1.0
few                   DPM-Solver++ at 10 evaluations: FID at most 1.1 times that of ancestral sampling at 1,000, of 2,000 draws

Time is that of steps, compilation apart; with --processor the processor's, all threads of a side together, which other work on the
machine hardly moves: 20 minutes of two cores are --minutes 40. Averages are over a twentieth of a short run. A line is printed, and
appended to the file, as each part is done. No row of the test set is learned from.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import harness
import numpy as np

import probgen as pg
from probgen import datasets
from probgen.data.dequantise import dequantised
from probgen.evaluate.features.classifier import classifier

BATCH, EVALUATIONS, RATE = 64, 20, 0.002
CLOCK = [time.time]  # of steps
PARTS = {  # model, inference, sampler, what the net says
    "ddpm": ("ddpm_images", "denoising", "dpm++", "v"),
    "edm": ("edm_images", "denoising", "heun", "edm"),
    "velocity": ("velocity_images", "flow_matching", "heun", "velocity"),
}


def averaging(num_steps: int) -> float:
    """The decay of an average, a step."""
    return max(0.9, min(0.999, 1 - 20 / num_steps))


def told(**said: Any) -> None:
    print(time.strftime("%H:%M:%S"), json.dumps(said, default=float), flush=True)


def digits() -> tuple[Any, Any, Any, Any]:
    """Levels 0 ... 255 and labels, to learn from and to test on."""
    levels = {s: datasets.mnist(s).astype(int) for s in ("train", "test")}
    labels = {s: datasets.mnist_labels(s).astype(int) for s in ("train", "test")}
    return levels["train"], labels["train"], levels["test"], labels["test"]


def judge() -> Callable[[np.ndarray], float]:
    """FID of pictures from 0 to 1 against the test set."""
    x, labels, test, test_labels = (a / 255 if a.ndim > 1 else a for a in digits())
    net = classifier(x, labels, (test, test_labels), name="mnist")
    return lambda drawn: pg.evaluate(np.clip(drawn, 0, 1), test, net=net, measures=["fid"])["fid"].value


def data_of(part: str) -> dict[str, Any]:
    """Levels for a chain, which takes whole numbers; else pictures from 0 to 1, and the noise of their rounding."""
    levels = digits()[0]
    return {"x": levels if part == "ddpm" else dequantised(levels, levels=256)}


# ---- ours


def fitted(part: str, num_steps: int) -> Any:
    model, inference, _, _ = PARTS[part]
    with harness.following() if num_steps > 100 else nullcontext() as folder:
        return pg.fit(
            model, data_of(part), inference, num_steps=num_steps, batch_size=BATCH, learning_rate=RATE,
            ema=averaging(num_steps), progress=False, out=folder,
        )  # fmt: skip


def step_time(part: str) -> float:
    """Seconds a step: the difference of two short fits, after one that is first."""
    fitted(part, 3)
    spent = []
    for n in (20, 60):
        start = CLOCK[0]()
        fitted(part, n)
        spent.append(CLOCK[0]() - start)
    return max(spent[1] - spent[0], 1e-3) / 40


def ours(part: str, seconds: float, draws: int) -> tuple[np.ndarray, int]:
    """Draws from 0 to 1 after so many seconds of steps, and how many steps those were."""
    each = step_time(part)
    steps = int(max(50, seconds / each))
    told(part=part, steps=steps, milliseconds_a_step=1000 * each)
    fit = fitted(part, steps)
    x = fit.sample(draws, sampler=PARTS[part][2], num_steps=EVALUATIONS, seed=0)["x"]
    return x / 255 if part == "ddpm" else x, steps


# ---- a plain torch loop


def schedule_of(part: str) -> Any:
    from probgen.nets.torch_diffusion import schedules

    made = {"ddpm": lambda: schedules.linear_levels(1000), "edm": schedules.Elucidated, "velocity": schedules.Straight}
    return made[part]()


class Loop:
    """The same net, learned by hand: compiled, channels_last, Adam, a cosine, an average."""

    def __init__(self, part: str, x: np.ndarray, matcher: Any = None, ema: float = 0.999) -> None:
        import torch

        from probgen.nets.torch_diffusion.denoiser import Network
        from probgen.nets.torch_diffusion.unet import UNet

        torch.manual_seed(0)
        self.centre, self.spread, self.part, self.matcher = x.mean(0), float(np.sqrt(x.var(0).mean())), part, matcher
        self.data = torch.from_numpy(((x - self.centre) / self.spread).astype(np.float32))
        self.net = UNet().to(memory_format=torch.channels_last)
        self.weights, self.average = list(self.net.parameters()), [p.detach().clone() for p in self.net.parameters()]
        self.run, self.adam = torch.compile(self.net), torch.optim.Adam(self.net.parameters(), RATE)
        self.denoiser = Network(schedule_of(part), self.run, PARTS[part][3])
        self.steps, self.ema = 0, ema

    def loss(self, x: Any) -> Any:
        import torch

        noise = torch.randn_like(x)
        if self.matcher is not None:  # whose time runs from noise to points
            t, z, u = self.matcher.sample_location_and_conditional_flow(noise, x)
            return ((self.denoiser.velocity(z, 1 - t) + u) ** 2).mean()
        schedule = self.denoiser.schedule
        if self.part == "edm":  # log sigma ~ N(-0.5, 1.2^2), in the time of the schedule
            sigma = torch.exp(1.2 * torch.randn(len(x)) - 0.5).clamp(schedule.low, schedule.high)
            low, high = schedule._ends()
            t = (sigma ** (1 / schedule.rho) - low) / (high - low)
        else:
            t = schedule.first + (1 - schedule.first) * torch.rand(len(x))
        z = schedule.noised(x, noise, t)
        return ((self.denoiser.said(z, t) - self.denoiser.wanted(x, noise, t)) ** 2).mean()

    def step(self, rate: float = RATE) -> None:
        import torch

        self.adam.param_groups[0]["lr"] = rate
        loss = self.loss(self.data[torch.randint(len(self.data), (BATCH,))])
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, max(1 - self.ema, 1 / self.steps))

    def learn(self, seconds: float) -> None:
        self.step()  # compiles
        start, said = CLOCK[0](), 0.1
        while (done := (CLOCK[0]() - start) / seconds) < 1:
            self.step(RATE * (0.5 + 0.5 * np.cos(np.pi * done)))
            if done > said:
                told(loop=self.part, steps=self.steps)
                said += 0.1

    def sample(self, draws: int) -> np.ndarray:
        import torch

        from probgen.nets.torch_diffusion.sampling import end, sample

        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.average)
        found = []
        for start in range(0, draws, 500):
            like = torch.empty(min(500, draws - start), 28, 28)
            z = end(self.denoiser.schedule, like)
            found.append(sample(self.denoiser, z, EVALUATIONS, PARTS[self.part][2]).numpy())
        return self.centre + self.spread * np.concatenate(found)


def matcher() -> Any:
    """torchcfm's, where it is installed."""
    try:
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    except ImportError:
        return None
    return ConditionalFlowMatcher(sigma=0.0)


def unit(part: str) -> np.ndarray:
    x = data_of(part)["x"]
    return (x + np.random.default_rng(0).random(x.shape)) / 256 if part == "ddpm" else x


# ---- the parts


def pictures(part: str, seconds: float, draws: int) -> dict[str, Any]:
    fid = judge()
    x, steps = ours(part, seconds, draws)
    found = fid(x)
    told(part=part, fid=found)
    loop = Loop(part, unit(part), matcher() if part == "velocity" else None, averaging(steps))
    loop.learn(seconds)
    theirs = fid(loop.sample(draws))
    return {
        "fid": found, "fid_of_loop": theirs, "steps": steps, "steps_of_loop": loop.steps, "torchcfm": loop.matcher is not None,
        "passed": found <= theirs,
    }  # fmt: skip


def step(seconds: float, draws: int) -> dict[str, Any]:
    """Blocks of steps of both in turn, in one process; the median of the ratios."""
    from probgen.engine.pyro.executor import Executor
    from probgen.run.conditioning import conditioned

    del draws
    loop, data = Loop("velocity", unit("velocity")), data_of("velocity")
    settings = pg.inference.FlowMatching(num_steps=100_000, batch_size=BATCH, learning_rate=RATE, ema=0.999)
    target = settings.prepare(conditioned("velocity_images", data, precision="float32")[1])
    executor = Executor(settings, target, 0, 1)
    executor.init()
    executor.advance(0, 3)
    for _ in range(3):
        loop.step()
    told(begun=True)
    ratios, at, begun = [], 3, time.time()
    while len(ratios) < 3 or time.time() - begun < seconds:
        spent = []
        for run in (lambda: executor.advance(at, 10), lambda: [loop.step() for _ in range(10)]):  # noqa: B023
            start = time.time()
            run()
            spent.append(time.time() - start)
        at += 10
        ratios.append(spent[0] / spent[1])
        told(ours=spent[0] / 10, theirs=spent[1] / 10)
    ratio = float(np.median(ratios))
    return {"ratio": ratio, "blocks": len(ratios), "passed": ratio <= 1.0}


def few(seconds: float, draws: int) -> dict[str, Any]:
    fid, draws = judge(), min(draws, 2000)
    fit = fitted("ddpm", int(max(50, seconds / step_time("ddpm"))))
    found = {}
    for sampler, num_steps in (("dpm++", 10), ("ancestral", 1000)):
        found[sampler] = fid(fit.sample(draws, sampler=sampler, num_steps=num_steps, seed=0)["x"] / 255)
        told(sampler=sampler, fid=found[sampler])
    return {**found, "passed": found["dpm++"] <= 1.1 * found["ancestral"]}


def main(words: list[str] | None = None) -> None:
    known = [*PARTS, "step", "few"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(known))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--processor", action="store_true", help="minutes of the processor, not of the clock")
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args(words)
    if unknown := [part for part in given.parts if part not in known]:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(known)}")
    CLOCK[0] = time.process_time if given.processor else time.time
    for part in given.parts or known:
        told(part=part, minutes=given.minutes)
        run = {"step": step, "few": few}.get(part) or (lambda seconds, draws, part=part: pictures(part, seconds, draws))
        found = {"part": part, "minutes": given.minutes, **run(60 * given.minutes, given.draws)}
        told(**found)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(found, default=float) + "\n")


if __name__ == "__main__":
    main()
