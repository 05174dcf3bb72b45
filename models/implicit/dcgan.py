"""Pictures from noise by convolutions, against a critic that is one as well.

    z ~ N(0, I),   x = f(z)                         critic:  D(x), linear in its last features

f doubles the sides of a small grid until it is a picture, the critic halves them. Shapes: x: (height, width), or (height, width,
channel), from `low` to `high`; z: (num_latents,). Radford, Metz and Chintala 2016 (arXiv:1511.06434); pixel norm stands for their
batch norm, so that a picture does not depend on the others of its batch.
"""

import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.pictures import of_pictures
from probgen.model import Model
from probgen.nets.adversarial.generator import centred, generator, ranged
from probgen.nets.adversarial.judges import features, score
from probgen.nets.vae import standard


def dcgan(x=None, height=8, width=8, channels=0, halvings=2, num_latents=32, num_filters=16, low=0.0, high=1.0):
    z = numpyro.sample("z", standard(num_latents))
    f = generator("generator", num_latents, height, width, channels, halvings, num_filters)
    numpyro.sample("x", dist.Delta(ranged(f(z), low, high, channels), event_dim=3 if channels else 2), obs=x)


def critic(x, halvings=2, num_filters=16, low=0.0, high=1.0):
    seen = features("critic", centred(x, low, high), halvings, num_filters)
    return score("critic last", seen), seen


model = Model(
    program=dcgan,
    critic=critic,
    data=lambda: {"x": load("digits_grey")},
    rows=lambda x: {"x": x},
    derived=of_pictures("x", most=2),
    settings={"num_steps": 4000, "batch_size": 64, "learning_rate": 0.002, "ema": 0.99, "r1": 0.3, "penalty": 10.0},
)
