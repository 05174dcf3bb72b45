"""Latent-variable models: bounds on MNIST's test log-likelihood, all models on digits, and speed beside a torch loop.

    python benchmarks/latents.py digits                        every model: bound on held-out rows, verdict, time
    python benchmarks/latents.py mnist --models vae iwae       ELBO and importance-weighted bound (500 draws), binarised
    python benchmarks/latents.py codes                         vqgan beside vq_vae on digits: bound, FID, KID, by nets of two kinds
    python benchmarks/latents.py labels                        accuracy of M2 on MNIST's test rows with 1000 labels known
    python benchmarks/latents.py speed                         steps of VAEs beside plain eager torch loops, and pythae's trainer
    python benchmarks/latents.py table                         latents.md, from the results

MNIST is read from data/mnist.npz in $PROBGEN_SHARED; each pixel is a draw with its grey level as probability, of the test rows
once, of the training rows anew at each step, or as often as --draws says. Results are appended to a file.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from typing import Any

import densities
import harness
import numpy as np
from energies import best
from harness import say

LATENT = (
    "vae", "beta_vae", "conditional_vae", "hierarchical_vae", "iaf_vae", "flow_prior_vae", "vamp_vae", "ppca", "vq_vae", "vq_vae_2",
)  # fmt: skip
BIG = {"width": 500, "depth": 2}
LONG = {"num_steps": 40_000, "learning_rate": 0.001}
MNIST: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], float | None, float | None]] = {
    # name: model, its settings, algorithm, its settings, bar and published figure in nats
    "vae": (
        "vae", BIG | {"num_latents": 50}, "svi",
        {"num_steps": 70_000, "batch_size": 200, "learning_rate": 0.002, "kl_warmup": 10_000}, -85.5, -86.76,
    ),
    "iwae": (
        "vae", BIG | {"num_latents": 50}, "iwae", {"num_steps": 4000, "learning_rate": 0.0005, "batch_size": 100}, None, -84.78,
    ),
    "iaf_vae": ("iaf_vae", BIG | {"num_latents": 32, "flow_width": 320}, "svi", LONG, None, None),
    "hierarchical_vae": (
        "hierarchical_vae", BIG | {"num_latents": 50, "num_top": 20}, "svi",
        LONG | {"kl_warmup": 8000}, None, -80.7,
    ),
    "vamp_vae": ("vamp_vae", BIG | {"num_latents": 50, "num_inputs": 200}, "svi", LONG, None, None),
    "vq_vae": (
        "vq_vae", {"num_codes": 64, "dim": 16, "num_filters": 32, "num_layers": 5, "prior_filters": 48}, "vq",
        {"num_steps": 4000, "batch_size": 64, "learning_rate": 0.001}, None, None,
    ),
    "vq_vae_2": (
        "vq_vae_2",
        {"num_codes": 32, "dim": 16, "halvings": 1, "num_filters": 16, "num_layers": 2, "prior_filters": 24}, "vq",
        {"num_steps": 6000, "batch_size": 64, "learning_rate": 0.001}, None, None,
    ),
}  # fmt: skip


def digits(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bounds on the last 360 of the 1797 digits, by 500 draws."""
    import probgen as pg
    from probgen import catalog

    for name in asked.models or LATENT:
        whole = catalog.model(name).default_data()
        part = lambda keep: {k: v[keep] if isinstance(v, np.ndarray) else v for k, v in whole.items()}  # noqa: E731, B023
        begun = time.perf_counter()
        settings = {"num_steps": asked.steps} if asked.steps else {}
        word = "vq" if name.startswith("vq") else "svi"
        fit = pg.fit(name, part(slice(1437)), word, seed=asked.seed, progress=False, **settings)
        seconds = time.perf_counter() - begun
        rows = {k: v for k, v in part(slice(1437, None)).items() if isinstance(v, np.ndarray)}
        found = fit.log_prob(**rows)
        verdict = fit.diagnose().headline
        yield {"benchmark": "latents, digits", "model": name, "seed": asked.seed, "nats": float(found.value.mean()),
               "seconds": seconds, "verdict": verdict, "machine": harness.machine()}  # fmt: skip
        say(f"{name}: {found.value.mean():.2f} nats on test rows ({found.kind}), {seconds:.0f} s, {verdict}")


