"""The variational autoencoder with a codebook: a picture is a grid of codes, drawn by a PixelCNN, and a network that shows them.

    k ~ PixelCNN,   z_i = e[k_i],   x | z ~ Bernoulli(sigmoid(f(z))), N(f(z), sigma^2), or a logistic cut into 256 levels
    guide:  z_i = e[argmin_k |g_i(x) - e_k|]

g halves the sides `halvings` times by convolutions, residual blocks following; f is its mirror image. Beside them the codebook e is
learned, and the PixelCNN on the codes as they come: "vq"; with its settings `perceptual` and `adversarial` also a critic.
Shapes: x: (height, width), z: (height / 2^halvings, width / 2^halvings, dim), e: (num_codes, dim).
Van den Oord, Vinyals and Kavukcuoglu 2017 (arXiv:1711.00937).
"""

import numpyro

from probgen.data import load
from probgen.distributions.codebook import Codes, Nearest, codebook
from probgen.model import Model
from probgen.nets.autoregressive import check_sizes
from probgen.nets.convolutions import down, grid, judge, pixelcnn, up
from probgen.nets.pixels import check_pictures
from probgen.nets.vae import observed, shown


def vq_vae(
    x=None, height=8, width=8, num_codes=16, dim=8, halvings=2, num_filters=16, num_blocks=1, num_layers=1,
    prior_filters=12, likelihood="bernoulli",
):  # fmt: skip
    check_sizes(num_filters=num_filters, num_blocks=num_blocks, num_layers=num_layers, prior_filters=prior_filters)
    prior = pixelcnn("prior", grid(height, width, halvings), num_codes, num_layers, prior_filters)
    z = numpyro.sample("z", Codes(prior, codebook("z", num_codes, dim)))
    f = up("decoder", dim, 1, halvings, num_filters, num_blocks)(z)[..., 0]
    numpyro.sample("x", observed(likelihood, f), obs=x)


def guide(x, num_codes=16, dim=8, halvings=2, num_filters=16, num_blocks=1, likelihood="bernoulli"):
    g = down("encoder", 1, dim, halvings, num_filters, num_blocks)(shown(likelihood, x)[..., None])
    numpyro.sample("z", Nearest(g, codebook("z", num_codes, dim)))


def critic(x, num_filters=16):
    return judge("critic", *x.shape, halvings=1, num_filters=num_filters)(x)


def rows(x):
    check_pictures(x)
    return {"x": x, "height": x.shape[1], "width": x.shape[2]}


model = Model(
    program=vq_vae,
    guide=guide,
    critic=critic,
    settings={"num_steps": 6000},
    data=lambda: rows(load("digits")),
    rows=rows,
)
