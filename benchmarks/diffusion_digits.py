"""What is asked of a diffusion model of MNIST beside pictures: bits, a class, the other half; each against its bar.

    PROBGEN_DATA=folder python benchmarks/diffusion_digits.py [bits conditional few completion] [--steps 5000] [--width 512]
        [--model vdm] [--rows 1000] [--pictures 50] [--out results.jsonl]

bits         bits a dimension of 8-bit test pictures by the bound on the chain, learned by "svi"; at most 1.5
conditional  the share of draws, --each a class, in which a classifier trained here reads the class that was asked for, at guidance
             1, 2 and 4, and the recall, how much of the test rows lies among the draws; at least 97 % at 2
few          Frechet distance of 2,000 draws from the test set by DPM-Solver++ at 10 evaluations, over that by ancestral sampling at
             1,000; at most 1.1. By times="rho", too
completion   the lower half of test pictures drawn by twisted SMC: the share that the classifier reads rightly, less that of the
             upper half alone, the rest black; at least 15 points. Both have the error of so few pictures

By --model they are of a perceptron in NumPyro that says a mixture of every pixel and learns by the bound, `vdm`, or that says v and
learns by the simple loss, `ddpm`; all but `few` of a U-Net in torch, `ddpm_images`, too. Steps, not minutes, are what is asked for,
and seconds of the processor are told with compilation within: a machine that others use makes no difference. No row of the test set
is learned from.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
from diffusion_mnist import digits, told

import probgen as pg
from probgen.evaluate.features.classifier import classifier

GUIDANCE = (1.0, 2.0, 4.0)
KNOWN = 14  # rows of a picture, from the top
BARS = {"bits": 1.5, "conditional": 0.97, "few": 1.1, "completion": 0.15}


def fitted(model: str, data: dict[str, Any], inference: str, ask: argparse.Namespace, **more: Any) -> tuple[Any, float]:
    """A fit, and the seconds of the processor that it took."""
    begun = time.process_time()
    with harness.following() as folder:
        fit = pg.fit(
            model, data, inference, num_steps=ask.steps, batch_size=ask.batch, learning_rate=ask.rate,
            ema=max(0.9, min(0.999, 1 - 20 / ask.steps)), progress=False, seed=ask.seed, out=folder, **more,
        )  # fmt: skip
    return fit, time.process_time() - begun


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def spread(x: np.ndarray, count: int) -> np.ndarray:
    """So many rows, from all over: the first of MNIST's test rows are the easier ones."""
    return x[:: max(1, len(x) // count)][:count]


def judge() -> Any:
    """The classifier, and the share of pictures of levels in which it reads given labels."""
    x, labels, test, test_labels = digits()
    net = classifier(x / 255, labels, (test / 255, test_labels), name="mnist")
    told(classifier=net.note)

    def read(pictures: np.ndarray, wanted: np.ndarray) -> float:
        grey = np.clip(pictures.reshape(-1, 28, 28, 1) / 255, 0, 1).astype(np.float32)
        return float((np.asarray(net(grey)[1]).argmax(1) == wanted).mean())

    return net, read


def rows(x: np.ndarray, ask: argparse.Namespace) -> dict[str, Any]:
    """Pictures of a U-Net, or data of a perceptron; a mixture needs little noise less than half a level."""
    if ask.model == "ddpm_images":
        return {"x": x}
    data = {"x": flat(x), "dim": 784, "width": ask.width}
    return data | ({"kind": "mixture", "clean": 8.0} if ask.model == "vdm" else {"kind": "v"})


def learned(x: np.ndarray, ask: argparse.Namespace) -> tuple[Any, float]:
    """`vdm` by its bound, others by the simple loss."""
    return fitted(ask.model, rows(x, ask), "svi" if ask.model == "vdm" else "denoising", ask)


def bits(ask: argparse.Namespace) -> dict[str, Any]:
    x, _, test, _ = digits()
    test = spread(test, ask.rows)
    whole = ask.model == "ddpm_images"  # pictures
    fit, seconds = fitted(ask.model, {"x": x} if whole else rows(x, ask), "svi", ask)
    found = fit.log_prob(test if whole else flat(test), num_draws=ask.draws)
    scale = 784 * np.log(2)
    value = -float(np.mean(found.value)) / scale
    error = float(np.hypot(np.std(found.value), np.sqrt(np.mean(np.square(found.stderr)))) / len(test) ** 0.5 / scale)
    return {"value": value, "stderr": error, "kind": found.kind, "processor": seconds, "passed": value <= BARS["bits"]}


def conditional(ask: argparse.Namespace) -> dict[str, Any]:
    x, labels, test, _ = digits()
    net, read = judge()
    if ask.model == "ddpm_images":
        fit, seconds = fitted(ask.model, {"x": x, "label": labels}, "denoising", ask, unlabelled=0.1)
    else:
        data = {"x": flat(x), "label": labels, "dim": 784, "width": ask.width, "kind": "v"}
        fit, seconds = fitted("conditional_diffusion", data, "denoising", ask)
    wanted, found = np.repeat(np.arange(10), ask.each), {}
    known = spread(test, len(wanted)) / 255
    for guidance in GUIDANCE:
        drawn = fit.sample(
            len(wanted), label=wanted, guidance=guidance, sampler="dpm++", num_steps=ask.evaluations, seed=1
        )["x"]
        if ask.out:
            np.save(Path(ask.out).with_suffix(f".{guidance:g}.npy"), drawn)
        found[str(guidance)] = {"read": read(drawn, wanted)}
        told(guidance=guidance, **found[str(guidance)])
        pictures = np.clip(drawn.reshape(-1, 28, 28) / 255, 0, 1)
        measures = pg.evaluate(pictures, known, net=net, measures=["prdc"])
        found[str(guidance)] |= {word: float(measures[word].value) for word in ("precision", "recall")}
        told(guidance=guidance, **found[str(guidance)])
    value = found["2.0"]["read"]
    return {"value": value, **found, "processor": seconds, "passed": value >= BARS["conditional"]}


def few(ask: argparse.Namespace) -> dict[str, Any]:
    x, _, test, _ = digits()
    net, _ = judge()
    fit, seconds = learned(x, ask)
    found = {}
    for name, evaluations, times in (("dpm++", 10, None), ("dpm++ rho", 10, "rho"), ("ancestral", 1000, None)):
        drawn = fit.sample(2000, sampler=name.split()[0], num_steps=evaluations, times=times, seed=1)["x"]
        grey = np.clip(drawn.reshape(-1, 28, 28) / 255, 0, 1)
        found[name] = pg.evaluate(grey, test / 255, net=net, measures=["fid"])["fid"].value
        told(sampler=name, fid=found[name])
    value = found["dpm++"] / found["ancestral"]
    return {"value": value, **found, "processor": seconds, "passed": value <= BARS["few"]}


def completion(ask: argparse.Namespace) -> dict[str, Any]:
    x, _, test, test_labels = digits()
    _, read = judge()
    fit, seconds = learned(x, ask)
    wanted, labels = flat(spread(test, ask.pictures)).astype(float), spread(test_labels, ask.pictures)
    hidden = np.arange(784) >= 28 * KNOWN
    drawn, least = [], []
    for i, row in enumerate(wanted):
        seen = np.where(hidden, np.nan, row)
        done: Any = pg.fit(
            fit.condition(x=seen.reshape(fit.target.visible[0].shape)),
            inference="twisted_smc",
            num_particles=64,
            num_runs=2,
            num_steps=50,
            seed=i,
            progress=False,
        )
        drawn.append(done.draws["x"].reshape(-1, 784)[0])
        least.append(float(np.min(done.records["ess"])))
        told(picture=i, ess=least[-1], evidence=float(done.log_evidence.value))
    upper, whole = read(np.where(hidden, 0.0, wanted), labels), read(np.stack(drawn), labels)
    error = float(np.sqrt((upper * (1 - upper) + whole * (1 - whole)) / len(wanted)))
    if ask.out:
        np.save(Path(ask.out).with_suffix(".completed.npy"), np.stack([wanted, np.stack(drawn)]))
    value = whole - upper
    return {"value": value, "stderr": error, "half": upper, "completed": whole, "pictures": len(wanted), "processor": seconds,
            "ess": float(np.median(least)), "passed": value >= BARS["completion"]}  # fmt: skip


PARTS = {"bits": bits, "conditional": conditional, "few": few, "completion": completion}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--width", type=int, default=512, help="hidden units of perceptrons")
    parser.add_argument("--model", choices=["vdm", "ddpm", "ddpm_images"], default="vdm", help="see above")
    parser.add_argument("--rows", type=int, default=1000, help="test pictures, of bits")
    parser.add_argument("--draws", type=int, default=20, help="levels a picture, of bits")
    parser.add_argument(
        "--evaluations", type=int, default=20, help="of the network a draw by DPM-Solver++, twice that where guided"
    )
    parser.add_argument("--each", type=int, default=100, help="draws of a class")
    parser.add_argument("--pictures", type=int, default=50, help="to complete")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=None)
    ask = parser.parse_args(words)
    if unknown := [part for part in ask.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    if ask.model == "ddpm_images" and (wrong := {"few"} & set(ask.parts or PARTS)):
        parser.error(f"{min(wrong)} is of a perceptron: --model vdm, or ddpm")
    for part in ask.parts or PARTS:
        settings = {
            "part": part,
            "steps": ask.steps,
            "batch": ask.batch,
            "rate": ask.rate,
            "width": ask.width,
            "seed": ask.seed,
        }
        settings |= {"model": ask.model}
        found = {**settings, **PARTS[part](ask), "bar": BARS[part]}
        told(**found)
        if ask.out:
            with open(ask.out, "a") as file:
                file.write(json.dumps(found, default=float) + "\n")


if __name__ == "__main__":
    main()
