"""Pictures of a class that is asked for: generator and critic both know it.

    z ~ N(0, I),   x = f(z, e_label)                 critic:  D(x, e_label)

e is a row of the identity, one for each class. `fit.condition(label=7).sample(64)` draws sevens. Shapes: x: (height, width), or
with channels, from `low` to `high`; label: (), from 0; z: (num_latents,). Mirza and Osindero 2014 (arXiv:1411.1784).
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data.pictures import of_pictures
from probgen.datasets import labels, load
from probgen.model import Model
from probgen.nets.adversarial.generator import centred, generator, ranged
from probgen.nets.adversarial.judges import features, score
from probgen.nets.vae import standard


def conditional_gan(
    label, x=None, height=8, width=8, channels=0, halvings=2, num_classes=10, num_latents=32, num_filters=16, low=0.0, high=1.0
):  # fmt: skip
    z = numpyro.sample("z", standard(num_latents))
    f = generator("generator", num_latents + num_classes, height, width, channels, halvings, num_filters)
    picture = ranged(f(jnp.concatenate([z, jnp.eye(num_classes)[label]])), low, high, channels)
    numpyro.sample("x", dist.Delta(picture, event_dim=3 if channels else 2), obs=x)


def critic(label, x, halvings=2, num_classes=10, num_filters=16, low=0.0, high=1.0):
    seen = features("critic", centred(x, low, high), halvings, num_filters)
    return score("critic last", jnp.concatenate([seen, jnp.eye(num_classes)[label]]), width=128)


def rows(x, label):
    return {"x": x, "label": label}


model = Model(
    program=conditional_gan,
    critic=critic,
    data=lambda: rows(load("digits_grey"), labels("digits_grey")),
    rows=rows,
    derived=of_pictures("x", label="label", most=2),
    settings={"num_steps": 4000, "batch_size": 64, "learning_rate": 0.002, "ema": 0.99, "r1": 0.3, "penalty": 10.0},
)
