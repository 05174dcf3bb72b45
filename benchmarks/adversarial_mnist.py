"""Models of pictures without a density on MNIST, each for some minutes on two cores, held against bars.

    PROBGEN_DATA=folder python benchmarks/adversarial_mnist.py [dcgan wgan_gp conditional_gan biggan pix2pix cycle_gan stacked step]
        [--minutes 15] [--processor] [--out results.jsonl] [--pictures folder]

dcgan, wgan_gp     FID of draws against the test set, by a classifier trained here, beside the same nets in a plain torch
                   loop of equal time (non-saturating, or WGAN-GP): at most 1.1 times its FID
conditional_gan    the classifier reads the class that was asked for: at least .97
biggan             noise cut at tau of 2, 1.3, .9, .6, .3: the distance of means in FID, and recall, both fall
pix2pix            L1 of held-out pairs: at least 30 % below that of copying the edges
cycle_gan          digits and inverted ones: the cycle error falls by 5, the classifier reads the translated digit right >= .85
step               a step of dcgan beside the torch loop's, compiled and channels_last, in turns, processor time: at most 1.0
stacked            dcgan by r3gan on 25,600 stacked digits, 26,000 draws: 990 of 1000 modes, KL at most .15; beside real triples

Time is that of steps, compilation apart; with --processor the processor's, all threads of a side together, which other work on the
machine hardly moves: 15 minutes of two cores are --minutes 30. A line is printed, and appended to the file, as each model is done;
with --pictures a grid of draws, and the run, are kept of each. Rows of the test set are never learned from.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np

import probgen as pg
from probgen import catalog, datasets
from probgen.data.pictures import edges
from probgen.evaluate.features.classifier import by_channel, classifier
from probgen.pictures.style import tiles

WIDTHS, LATENTS, BATCH = (64, 32, 16), 32, 64  # of the models' generators at 28 x 28
TRIPLES = 26_000  # whose modes are counted
CLOCK = [time.time]  # of steps
KEPT: list[Path] = []  # the folder of pictures
OWN: dict[str, Any] = {}  # settings of all fits
SPENT: dict[str, Any] = {}  # steps of the last fit, and its seconds, compilation counted in
ASKED = {"draws": 10_000, "steps": 0}  # rows to judge by; steps, by default what goes into the time


def plain(number: Any) -> Any:
    """NumPy's as Python's."""
    return number.item()


def told(**said: Any) -> None:
    print(time.strftime("%H:%M:%S"), json.dumps(said, default=plain), flush=True)


def digits() -> tuple[Any, Any, Any, Any]:
    """Pictures from 0 to 1 and labels, to learn from and to test on."""
    grey = {s: datasets.mnist(s).astype(np.float32) / 255 for s in ("train", "test")}
    labels = {s: datasets.mnist_labels(s).astype(int) for s in ("train", "test")}
    return grey["train"], labels["train"], grey["test"], labels["test"]


class Following(pg.loggers.Logger):
    """A line every half minute of the clock of steps."""

    def __init__(self) -> None:
        self.begun = self.said = CLOCK[0]()

    def begin(self, about: Any) -> None: ...

    def log(self, step: int, values: Any) -> None:
        if CLOCK[0]() - self.said > 30:
            self.said = CLOCK[0]()
            words = ("loss", "critic_loss", "distance", "right", "slope", "cycle")
            told(seconds=self.said - self.begun, step=step, **{k: values[k] for k in words if k in values})

    def end(self, ending: Any) -> None: ...


def step_time(model: str, data: Any, inference: str, settings: dict[str, Any]) -> float:
    """Seconds of a step: the mean of a tenth of a thousand, after some that compile and warm caches."""
    from probgen.engine.numpyro import engine
    from probgen.run.fitting import asked

    algorithm, _, _, _, target = asked(model, data, inference, precision="float32", num_steps=10_000, **settings)
    advance = harness.steps_of(engine.Executor(algorithm, target, 0, 1))
    advance(20)
    start = CLOCK[0]()
    advance(100)
    return (CLOCK[0]() - start) / 100


def learned(model: str, data: Any, inference: str, seconds: float, **settings: Any) -> Any:
    """A fit of as many steps as go into so many seconds."""
    settings |= OWN
    if ASKED["steps"]:
        steps = ASKED["steps"]
    else:
        each = step_time(model, data, inference, settings)
        steps = int(max(100, seconds / each))
        told(milliseconds_a_step=1000 * each)
    told(model=model, inference=inference, steps=steps)
    start = CLOCK[0]()
    folder = KEPT[0] / f"{model} {inference}" if KEPT else None
    fit = pg.fit(
        model, data, inference, num_steps=steps, progress=False, loggers=Following(), out=folder, overwrite=True, **settings
    )  # fmt: skip
    SPENT.update(steps=steps, seconds=CLOCK[0]() - start)
    told(**SPENT)
    return fit


def kept(name: str, pictures: Any, across: int = 20) -> None:
    """A grid of pictures (picture, height, width), or with channels, as a file, where files are asked for."""
    if KEPT:
        x = np.clip(np.asarray(pictures, float), 0, 1)
        tiles(x, x.shape[1:], across).savefig(KEPT[0] / f"{name}.png", dpi=150)


def read(net: Any, x: np.ndarray) -> np.ndarray:
    """The class that the net reads of each picture."""
    return net(np.asarray(x, np.float32)[..., None])[1].argmax(1)


def fid(x: Any, test: Any, net: Any) -> float:
    return pg.evaluate(np.clip(x, 0, 1), test, net=net, measures=["fid"])["fid"].value


# ---- the same nets in torch


def torch_loop(x: np.ndarray, wasserstein: bool, r1: float = 0.0, compiled: bool = False) -> tuple[Any, Any]:
    """A step, given the share of the time that is done; so many draws of the average."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class PixelNorm(nn.Module):
        def forward(self, h: Any) -> Any:
            h = nn.functional.leaky_relu(h, 0.2)
            return h * torch.rsqrt((h**2).mean(1, keepdim=True) + 1e-8)

    ups = [
        part
        for a, b in itertools.pairwise(WIDTHS)
        for part in (PixelNorm(), nn.Conv2d(a, 4 * b, 3, padding=1), nn.PixelShuffle(2))
    ]
    make = nn.Sequential(
        nn.Linear(LATENTS, 49 * WIDTHS[0]), nn.Unflatten(1, (WIDTHS[0], 7, 7)), *ups, PixelNorm(),
        nn.Conv2d(WIDTHS[-1], 1, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip
    judge = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(),
        nn.Linear(49 * 32, 1),
    )  # fmt: skip
    make, judge = (net.to(memory_format=torch.channels_last) for net in (make, judge))
    mean = copy.deepcopy(make)
    kind, names = (pg.inference.WGANGP, ("penalty",)) if wasserstein else (pg.inference.GAN, ())
    own = {k: v for k, v in catalog.model("dcgan").settings.items() if k in ("learning_rate", "ema", *names)}
    defaults = kind(**own)
    betas = (defaults.beta1, defaults.beta2)
    players = [torch.optim.Adam(net.parameters(), defaults.learning_rate, betas) for net in (make, judge)]
    data, softplus, steps = torch.from_numpy(x)[:, None], nn.functional.softplus, itertools.count(1)
    made, judged = (torch.compile(net) for net in (make, judge)) if compiled else (make, judge)

    def slope(u: Any) -> Any:
        """Squared, of the critic at each picture; torch does not compile a gradient of a gradient."""
        u = u.detach().requires_grad_()
        (found,) = torch.autograd.grad(judge(2 * u - 1).sum(), u, create_graph=True)
        return found.flatten(1).square().sum(1)

    def penalty(real: Any, fake: Any) -> Any:
        share = torch.rand(len(real), 1, 1, 1)
        return defaults.penalty * ((slope(share * real + (1 - share) * fake).sqrt() - 1) ** 2).mean()

    def step(done: float) -> None:
        for player in players:
            player.param_groups[0]["lr"] = defaults.learning_rate * (1 - done)
        for _ in range(defaults.critic_steps):
            real = data[torch.randint(len(data), (BATCH,))].contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                fake = made(torch.randn(BATCH, LATENTS))
            d, g = judged(2 * real - 1), judged(2 * fake - 1)
            loss = (g - d).mean() + penalty(real, fake) if wasserstein else (softplus(-d) + softplus(g)).mean()
            if r1:
                loss = loss + r1 / 2 * slope(real).mean()
            players[1].zero_grad()
            loss.backward()
            players[1].step()
        g = judged(2 * made(torch.randn(BATCH, LATENTS)) - 1)
        loss = -g.mean() if wasserstein else softplus(-g).mean()
        players[0].zero_grad()
        loss.backward()
        players[0].step()
        with torch.no_grad():
            torch._foreach_lerp_(
                list(mean.parameters()), list(make.parameters()), max(1 - defaults.ema, 1 / next(steps))
            )

    def sample(draws: int) -> np.ndarray:
        with torch.no_grad():
            return mean(torch.randn(draws, LATENTS))[:, 0].numpy()

    return step, sample


def torch_draws(x: np.ndarray, seconds: float, wasserstein: bool) -> tuple[np.ndarray, int]:
    """Draws of the average of a generator that learned for so many seconds, and how many steps it took."""
    step, sample = torch_loop(x, wasserstein)
    start, steps, said = CLOCK[0](), 0, 0.0
    while (done := (CLOCK[0]() - start) / seconds) < 1:
        if done > said:
            told(torch_steps=steps)
            said += 0.1
        step(done)
        steps += 1
    return sample(ASKED["draws"]), steps


def step_beside_torch(rounds: int = 7, steps: int = 20) -> dict[str, Any]:
    """A step of dcgan beside the torch loop's, compiled and channels_last, with and without the penalty on the slope, in turns."""
    from probgen.engine.numpyro import engine
    from probgen.run.fitting import asked

    x = digits()[0]
    found: dict[str, Any] = {}
    for r1 in (0.0, catalog.model("dcgan").settings["r1"]):
        algorithm, _, _, _, target = asked("dcgan", {"x": x}, "gan", precision="float32", num_steps=10**6, r1=r1)
        ours = harness.steps_of(engine.Executor(algorithm, target, 0, 1))
        theirs = {word: torch_loop(x, False, r1, word == "compiled")[0] for word in ("eager", "compiled")}
        race = {"ours": ours} | {
            word: (lambda n, step=step: [step(0.0) for _ in range(n)]) for word, step in theirs.items()
        }
        spent: dict[str, list[float]] = {word: [] for word in race}
        for i in range(rounds + 1):  # the first compiles
            for word, advance in race.items():
                start = time.process_time()
                advance(steps)
                if i:
                    spent[word].append(1000 * (time.process_time() - start) / steps)
        least = {word: min(times) for word, times in spent.items()}
        told(r1=r1, milliseconds_of_the_processor=least)
        found |= {f"{word}, r1={r1}": value for word, value in least.items()}
        found["passed"] = found.get("passed", True) and least["ours"] <= least["compiled"]
    return found


# ---- the models


def pictures(inference: str, seconds: float) -> dict[str, Any]:
    x, labels, test, test_labels = digits()
    net = classifier(x, labels, (test, test_labels), name="mnist")
    own = learned("dcgan", {"x": x}, inference, seconds).sample(ASKED["draws"])["x"]
    ours = fid(own, test, net)
    told(fid=ours)
    drawn, steps = torch_draws(x, seconds, inference == "wgan_gp")
    kept(f"dcgan_{inference}", own[:200])
    kept(f"dcgan_{inference}_torch", drawn[:200])
    theirs = fid(drawn, test, net)
    return {"fid": ours, "fid_of_torch": theirs, "steps_of_torch": steps, "passed": ours <= 1.1 * theirs}


def conditional_gan(seconds: float) -> dict[str, Any]:
    x, labels, test, test_labels = digits()
    net = classifier(x, labels, (test, test_labels), name="mnist")
    fit = learned("conditional_gan", (x, labels), "gan", seconds)
    asked = np.arange(ASKED["draws"]) % 10
    drawn = fit.sample(len(asked), label=asked)["x"]
    kept("conditional_gan", drawn[:200])
    right = (read(net, drawn) == asked).mean()
    told(right_by_class=[(read(net, drawn[i::10]) == i).mean() for i in range(10)], fid=fid(drawn, test, net))
    return {"right": right, "passed": right >= 0.97}


def biggan(seconds: float) -> dict[str, Any]:
    x, labels, test, test_labels = digits()
    net = classifier(x, labels, (test, test_labels), name="mnist")
    fit, asked = learned("biggan", (x, labels), "gan", seconds), np.arange(ASKED["draws"]) % 10
    test = test[: len(asked)]
    real, means, recalls = net(test[..., None])[0], [], []
    for tau in (2.0, 1.3, 0.9, 0.6, 0.3):
        drawn = np.clip(fit.sample(len(asked), label=asked, truncation=tau)["x"], 0, 1)
        kept(f"biggan_{tau}", drawn[:200])
        told(tau=tau, fid=fid(drawn, test, net), right=(read(net, drawn) == asked).mean())
        means.append(float(((net(np.float32(drawn)[..., None])[0].mean(0) - real.mean(0)) ** 2).sum()))
        recalls.append(pg.evaluate(drawn, test, net=net, measures=["prdc"])["recall"].value)
    falls = lambda values: bool((np.diff(values) < 0).all())  # noqa: E731
    return {"fid_of_means": means, "recall": recalls, "passed": falls(means) and falls(recalls)}


def pix2pix(seconds: float) -> dict[str, Any]:
    x, _, test, _ = digits()
    fit = learned("pix2pix", (edges(x), x), "gan", seconds)
    test = test[: ASKED["draws"]]
    a = edges(test)
    made = fit.sample(len(a), a=a)["b"]
    kept(
        "pix2pix", np.stack([a[:60], made[:60], test[:60]]).reshape(3, 3, 20, 28, 28).swapaxes(0, 1).reshape(-1, 28, 28)
    )
    ours, copied = (float(abs(b - test).mean()) for b in (made, a))
    return {"l1": ours, "l1_of_copying": copied, "passed": ours <= 0.7 * copied}


def cycle_gan(seconds: float) -> dict[str, Any]:
    x, labels, test, test_labels = digits()
    net = classifier(x, labels, (test, test_labels), name="mnist")
    fit = learned("cycle_gan", (x[:30_000], 1 - x[30_000:55_000]), "cycle_gan", seconds)
    cycle = fit.records["cycle"].ravel()
    test, test_labels = test[: ASKED["draws"]], test_labels[: ASKED["draws"]]
    made = fit.sample(len(test), a=test)["b"]
    kept("cycle_gan", np.stack([test[:60], made[:60]]).reshape(2, 3, 20, 28, 28).swapaxes(0, 1).reshape(-1, 28, 28))
    right = float((read(net, 1 - made) == test_labels).mean())
    fall = float(cycle[cycle > 0][0] / cycle[-1])
    return {"cycle_falls_by": fall, "right": right, "passed": fall >= 5 and right >= 0.85}


def stacked(seconds: float) -> dict[str, Any]:
    x, labels, test, test_labels = digits()
    net = by_channel(classifier(x, labels, (test, test_labels), name="mnist"))
    drawn = learned("dcgan", {"x": datasets.load("stacked_mnist")}, "r3gan", seconds).sample(TRIPLES)["x"]
    kept("stacked", drawn[:200])

    def counted(x: Any) -> dict[str, float]:
        """Against equal shares of all triples, as published figures are."""
        read = np.concatenate([net(np.float32(np.clip(part, 0, 1)))[1].argmax(1) for part in np.array_split(x, 26)])
        counts = np.bincount(read, minlength=1000)
        shares = counts[counts > 0] / counts.sum()
        return {
            "modes": int((counts > 0).sum()), "modes_of_five": int((counts >= 5).sum()),
            "kl": float((shares * np.log(1000 * shares)).sum()),
        }  # fmt: skip

    found, real = counted(drawn), counted(datasets.stacked(test, TRIPLES, seed=2))
    return {**found, "real_triples": real, "passed": found["modes"] >= 990 and found["kl"] <= 0.15}


MODELS = {
    "dcgan": lambda seconds: pictures("gan", seconds),
    "wgan_gp": lambda seconds: pictures("wgan_gp", seconds),
    "conditional_gan": conditional_gan,
    "biggan": biggan,
    "pix2pix": pix2pix,
    "cycle_gan": cycle_gan,
    "stacked": stacked,
    "step": lambda seconds: step_beside_torch(),
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=", ".join(MODELS))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--processor", action="store_true", help="minutes of the processor, not of the clock")
    parser.add_argument("--settings", type=json.loads, default={}, help="of the learner, as JSON")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=0, help="in place of as many as go into the minutes")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    given = parser.parse_args(words)
    if unknown := [m for m in given.models if m not in MODELS]:
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    CLOCK[0] = time.process_time if given.processor else time.time
    OWN.update(given.settings)
    ASKED.update(draws=given.draws, steps=given.steps)
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
        KEPT.append(given.pictures)
    for name in given.models or MODELS:
        told(model=name, minutes=given.minutes)
        found = {
            "model": name,
            "minutes": given.minutes,
            "processor": given.processor,
            **OWN,
            **MODELS[name](60 * given.minutes),
        }
        told(**found)
        if given.out:
            with given.out.open("a") as file:
                file.write(json.dumps(found, default=plain) + "\n")


if __name__ == "__main__":
    main()
