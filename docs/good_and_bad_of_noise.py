"""Checks of diffusion, of points known in part and of bridges, with a fit that passes and one that does not, each of a few seconds.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- draws of a denoiser -----------------------------------------------------------------------------------------


def copies(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg
    from probgen.data.dequantise import dequantised

    digits = dequantised(np.rint(16 * pg.data.load("digits_grey")), 17).reshape(-1, 64)
    how = {"learning_rate": 0.002, "num_steps": 3000, "batch_size": 64, "ema": 0.99, **SHOWN}
    data = [{"x": digits[:count], "dim": 64, "width": 256, "depth": 2} for count in (1700, 100)]
    fits = [pg.fit("edm", given, "denoising", **how) for given in data]
    for panel, fit, given in zip(panels, fits, data, strict=True):
        draws = fit.sample(4)["x"]
        near = ((draws[:, None] - given["x"]) ** 2).sum(-1).argmin(1)
        both = np.stack([draws, given["x"][near]]).reshape(2, 4, 8, 8)
        framed = np.pad(both, ((0, 0), (0, 0), (1, 1), (1, 1)))
        panel.imshow(framed.transpose(0, 2, 1, 3).reshape(20, 40), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.set(xticks=[], yticks=[4.5, 14.5], yticklabels=["draw", "nearest row"])
    return _judged(fits)


def narrowed(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = np.random.default_rng(0).normal(size=(4000, 1))
    how = {"num_steps": 2000, "learning_rate": 0.003, "batch_size": 256, "ema": 0.99, **SHOWN}
    data = {"x": rows, "dim": 1, "width": 32, "depth": 2}
    fits = [pg.fit("edm", data, "consistency", num_levels=levels, **how) for levels in (128, 8)]
    for panel, fit in zip(panels, fits, strict=True):
        for name, x in (("rows", rows), ("draws in one step", fit.sample(4000)["x"])):
            panel.hist(np.ravel(x), bins=np.linspace(-4, 4, 61), density=True, alpha=0.5, label=name)
        panel.set(xlabel="x", yticks=[], ylim=(0, 0.75))
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


# ---- densities of a denoiser -------------------------------------------------------------------------------------


def rough(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Network
    from probgen.nets.diffusion.flow import Solver
    from probgen.nets.diffusion.networks import perceptron
    from probgen.nets.diffusion.schedules import Straight
    from probgen.nets.diffusion.site import diffused

    def in_steps(x=None, num_steps=None):
        net = Network(Straight(), perceptron("net", 1, 32, 2), "velocity")
        solver = Solver("euler", num_steps=num_steps) if num_steps else None
        numpyro.sample("x", diffused(net, (1,), solver=solver), obs=x)

    rng = np.random.default_rng(0)
    rows = np.where(rng.random((2000, 1)) < 0.5, -1.0, 1.0) + 0.25 * rng.normal(size=(2000, 1))
    how = {"num_steps": 1500, "learning_rate": 0.003, "batch_size": 256, "ema": 0.99, **SHOWN}
    model = pg.Model(in_steps, by_row=True)
    fits = [pg.fit(model, {"x": rows, "num_steps": steps}, "flow_matching", **how) for steps in (None, 8)]
    grid = np.linspace(-2.2, 2.2, 150)[:, None]
    for panel, fit in zip(panels, fits, strict=True):
        panel.hist(rows.ravel(), bins=60, density=True, alpha=0.3, label="rows")
        panel.plot(grid, np.exp(fit.log_prob(grid, method="ode").value), color="black", linewidth=0.8, label="density")
        panel.plot(grid, np.exp(-fit.energy(grid)), color="tab:orange", linewidth=1.5, label="by the program's solver")
        panel.set(xlabel="x", yticks=[], ylim=(0, 1.5))
        panel.legend(frameon=False, loc="upper center")
    return _judged(fits)


def too_much(panels: Any) -> list[Any]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro

    import probgen as pg
    from probgen.nets.diffusion.denoiser import Network
    from probgen.nets.diffusion.networks import perceptron
    from probgen.nets.diffusion.schedules import Elucidated
    from probgen.nets.diffusion.site import diffused

    class Twice(eqx.Module):
        """A network that sees what it said itself."""

        net: Any
        held: bool = eqx.field(static=True)

        def __call__(self, z, level):
            first = self.net(z, level, jnp.zeros(1))
            return self.net(z, level, jax.lax.stop_gradient(first) if self.held else first)

    def looks_again(x=None, held=False):
        net = Twice(perceptron("net", 1, 32, 2, num_given=1), held)
        numpyro.sample("x", diffused(Network(Elucidated(), net, "edm"), (1,)), obs=x)

    rng = np.random.default_rng(0)
    rows = np.where(rng.random((2000, 1)) < 0.5, -1.0, 1.0) + 0.25 * rng.normal(size=(2000, 1))
    how = {"num_steps": 1500, "learning_rate": 0.003, "batch_size": 256, "ema": 0.99, **SHOWN}
    model = pg.Model(looks_again, by_row=True)
    fits = [pg.fit(model, {"x": rows, "held": held}, "denoising", **how) for held in (False, True)]
    grid = np.linspace(-2.2, 2.2, 150)[:, None]
    for panel, fit in zip(panels, fits, strict=True):
        panel.hist(fit.sample(2000)["x"].ravel(), bins=60, density=True, alpha=0.5, label="draws")
        panel.plot(grid, np.exp(fit.log_prob(grid, method="ode").value), color="black", linewidth=0.8, label="density")
        panel.set(xlabel="x", yticks=[], ylim=(0, 1.6))
        panel.legend(frameon=False, loc="upper center")
    return _judged(fits)


# ---- points of which something was seen --------------------------------------------------------------------------


def few_particles(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rows = pg.data.load("two_moons")[:2000]
    data = {"x": rows, "dim": 2, "width": 64, "depth": 2}
    how = {"num_steps": 1500, "learning_rate": 0.003, "batch_size": 256, "ema": 0.99, **SHOWN}
    learned = pg.fit("edm", data, "denoising", **how)
    points = [learned.condition(x=np.array([first, np.nan])) for first in (0.5, 3.0)]
    fits = [pg.fit(point, inference="twisted_smc", num_particles=250, **SHOWN) for point in points]
    for panel, fit in zip(panels, fits, strict=True):
        panel.semilogy(250 * fit.records["ess"][0], ".-")
        panel.axhline(20, color="black", linestyle="--", linewidth=0.7)
        panel.set(xlabel="step, from noise to the point", ylabel="effective particles", ylim=(1, 300))
    return _judged(fits)


# ---- bridges -----------------------------------------------------------------------------------------------------


def ways(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    rng = np.random.default_rng(0)
    a = rng.normal(size=(2000, 1))
    b = np.where(rng.random((2000, 1)) < 0.5, -1.0, 1.0) + 0.25 * rng.normal(size=(2000, 1))
    data = {"a": a, "b": b, "dim": 1, "sigma": 0.2, "width": 32, "depth": 2, "num_steps": 20}
    how = {"learning_rate": 0.003, "ema": 0.98, **SHOWN}
    fits = [pg.fit("schroedinger_bridge", data, "bridge_matching", num_steps=steps, **how) for steps in (2000, 50)]
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(a[:500], fit.translate(a=a[:500])["b"], ".", markersize=2, label="there")
        panel.plot(fit.translate(b=b[:500])["a"], b[:500], ".", markersize=2, label="back")
        panel.set(xlabel="a", ylabel="b", xlim=(-3.5, 3.5), ylim=(-2.6, 2.6))
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


NOISE = {
    "memorisation": (
        "Are draws new, or copies?",
        "memorisation",
        "A large network learns few rows by heart, and a copy passes every other look: it is right, and not new. Draws that are "
        "copies lie nearer to rows that were learned from than to those that were held out. Here `levels` and `laws` fail with it.",
        'More data, `augment="both"` for pictures; fewer steps, a smaller network.',
        "Draws of digits, each above its nearest row. Left, of 1,700 rows, shapes differ; right, of 100, they are the same.",
        copies,
    ),
    "narrow": (
        "Do draws in one step keep the spread?",
        "narrow",
        "Without a teacher `consistency` learns each level of noise from the one below, and each takes a little of the spread. "
        "Of normal data it is known how much.",
        "More levels, `num_levels=128`; or `init=` a fit by `denoising`, which is the teacher.",
        "Histograms of rows and draws. Left, by 128 levels, they agree; right, by 8, the draws are narrower and higher.",
        narrowed,
    ),
    "density": (
        "Is the density what the equation says?",
        "density",
        "The density of a flow is that of an equation, which is solved in steps. A program may have a rough solver of its own: its "
        "draws, `fit.energy` and `mle` go by that, `fit.log_prob` by a finer one.",
        "Leave out `solver`, whose steps then hold their error; or give it more steps than 8.",
        "The density by a fine solver and by the program's. Left they are one line; right the program's hills lie farther out.",
        rough,
    ),
    "mass": (
        "Does the density sum to one?",
        "mass",
        "A density that sums to more than one is too good to be true, by the logarithm of the sum for each row. `stop_gradient` in "
        "a network does that: here one looks a second time at what it said itself.",
        "A network without `stop_gradient` or `detach`, which hide a part of the divergence. Its draws are right all the same.",
        "Draws, and the density as a line. Left the line follows the draws; right it lies above them.",
        too_much,
    ),
    "particles": (
        "Do enough particles fit what was seen?",
        "particles",
        "A point known in part is completed by particles, weighted by how well they fit. Where few do, the answer is of those few. "
        "`evidence` and `runs` say whether independent runs agree.",
        "Is the point like the rows, and in their units? Else four times as many `num_particles`, or twice as many `num_steps`.",
        "Effective particles by step. Left they stay far above the dashed line, at 20; right, of a point far out, they do not.",
        few_particles,
    ),
    "pairs": (
        "Does a bridge join rows as it should?",
        "pairs",
        "Of all ways from rows of one kind to rows of another a bridge is the nearest to Brownian motion, which says what belongs "
        "together. In up to three dimensions Sinkhorn's algorithm finds it. Here `way_back`, its end, warns too.",
        "More steps: on the right learning ended after 50. A wider network, more steps of a path (`num_steps` in data).",
        "Pairs made there and on the way back. Left both are one curve with a gap in the middle; right they lie across each other.",
        ways,
    ),
}
