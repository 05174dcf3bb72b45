"""Checks of guides, of studies and of grown textures, with a fit that passes and one that does not, each of a few seconds.

`good_and_bad.py` draws them with its own. Their programs stand within, so that a picture is made anew where its own changes alone.
"""

from typing import Any

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
}
