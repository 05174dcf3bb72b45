"""Pictures made of others without pairs: what is made of a picture leads back to it.

    b = g(a)                guide:  a = h(b)                critics:  D(a), D(b), one logit for each patch

g and h are U-Nets, each the other's inverse as far as "cycle_gan" gets: mean |h(g(a)) - a| + |g(h(b)) - b|. Rows of a and b are no
pairs and may differ in number. Shapes: a, b: (height, width), or with channels, from `low` to `high`. Zhu, Park, Isola and Efros
2017 (arXiv:1703.10593).
"""

import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.pictures import of_pictures
from probgen.model import Model
from probgen.nets.adversarial.generator import centred, ranged
from probgen.nets.adversarial.judges import patches
from probgen.nets.adversarial.unet import unet


def cycle_gan(
    a, b=None, height=8, width=8, given_channels=0, channels=0, halvings=2, num_filters=16, low=0.0, high=1.0
):  # fmt: skip
    g = unet("a to b", a, height, width, (given_channels, channels), halvings, num_filters, (), low, high)
    numpyro.sample("b", dist.Delta(ranged(g, low, high, channels), event_dim=3 if channels else 2), obs=b)


def guide(b, height=8, width=8, given_channels=0, channels=0, halvings=2, num_filters=16, low=0.0, high=1.0):
    h = unet("b to a", b, height, width, (channels, given_channels), halvings, num_filters, (), low, high)
    numpyro.sample("a", dist.Delta(ranged(h, low, high, given_channels), event_dim=3 if given_channels else 2))


def critic(a=None, b=None, num_filters=16, low=0.0, high=1.0):
    return patches("critic", centred(b if a is None else a, low, high), 2 * num_filters)


def rows(a, b):
    return {"a": a, "b": b}


model = Model(
    program=cycle_gan,
    guide=guide,
    critic=critic,
    data=lambda: rows(load("digits"), load("inverted_digits")),
    rows=rows,
    derived=of_pictures("a", "b", most=2),
)
