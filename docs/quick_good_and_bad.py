"""A dozen checks more with a fit that passes and one that does not, each of a few seconds: chains, guides, modes, learners.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

from small_programs import known_sum, spread_out, two_wells

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- chains ------------------------------------------------------------------------------------------------------


def errors(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [pg.fit(known_sum, {"y": 1.0}, num_samples=number, **SHOWN) for number in (1000, 10)]
    for panel, fit in zip(panels, fits, strict=True):
        for chain in fit.draws["a"]:
            panel.plot(np.cumsum(chain) / np.arange(1, chain.size + 1), linewidth=0.8)
        panel.axhspan(*(0.5 / 1.02 + 0.1 * 0.51**0.5 * np.array([-1, 1])), color="gray", alpha=0.3, linewidth=0)
        panel.set(xlabel="draw", ylabel="mean of a so far", ylim=(-0.2, 1.8))
    return _judged(fits)


def trajectories(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def thin(y=1.0):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        c = numpyro.sample("c", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.StudentT(4.0, a + b * c, 0.05), obs=y)

    fits = [pg.fit(thin, {"y": 1.0}, max_tree_depth=depth, num_samples=500, **SHOWN) for depth in (10, 3)]
    for panel, fit in zip(panels, fits, strict=True):
        steps = fit.records["n_steps"][:, fit.num_warmup :].ravel()
        panel.bar(*np.unique(np.ceil(np.log2(steps + 1)).astype(int), return_counts=True))
        panel.set(xlabel="depth of a trajectory: 2, 4, 8 ... steps", ylabel="draws", xlim=(0, 9))
    return _judged(fits)


def standing(panels: Any) -> list[Any]:
    import probgen as pg

    fits = [
        pg.fit(
            two_wells,
            {"y": 4.0},
            "random_walk",
            num_samples=300,
            num_warmup=300,
            thin=thin,
            target_accept=rate,
            **SHOWN,
        )
        for thin, rate in ((20, 0.234), (1, 0.005))
    ]
    for panel, fit in zip(panels, fits, strict=True):
        for chain in fit.draws["x"]:
            panel.plot(chain, linewidth=0.7)
        panel.set(xlabel="draw", ylabel="x", ylim=(-4, 4))
    return _judged(fits)


def ladder(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    how = {"inference": "tempering", "over": "random_walk", "num_samples": 300, "num_warmup": 300, **SHOWN}
    fits = [pg.fit(known_sum, {"y": 1.0}, num_temperatures=number, hottest=hottest, **how) for number, hottest in RUNGS]
    for panel, fit in zip(panels, fits, strict=True):
        rates = fit.records["swap_rate"].mean(axis=(0, 1))
        panel.bar_label(panel.bar(np.arange(1, rates.size + 1), rates), fmt="%.2g")
        panel.axhline(0.1, color="black", linewidth=0.7, linestyle="--")
        panel.set(
            xlabel="pair of temperatures, coldest first", ylabel="share of swaps taken", ylim=(0, 1), xlim=(0.4, 7.6)
        )
    return _judged(fits)


RUNGS = ((8, 0.01), (2, 1e-4))


# ---- guides and modes --------------------------------------------------------------------------------------------


def narrow(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [pg.fit(known_sum, {"y": 1.0}, inference=word, **SHOWN) for word in ("full_rank", "mean_field")]
    a = np.linspace(-2.0, 3.0, 200)
    exact = np.exp(-((a - 0.5 / 1.02) ** 2) / (2 * 0.51))
    for panel, fit in zip(panels, fits, strict=True):
        panel.hist(fit.draws["a"].ravel(), bins=40, density=True, alpha=0.5, label="draws of the guide")
        panel.plot(a, exact / (exact.sum() * (a[1] - a[0])), color="black", linewidth=0.8, label="posterior")
        panel.set(xlabel="a", yticks=[], xlim=(-2, 3))
        panel.legend(frameon=False, fontsize="small", loc="upper right")
    return _judged(fits)


def no_top(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def flat(x, y=None):
        slope = numpyro.sample("slope", dist.ImproperUniform(dist.constraints.real_vector, (), (1,)))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ slope), obs=y)

    def with_prior(x, y=None):
        slope = numpyro.sample("slope", dist.Normal(jnp.zeros(1), 3.0).to_event(1))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ slope), obs=y)

    x = np.random.default_rng(0).normal(size=(40, 1))
    y = (x[:, 0] > 0).astype(int)
    fits = [pg.fit(program, {"x": x, "y": y}, "map", **SHOWN) for program in (with_prior, flat)]
    grid = np.geomspace(0.3, 1000, 200)
    rows = -np.logaddexp(0, -np.outer(grid, abs(x))).sum(1)
    for panel, fit, density in zip(panels, fits, (rows - grid**2 / 18, rows), strict=True):
        panel.semilogx(grid, density, color="black", linewidth=0.8)
        panel.axvline(float(np.ravel(fit.draws["slope"])[0]), color="tab:orange", label="where the search ended")
        panel.set(xlabel="slope", ylabel="log density", ylim=(-25, 2), xlim=(0.3, 1000))
        panel.legend(frameon=False, loc="lower right")
    return _judged(fits)


def apart(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def logistic(x, y=None):
        slope, at = numpyro.param("slope", jnp.zeros(())), numpyro.param("at", jnp.zeros(()))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=slope * x + at), obs=y)

    x = np.random.default_rng(0).normal(size=60)
    x += 0.2 * np.sign(x)
    noise = np.random.default_rng(1).logistic(size=60)
    labels = [(2 * x + noise > 0).astype(float), (x > 0).astype(float)]
    how = {"inference": "mle", "by_row": True, "num_steps": 2000, "learning_rate": 0.05, **SHOWN}
    fits = [pg.fit(logistic, {"x": x, "y": y}, **how) for y in labels]
    grid = np.linspace(-2.5, 2.5, 400)
    for panel, fit, y in zip(panels, fits, labels, strict=True):
        panel.plot(x, y, "|", markersize=12, label="rows")
        logits = fit.parameters["slope"] * grid + fit.parameters["at"]
        panel.plot(grid, 1 / (1 + np.exp(-logits)), color="tab:orange", label="p(y = 1)")
        panel.set(xlabel="x", ylabel="y")
        panel.legend(frameon=False, loc="center left")
    return _judged(fits)


# ---- learners ----------------------------------------------------------------------------------------------------


def shrinking(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def two(x=None):
        loc = numpyro.param("loc", np.array([0.0, 3.0]))
        scale = numpyro.param("scale", np.array([1.0, 0.05]), constraint=dist.constraints.positive)
        with numpyro.plate("row", 1 if x is None else len(x)):
            numpyro.sample(
                "x", dist.MixtureSameFamily(dist.Categorical(np.array([0.5, 0.5])), dist.Normal(loc, scale)), obs=x
            )

    rng = np.random.default_rng(0)
    data = [np.r_[rng.normal(size=40), 3 + 0.5 * rng.normal(size=40)], np.r_[rng.normal(size=40), 3.0]]
    how = {"inference": "mle", "by_row": True, "num_steps": 1500, "learning_rate": 0.03, "start": "program", **SHOWN}
    fits = [pg.fit(two, {"x": x}, **how) for x in data]
    grid = np.linspace(-3, 5, 4001)
    for panel, fit, x in zip(panels, fits, data, strict=True):
        loc, scale = fit.parameters["loc"], fit.parameters["scale"]
        density = (np.exp(-(((grid[:, None] - loc) / scale) ** 2) / 2) / scale).sum(1) / np.sqrt(8 * np.pi)
        panel.plot(grid, density, color="black", linewidth=0.8)
        panel.plot(x, np.zeros_like(x), "|", markersize=10)
        panel.set(xlabel="x", ylabel="density", ylim=(-0.05, 1.2))
    return _judged(fits)


def empty(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = pg.data.load("eight_gaussians")[:80]
    fits = [
        pg.fit("gaussian_mixture", {"x": rows, "num_components": number, "covariance": "diagonal"}, "em", **SHOWN)
        for number in (8, 25)
    ]
    for panel, fit in zip(panels, fits, strict=True):
        weights = np.sort(fit.parameters["weights"])[::-1] * len(rows)
        panel.bar(np.arange(1, weights.size + 1), weights)
        panel.axhline(2, color="black", linewidth=0.7, linestyle="--")
        panel.set(xlabel="component, largest first", ylabel="rows that it holds")
    return _judged(fits)


def edges(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = pg.data.load("two_moons")[:400]
    grids = [tuple(np.geomspace(0.02, 1.0, 12)), tuple(np.geomspace(0.4, 1.0, 6))]
    fits = [pg.fit("kernel_density", rows, "cross_validation", bandwidths=grid, **SHOWN) for grid in grids]
    for panel, fit in zip(panels, fits, strict=True):
        panel.semilogx(fit.records["bandwidth"][0], fit.records["loss"][0], ".-")
        panel.axvline(float(fit.parameters["bandwidth"]), color="tab:orange", label="chosen")
        panel.set(xlabel="bandwidth", ylabel="held-out loss, nats", xlim=(0.018, 1.1), ylim=(1.1, 2.6))
        panel.legend(frameon=False)
    return _judged(fits)


def few_units(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.measures import bits

    def machine(v=None, size=4):
        W, b = numpyro.param("W", jnp.zeros((size, size))), numpyro.param("b", jnp.zeros(size))
        v = numpyro.sample("v", bits(size), obs=v)
        numpyro.factor("energy", v @ jnp.triu(W, 1) @ v + v @ b)

    rng = np.random.default_rng(0)
    rows = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])[rng.integers(2, size=600)] ^ (rng.random((600, 4)) < 0.1)
    code = 2 ** np.arange(4)
    seen = np.bincount(rows @ code, minlength=16) / len(rows)
    fits = [
        pg.fit(machine, {"v": rows.astype(float)}, "pcd", num_steps=steps, learning_rate=rate, **SHOWN)
        for steps, rate in ((2000, 0.05), (20, 0.01))
    ]
    states = np.arange(16)[:, None] // code % 2
    for panel, fit in zip(panels, fits, strict=True):
        W, b = np.triu(fit.parameters["W"], 1), fit.parameters["b"]
        p = np.exp(np.einsum("ni,ij,nj->n", states, W, states) + states @ b)
        panel.bar(np.arange(16) - 0.2, seen, 0.4, label="rows")
        panel.bar(np.arange(16) + 0.2, p / p.sum(), 0.4, label="model")
        panel.set(xlabel="state of four bits", ylabel="probability", xticks=[0, 5, 10, 15])
        panel.legend(frameon=False)
    return _judged(fits)


def worse_than_a_normal(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = np.random.default_rng(0).normal(3.0, 2.0, 1000)
    fits = [
        pg.fit(spread_out, {"x": rows}, "mle", by_row=True, num_steps=steps, learning_rate=0.03, **SHOWN)
        for steps in (2000, 20)
    ]
    grid = np.linspace(-6, 11, 300)
    for panel, fit in zip(panels, fits, strict=True):
        loc, scale = (float(fit.parameters[name]) for name in ("loc", "scale"))
        panel.hist(rows, bins=40, density=True, alpha=0.5, label="rows")
        panel.plot(
            grid, np.exp(-(((grid - loc) / scale) ** 2) / 2) / scale / np.sqrt(2 * np.pi), color="black", label="model"
        )
        panel.set(xlabel="x", yticks=[])
        panel.legend(frameon=False)
    return _judged(fits)


QUICK = {
    "mcse": (
        "Are the means exact enough?",
        "mcse",
        "A mean of draws is off by chance. `mcse` is its standard error, in the posterior's standard deviations: at most a tenth.",
        "More draws; the error falls with the root of their number.",
        "Running means of four chains. Left they end within the gray band, a tenth of a standard deviation; right they end apart.",
        errors,
    ),
    "tree_depth": (
        "Do trajectories come to their end?",
        "tree_depth",
        "NUTS doubles a trajectory until it turns back, at most `max_tree_depth` times. Where it is cut, draws are alike.",
        "`max_tree_depth=12`, or unknowns in units near 1 that are less correlated.",
        "How often trajectories were of which depth. Left many depths; right all heap up at 3, where they were cut.",
        trajectories,
    ),
    "stuck": (
        "Does every chain move?",
        "stuck",
        "The longest run of equal draws, as a share of a chain. A chain that stands still has one draw, however often it is kept.",
        'A smaller step (a longer `num_warmup` finds it), another seed where the start is bad, or `inference="nuts"`.',
        "Traces of four chains. Left they move at every draw; right they are stairs, with long flat treads.",
        standing,
    ),
    "swaps": (
        "Does the ladder of temperatures hold?",
        "swaps",
        "Tempering carries points from hot chains, which cross between modes, to the cold one. A pair of temperatures that never "
        "swaps breaks the ladder.",
        "More rungs: `num_temperatures`.",
        "Share of swaps that were taken, by pair of temperatures. Left all are above a tenth; right the only pair is far below.",
        ladder,
    ),
    "guide_sd": (
        "Is the guide as wide as the posterior?",
        "guide_sd",
        "Weighted by posterior over guide, a guide's draws have the posterior's spread. Without weights it should be nearly that. "
        "Where a guide is much too narrow the weights see a part of what it lacks: on the right the factor is 3.6.",
        'A richer guide, `"full_rank"` or `"flow"`; `fit.resample(1000)` where `k_hat` allows it.',
        "Draws of a guide under the posterior's curve. Left they fill it; right they are a third as wide.",
        narrow,
    ),
    "mode": (
        "Is the mode a mode?",
        "mode",
        "Where a density grows without end, a search for its top stops somewhere on the way. The check goes on in the same "
        "direction, and looks whether the density is higher there.",
        "A proper prior; of a hierarchy, whose density has no top either, draws: `nuts`.",
        "Log density along one unknown, and where the search ended. Left at the top; right it has left the picture.",
        no_top,
    ),
    "separable": (
        "Do classes leave a maximum?",
        "separable",
        "Where inputs tell the classes apart without an error, a steeper curve is always more likely, and weights grow for ever.",
        'A prior on the weights (`"map"`, `"nuts"`), or `weight_decay=0.001`.',
        "Rows of two classes, and the probability of the upper. Left they overlap and the curve is smooth; right it is a step.",
        apart,
    ),
    "spikes": (
        "Does a component shrink onto a row?",
        "spikes",
        "A mixture gives one row any density, if a component sits on it and shrinks. The likelihood has no maximum then.",
        'Fewer components, a prior on their scales, `inference="em"` with a larger `smoothing`.',
        "Density of a mixture over its rows. Left two hills; right a spike that leaves the picture, at a single row.",
        shrinking,
    ),
    "components": (
        "Does every component hold rows?",
        "components",
        "A component that holds less than two rows describes a single point, or nothing.",
        "Fewer components.",
        "Rows that each component holds. Left all eight hold several; right the last of 25 hold a single one.",
        empty,
    ),
    "grid": (
        "Is the best setting inside the grid?",
        "grid",
        "A bandwidth is chosen from a grid. Where the best is the first or the last of it, a better one may lie outside.",
        "A grid that reaches further on that side.",
        "Held-out loss by bandwidth. Left its lowest point is inside; right it is at the left end, and the curve still falls.",
        edges,
    ),
    "divergence": (
        "Does an energy give the rows their frequencies?",
        "divergence",
        "Of few units all states are counted: how far the rows' frequencies are from the model's probabilities, in nats.",
        "More steps; where that does not help, more hidden units.",
        "Frequencies of states beside the model's probabilities. Left the bars are nearly equal; right the model's are flat.",
        few_units,
    ),
    "baseline": (
        "Is the density better than a simple one?",
        "baseline",
        "A fitted normal, or independent bits, cost nothing. A density that describes the rows worse has not learned.",
        "More steps, a larger `learning_rate`, data in units near 1.",
        "Rows and the density that was learned. Left it covers them; right it stands beside them, too narrow.",
        worse_than_a_normal,
    ),
}
