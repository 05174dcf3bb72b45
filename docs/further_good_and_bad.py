"""Checks of every fit, of guides and of hidden sites with a fit that passes and one that does not, each of a few seconds.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

from small_programs import known_sum, two_wells

SHOWN = {"progress": False, "seed": 0}


def _judged(fits: Any) -> list[Any]:
    return [fit.diagnose() for fit in fits]


# ---- every fit ---------------------------------------------------------------------------------------------------


def holes(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def any_sign(y=1.0):
        size = numpyro.sample("size", dist.Normal(0.0, 2.0))
        numpyro.deterministic("log_size", jnp.log(size))
        numpyro.sample("y", dist.Normal(size, 1.0), obs=y)

    def above_zero(y=1.0):
        size = numpyro.sample("size", dist.HalfNormal(2.0))
        numpyro.deterministic("log_size", jnp.log(size))
        numpyro.sample("y", dist.Normal(size, 1.0), obs=y)

    fits = [pg.fit(program, {"y": 1.0}, num_samples=500, **SHOWN) for program in (above_zero, any_sign)]
    for panel, fit in zip(panels, fits, strict=True):
        values = fit.draws["log_size"][0, :150]
        panel.plot(values, ".-", linewidth=0.5, markersize=3)
        for lost in np.flatnonzero(~np.isfinite(values)):
            panel.axvspan(lost - 0.5, lost + 0.5, color="tab:red", alpha=0.25, linewidth=0)
        panel.set(xlabel="draw of a chain", ylabel="log size", xlim=(-1, 150), ylim=(-4, 2))
    return _judged(fits)


def cut_short(panels: Any) -> list[Any]:
    import os
    import signal

    import probgen as pg

    class PressesCtrlC(pg.loggers.Logger):
        pressed = False

        def log(self, step, values):
            if step > 1200 and not self.pressed:
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off for jobs in the background
    how = {"num_samples": 8000, "num_warmup": 500, "inference": "random_walk", "thin": 50, **SHOWN}
    fits = [pg.fit(known_sum, {"y": 1.0}, **how), pg.fit(known_sum, {"y": 1.0}, loggers=PressesCtrlC(), **how)]
    for panel, fit in zip(panels, fits, strict=True):
        made = fit.draws["a"].shape[1]
        panel.plot(fit.draws["a"][0], linewidth=0.3)
        panel.axvspan(made, 8000, color="gray", alpha=0.3, linewidth=0)
        panel.set(xlabel="draw", ylabel="a", xlim=(0, 8000), ylim=(-3, 4))
    return _judged(fits)


def alone(panels: Any) -> list[Any]:
    import probgen as pg

    fits = [pg.fit(two_wells, num_chains=number, num_samples=500, **SHOWN) for number in (4, 1)]
    for panel, fit in zip(panels, fits, strict=True):
        for chain in fit.draws["x"]:
            panel.plot(chain, linewidth=0.5)
        panel.set(xlabel="draw", ylabel="x", ylim=(-6, 6))
    return _judged(fits)


def slopes(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def in_one_branch(y=0.3):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + jnp.where(b > 0, jnp.sqrt(b), 0.0), 1.0), obs=y)

    def in_both_branches(y=0.3):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        root = jnp.where(b > 0, jnp.sqrt(jnp.where(b > 0, b, 1.0)), 0.0)
        numpyro.sample("y", dist.Normal(a + root, 1.0), obs=y)

    how = {"num_warmup": 300, "num_samples": 1000, **SHOWN}
    fits = [pg.fit(program, {"y": 0.3}, **how) for program in (in_both_branches, in_one_branch)]
    for panel, fit in zip(panels, fits, strict=True):
        panel.axvspan(-4, 0, color="gray", alpha=0.2, linewidth=0)
        panel.plot(fit.draws["b"][:, ::4], fit.draws["a"][:, ::4], ".", color="tab:blue", markersize=2)
        panel.set(
            xlabel="b; gray where it is below 0", ylabel="a", xlim=(-4, 4), ylim=(-4, 4), yticks=np.arange(-4, 5, 4)
        )
    return _judged(fits)


# ---- guides and biased chains ------------------------------------------------------------------------------------


def few_count(panels: Any) -> list[Any]:
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg
    from probgen.diagnostics import smoothed_weights

    def sum_of_ten(y=1.0):
        x = numpyro.sample("x", dist.Normal(jnp.zeros(10), 1.0).to_event(1))
        numpyro.sample("y", dist.Normal(x.sum(), 0.3), obs=y)

    fits = [pg.fit(sum_of_ten, {"y": 1.0}, word, **SHOWN) for word in ("full_rank", "mean_field")]
    for panel, fit in zip(panels, fits, strict=True):
        weights = np.sort(smoothed_weights(fit).weights)[::-1]
        panel.plot(100 * np.arange(1, weights.size + 1) / weights.size, 100 * np.cumsum(weights))
        panel.plot([0, 100], [0, 100], color="black", linewidth=0.7, linestyle="--")
        panel.set(xlabel="% of the draws, heaviest first", ylabel="% of the weight", xlim=(0, 100), ylim=(0, 102))
    return _judged(fits)


def one_point(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    fits = [pg.fit(known_sum, {"y": 1.0}, word, **SHOWN) for word in ("laplace", "map")]
    a, b = np.meshgrid(np.linspace(-2.0, 3.0, 200), np.linspace(-2.0, 3.0, 200))
    exact = -(a**2 + b**2) / 2 - (1.0 - a - b) ** 2 / (2 * 0.2**2)
    for panel, fit, size in zip(panels, fits, (2, 8), strict=True):
        panel.contour(a, b, exact - exact.max(), levels=[-6, -4, -2], colors="black", linewidths=0.7)
        panel.plot(*(fit.draws[name].ravel()[:1000] for name in "ab"), ".", markersize=size, alpha=0.5)
        panel.set(xlabel="a", ylabel="b", xlim=(-2, 3), ylim=(-2, 3))
    return _judged(fits)


def too_wide(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    how = {"num_samples": 2000, "thin": 5, **SHOWN}
    fits = [
        pg.fit(known_sum, {"y": 1.0}, "mala", **how),
        pg.fit(known_sum, {"y": 1.0}, "ula", step_size=1.6, **how),
    ]
    a = np.linspace(-4.0, 5.0, 300)
    exact = np.exp(-((a - 0.5 / 1.02) ** 2) / (2 * 0.51))
    for panel, fit in zip(panels, fits, strict=True):
        panel.hist(fit.draws["a"].ravel(), bins=np.linspace(-4, 5, 61), density=True, alpha=0.5, label="draws")
        panel.plot(a, exact / (exact.sum() * (a[1] - a[0])), color="black", linewidth=0.8, label="posterior")
        panel.set(xlabel="a", yticks=[], xlim=(-4, 5))
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


# ---- learners ----------------------------------------------------------------------------------------------------


def no_number(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg

    def unbounded(x=None):
        loc, scale = numpyro.param("loc", 0.0), numpyro.param("scale", 1.0)
        with numpyro.plate("row", 200 if x is None else len(x)):
            numpyro.sample("x", dist.Normal(loc, scale), obs=x)

    def above_zero(x=None):
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        with numpyro.plate("row", 200 if x is None else len(x)):
            numpyro.sample("x", dist.Normal(loc, scale), obs=x)

    x = 0.02 * np.random.default_rng(0).normal(size=200)
    how = {"inference": "mle", "by_row": True, "num_steps": 600, "learning_rate": 0.1, "start": "program", **SHOWN}
    fits = [pg.fit(program, {"x": x}, **how) for program in (above_zero, unbounded)]
    for panel, fit in zip(panels, fits, strict=True):
        loss = fit.records["loss"][0]
        panel.plot(loss, linewidth=0.8)
        for lost in np.flatnonzero(~np.isfinite(loss)):
            panel.axvspan(lost - 0.5, lost + 0.5, color="tab:red", alpha=0.25, linewidth=0)
        panel.set(xlabel="step", ylabel="loss, nats a row", xlim=(0, 600))
    return _judged(fits)


def _along_a_line() -> tuple[Any, list[Any]]:
    """A cloud of rows along a line, and two fits of one hidden value: by the bound, and with the divergence weighed by 8."""
    import numpy as np

    import probgen as pg

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 1)) * np.ones(2) + 0.4 * rng.normal(size=(1000, 2))
    data = {"x": rows, "dim": 2, "num_latents": 1}
    how = {"inference": "svi", "num_steps": 2000, "learning_rate": 0.01, **SHOWN}
    fits = [pg.fit("ppca", data, kl_weight=weight, **how) for weight in (1.0, 8.0)]
    return rows, fits


def other_aims(panels: Any) -> list[Any]:
    rows, fits = _along_a_line()
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(*rows[:500].T, ".", markersize=2, label="rows")
        panel.plot(*fit.sample(500)["x"].T, ".", markersize=2, label="draws")
        panel.set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[])
        panel.legend(frameon=False, loc="upper left")
    return _judged(fits)


def collapsed(panels: Any) -> list[Any]:
    rows, fits = _along_a_line()
    for panel, fit in zip(panels, fits, strict=True):
        panel.plot(rows[:500].sum(1), fit.encode(num_samples=1)["z"][0, :500, 0], ".", markersize=2)
        panel.set(xlabel="where a row lies along the cloud", ylabel="its hidden value", ylim=(-4, 4))
    return _judged(fits)


def dead(panels: Any) -> list[Any]:
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import probgen as pg
    from probgen.distributions.codebook import Codes, Nearest, codebook

    def program(x=None, number=8):
        prior = dist.Categorical(logits=numpyro.param("logits", np.zeros((1, number)))).to_event(1)
        z = numpyro.sample("z", Codes(prior, codebook("z", number, 2)))
        numpyro.sample("x", dist.Normal(z[0], 0.3).to_event(1), obs=x)

    def guide(x, number=8):
        numpyro.sample("z", Nearest(x[None], codebook("z", number, 2)))

    rows = pg.data.load("two_moons")[:60]
    model = pg.Model(program, guide=guide, by_row=True)
    how = {"inference": "vq", "num_steps": 300, "learning_rate": 0.01, "batch_size": 60, "revive": 0.0, **SHOWN}
    fits = [pg.fit(model, {"x": rows, "number": number}, **how) for number in (8, 200)]
    for panel, fit in zip(panels, fits, strict=True):
        far = ((rows[:, None] - fit.parameters["z codebook"]) ** 2).sum(-1)
        used = np.sort(np.bincount(far.argmin(1), minlength=far.shape[1]))[::-1]
        panel.step(np.arange(used.size + 1), np.r_[used, used[-1]], where="post")
        panel.fill_between(np.arange(used.size + 1), np.r_[used, used[-1]], step="post", alpha=0.5)
        panel.axvspan((used > 0).sum(), used.size, color="tab:red", alpha=0.2, linewidth=0)
        panel.set(xlabel="code, most used first; red: dead", ylabel="rows that use it", xlim=(0, used.size))
    return _judged(fits)


FURTHER = {
    "finite": (
        "Is every draw a number?",
        "finite",
        "One NaN spoils every mean. It comes of what the program computes of an unknown, such as the logarithm of a value below 0.",
        "Look at the program at those draws; a prior that keeps the unknown in the domain, as on the left.",
        "A chain of log sizes. Left it has no gap; right red stripes mark draws of a negative size, which have none.",
        holes,
    ),
    "chains": (
        "Is there a chain to compare with?",
        "chains",
        "Chains are checked by each other. One that stays at a mode looks well, and `r_hat` has only its own halves to compare.",
        "`num_chains=4`. What several chains then say is for `r_hat`, which fails on the left.",
        "Traces of one posterior with two modes. Left four chains, two at each mode; right a single chain, at one of them.",
        alone,
    ),
    "bias": (
        "Is the algorithm right in the limit?",
        "bias",
        "Some algorithms are off however long they run: Langevin steps without a correction, minibatches, a learner whose fixed "
        "point is no maximum. The line says which; an algorithm without a bias has no such line.",
        'Another word: `"mala"` in place of `"ula"`, `"nuts"`, `"pcd"` in place of `"cd"`; or a smaller `step_size`.',
        "Draws under the posterior's curve. Left, of mala, they fill it; right, of ula by long steps, they are far wider.",
        too_wide,
    ),
    "point": (
        "Is there any uncertainty?",
        "point",
        "A mode is one point. Its draws are all alike, so that their spread says nothing of the posterior's. Where draws have a "
        "spread there is no such line.",
        'The point may be what you want. For a posterior `inference="laplace"`, which begins at the same mode, or `"nuts"`.',
        "Draws on the posterior's contour lines. Left they fill them; right there is a single point in the middle.",
        one_point,
    ),
    "weights": (
        "How many draws of a guide count?",
        "weights",
        "Each draw of a guide is weighted by posterior over guide. Where a few have all the weight, a mean over 1,000 draws is one "
        "over those few.",
        'A richer guide, `"full_rank"` or `"flow"`; or `"nuts"`. `fit.resample` would repeat the few.',
        "Share of the weight that the heaviest draws hold. Left it grows evenly, on the dashed line; right a few hold most.",
        few_count,
    ),
    "gradient": (
        "Has the density a slope wherever it has a value?",
        "gradient",
        "Both branches of a `where` are differentiated, also the one that is not taken: a root of a number below 0 makes the slope "
        "NaN, and samplers and learners never go there. It is looked for where there is a symptom, such as divergences.",
        "Make both branches finite: `jnp.where(b > 0, jnp.sqrt(jnp.where(b > 0, b, 1.0)), 0.0)`.",
        "Draws of one posterior by two programs. Left they lie on both sides of b = 0; right hardly any lies below.",
        slopes,
    ),
    "loss": (
        "Is the loss a number at every step?",
        "loss",
        "A scale that may become negative has no density there. Learning goes back and on, but what it did meanwhile is lost.",
        "A constraint on the parameter, as on the left; a smaller `learning_rate`.",
        "Losses by step. Left the line has no gap; right red stripes mark steps whose loss is NaN, and it begins anew.",
        no_number,
    ),
    "complete": (
        "Did the run come to its end?",
        "complete",
        "A run that was stopped by Ctrl-C, or whose process died, has the draws that were made until then. They are judged too.",
        "`pg.resume` goes on where it stopped, bit for bit. Draws that pass all other checks can be used as they are.",
        "A chain of 8,000 draws. Left it is whole; right it breaks off after some hundreds, and the rest is gray.",
        cut_short,
    ),
    "objective": (
        "Was it a bound that was maximised?",
        "objective",
        "With another weight of the KL what is maximised is no bound on log p(x), and the best model by it is another. Right the "
        "KL counts eight times.",
        "`kl_weight=1`, `free_bits=0`, and a `kl_warmup` that ends before the run does.",
        "Rows in an oblong cloud and draws of a model of them. Left they are alike; right the draws are a round cloud.",
        other_aims,
    ),
    "activity": (
        "Are hidden coordinates in use?",
        "activity",
        "Where the KL weighs more than what a hidden value explains, the guide says the prior of every row: the coordinate has "
        "collapsed, and says nothing of a row.",
        "`kl_warmup`, `free_bits`, fewer hidden coordinates, a weaker decoder.",
        "Hidden value by where a row lies along the cloud. Left they lie on a line; right there is no relation.",
        collapsed,
    ),
    "codes": (
        "Is the codebook in use?",
        "codes",
        "A code that is no row's nearest is dead: nothing moves it any more. Sixty rows cannot use two hundred codes.",
        'Fewer codes, a larger `revive`, `codebook="ema"`, a smaller `learning_rate`.',
        "Rows by the code that they use. Left all eight codes are used; right most of two hundred are not, which is red.",
        dead,
    ),
}
