"""Sequences: the next-token transformer beside a plain torch loop on the same text, and beside PixelCNN on the same bits.

    python benchmarks/sequences.py text --num-steps 2000     4 layers, 4 heads, 128 wide, context 64, batches of 12
    python benchmarks/sequences.py text --file mine.txt      the same on a text of your own
    python benchmarks/sequences.py pixels --data digits      held-out nats of pictures of bits, with parameters and seconds
    python benchmarks/sequences.py pixels --data mnist --num-steps 1200 --batch 16 --validation 0     minutes a model

Both sides of `text` have one architecture, one schedule of Adam, the same windows to learn from and the same to be judged on: the
last tenth of the text. Seconds are of the steps alone, code compiled before. The made text is sentences of made words whose order
has a grammar; MNIST is read as in densities.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import say

SETTING = {"width": 128, "depth": 4, "num_heads": 4}
CONTEXT, BATCH, RATE = 64, 12, 0.001
JUDGED = 500  # windows of the held-out text
SIZES = {
    "transformer": {"digits": {"width": 48, "depth": 3, "num_heads": 4}, "mnist": {"width": 32, "depth": 3, "num_heads": 2}},
    "pixelcnn": {"digits": {"num_layers": 4, "num_filters": 24}, "mnist": {"num_layers": 5, "num_filters": 24, "first": 7}},
}  # of about as many parameters on mnist  # fmt: skip


# ---- a made text -------------------------------------------------------------------------------------------------


def made_text(num_characters: int = 400_000, seed: int = 0) -> str:
    """Sentences of made words: each kind of word has its own, some frequent and most rare, and its place in a sentence."""
    rng = np.random.default_rng(seed)
    parts = ["".join(rng.choice(list("bcdfgklmnprstv")) + rng.choice(list("aeiou")) for _ in range(n))
             for n in rng.integers(1, 4, 240)]  # fmt: skip
    kinds = {"the": parts[:3], "old": parts[3:60], "cat": parts[60:170], "sees": parts[170:]}
    forms = [("the", "cat", "sees"), ("the", "old", "cat", "sees"), ("the", "cat", "sees", "the", "cat"),
             ("the", "old", "cat", "sees", "the", "old", "cat")]  # fmt: skip
    found, size = [], 0
    while size < num_characters:
        words = []
        for kind in forms[rng.integers(len(forms))]:
            words.append(kinds[kind][min(int(rng.pareto(1.0) * 3), len(kinds[kind]) - 1)])
        found.append(" ".join(words).capitalize() + (".\n" if rng.random() < 0.2 else ". "))
        size += len(found[-1])
    return "".join(found)[:num_characters]


# ---- text --------------------------------------------------------------------------------------------------------


def text(asked: argparse.Namespace) -> dict[str, Any]:
    """Ours and a plain torch loop: nats a character of the held-out end, and seconds of the steps."""
    from probgen.data.values.text import text_of, windows

    characters = text_of(asked.file) if asked.file else np.array(list(made_text()))
    cut, alphabet = int(0.9 * len(characters)), "".join(np.unique(characters))
    place = {character: i for i, character in enumerate(alphabet)}
    tokens = np.array([place[c] for c in characters])
    own = windows(characters[:cut], CONTEXT)
    learned = np.searchsorted(list(alphabet), np.array(list(own["alphabet"])))[own["x"]].astype(np.uint8)
    starts = np.linspace(cut, len(tokens) - CONTEXT, JUDGED).astype(int)
    judged = tokens[starts[:, None] + np.arange(CONTEXT)]
    say(f"{len(tokens)} characters, {len(alphabet)} different; {len(learned)} windows to learn from")
    ours = of_probgen(learned, judged, len(alphabet), asked)
    theirs = of_torch(learned, judged, len(alphabet), asked)
    ratio, more = ours["seconds"] / theirs["seconds"], ours["nats"] - theirs["nats"]
    say(f"time {ratio:.2f} of torch's (at most 1.0), nats a character {more:+.4f} of torch's (at most +0.02)")
    return {"benchmark": "text", "model": "transformer", "seed": asked.seed, "steps": asked.num_steps, "nats": ours["nats"],
            "theirs": theirs["nats"], "seconds": ours["seconds"], "ratio": ratio, "machine": harness.machine()}  # fmt: skip


def of_probgen(learned: np.ndarray, judged: np.ndarray, num_words: int, asked: argparse.Namespace) -> dict[str, float]:
    import probgen as pg

    data = {"x": learned, "num_words": num_words, **SETTING}
    learner = {
        "num_steps": asked.num_steps,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "validation": 0.0,
        "average": 0.0,
    }
    first = pg.fit("transformer", data, "mle", seed=asked.seed + 1, progress=False, **learner)
    fit = pg.fit("transformer", data, "mle", seed=asked.seed, progress=False, **learner)
    nats = -float(fit.log_prob(judged).value.mean()) / CONTEXT
    size = sum(v.size for v in fit.answer.values())
    say(
        f"probgen: {nats:.4f} nats a character, {size} parameters, {fit.seconds:.1f} s; {first.seconds:.1f} s with compilation"
    )
    return {"nats": nats, "seconds": fit.seconds}


def of_torch(learned: np.ndarray, judged: np.ndarray, num_words: int, asked: argparse.Namespace) -> dict[str, float]:
    """The same net, schedule and batches in a plain eager loop."""
    import torch

    torch.manual_seed(asked.seed)
    net = torch_net(num_words)
    x, steps = torch.as_tensor(learned.astype(np.int64)), asked.num_steps
    adam = torch.optim.Adam(net.parameters(), RATE)
    rate = lambda i: min(1.0, (i + 1) / max(1, steps / 100)) * (1 - i / steps)  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, rate)
    begun, order = time.perf_counter(), torch.randperm(len(x))
    passes = len(x) // BATCH
    for step in range(steps):
        if step and step % passes == 0:
            order = torch.randperm(len(x))
        at = step % passes * BATCH
        loss = torch_loss(net, x[order[at : at + BATCH]])
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            say(f"torch, step {step + 1}: {loss.item():.4f}")
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        nats = float(torch_loss(net, torch.as_tensor(judged)))
    say(f"torch: {nats:.4f} nats a character, {sum(p.numel() for p in net.parameters())} parameters, {seconds:.1f} s")
    return {"nats": nats, "seconds": seconds}


def torch_loss(net: Any, x: Any) -> Any:
    """Minus the mean log probability of a token given those before it in its row (row, token)."""
    import torch

    logits = net(x)
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), x.reshape(-1))


def torch_net(num_words: int) -> Any:
    """The architecture of `models/sequence/transformer.py` in torch's own modules."""
    import torch
    from torch import nn

    width, depth, heads = SETTING["width"], SETTING["depth"], SETTING["num_heads"]

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.back = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            for linear, scale in (
                (self.into, 1),
                (self.out, (2 * depth) ** -0.5),
                (self.wide, 1),
                (self.back, (2 * depth) ** -0.5),
            ):
                nn.init.normal_(linear.weight, std=scale * linear.in_features**-0.5)
                nn.init.zeros_(linear.bias)

        def forward(self, h):
            rows, tokens, _ = h.shape
            q, k, v = self.into(self.first(h)).reshape(rows, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            h = h + self.out(seen.transpose(1, 2).reshape(rows, tokens, width))
            return h + self.back(nn.functional.silu(self.wide(self.second(h))))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(num_words, width), nn.Parameter(0.02 * torch.randn(CONTEXT, width))
            nn.init.normal_(self.words.weight, std=0.02)
            self.layers, self.norm = nn.Sequential(*(Layer() for _ in range(depth))), nn.LayerNorm(width)

        def forward(self, x):
            before = nn.functional.pad(self.words(x[:, :-1]), (0, 0, 1, 0))
            return self.norm(self.layers(before + self.places)) @ self.words.weight.T

    return Net()


# ---- pixels ------------------------------------------------------------------------------------------------------


def pixels(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Held-out nats of pictures of bits, of both models, by the same learner."""
    import probgen as pg
    from probgen.datasets import held_out, load

    x = load(asked.data)
    test = held_out(asked.data)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = (
        (x[order[:1500]], x[order[1500:]]) if test is None else (x, test[:: max(1, len(test) // asked.judged)])
    )
    found = []
    for name in asked.models or SIZES:
        flat = name == "transformer"
        rows = {"x": train.reshape(len(train), -1)} if flat else {"x": train, "height": x.shape[1], "width": x.shape[2]}
        begun = time.process_time()
        with harness.following() as folder:
            fit = pg.fit(name, rows | SIZES[name][asked.data], "mle", seed=asked.seed, num_steps=asked.num_steps, out=folder,
                         batch_size=asked.batch, learning_rate=0.002, validation=asked.validation, progress=False)  # fmt: skip
        spent = time.process_time() - begun
        log_p = np.asarray(fit.log_prob(test.reshape(len(test), -1) if flat else test).value)
        nats, error = float(log_p.mean()), float(log_p.std() / len(test) ** 0.5)
        size, steps = sum(v.size for v in fit.answer.values()), fit.records["loss"].size
        say(f"{name}: {nats:.2f} ± {error:.2f} nats a picture held out, {size} parameters, {steps} steps of {asked.batch}, "
            f"{spent:.0f} s of the processor, compilation within, {fit.seconds:.0f} s")  # fmt: skip
        record = {
            "benchmark": f"pixels of {asked.data}",
            "model": name,
            "seed": asked.seed,
            "nats": nats,
            "stderr": error,
        }
        more = {
            "parameters": size,
            "steps": asked.num_steps,
            "batch": asked.batch,
            "held_out": len(test),
            "processor": spent,
        }
        found.append(record | more | {"done": steps, "seconds": fit.seconds, "machine": harness.machine()})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["text", "pixels"])
    parser.add_argument("--num-steps", type=int, default=2000)
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--batch", type=int, default=64, help="rows of a step, of pixels")
    parser.add_argument("--judged", type=int, default=2000, help="test pictures of mnist, spread over all")
    parser.add_argument(
        "--validation", type=float, default=0.1, help="share of the rows that says when to stop, of pixels"
    )
    parser.add_argument("--models", nargs="*", choices=list(SIZES))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=harness.HERE / "sequences.jsonl")
    asked = parser.parse_args()
    results = harness.Results(asked.out, ("benchmark", "model", "seed", "steps"))
    found = text(asked) if asked.what == "text" else pixels(asked)
    for record in found if isinstance(found, list) else [found]:
        results.add(record)
    sys.exit(0)


if __name__ == "__main__":
    main()
