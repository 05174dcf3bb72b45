"""VQ-VAE-2: codes on two levels, a coarse grid for what is far apart in a picture and a fine one for its parts.

    k2 ~ PixelCNN with attention,   k1 | z2 ~ PixelCNN(. | h(z2)),   z_i = e[k_i] on either level
    x | z1, z2 ~ Bernoulli(sigmoid(f(z1, z2))), N(f(z1, z2), sigma^2), or a logistic cut into 256 levels
    guide:  z2 = e2 nearest to g2(g(x)),   z1 = e1 nearest to g1(g(x), z2)

g halves the sides `halvings` times, g2 once more. Both PixelCNNs are learned on the codes as they come, which they do not move.
num_heads: of the attention of the upper PixelCNN to all codes before; 0 for none. Shapes: x: (height, width), z1:
(height / 2^halvings, width / 2^halvings, dim), z2: half of that, e1, e2: (num_codes, dim).
Razavi, van den Oord and Vinyals 2019 (arXiv:1906.00446).
"""

import jax.numpy as jnp
import numpyro
from jax.lax import stop_gradient

from probgen.data import load
from probgen.distributions.codebook import Codes, Nearest, codebook
from probgen.model import Model
from probgen.nets.autoregressive import check_sizes
from probgen.nets.convolutions import down, grid, pixelcnn, up
from probgen.nets.pixels import check_pictures
from probgen.nets.vae import observed, shown


def vq_vae_2(
    x=None, height=8, width=8, num_codes=8, dim=8, halvings=1, num_filters=16, num_blocks=1, num_layers=1,
    prior_filters=12, num_heads=2, likelihood="bernoulli",
):  # fmt: skip
    check_sizes(num_filters=num_filters, num_blocks=num_blocks, num_layers=num_layers, prior_filters=prior_filters)
    upper = pixelcnn(
        "prior 2", grid(height, width, halvings + 1), num_codes, num_layers, prior_filters, num_heads=num_heads
    )
    z2 = numpyro.sample("z2", Codes(upper, codebook("z2", num_codes, dim)))
    h = up("prior given 2", dim, prior_filters, 1, num_filters, num_blocks)(stop_gradient(z2))
    lower = pixelcnn("prior 1", grid(height, width, halvings), num_codes, num_layers, prior_filters, given=h)
    z1 = numpyro.sample("z1", Codes(lower, codebook("z1", num_codes, dim)))
    both = jnp.concatenate([z1, up("decoder 2", dim, dim, 1, num_filters, num_blocks)(z2)], -1)
    f = up("decoder", 2 * dim, 1, halvings, num_filters, num_blocks)(both)[..., 0]
    numpyro.sample("x", observed(likelihood, f), obs=x)


def guide(x, num_codes=8, dim=8, halvings=1, num_filters=16, num_blocks=1, likelihood="bernoulli"):
    g = down("encoder", 1, num_filters, halvings, num_filters, num_blocks)(shown(likelihood, x)[..., None])
    g2 = down("encoder 2", num_filters, dim, 1, num_filters, num_blocks)(g)
    z2 = numpyro.sample("z2", Nearest(g2, codebook("z2", num_codes, dim)))
    both = jnp.concatenate([g, up("encoder given 2", dim, dim, 1, num_filters, num_blocks)(z2)], -1)
    g1 = down("encoder 1", num_filters + dim, dim, 0, num_filters, num_blocks)(both)
    numpyro.sample("z1", Nearest(g1, codebook("z1", num_codes, dim)))


def rows(x):
    check_pictures(x)
    return {"x": x, "height": x.shape[1], "width": x.shape[2]}


model = Model(program=vq_vae_2, guide=guide, settings={"num_steps": 6000}, data=lambda: rows(load("digits")), rows=rows)
