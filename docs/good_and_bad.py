"""Main checks of the verdict, each with a fit that passes it and one that does not: small real fits, made when the site is built.

python docs/good_and_bad.py NAME FOLDER     draws one
"""

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from further_good_and_bad import FURTHER
from good_and_bad_of_draws import DRAWS
from good_and_bad_of_games import GAMES
from good_and_bad_of_noise import NOISE
from more_good_and_bad import MORE
from quick_good_and_bad import QUICK
from small_programs import PROGRAMS, known_sum, narrowing, spread_out, two_wells

SHOWN = {"progress": False, "seed": 0}
SILENT, ABSENT = (
    ("bias", "point", "gradient"),
    "there is no such line",
)  # checks that say nothing of a fit that is right
NUMBERS = ("r_hat", "ess_bulk", "divergences", "k_hat", "bfmi")  # whose values say something by themselves


@dataclass(frozen=True)
class Check:
    """A check with its pictures: name in the verdict, what it means, what to do, what is seen, and how the two are made."""

    title: str
    finding: str
    means: str
    do: str
    seen: str
    draw: Callable[[Any], list[Any]]

    def source(self) -> str:
        """What its picture is made of; not the words beside it."""
        return "\n".join(map(inspect.getsource, (*PROGRAMS, self.draw, draw)))


# ---- pictures: two panels each, of which the first passes ---------------------------------------------------------------


def chains(panels: Any) -> list[Any]:
    import probgen as pg

    fits = [pg.fit("eight_schools", num_samples=500, **SHOWN), pg.fit(two_wells, num_samples=500, **SHOWN)]
    for panel, fit, site in zip(panels, fits, ("mu", "x"), strict=True):
        for chain in fit.draws[site]:
            panel.plot(chain, linewidth=0.5)
        panel.set(xlabel="draw", ylabel=site)
    return [fit.diagnose() for fit in fits]


