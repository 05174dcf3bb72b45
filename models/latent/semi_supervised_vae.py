"""The semi-supervised variational autoencoder (M2): a label and a style make a picture, and few labels are known.

    label ~ uniform, or y where y is known (y = -1: unknown),   z ~ N(0, I),   x | z, label ~ Bernoulli(sigmoid(f(z, label)))
    guide:  q(label | x) = softmax(c(x)), or y where it is known,   q(z | x, label) = N(m(x, label), s(x, label)^2)

Unknown labels are summed over; the classifier c is taught by the known ones beside the bound, which counts once, by
alpha * log q(y | x). f, c, m and s are perceptrons. Classes of new rows: `fit.encode(x=rows, y=-ones)["label"]`; new threes:
`fit.condition(y=3).sample(64)`. log p(x) is given y where it is known. Shapes: x: (dim,), y, label: (), z: (num_latents,).
Kingma, Rezende, Mohamed and Welling 2014 (arXiv:1406.5298).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.vae import mlp, normal, observed, shown, standard

CERTAIN = 1e4  # of the logit of a known label; those of the others are 0


def semi_supervised_vae(
    y,
    x=None,
    dim=64,
    num_classes=10,
    num_latents=8,
    width=256,
    depth=1,
    likelihood="bernoulli",
    alpha=50,
    centre=0.0,
    spread=1.0,
):  # alpha: of the guide
    label = numpyro.sample("label", labels(y, jnp.zeros(num_classes)))
    z = numpyro.sample("z", standard(num_latents))
    both = jnp.concatenate([z, jax.nn.one_hot(label, num_classes)])
    numpyro.sample("x", observed(likelihood, mlp("decoder", both.size, dim, width, depth)(both), centre, spread), obs=x)


def guide(
    x, y, num_classes=10, num_latents=8, width=256, depth=1, likelihood="bernoulli", alpha=50, centre=0.0, spread=1.0
):
    x = shown(likelihood, x, centre, spread)
    logits = mlp("classifier", x.size, num_classes, width, depth)(x)
    with numpyro.handlers.mask(mask=y >= 0), numpyro.handlers.scale(scale=alpha):
        numpyro.sample("known label", dist.CategoricalLogits(logits=logits), obs=jnp.maximum(y, 0).astype(int))
    label = numpyro.sample("label", labels(y, logits))
    seen = mlp("encoder", x.size, width, width, 0)(x)  # once for all labels
    told = mlp("told", num_classes, width, width, 0)(jax.nn.one_hot(label, num_classes))
    numpyro.sample("z", normal(mlp("posterior", width, 2 * num_latents, width, depth - 1)(jax.nn.relu(seen + told))))


def labels(y, logits):
    """The distribution of a label: y itself where it is known."""
    return dist.CategoricalLogits(logits=jnp.where(y >= 0, CERTAIN * jax.nn.one_hot(y, logits.size), logits))


def digits():
    """The digits, with one label in ten known."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    known = np.arange(len(found.target)) % 10 == 0
    return {"x": (found.data >= 8).astype(float), "y": np.where(known, found.target, -1)}


model = Model(program=semi_supervised_vae, guide=guide, data=digits, derived=one_scale("x", "bernoulli"), by_row=True)
