"""Checks of guides, of studies and of grown textures, with a fit that passes and one that does not, each of a few seconds.

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


def alike(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg

    how = {"data": {"y": 1.0}, "num_simulations": 40, "seed": 0, "num_warmup": 300, "num_samples": 300}
    studies = [pg.sbc(known_sum, "random_walk", thin=thin, **how) for thin in (30, 1)]
    for panel, study in zip(panels, studies, strict=True):
        worst = np.median(study.ess, axis=0).argmin()
        panel.hist(study.ess[:, worst], bins=np.linspace(0, 200, 41))
        panel.axvline(study.num_ranked / 2, color="black", linestyle="--", linewidth=0.7)
        panel.set(xlabel=f"effective draws of {study.num_ranked}: {study.names[worst]}", ylabel="simulations")
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


def in_a_part(panels: Any) -> list[Any]:
    import numpy as np

    import probgen as pg
    from probgen.data import load

    weave = load("woven")
    under_a_sky = np.where(np.arange(48)[:, None] < 36, 0.8, weave)
    data = [{"sample": sample, "height": 80, "width": 80} for sample in (weave, under_a_sky)]
    fits = [pg.fit("texture", given, "quilting", block=8, neighbours=1, **SHOWN) for given in data]
    for panel, fit, given in zip(panels, fits, data, strict=True):
        count = np.bincount(fit.answer["sources"][0][0].ravel(), minlength=48 * 48).reshape(48, 48)
        grey = np.repeat(given["sample"][..., None], 3, -1)
        panel.imshow(
            np.where((count > 0)[..., None], 0.5 * grey + [0.5, 0.3, 0.0], 0.6 * grey), interpolation="nearest"
        )
        panel.axis("off")
    return _judged(fits)


def other_filters(panels: Any) -> list[Any]:
    import probgen as pg
    from probgen.data import load

    data = {"sample": load("woven"), "height": 60, "width": 60}
    fits = [pg.fit("texture", data | {"window": window}, "efros_leung", **SHOWN) for window in (13, 3)]
    for panel, fit in zip(panels, fits, strict=True):
        panel.imshow(fit.draws["x"][0, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.axis("off")
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
    "thinned": (
        "Are a study's draws independent?",
        "thinned",
        "`pg.sbc` ranks the truth among a hundred draws of each fit. Where these are alike ranks are not even, also of the right "
        "posterior: first mend this, then look at `uniform`.",
        "A larger `num_samples`, of which the hundred are then farther apart; `thin`, 30 on the left and 1 on the right; `nuts`.",
        "How many of 100 draws count, by simulation. Left most are beyond the dashed line at 50; right nearly all are below it.",
        alike,
    ),
    "used": (
        "Is a texture made of all of its sample?",
        "used",
        "A picture grows by what fits what is there: a plain part of the sample goes on for ever. The check counts how many of the "
        "sample's pixels are drawn, as if evenly.",
        "Cut the plain part away: sky, margin, wall. A larger `block` or `window`; another seed.",
        "Two samples, the pixels that were drawn in yellow. Left, of a weave, most were; right, under a sky, few parts were.",
        in_a_part,
    ),
    "responses": (
        "Do filters see the sample in a texture?",
        "responses",
        "What differences of light there are between neighbours, fine and coarse, says what a texture is. The check compares how "
        "filters respond to the grown picture and to its sample.",
        "A `window` of the size of the texture's parts, 13 pixels on the left and 3 on the right; another seed.",
        "Pictures grown from one weave. Left it goes on as a weave; right, by a window of 3 pixels, it is boxes of all sizes.",
        other_filters,
    ),
}
