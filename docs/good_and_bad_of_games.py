"""Checks of programs that are learned by their draws, with a fit that passes and one that does not: games, energies, diffusion.

`good_and_bad.py` draws them with its own. Their programs have a handful of parameters and no network, so that a game takes seconds.
"""

from typing import Any

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- draws beside rows -------------------------------------------------------------------------------------------


def lost(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])

    def critic(x):
        near = jnp.exp(-((x - corners) ** 2).sum(-1) / (2 * 0.4**2))
        return near @ numpyro.param("says", jnp.zeros(4))

    def four_points(start):
        def program(x=None):
            i = numpyro.sample("i", dist.Categorical(probs=jnp.ones(4) / 4))
            e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            numpyro.sample(
                "x", dist.Delta(numpyro.param("points", jnp.asarray(start))[i] + 0.15 * e, event_dim=1), obs=x
            )

        return pg.Model(program, critic=critic, by_row=True)

    rng = np.random.default_rng(0)
    rows = corners[rng.integers(4, size=1000)] + 0.15 * rng.normal(size=(1000, 2))
    how = {
        "num_steps": 1200,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "r1": 0.1,
        "ema": 0.99,
        **SHOWN,
    }
    starts = [0.7 * corners[at] for at in ([0, 1, 2, 3], [0, 0, 1, 1])]
    fits = [pg.fit(four_points(start), {"x": rows}, "gan", **how) for start in starts]
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(*rows[:500].T, ".", markersize=2, label="rows")
        panel.plot(*fit.sample(500)["x"].T, ".", markersize=2, label="draws")
        panel.set(xlim=(-1.8, 3.4), ylim=(-1.8, 1.8), xticks=[], yticks=[], aspect="equal")
        panel.legend(frameon=False, loc="center right")
    return _judged(fits)


def off_the_rows(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def ring(x=None):
        turn = numpyro.sample("turn", dist.Uniform(-np.pi, np.pi))
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        size, blur = numpyro.param("size", 0.5), numpyro.param("blur", 0.3)
        numpyro.sample("x", dist.Delta(size * jnp.array([jnp.cos(turn), jnp.sin(turn)]) + blur * e, event_dim=1), obs=x)

    def cloud(x=None):
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("x", dist.Delta(numpyro.param("size", jnp.ones(2)) * e, event_dim=1), obs=x)

    rng = np.random.default_rng(0)
    turns = rng.uniform(-np.pi, np.pi, 1000)
    rows = np.stack([np.cos(turns), np.sin(turns)], 1) + 0.06 * rng.normal(size=(1000, 2))
    how = {"num_steps": 600, "batch_size": 256, "num_lines": 20, "learning_rate": 0.01, "ema": 0.9, **SHOWN}
    fits = [pg.fit(pg.Model(p, by_row=True), {"x": rows}, "sliced_wasserstein", **how) for p in (ring, cloud)]
    for panel, fit in zip(panels, fits, strict=True):
        x = fit.sample(500)["x"]
        off = abs(np.hypot(*x.T) - 1) > 0.2
        panel.plot(*rows[:500].T, ".", markersize=2, label="rows")
        panel.plot(*x[~off].T, ".", markersize=2, label="draws")
        panel.plot(*x[off].T, ".", markersize=3, color="tab:red", label="draws off the rows")
        panel.set(xlim=(-2, 5), ylim=(-2, 2), xticks=[], yticks=[], aspect="equal")
        panel.legend(frameon=False, loc="center right")
    return _judged(fits)


def out_of_range(panels: Any) -> list[Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def without_bounds(x=None):
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        at, size = numpyro.param("at", jnp.zeros(2)), numpyro.param("size", jnp.ones(2))
        numpyro.sample("x", dist.Delta(at + size * e, event_dim=1), obs=x)

    def with_bounds(x=None):
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        at, size = numpyro.param("at", jnp.zeros(2)), numpyro.param("size", jnp.ones(2))
        numpyro.sample("x", dist.Delta(jax.nn.sigmoid(at + size * e), event_dim=1), obs=x)

    rows = np.random.default_rng(0).random((1000, 2))
    how = {"num_steps": 600, "batch_size": 128, "num_lines": 20, "learning_rate": 0.02, "ema": 0.9, **SHOWN}
    programs = (with_bounds, without_bounds)
    fits = [pg.fit(pg.Model(p, by_row=True), {"x": rows}, "sliced_wasserstein", **how) for p in programs]
    for panel, fit in zip(panels, fits, strict=True):
        x = fit.sample(1000)["x"]
        out = ((x < -0.05) | (x > 1.05)).any(1)
        panel.plot(*x[~out].T, ".", markersize=2, label="draws")
        panel.plot(*x[out].T, ".", markersize=4, color="tab:red", label="out of range")
        panel.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], color="black", linewidth=0.8, label="range of the data")
        panel.set(xlim=(-0.6, 3.3), ylim=(-0.6, 1.6), xticks=[0, 1], yticks=[0, 1])
        panel.legend(frameon=False, loc="center right")
    return _judged(fits)


