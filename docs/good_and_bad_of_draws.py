"""Checks of grown textures, completed points, copies, laws of diffusion and studies, with a fit that passes and one that does not.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

from small_programs import known_sum

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- guides and studies ------------------------------------------------------------------------------------------


def beside(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def counted(y=0):
        z = numpyro.sample("z", dist.Normal(0.0, 3.0))
        numpyro.sample("y", dist.Poisson(jnp.exp(z)), obs=y)

    z = np.linspace(-10, 6, 800)
    fits = [pg.fit(counted, {"y": y}, "laplace", **SHOWN) for y in (30, 0)]
    for panel, fit, y, limits in zip(panels, fits, (30, 0), ((2.6, 4.2), (-10, 4)), strict=True):
        log_density = -(z**2) / 18 + y * z - np.exp(z)
        exact = np.exp(log_density - log_density.max())
        panel.hist(fit.draws["z"].ravel(), bins=60, density=True, alpha=0.5, label="guide")
        panel.plot(z, exact / (exact.sum() * (z[1] - z[0])), color="black", linewidth=0.8, label="posterior")
        panel.set(xlabel="z, log of a rate", yticks=[], xlim=limits)
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


def cannot_be_fitted(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def rate(y=3.0, width=1.0):
        z = numpyro.sample("z", dist.Normal(0.0, width))
        numpyro.sample("y", dist.Exponential(np.e ** (-z)), obs=y)

    how = {"num_simulations": 40, "seed": 0}
    studies = [pg.sbc(rate, "laplace", data={"y": 3.0, "width": width}, **how) for width in (1.0, 800.0)]
    for panel, study in zip(panels, studies, strict=True):
        counts = [len(study.ranks), len(study.failures)]
        panel.bar(["fitted", "left out"], counts, color=["tab:blue", "tab:red"])
        panel.set(ylabel="simulations", ylim=(0, 42))
    return [study.verdict for study in studies]


def dependent(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    how = {"data": {"y": 1.0}, "num_simulations": 40, "seed": 0}
    studies = [pg.sbc(known_sum, word, num_samples=400, **how) for word in ("nuts", "random_walk")]
    for panel, study in zip(panels, studies, strict=True):
        shares = 100 * np.minimum(study.ess.min(axis=1) / study.num_ranked, 1.0)
        panel.hist(shares, bins=np.linspace(0, 100, 21))
        panel.axvline(50, color="black", linewidth=0.7, linestyle="--")
        panel.set(xlabel="% of the ranked draws that are effective", ylabel="simulations")
    return [study.verdict for study in studies]


# ---- textures ----------------------------------------------------------------------------------------------------


def grown_out(panels: Any) -> list[Any]:
    import probgen as pg
    from probgen.data import load

    data = {"sample": load("woven")[:36, :36], "height": 48, "width": 48}
    fits = [pg.fit("texture", data, "efros_leung", neighbours=number, **SHOWN) for number in (1, 40)]
    for panel, fit in zip(panels, fits, strict=True):
        panel.imshow(fit.draws["x"][0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.axis("off")
    return _judged(fits)


def copied(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg
    from probgen.data import load

    data = {"sample": load("woven")[:48, :48], "height": 60, "width": 60}
    fits = [pg.fit("texture", data, "quilting", block=block, **SHOWN) for block in (14, 44)]
    for panel, fit in zip(panels, fits, strict=True):
        row, column = np.divmod(fit.answer["sources"][0][0], 48)
        panel.imshow(np.stack([row / 47, column / 47, np.full(row.shape, 0.5)], -1), interpolation="nearest")
        panel.axis("off")
    return _judged(fits)


# ---- draws that are copies, points that are completed --------------------------------------------------------------


def by_heart(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    rng = np.random.default_rng(0)
    turns = rng.uniform(-np.pi, np.pi, 1000)
    rows = np.stack([np.cos(turns), np.sin(turns)], 1) + 0.15 * rng.normal(size=(1000, 2))

    def ring(x=None):
        turn = numpyro.sample("turn", dist.Uniform(-np.pi, np.pi))
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        size, blur = numpyro.param("size", 1.0), numpyro.param("blur", 0.15)
        numpyro.sample("x", dist.Delta(size * jnp.array([jnp.cos(turn), jnp.sin(turn)]) + blur * e, event_dim=1), obs=x)

    how = {"num_steps": 60, "batch_size": 256, "num_lines": 20, "learning_rate": 1e-5, "ema": 0.0, **SHOWN}
    fits = [pg.fit(pg.Model(ring, by_row=True), {"x": rows}, "sliced_wasserstein", **how)]
    apart = abs(rows[:, None] - fits[0].held_out["x"]).max(-1).min(1)
    learned = rows[apart > 1e-5]

    def of_its_rows(x=None):
        at = numpyro.sample("at", dist.Categorical(probs=jnp.ones(len(learned)) / len(learned)))
        e = numpyro.sample("e", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        known, blur = numpyro.param("known", jnp.array(learned)), numpyro.param("blur", 0.002)
        numpyro.sample("x", dist.Delta(known[at] + blur * e, event_dim=1), obs=x)

    fits.append(pg.fit(pg.Model(of_its_rows, by_row=True), {"x": rows}, "sliced_wasserstein", **how))
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(*learned.T, "o", markersize=6, markerfacecolor="none", label="rows")
        panel.plot(*fit.sample(600)["x"].T, ".", markersize=3, label="draws")
        panel.set(xlim=(0.35, 1.45), ylim=(-0.3, 0.3), xticks=[], yticks=[])
        panel.legend(frameon=True, loc="upper right")
    return _judged(fits)


def died_out(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Normal
    from probgen.nets.diffusion.schedules import Cosine
    from probgen.nets.diffusion.site import diffused

    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])

    class Exact(Normal):
        def said(self, z, t):
            return self(z, t).mean

        def wanted(self, x, noise, t):
            return x

    def cloud(x=None):
        mean = numpyro.param("mean", jnp.zeros(2))
        numpyro.sample("x", diffused(Exact(Cosine(), mean, jnp.array(covariance)), (2,)), obs=x)

    rows = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 400)
    how = {"inference": "denoising", "num_steps": 1, "learning_rate": 1e-9, "ema": 0.0}
    learned = pg.fit(cloud, {"x": rows}, **how, **SHOWN)
    asked = ((1.5, 500), (6.0, 24))
    fits = [
        pg.fit(learned.condition(x=np.array([value, np.nan])), inference="twisted_smc", num_particles=number, **SHOWN)
        for value, number in asked
    ]
    for panel, fit, (value, _) in zip(panels, fits, asked, strict=True):
        panel.plot(*rows.T, ".", markersize=2, label="rows")
        panel.axvline(value, color="gray", linewidth=0.7)
        found = fit.draws["x"].reshape(-1, 2)[:400]
        panel.plot(*found.T, ".", markersize=4, alpha=0.5, label="particles")
        panel.set(xlabel="x[0], known", ylabel="x[1]", xlim=(-4, 7), ylim=(-4, 8))
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


# ---- laws of diffusion -------------------------------------------------------------------------------------------


def two_laws(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Normal
    from probgen.nets.diffusion.schedules import Linear
    from probgen.nets.diffusion.site import diffused

    class Off(Normal):
        off: float = 0.0

        def __call__(self, z, t):
            found = super().__call__(z, t)
            alpha, sigma = self.schedule.scales(t)
            return found._replace(mean=found.mean + self.off * sigma / alpha * jnp.sin(3 * z))

    def cloud(x=None, off=0.0):
        mean = numpyro.param("mean", jnp.zeros(1))
        numpyro.sample("x", diffused(Off(Linear(), mean, jnp.eye(1), off), (1,)), obs=x)

    rows = np.random.default_rng(0).normal(size=(1000, 1))
    how = {"num_steps": 10, "learning_rate": 1e-9, "ema": 0.0, **SHOWN}
    model = pg.Model(cloud, by_row=True)
    fits = [pg.fit(model, {"x": rows, "off": off}, "denoising", **how) for off in (0.0, 0.5)]
    for panel, fit in zip(panels, fits, strict=True):
        held = fit.held_out["x"][:60]
        numbers = [fit.log_prob(held, method=method).value for method in ("ode", "bound")]
        panel.plot(*numbers, ".", markersize=5)
        panel.plot([-7, 1], [-7, 1], color="black", linewidth=0.7, linestyle="--")
        panel.set(xlabel="density of the flow, nats", ylabel="bound on the chain", xlim=(-6, 0.5), ylim=(-9, 0.5))
    return _judged(fits)


def unsolved(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Normal
    from probgen.nets.diffusion.schedules import Linear
    from probgen.nets.diffusion.site import diffused

    class Rough(Normal):
        rough: float = 0.0

        def __call__(self, z, t):
            found = super().__call__(z, t)
            _, sigma = self.schedule.scales(t)
            return found._replace(mean=found.mean + self.rough * sigma * jnp.sign(jnp.sin(60 * z)))

    def cloud(x=None, rough=0.0):
        mean = numpyro.param("mean", jnp.zeros(1))
        numpyro.sample("x", diffused(Rough(Linear(), mean, jnp.eye(1), rough), (1,)), obs=x)

    rows = np.random.default_rng(0).normal(size=(1000, 1))
    how = {"num_steps": 10, "learning_rate": 1e-9, "ema": 0.0, **SHOWN}
    model = pg.Model(cloud, by_row=True)
    fits = [pg.fit(model, {"x": rows, "rough": rough}, "denoising", **how) for rough in (0.0, 0.05)]
    for panel, fit in zip(panels, fits, strict=True):
        held = np.sort(fit.held_out["x"][:60], axis=0)
        told = fit.log_prob(held, method="ode")
        panel.errorbar(held[:, 0], told.value, told.stderr, fmt=".", markersize=3, elinewidth=0.8)
        panel.set(xlabel="x", ylabel="log density, nats", xlim=(-3, 3), ylim=(-7, 2))
    return _judged(fits)


def narrowed(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = np.random.default_rng(2).normal(size=(2000, 1))
    data = {"x": rows, "dim": 1, "width": 32, "depth": 2}
    how = {"batch_size": 128, "ema": 0.99, "learning_rate": 3e-3, "num_steps": 1200, **SHOWN}
    fits = [pg.fit("edm", data, "consistency", num_levels=number, first_levels=8, **how) for number in (64, 6)]
    for panel, fit in zip(panels, fits, strict=True):
        for name, x in (("rows", rows), ("draws", fit.sample(2000)["x"])):
            panel.hist(np.ravel(x), bins=np.linspace(-4, 4, 41), density=True, alpha=0.5, label=name)
        panel.set(xlabel="x", yticks=[])
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


DRAWS = {
    "guide_mean": (
        "Is the guide in the middle of the posterior?",
        "guide_mean",
        "Weighted by posterior over guide, a guide's draws have the posterior's means. Without weights they should nearly.",
        'A richer guide, `"full_rank"` or `"flow"`; `fit.resample(1000)` where `k_hat` allows it; `"nuts"`.',
        "Draws of a normal at the mode under the posterior's curve. Left they fill it; right the curve leans, and they do not.",
        beside,
    ),
    "failed": (
        "Could every simulation be fitted?",
        "failed",
        "`pg.sbc` draws truths from the prior and data from the truths. A prior that is far too wide draws data that are infinite, "
        "and there is nothing to fit.",
        "A narrower prior: look at what it draws.",
        "Simulations that were fitted and that were left out. Left none was left out; right, of a prior 800 times as wide, half.",
        cannot_be_fitted,
    ),
    "thinned": (
        "Are ranked draws nearly independent?",
        "thinned",
        "`pg.sbc` ranks a truth among draws. Where these follow each other closely their ranks are not uniform, even for the right "
        "posterior, and the study says nothing of the algorithm's bias.",
        "A larger `num_samples`, of which the study keeps as many as it ranks.",
        "Share of the ranked draws that are effective, by simulation. Left nearly all; right few, below the dashed line.",
        dependent,
    ),
    "garbage": (
        "Has a texture grown out of its sample?",
        "garbage",
        "Patches of a grown picture are held against the nearest of the sample: they should be as near as the sample's own are to "
        "each other. `responses` asks the same of filters' responses to the whole.",
        'A larger `window`, of the size of the texture\'s parts; `neighbours=1`; or `inference="quilting"`.',
        "Pictures grown from one weave. Left it goes on as a weave; right, drawn from 40 neighbours, it has become a maze.",
        grown_out,
    ),
    "copied": (
        "How much was copied in one piece?",
        "copied",
        "A picture that is one piece of its sample is right everywhere and new nowhere. The check looks for the largest piece that "
        "has one place in the sample; `used` counts how much of the sample is there at all.",
        "A larger picture or sample, or a smaller `block`.",
        "Where in the sample each pixel is from, by colour. Left many small pieces; right one takes nearly half of the picture.",
        copied,
    ),
    "memorisation": (
        "Are draws copies?",
        "memorisation",
        "A copy looks like a draw that is right. What tells is where it lies: draws should be as near to held-out rows as "
        "to those that were learned from.",
        "More data, a smaller model, fewer steps.",
        "A part of a ring: rows as circles, draws as points. Left the points lie anywhere; right each is in a circle.",
        by_heart,
    ),
    "particles": (
        "Are enough particles alive?",
        "particles",
        "A point that is known in part is completed by particles, weighted and drawn again. Where few have all the weight "
        "the rest die out, and what is left is a handful of points.",
        "`num_particles=...` larger by four, or more `num_steps`.",
        "Rows, and points whose first coordinate is known, the gray line. Left many particles along it; right, far from all rows, "
        "a few that are repeated.",
        died_out,
    ),
    "laws": (
        "Do chain and flow say the same?",
        "laws",
        "A denoiser draws by a chain and by a flow, which are one law where it is exact. Where it is not, the bound on the chain "
        "and the density of the flow are numbers of two laws.",
        "More steps, a wider network.",
        "Bound on the chain by density of the flow, a point a row. Left on the dashed line, where both are one; right far below.",
        two_laws,
    ),
    "density": (
        "Was the density solved for?",
        "density",
        "A flow's density is had by a solver of differential equations. `density` halves its tolerance: what changes is its error.",
        "A smoother network (`weight_decay`, fewer units), or `rtol` and `max_steps` of the program's solver.",
        "Log densities by x, with their errors. Left on a parabola; right, of a network with steps in it, they are scattered.",
        unsolved,
    ),
    "narrow": (
        "Do draws of one step have the spread of the data?",
        "narrow",
        "Jumps that are learned without a teacher lose a little of the spread at every level. With few levels that is much.",
        "`num_levels` twice as large, or a fit by `denoising` or `flow_matching` as the teacher, `init=`.",
        "Histograms of rows and of draws in one step. Left both agree; right, of six levels, the draws are narrower.",
        narrowed,
    ),
}
