"""VQGAN: a picture is a grid of codes, drawn by a transformer; a critic of patches and what a net sees say how pictures look.

    k ~ transformer,   z_i = e[k_i],   x | z ~ Bernoulli(sigmoid(f(z))), N(f(z), sigma^2), or a logistic cut into 256 levels
    guide:  z_i = e[argmin_k |g_i(x) - e_k|],       critic:  D(x), a logit for each patch;   F(x), a fixed net's layers

`vq_vae` with another prior, learned by "vq" with its `perceptual`, |F(x) - F(x')|^2, and its `adversarial`, by an adaptive weight,
from a third of the steps on. F: the layers of a classifier that learns the rows' labels, where they come with them; else filters at
random; or those of a file of a VGG net, `features`. Of bits D sees the most probable ones, straight through, as it could tell data
from shares of ink at sight. The bound is that of `vq_vae`: log p(x | z) + log p(z), in nats.
Shapes: x: (height, width), z: (height / 2^halvings, width / 2^halvings, dim), e: (num_codes, dim).
Esser, Rombach and Ommer 2021 (arXiv:2012.09841).
"""

import numpyro
from jax.lax import stop_gradient

from probgen.data import load
from probgen.datasets import labels
from probgen.distributions.codebook import Codes, Nearest, codebook
from probgen.evaluate.features import alike
from probgen.model import Model
from probgen.nets.adversarial.judges import patches
from probgen.nets.autoregressive import check_sizes
from probgen.nets.convolutions import down, grid, up
from probgen.nets.features.maps import features as seen
from probgen.nets.pixels import check_pictures
from probgen.nets.tokens.codes import grid_of_codes
from probgen.nets.vae import observed, shown


def vqgan(
    x=None, height=8, width=8, num_codes=16, dim=8, halvings=2, num_filters=16, num_blocks=1, prior_width=32, prior_depth=2,
    num_heads=4, likelihood="bernoulli", features="", layers="", weights=0.0,
):  # fmt: skip
    check_sizes(num_filters=num_filters, num_blocks=num_blocks)
    places = grid(height, width, halvings)
    prior = grid_of_codes("prior", places, num_codes, prior_width, prior_depth, num_heads)
    z = numpyro.sample("z", Codes(prior, codebook("z", num_codes, dim)))
    f = up("decoder", dim, 1, halvings, num_filters, num_blocks)(z)[..., 0]
    numpyro.sample("x", observed(likelihood, f), obs=x)


def guide(x, num_codes=16, dim=8, halvings=2, num_filters=16, num_blocks=1, likelihood="bernoulli"):
    g = down("encoder", 1, dim, halvings, num_filters, num_blocks)(shown(likelihood, x)[..., None])
    numpyro.sample("z", Nearest(g, codebook("z", num_codes, dim)))


def critic(x, num_filters=16, likelihood="bernoulli", layers="", weights=0.0):
    x = x / 255 if likelihood == "levels" else x
    judged = x + stop_gradient((x >= 0.5) - x) if likelihood == "bernoulli" else x
    return patches("critic", 2 * judged[..., None] - 1, num_filters), seen(x, weights, layers)


def rows(x, label=None, features=""):
    """Pictures (row, height, width), and their classes (row,), which a net of them is learned from; or the file of another net."""
    check_pictures(x)
    found = {"x": x, "height": x.shape[1], "width": x.shape[2]}
    if features:
        return found | {"features": features}
    return found if label is None else found | alike.of_classifier(alike.on_scale(x), label)


model = Model(
    program=vqgan,
    guide=guide,
    critic=critic,
    inference="vq",
    settings={
        "num_steps": 4000,
        "learning_rate": 0.001,
        "perceptual": 1.0,
        "adversarial": 0.5,
        "adaptive": True,
        "adversarial_from": 1 / 3,
    },
    data=lambda: rows(load("digits"), labels("digits")),
    rows=rows,
    derived=alike.of_data("x"),
)
