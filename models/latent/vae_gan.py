"""An autoencoder whose critic says what makes two pictures alike, and whether one is of the data.

    z ~ N(0, I),   x | z ~ N(f(z), sigma^2),        guide:  q(z | x) = N(m(x), s(x)^2),       critic:  D(x), F(x)

Convolutions throughout: m, s and the critic halve the sides, f doubles them. F is the critic's last layer, and pictures are alike
where it is: "vae_gan". Learned by "svi" the same program is a plain variational autoencoder. Shapes: x: (height, width), 0 to 1;
z: (num_latents,). Larsen, Sonderby, Larochelle and Winther 2016 (arXiv:1512.09300).
"""

import jax
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.model import Model
from probgen.nets.convolutions import down, grid, judge, up
from probgen.nets.pixels import check_pictures
from probgen.nets.vae import linear, normal, standard


def vae_gan(x=None, height=8, width=8, num_latents=8, halvings=1, num_filters=16, sigma=0.2):
    z = numpyro.sample("z", standard(num_latents))
    rows, columns = grid(height, width, halvings)
    first = linear("first", num_latents, rows * columns * num_filters)(z).reshape(rows, columns, num_filters)
    f = up("decoder", num_filters, 1, halvings, num_filters, num_blocks=1)(first)[..., 0]
    numpyro.sample("x", dist.Normal(jax.nn.sigmoid(f), sigma).to_event(2), obs=x)


def guide(x, num_latents=8, halvings=1, num_filters=16):
    g = down("encoder", 1, num_filters, halvings, num_filters, num_blocks=1)(x[..., None]).ravel()
    numpyro.sample("z", normal(linear("last", g.size, 2 * num_latents)(jax.nn.relu(g))))


def critic(x, halvings=1, num_filters=16):
    return judge("critic", *x.shape, halvings=halvings, num_filters=num_filters)(x)


def rows(x):
    check_pictures(x)
    return {"x": x, "height": x.shape[1], "width": x.shape[2]}


model = Model(program=vae_gan, guide=guide, critic=critic, data=lambda: rows(load("digits_grey")), rows=rows)
