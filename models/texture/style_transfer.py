"""One picture in the style of another: what the first shows from afar, with the second's texture.

    log p(x) = -1/2 |G(x) - G(style)|^2 / (s |G(style)|)^2 - 1/2 |D(x) - D(content)|^2 / c^2 + log N(x; 1/2, 5) - log Z

A Gibbs law. G are correlations of responses to filters on the finest `scales` scales: which go together, and not where. D is the
picture beyond them, halved `scales` times. `style_sd` is s, a share; `content_sd` c, in units of brightness. "map" finds a mode, as
the papers do; "mala" and "nuts" draw from the law. Pixels may leave 0 to 1 by a little.
Shapes: content, style: (height, width) or (height, width, 3), from 0 to 1, of any two sizes; x: the content's;
filters: (side, side, channel, filter), by default 32 at random.
Gatys, Ecker and Bethge 2015, 2016 (arXiv:1505.07376, arXiv:1508.06576); filters at random: Ustyuzhaninov, Brendel, Gatys and Bethge
2016 (arXiv:1606.00021).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from probgen.data.values.photographs import woven
from probgen.model import Model, Oracle
from probgen.nets.features.filters import check_pictures, coarse, correlations, filters_at_random


def style_transfer(content, style, filters, scales=2, style_sd=0.02, content_sd=0.1):
    check_pictures(filters, scales, content=content, style=style)
    x = numpyro.sample("x", dist.Normal(0.5, 5.0).expand(content.shape).to_event(content.ndim))
    mine, theirs = correlations(x, filters, scales), correlations(style, filters, scales)
    numpyro.factor("style", -0.5 * jnp.sum((mine - theirs) ** 2) / jnp.sum(theirs**2) / style_sd**2)
    numpyro.factor("content", -0.5 * jnp.sum((coarse(x, scales) - coarse(content, scales)) ** 2) / content_sd**2)


def rows(content, style):
    """Two pictures, both grey or both coloured."""
    content, style = np.asarray(content, float), np.asarray(style, float)
    for name, x in (("content", content), ("style", style)):
        if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] != 3):
            raise ValueError(
                f"{name} has shape {x.shape}; expected one picture, (height, width) or (height, width, 3)."
            )
    if content.ndim != style.ndim:
        grey, coloured = ("content", "style") if content.ndim == 2 else ("style", "content")
        raise ValueError(f"{grey} is grey and {coloured} coloured; expected both grey or both coloured.")
    return {"content": content, "style": style}


def derived(data):
    return {"filters": filters_at_random(1 if np.ndim(data["content"]) == 2 else 3)}


def shaded(side=32):
    """A lit ball on dark ground, from 0 to 1: (side, side)."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (0.4 * side)
    height = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    return np.clip(0.2 + 0.75 * (height > 0) * np.maximum(0.6 * height - 0.4 * x - 0.4 * y, 0), 0, 1)


def log_density(values, data):
    """By SciPy's correlations, filter by filter."""
    from scipy.ndimage import correlate
    from scipy.stats import norm

    filters, scales = data["filters"], data.get("scales", 2)
    style_sd, content_sd = data.get("style_sd", 0.02), data.get("content_sd", 0.1)

    def summary(x):
        grams, x = [], x[..., None]
        for _ in range(scales):
            seen = [correlate(x[..., 0], filters[:, :, 0, k], mode="grid-wrap") for k in range(filters.shape[-1])]
            f = np.maximum(np.stack(seen, -1).reshape(-1, len(seen)), 0)
            grams.append(f.T @ f / len(f))
            x = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
        return np.stack(grams), x

    (g, far), (style, _), (_, content) = (summary(np.asarray(v)) for v in (values["x"], data["style"], data["content"]))
    of_style, of_content = ((g - style) ** 2).sum() / (style**2).sum(), ((far - content) ** 2).sum()
    return norm.logpdf(values["x"], 0.5, 5.0).sum() - 0.5 * (of_style / style_sd**2 + of_content / content_sd**2)


model = Model(
    program=style_transfer,
    data=lambda: rows(shaded(), woven()),
    rows=rows,
    derived=derived,
    by_row=False,
    inference="map",
    settings={"num_steps": 1000},
    oracle=Oracle("log density", log_density),
)
