"""Modes of the grid of 25 by the learners' defaults, seed by seed, with the verdict.

    python benchmarks/adversarial_grid.py [words] [--seeds 5]

PacGAN's geometry, sd .05. Told of 2,500 and of 10,000 draws: modes with at least 20 % of their share, the share of draws within
3 sd of a mode (98.9 % for a perfect sampler), Kullback-Leibler divergence over modes and one bin for all else; the verdict's status
and what failed; seconds on this machine, compilation included.
"""

import argparse

import numpy as np

import probgen as pg
from probgen.data.toys import TOYS


def measured(x: np.ndarray) -> str:
    """Modes, share of high quality and divergence of draws (row, 2)."""
    toy = TOYS["grid_25"]
    centres, sd, count = np.asarray(toy.modes), float(toy.sd), len(toy.modes)
    far = np.linalg.norm(x[:, None] - centres, axis=-1)
    good = far.min(1) < 3 * sd
    found = np.bincount(far.argmin(1)[good], minlength=count)
    shares = np.append(found, len(x) - good.sum()) / len(x)
    truth = np.append(np.full(count, (1 - np.exp(-4.5)) / count), np.exp(-4.5))
    kl = float(np.sum(np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300) / truth), 0.0)))
    return f"modes {(found >= 0.2 * len(x) / count).sum():2d}  high quality {good.mean():6.1%}  KL {kl:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", default=["r3gan", "gan"])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    for word in asked.words:
        for seed in range(asked.seeds):
            fit = pg.fit("gan", data="grid_25", inference=word, seed=seed, progress=False)
            verdict = fit.diagnose()
            failed = ", ".join(f.check for f in verdict.findings if f.status != "pass")
            for count in (2_500, 10_000):
                print(f"{word:8s} seed {seed}  {count:6d} draws  {measured(fit.sample(count)['x'])}", flush=True)
            print(f"{word:8s} seed {seed}  {fit.seconds:.0f} s  {verdict.status}: {failed}", flush=True)


if __name__ == "__main__":
    main()