def mnist(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The ELBO of all test rows, and the importance-weighted bound of `--rows` of them; of a VQ-VAE the bound alone.

    With `--keep`, runs stay in that folder, and `iwae` begins at its run of `vae`: its seconds are those beside.
    """
    import probgen as pg
    from probgen import catalog

    for name in asked.models or MNIST:
        model, settings, algorithm, of_algorithm, bar, published = MNIST[name]
        train, test = densities.pictures(asked.draws)
        data = {**catalog.model(model).given_rows(train), **settings}
        of_algorithm = of_algorithm | ({"num_steps": asked.steps} if asked.steps else {})
        out = asked.keep and asked.keep / name
        init = asked.keep / "vae" if asked.keep and name == "iwae" else None
        begun = time.perf_counter()
        fit = pg.fit(model, data, algorithm, seed=asked.seed, out=out, overwrite=True, init=init,
                     progress=sys.stderr.isatty(), **of_algorithm)  # fmt: skip
        seconds = time.perf_counter() - begun
        say(f"{name}: learned in {seconds:.0f} s; {fit.diagnose()}")
        rows = catalog.model(model).given_rows(test)["x"]
        if algorithm == "vq":
            nats = float(np.mean([fit.log_prob(part).value.mean() for part in np.split(rows[: asked.rows], 10)]))
            measured = {
                "used": float(fit.records["used"][0, -1]),
                "perplexity": float(fit.records["perplexity"][0, -1]),
            }
            told = f"bound {nats:.2f} nats on {asked.rows} test rows, {measured['used']:.0%} of codes used"
        else:
            elbo = float(fit.log_prob(rows, method="elbo", num_particles=5).value.mean())
            bound = fit.log_prob(rows[: asked.rows])
            nats, error = float(bound.value.mean()), float(bound.value.std() / len(bound.value) ** 0.5)
            measured = {
                "elbo": elbo,
                "active": int(fit.records["active"][0, -1]),
                "khat": float(np.mean(bound.khat > 0.7)),
            }
            told = f"ELBO {elbo:.2f} on 10,000 test rows; {nats:.2f} +- {error:.2f} nats by 500 draws on {asked.rows} of them"
        yield {"benchmark": "latents, mnist", "model": name, "seed": asked.seed, "nats": nats, **measured, "bar": bar or "-",
               "published": published or "-", "steps": fit.num_steps, "seconds": seconds,
               "settings": str(settings | of_algorithm), "rows": asked.rows, "begun": str(bool(init)),
               "binarisation": densities.said(asked.draws), "machine": harness.machine()}  # fmt: skip
        say(f"{name}: {told} (bar {bar}, published {published}), {fit.num_steps} steps, {seconds:.0f} s")


CODES = {  # vqgan, and without some of it
    "vq_vae": ("vq_vae", {}),
    "vq_vae, 6000 steps": (
        "vq_vae",
        {"num_steps": 6000, "learning_rate": 0.0002, "batch_size": 128},
    ),  # its own settings
    "vqgan, prior alone": ("vqgan", {"perceptual": 0.0, "adversarial": 0.0}),
    "vqgan": ("vqgan", {}),
    "vqgan, random filters": ("vqgan", {}),
}


def codes(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Two models of codes with the same networks, steps and seed: on the last 360 of the 1797 digits bound, FID and KID.

    Draws are 2000 of `fit.sample`; shown: the most probable bits of their codes; rebuilt: those of the held-out rows' codes. By a
    classifier of all digits' labels, of another seed than the one that vqgan learns from, and by the pixels themselves.
    """
    import probgen as pg
    from probgen import catalog, datasets
    from probgen.evaluate.features.classifier import classifier

    x, y = datasets.load("digits"), datasets.labels("digits")
    (train, test), net = (x[:1437], x[1437:]), classifier(x, y, seed=1)
    nets: dict[str, Any] = {"": net, ", pixels": lambda rows: rows.reshape(len(rows), -1)}
    bits = lambda means: (means >= 0.5).astype(float)  # noqa: E731
    for word in asked.models or CODES:
        name, settings = CODES[word]
        given = (train, y[:1437]) if word == "vqgan" else (train,)
        data = catalog.model(name).given_rows(*given)
        algorithm = {"num_steps": asked.steps or 4000, "learning_rate": 0.001, "batch_size": 64} | settings
        begun = time.process_time()
        fit = pg.fit(
            name, data, "vq", seed=asked.seed, progress=False, out=asked.keep and asked.keep / word, **algorithm
        )
        seconds = time.process_time() - begun
        drawn = fit.sample(2000)
        pictures = {
            "draws": drawn["x"],
            "shown": bits(fit.decode(z=drawn["z"])["x"]),
            "rebuilt": bits(fit.reconstruct(test)["x"]),
        }
        found = {f"{measure}, {kind}{by}": pg.evaluate(shown, test, net=one, measures=["fid", "kid"])[measure].value
                 for by, one in nets.items() for kind, shown in pictures.items() for measure in ("fid", "kid")}  # fmt: skip
        right = float(fit.records["right"][0, -100:].mean())
        yield {"benchmark": "latents, codes", "model": word, "seed": asked.seed, "nats": float(fit.log_prob(test).value.mean()),
               **found, "right": right, "steps": fit.num_steps, "CPU seconds": seconds, "verdict": fit.diagnose().headline,
               "machine": harness.machine()}  # fmt: skip
        say(f"{word}: {', '.join(f'{k} {v:.3g}' for k, v in found.items())}, {seconds:.0f} s of CPU")


def labels(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """M2 with 100 labels of each class known, whose rows come so often that they are a sixteenth of every batch."""
    import probgen as pg

    (train, test), (of_train, of_test) = densities.pictures(asked.draws), mnist_labels()
    rng = np.random.default_rng(asked.seed)
    known = np.concatenate([rng.permutation(np.flatnonzero(of_train == c))[:100] for c in range(10)])
    y = np.full(len(of_train), -1)
    y[known] = of_train[known]
    index = np.concatenate([np.arange(len(y)), np.repeat(known, 3)])
    x = train.reshape(len(train), -1)[index]
    settings = {"dim": 784, "num_latents": 50, "width": 500, "alpha": 30}
    steps = asked.steps or 10_000
    begun = time.perf_counter()
    fit = pg.fit("semi_supervised_vae", {"x": x, "y": y[index], **settings}, "svi", seed=asked.seed, num_steps=steps,
                 batch_size=100, learning_rate=0.003, progress=sys.stderr.isatty())  # fmt: skip
    seconds = time.perf_counter() - begun
    found = fit.encode(x=test.reshape(len(test), -1), y=-np.ones(len(test)))["label"]
    share = float(np.mean(found == of_test))
    yield {"benchmark": "latents, labels", "model": "semi_supervised_vae", "seed": asked.seed, "accuracy": share, "bar": 0.93,
           "published": 0.964, "steps": steps, "seconds": seconds, "settings": str(settings),
           "binarisation": densities.said(asked.draws), "machine": harness.machine()}  # fmt: skip
    say(
        f"M2, 1000 labels: {share:.2%} of 10,000 test rows right (bar 93 %, published 96.4 %), {steps} steps, {seconds:.0f} s"
    )


def mnist_labels() -> tuple[np.ndarray, np.ndarray]:
    """MNIST's labels of training and test rows."""
    with np.load(harness.SHARED / "data" / "mnist.npz") as arrays:
        return arrays["y_train"], arrays["y_test"]


# ---- speed -------------------------------------------------------------------------------------------------------


def vae_epoch(rows: np.ndarray) -> float:
    """Seconds of an epoch of 469 steps of 128 rows, VAE 784-400-20: of 1407 steps less those of 469, halved."""
    import probgen as pg

    data = {"x": rows, "dim": rows.shape[1], "width": 400, "num_latents": 20}
    fit = lambda steps: pg.fit("vae", data, "svi", num_steps=steps, progress=False)  # noqa: E731
    return (best(lambda: fit(1407), 2) - best(lambda: fit(469), 2)) / 2


def torch_epoch(rows: np.ndarray, encoder: Any, decoder: Any, steps: int) -> float:
    """Seconds of so many steps of the same bound, with these modules, in a plain eager torch loop."""
    import torch
    from torch import nn

    x = torch.as_tensor(rows, dtype=torch.float32)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.001)

    def epoch() -> None:
        order = torch.randperm(len(x))
        for step in range(steps):
            batch = x[order[step * 128 : (step + 1) * 128]]
            mean, log_variance = encoder(batch).chunk(2, 1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            likelihood = -nn.functional.binary_cross_entropy_with_logits(decoder(z), batch, reduction="sum")
            kl = 0.5 * torch.sum(mean**2 + log_variance.exp() - 1 - log_variance)
            loss = (kl - likelihood) / len(batch)
            adam.zero_grad()
            loss.backward()
            adam.step()

    return best(epoch, 3)


def pythae_epoch(rows: np.ndarray) -> float:
    """Seconds of an epoch of the VAE 784-400-20, batches of 128, by pythae's trainer: of three epochs less those of one, halved."""
    import logging
    from tempfile import TemporaryDirectory

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from torch import as_tensor, float32, nn

    logging.getLogger("pythae").setLevel(logging.ERROR)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.net(z))

    x = as_tensor(rows, dtype=float32)

    def run(epochs: int) -> None:
        with TemporaryDirectory() as folder:
            config = VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce")
            settings = BaseTrainerConfig(
                output_dir=folder, num_epochs=epochs, learning_rate=1e-3, per_device_train_batch_size=128, no_cuda=True
            )
            model = VAE(config, encoder=Encoder(), decoder=Decoder())
            BaseTrainer(model, BaseDataset(x, x[:, 0]), training_config=settings).train()

    return (best(lambda: run(3), 1) - best(lambda: run(1), 1)) / 2


def pyro_steps(name: str, data: dict[str, Any], steps: int) -> float:
    """Seconds of so many steps of a Pyro model: of three times as many less those of as many, halved."""
    import probgen as pg

    fit = lambda n: pg.fit(name, data, "svi", num_steps=n, progress=False)  # noqa: E731
    return (best(lambda: fit(3 * steps), 2) - best(lambda: fit(steps), 2)) / 2


def speed(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Ratios of one run: the VAE 784-400-20 in NumPyro and Pyro, and a convolutional one in Pyro."""
    from torch import nn

    from probgen.nets.pyro_modules import down, up

    rows = (np.random.default_rng(0).random((60_000, 784)) < 0.2).astype(np.float32)
    mlp = (
        nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40)),
        nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784)),
    )
    sizes, shape = {"width": 400, "num_latents": 20}, (28, 28)
    conv = down(shape, 40, 2, 32), up(20, shape, 2, 32)
    pictures = rows[:8000].reshape(-1, *shape)
    cases = {
        "vae": (lambda: vae_epoch(rows), lambda: torch_epoch(rows, *mlp, 469), 469),
        "vae_pyro": (lambda: pyro_steps("vae_pyro", {"x": rows} | sizes, 200), lambda: torch_epoch(rows, *mlp, 200), 200),
        "conv_vae": (
            lambda: pyro_steps("conv_vae", {"x": pictures, "num_latents": 20}, 60), lambda: torch_epoch(pictures, *conv, 60), 60
        ),
    }  # fmt: skip
    for name in asked.models or cases:
        run, loop, steps = cases[name]
        ours, theirs = run(), loop()
        yield {"benchmark": "latents, speed", "model": f"{name}, {steps} steps of 128 rows, beside torch", "seed": 0, "ours": ours,
               "theirs": theirs, "ratio": theirs / ours, "unit": "s", "machine": harness.machine()}  # fmt: skip
        say(f"{name}: {steps} steps in {ours:.3g} s, torch {theirs:.3g} s: {theirs / ours:.2f} times")
        if name == "vae" and importlib.util.find_spec("pythae"):
            theirs = pythae_epoch(rows)
            yield {"benchmark": "latents, speed", "model": "vae, epoch, beside pythae", "seed": 0, "ours": ours, "theirs": theirs,
                   "ratio": theirs / ours, "unit": "s", "machine": harness.machine()}  # fmt: skip
            say(f"{name}: pythae's trainer {theirs:.3g} s: {theirs / ours:.2f} times")


COMMANDS = {"digits": digits, "mnist": mnist, "codes": codes, "labels": labels, "speed": speed}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=[*COMMANDS, "table"])
    parser.add_argument("--models", nargs="+", help="names, by default all of the command's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of learning, in place of the benchmark's own")
    parser.add_argument("--draws", type=int, default=0, help="of every training row's pixels; 0: anew at each step")
    parser.add_argument("--rows", type=int, default=10_000, help="test rows of the importance-weighted bound")
    parser.add_argument("--keep", type=harness.Path, help="of mnist: a folder for the runs, for reports and for iwae")
    parser.add_argument("--out", type=harness.Path, default=harness.HERE / "latents.jsonl", help="results, appended")
    parser.add_argument("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    results = harness.Results(asked.out, ("benchmark", "model", "seed"), asked.fresh)
    if asked.command == "table":
        densities.table(results, harness.HERE / "latents.md", "Latent-variable models")
        return
    for record in COMMANDS[asked.command](asked):
        results.add(record)


if __name__ == "__main__":
    main()
