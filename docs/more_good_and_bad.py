"""Further checks with a fit that passes and one that does not: modes, energies of chains, runaways, draws told from rows.

`good_and_bad.py` draws them with its own.
"""

from typing import Any

from small_programs import heavy, spread_out, two_wells

SHOWN = {"progress": False, "seed": 0}


def unvisited(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [
        pg.fit(two_wells, inference="tempering", num_samples=500, **SHOWN),
        pg.fit(two_wells, num_chains=1, num_samples=2000, **SHOWN),
    ]
    for panel, fit in zip(panels, fits, strict=True):
        x = np.linspace(-6.0, 6.0, 1201)
        density = np.exp(-(x**2) / 50 - (16.0 - x * x) ** 2 / 8)
        panel.hist(fit.draws["x"].ravel(), bins=np.linspace(-6, 6, 61), density=True, alpha=0.5, label="draws")
        panel.plot(x, density / (density.sum() * 0.01), color="black", linewidth=0.8, label="posterior")
        panel.set(xlabel="x", yticks=[])
        panel.legend(frameon=False, loc="upper center")
    return [fit.diagnose() for fit in fits]


def energies(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [pg.fit("eight_schools", num_samples=1000, **SHOWN), pg.fit(heavy, num_samples=1000, **SHOWN)]
    for panel, fit in zip(panels, fits, strict=True):
        energy = fit.records["energy"][:, fit.num_warmup :]
        for name, values in (("energy", energy - energy.mean()), ("its steps", np.diff(energy))):
            panel.hist(np.clip(values, -15, 25).ravel(), bins=60, density=True, alpha=0.5, label=name)
        panel.set(xlabel="nats from the mean", yticks=[])
        panel.legend(frameon=False)
    return [fit.diagnose() for fit in fits]


def runaways(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = np.random.default_rng(0).normal(3.0, 2.0, 1000)
    how = {"inference": "mle", "by_row": True, "num_steps": 1000, "validation": 0.2, **SHOWN}
    fits = [pg.fit(spread_out, {"x": rows}, learning_rate=rate, **how) for rate in (0.03, 50.0)]
    for panel, fit in zip(panels, fits, strict=True):
        panel.semilogy(fit.records["loss"][0], linewidth=0.7)
        panel.set(xlabel="step", ylabel="loss, nats a row")
    return [fit.diagnose() for fit in fits]


def told_apart(panels: Any) -> list[Any]:
    import probgen as pg

    fits = [
        pg.fit("velocity", data="two_moons", inference="flow_matching", num_steps=steps, **SHOWN)
        for steps in (1500, 60)
    ]
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(*pg.data.load("two_moons")[:500].T, ".", markersize=2, label="rows")
        panel.plot(*fit.sample(500)["x"].T, ".", markersize=2, label="draws")
        panel.set(xlim=(-1.8, 2.8), ylim=(-1.5, 2.0), xticks=[], yticks=[])
        panel.legend(frameon=False, loc="upper right")
    return [fit.diagnose() for fit in fits]


def described(panels: Any) -> list[Any]:
    import probgen as pg

    rows = pg.data.load("two_moons")
    data = {"x": rows, "num_components": 12}
    fits = [
        pg.fit("gaussian_mixture", data, inference="em", num_steps=1000, **SHOWN),
        pg.fit("gaussian", {"x": rows}, inference="em", **SHOWN),
    ]
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(*rows[:500].T, ".", markersize=2, label="rows")
        panel.plot(*fit.sample(500)["x"].T, ".", markersize=2, label="draws")
        panel.set(xlim=(-2.2, 3.2), ylim=(-2.0, 2.5), xticks=[], yticks=[])
        panel.legend(frameon=False, loc="upper right")
    return [fit.diagnose() for fit in fits]


MORE = {
    "modes": (
        "Is there mass that no chain has seen?",
        "modes",
        "R-hat compares chains with each other: where all sit on one mode it sees nothing. The verdict climbs from points far "
        "apart and says how much mass the modes hold that no draw is near.",
        '`inference="tempering"`, which crosses between modes; or an order of what can be swapped, as in a mixture.',
        "Histograms of draws under the posterior's curve, which has two peaks. Left the draws fill both; right only one.",
        unvisited,
    ),
    "bfmi": (
        "Does the energy move?",
        "bfmi",
        "HMC and NUTS draw a new momentum at every step, which changes the energy a little. If that is little beside the energy's "
        "own spread, tails are reached slowly. `bfmi` is the ratio of the two.",
        "Reparametrise a heavy tail or a funnel: a Student's t as a normal with an unknown scale; more warm-up.",
        "Histograms of the energy and of its steps. Left both are alike; right the energy reaches far beyond its steps.",
        energies,
    ),
    "rollbacks": (
        "Did training run away?",
        "rollbacks",
        "Where the loss jumps or is no number, the learner goes back to its last good state, and its steps become smaller.",
        "A smaller `learning_rate`; data in units near 1.",
        "Losses by step. Left the loss falls smoothly; right it jumps high before it falls.",
        runaways,
    ),
    "two_sample": (
        "Can draws be told from data?",
        "two_sample",
        "A classifier learns to tell draws from rows that were held out. If it is right more often than a coin, the laws differ.",
        "More steps; then another algorithm, or a larger net.",
        "Rows of two moons and draws of a model of them. Left they cover each other; right the draws lie between the moons.",
        told_apart,
    ),
    "described": (
        "Does a learned density describe its rows?",
        "two_sample",
        "The best normal of two moons is learned to the last digit, and no row of them is like its draws. Draws of every learned "
        "density, mixture, flow or program with hidden sites are held against its rows by the same classifier. It is a warning and "
        "no failure: log probabilities and parameters are right; the program is what does not fit.",
        "Another program: more components, a flow, a larger net. Look at `fit.sample(500)` beside the rows.",
        "Rows of two moons and draws of two mixtures at their maxima. Left twelve normals cover them; right one lies across both.",
        described,
    ),
}