# ---- the game ----------------------------------------------------------------------------------------------------


def going_round(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def moved(x=None):
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("x", dist.Delta(numpyro.param("at", jnp.array([1.0, 0.0])) + 0.5 * e, event_dim=1), obs=x)

    def critic(x):
        return x @ numpyro.param("slope", jnp.zeros(2))

    rows = 0.5 * np.random.default_rng(0).normal(size=(600, 2))
    how = {"optimizer": "sgd", "learning_rate": 0.05, "decay": "constant", "num_steps": 2000, "batch_size": 128}
    how |= {"ema": 0.995, **SHOWN}
    model = pg.Model(moved, critic=critic, by_row=True)
    fits = [
        pg.fit(model, {"x": rows}, "gan", r1=1.0, **how),
        pg.fit(model, {"x": rows}, "wgan", clip=5.0, critic_steps=1, **how),
    ]
    looks = np.arange(99, 2000, 100)
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(looks + 1, fit.records["last"][0][looks], ".-", label="last parameters")
        panel.plot(looks + 1, fit.records["distance"][0][looks], ".-", label="their average")
        panel.set(xlabel="step", ylabel="distance from rows", ylim=(0, 2.2))
        panel.legend(frameon=False, loc="upper right")
    return _judged(fits)


def has_won(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def moved(x=None):
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("x", dist.Delta(numpyro.param("at", jnp.array([3.0, 0.0])) + 0.5 * e, event_dim=1), obs=x)

    def critic(x):
        return (x - jnp.array([1.5, 0.0])) @ numpyro.param("slope", jnp.zeros(2))

    rows = 0.5 * np.random.default_rng(0).normal(size=(600, 2))
    how = {"num_steps": 1500, "batch_size": 128, "ema": 0.99, "decay": "constant", "optimizer": "sgd", **SHOWN}
    model = pg.Model(moved, critic=critic, by_row=True)
    fits = [
        pg.fit(model, {"x": rows}, "gan", learning_rate=0.05, r1=1.0, **how),
        pg.fit(model, {"x": rows}, "gan", learning_rate=0.002, critic_rate=500.0, loss="minimax", **how),
    ]
    looks = np.arange(99, 1500, 100)
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(looks + 1, 100 * fit.records["right"][0][looks], ".-")
        panel.axhline(95, color="black", linestyle="--", linewidth=0.7)
        panel.set(xlabel="step", ylabel="% told right by the critic", ylim=(40, 104), xlim=(0, 1550))
    return _judged(fits)


# ---- energies ----------------------------------------------------------------------------------------------------


def apart(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.evaluate import energy_draws
    from probgen.measures import bits

    def machine(v=None, size=20):
        W, b = numpyro.param("W", jnp.zeros((size, size))), numpyro.param("b", jnp.zeros(size))
        v = numpyro.sample("v", bits(size), obs=v)
        numpyro.factor("energy", v @ jnp.triu(W, 1) @ v + v @ b)

    rng = np.random.default_rng(0)
    on = rng.random((600, 1)) < 0.65
    fits = []
    for flips in (0.35, 0.005):
        rows = (on ^ (rng.random((600, 20)) < flips)).astype(float)
        fits.append(pg.fit(machine, {"v": rows}, "pseudo_likelihood", num_steps=1500, learning_rate=0.05, **SHOWN))
    for panel, fit in zip(panels, fits, strict=True):
        chains = energy_draws.chains(fit, np.arange(500), 0, lambda chains: True)
        for name, side in (("chains from rows", chains.from_rows), ("chains from noise", chains.anew)):
            panel.hist(
                np.asarray(side["v"]).sum(-1).ravel(), bins=np.arange(-0.5, 21), density=True, alpha=0.5, label=name
            )
        panel.set(xlabel="units that are on", yticks=[])
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


# ---- diffusion ---------------------------------------------------------------------------------------------------


def behind(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Normal
    from probgen.nets.diffusion.schedules import Linear
    from probgen.nets.diffusion.site import diffused

    def cloud(x=None):
        mean = numpyro.param("mean", jnp.zeros(2))
        variance = numpyro.param("variance", jnp.ones(2), constraint=dist.constraints.positive)
        numpyro.sample("x", diffused(Normal(Linear(), mean, jnp.diag(variance)), (2,)), obs=x)

    rows = np.array([0.8, -0.5]) + 0.5 * np.random.default_rng(0).normal(size=(1000, 2))
    how = {"learning_rate": 0.02, "batch_size": 256, "ema": 0.9, **SHOWN}
    fits = [
        pg.fit(pg.Model(cloud, by_row=True), {"x": rows}, "denoising", num_steps=steps, **how) for steps in (1000, 20)
    ]
    for panel, fit in zip(panels, fits, strict=True):
        found = fit.losses(10)
        panel.plot(found["log_ratio"], found["error"], ".-")
        panel.axhline(1, color="black", linestyle="--", linewidth=0.7)
        panel.set(xlabel="log of noise over signal", ylabel="error, of a linear denoiser's", ylim=(0, 3.2))
    return _judged(fits)


def little_noise(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Normal
    from probgen.nets.diffusion.schedules import Linear
    from probgen.nets.diffusion.site import diffused

    def cloud(x=None, most=20.0):
        mean = numpyro.param("mean", jnp.zeros(1))
        variance = numpyro.param("variance", jnp.ones(1), constraint=dist.constraints.positive)
        numpyro.sample("x", diffused(Normal(Linear(0.1, most), mean, jnp.diag(variance)), (1,)), obs=x)

    rows = 3 + 0.5 * np.random.default_rng(0).normal(size=(1000, 1))
    how = {"num_steps": 1000, "learning_rate": 0.02, "batch_size": 256, "ema": 0.9, **SHOWN}
    model = pg.Model(cloud, by_row=True)
    fits = [pg.fit(model, {"x": rows, "most": most}, "denoising", **how) for most in (20.0, 1.0)]
    for panel, fit in zip(panels, fits, strict=True):
        for name, x in (("rows", rows), ("draws", fit.sample(1000)["x"])):
            panel.hist(np.ravel(x), bins=np.linspace(0, 5, 41), density=True, alpha=0.5, label=name)
        panel.set(xlabel="x", yticks=[])
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


GAMES = {
    "coverage": (
        "Are all modes drawn?",
        "coverage",
        "A game can leave a mode of the data without a draw, and the critic's slope there reaches no draw that could come. The "
        "check counts the rows that have a draw near, beside what a perfect sampler would have.",
        "`pack=2` to 4, `r3gan` or `wgan_gp`, a larger batch; another seed begins elsewhere, as the fit on the left.",
        "Rows in four corners, and draws. Left there are draws in all four; right all crowd beside two of them.",
        lost,
    ),
    "quality": (
        "Do draws lie where rows do?",
        "quality",
        "A draw that is off the data is like no row: a bridge between modes, a hole that is filled.",
        "A program that can have the shape of the data, as on the left; more steps, a larger network.",
        "Rows on a ring. Left the draws lie on it; right most are red, within the ring and outside of it.",
        off_the_rows,
    ),
    "range": (
        "Are values of draws in the data's range?",
        "range",
        "Shares, pixels and times have bounds, and a program without them draws beyond: at most 1 % more than other rows do.",
        "A last layer with the bounds, such as a sigmoid; more steps.",
        "Draws of a model of points in a square. Left all lie within; right red ones lie outside on every side.",
        out_of_range,
    ),
    "oscillation": (
        "Does the game come to rest?",
        "oscillation",
        "Program and critic can chase each other in circles. The average of the parameters is then near the middle, and the "
        "last ones are anywhere on the circle: the distance of draws from rows is measured for both.",
        "A penalty on the critic's slope (`r1=1`, as on the left, or `r3gan`); a smaller `learning_rate`, `beta1=0`.",
        "Distance of draws from rows by step. Left one line covers the other; right that of the last parameters swings high above.",
        going_round,
    ),
    "critic": (
        "Does the critic still teach?",
        "critic",
        "A critic that tells every draw from every row is flat where the draws are, and the program has no slope to follow. At one "
        "half it can teach no more, which is right where draws are like rows.",
        "`r1=1` or `r3gan`; `critic_rate=0.25`; a smaller critic. Not the loss `minimax`, whose slope vanishes, as on the right.",
        "Share of rows and draws that the critic tells right. Left it falls to one half; right it stays at 100 %, above the bar.",
        has_won,
    ),
    "draws": (
        "Are draws to be trusted?",
        "draws",
        "Draws of a learned energy are of chains. Those that begin at rows and those that begin at noise should meet: where each "
        "stays near its start, nothing says what the model draws. Of other learners: draws are finite, and rows enough.",
        "Weights that are smaller (`weight_decay=1e-3`, a smaller `learning_rate`); `pg.evaluate(fit)`, whose chains are longer.",
        "How many of twenty units are on. Left chains from rows and from noise agree; right few from noise are at the lower mode.",
        apart,
    ),
    "levels": (
        "Does the network denoise at every level?",
        "levels",
        "A denoiser should be no worse than the best linear one, at no level of noise: a level that lags spoils all draws.",
        "More steps, a wider network, or more of the learning at that level (`times`, `log_mean`).",
        "Error by level of noise, in units of a linear denoiser's. Left it is 1, the dashed line; right up to twice as much.",
        behind,
    ),
    "end": (
        "Does the noise cover the data?",
        "end",
        "Draws begin at pure noise. Where the schedule ends at less, what the network learned at its end was never that.",
        "A schedule that ends at more noise: `high`, or more levels.",
        "Histograms of rows and draws. Left they agree; right the draws lie between the rows and zero, where the noise is centred.",
        little_noise,
    ),
}