def mixing(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [
        pg.fit("eight_schools", num_samples=1000, **SHOWN),
        pg.fit("eight_schools", inference="random_walk", num_samples=1000, thin=1, **SHOWN),
    ]
    for panel, fit in zip(panels, fits, strict=True):
        centred = fit.draws["mu"] - fit.draws["mu"].mean(axis=1, keepdims=True)
        lags = np.arange(100)
        alike = [(centred[:, : 1000 - lag] * centred[:, lag:]).mean() / centred.var() for lag in lags]
        panel.bar(lags, alike, width=1.0)
        panel.set(xlabel="draws apart", ylabel="autocorrelation of mu", ylim=(-0.15, 1.05))
        panel.axhline(0.0, color="black", linewidth=0.5)
    return [fit.diagnose() for fit in fits]


def funnel(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [
        pg.fit("eight_schools", num_samples=1000, **SHOWN),
        pg.fit("eight_schools_centered", num_samples=1000, target_accept=0.8, **SHOWN),
    ]
    for panel, fit in zip(panels, fits, strict=True):
        log_tau, theta = np.log(fit.draws["tau"]), fit.draws["theta"][..., 0]
        lost = fit.records["diverging"][:, fit.num_warmup :]
        panel.plot(theta[~lost], log_tau[~lost], ".", markersize=2, alpha=0.4, label="draws")
        panel.plot(theta[lost], log_tau[lost], "x", color="tab:red", markersize=5, label="diverged")
        panel.set(xlabel="theta[A]", ylabel="log tau", xlim=(-25, 45), ylim=(-5, 4.5))
        panel.legend(loc="lower right", frameon=False)
    return [fit.diagnose() for fit in fits]


def guides(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [
        pg.fit(known_sum, {"y": 1.0}, inference="full_rank", **SHOWN),
        pg.fit(narrowing, inference="mean_field", **SHOWN),
    ]
    a, b = np.meshgrid(np.linspace(-2.0, 3.0, 200), np.linspace(-2.0, 3.0, 200))
    v, x = np.meshgrid(np.linspace(-9.0, 9.0, 200), np.linspace(-25.0, 25.0, 400))
    exact = [
        (a, b, -(a**2 + b**2) / 2 - (1.0 - a - b) ** 2 / (2 * 0.2**2)),
        (v, x, -(v**2) / 18 - v / 2 - x**2 * np.exp(-v) / 2),
    ]
    for panel, fit, (one, other, log_density), names in zip(panels, fits, exact, ("ab", "vx"), strict=True):
        points = [fit.draws[name].ravel()[:1000] for name in names]
        panel.plot(*points, ".", markersize=2, alpha=0.4)
        panel.contour(one, other, log_density - log_density.max(), levels=[-6, -4, -2], colors="black", linewidths=0.7)
        panel.set(xlabel=names[0], ylabel=names[1])
    return [fit.diagnose() for fit in fits]


def calibration(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    studies = [
        pg.sbc(known_sum, name, data={"y": 1.0}, num_simulations=200, seed=0) for name in ("laplace", "mean_field")
    ]
    for panel, study in zip(panels, studies, strict=True):
        edges = np.linspace(-0.5, study.num_ranked + 0.5, 21)
        panel.hist(study.ranks[:, study.names.index("a")], bins=edges)
        panel.axhline(len(study.ranks) / 20, color="black", linewidth=0.7, linestyle="--")
        panel.set(xlabel="rank of the true a among its draws", ylabel="simulations")
    return [study.verdict for study in studies]


def learning(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = np.random.default_rng(0).normal(3.0, 2.0, 1000)
    how = {"inference": "mle", "by_row": True, "num_steps": 3000, "validation": 0.2, "batch_size": 100, **SHOWN}
    fits = [pg.fit(spread_out, {"x": rows}, learning_rate=rate, **how) for rate in (0.03, 0.001)]
    for panel, fit in zip(panels, fits, strict=True):
        held = fit.records["validation"][0]
        panel.plot(fit.records["loss"][0], linewidth=0.5, alpha=0.6, label="a batch")
        panel.plot(np.where(np.isfinite(held), held, np.nan), color="tab:orange", label="held-out rows")
        panel.set(xlabel="step", ylabel="loss, nats a row")
        panel.legend(frameon=False)
    return [fit.diagnose() for fit in fits]


CHECKS = {
    "r_hat": Check(
        "Do the chains agree?",
        "r_hat",
        "Chains that began apart should end in the same place. `r_hat` compares the spread between chains with that within them.",
        'More draws. Where chains stay apart, each at a mode of its own: reparametrise, or `inference="tempering"`.',
        "Traces of four chains. Left they lie on top of each other; right some stay at 4 and the others at -4.",
        chains,
    ),
    "ess": Check(
        "Are there enough draws?",
        "ess_bulk",
        "Draws that follow each other are alike. The effective sample size is how many independent ones would say as much.",
        "More draws or `thin`; a sampler that uses gradients; data in units near 1.",
        "Autocorrelation of draws by how far apart they are. Left it is gone after a few draws; right it falls slowly.",
        mixing,
    ),
    "divergences": Check(
        "Does the integrator keep its way?",
        "divergences",
        "Where the posterior narrows, steps that are right elsewhere are too long: the sampler turns back, and a part is unseen.",
        "Write hierarchies non-centred, as on the left; `target_accept=0.95`.",
        "Draws of log tau against the effect of a school. Left they reach far down the funnel; right they stop at its neck, with "
        "crosses where transitions diverged.",
        funnel,
    ),
    "k_hat": Check(
        "Does the guide cover the posterior?",
        "k_hat",
        "A guide is a simple density in place of the posterior. `k_hat` is the tail index of the weights between the two: above "
        "0.7 it misses mass, and no weights can put that right. A low one proves less: look at `guide_sd` too.",
        'A richer guide, `inference="full_rank"` or `"flow"`; or chains.',
        "Draws of a guide as points, the exact posterior as contour lines. Left the points fill the contours; right they fill a "
        "part of a funnel, and its wide end has none.",
        guides,
    ),
    "calibration": Check(
        "Is the algorithm calibrated on this program?",
        "uniform",
        "`pg.sbc` draws truths from the prior and data from the truths, and fits. The truth's rank among the draws should be any "
        "rank equally often.",
        "Hills at both ends: the draws are too narrow; in the middle: too wide; at one end: biased. Take another algorithm.",
        "Histograms of ranks of the true value. Left the bars are even; right the bars at both ends stand high above the others.",
        calibration,
    ),
    "held_out": Check(
        "Has it learned all that it can?",
        "convergence",
        "The loss of rows that were held out of learning says how good the model is on new ones. While it falls, more steps help.",
        "`pg.extend(fit, num_steps=...)`, or more `num_steps`. Where it rises again the model learns its rows by heart; the "
        "parameters that were best on held-out rows are the answer.",
        "Losses by step, of batches and of held-out rows. Left both level off; right both still fall where the run ends.",
        learning,
    ),
} | {name: Check(*told) for name, told in (MORE | QUICK | FURTHER | GAMES | DRAWS | NOISE).items()}


def _found(verdict: Any, name: str) -> Any:
    """A finding; of a check that speaks only of what is wrong, one that says that there is none."""
    from probgen.diagnostics import Finding

    silent = name in SILENT and all(finding.check != name for finding in verdict.findings)
    return Finding(name, "pass", None, None, ABSENT, "") if silent else verdict[name]


def draw(name: str, folder: Path) -> dict[str, Any]:
    """Draw a check's picture; tells what the verdicts said."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np

    check = CHECKS[name]
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 2.7), layout="constrained")
    findings = [_found(verdict, check.finding) for verdict in check.draw(panels)]
    colours = {"pass": "tab:green", "warn": "chocolate", "fail": "tab:red"}
    for panel, finding in zip(panels, findings, strict=True):
        value = f" {finding.value:.4g}" if check.finding in NUMBERS and np.isfinite(finding.value) else ""
        status = "no such line" if finding.message == ABSENT else finding.status
        panel.set_title(f"{check.finding}{value}: {status}", color=colours[finding.status], fontweight="bold")
    figure.savefig(folder / "picture.png", dpi=100)
    told = [{"status": f.status, "message": f.message, "remedy": f.remedy} for f in findings]
    if (told[0]["status"], told[1]["status"] in ("warn", "fail")) != ("pass", True):
        raise RuntimeError(f"{name} shows no good and bad one: {told}")
    return {"findings": told}


if __name__ == "__main__":
    Path(sys.argv[2], "told.json").write_text(json.dumps(draw(sys.argv[1], Path(sys.argv[2]))))
