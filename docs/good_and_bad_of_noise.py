"""Checks of diffusion, of points known in part and of bridges, with a fit that passes and one that does not, each of a few seconds.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- draws of a denoiser -----------------------------------------------------------------------------------------


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
        panel.set(xlabel="x", yticks=[], ylim=(0, 1.3))
        panel.legend(frameon=False, loc="upper center")
    return _judged(fits)


NOISE = {
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
        "Draws, and the density as a line. Left the line follows the draws; right it lies far above them everywhere.",
        too_much,
    ),
}
