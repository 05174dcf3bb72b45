"""Pictures of a class, by norms that the class and a part of the noise scale and shift.

    z ~ N(0, I),   x = f(z, e_label)                 critic:  D(x, label) = w'h(x) + v + u_label'h(x)

e and u are vectors of each class that are learned; h sums features over the picture. `fit.condition(label=7).sample(64)` draws
sevens; cut noise shows less variety and fewer outliers. Learned by "gan" with a hinge, spectral norm and orthogonal regularisation.
Shapes: x: (height, width), or with channels, from `low` to `high`; label: (), from 0; z: (num_latents,). Brock, Donahue and
Simonyan 2019 (arXiv:1809.11096), at the size of digits: without attention, and with norms over a picture.
"""

import numpyro
import numpyro.distributions as dist

from probgen.data.pictures import of_pictures
from probgen.datasets import labels, load
from probgen.model import Model
from probgen.nets.adversarial.conditional import conditional, embedding, projected
from probgen.nets.adversarial.generator import centred, ranged
from probgen.nets.adversarial.judges import summed
from probgen.nets.vae import standard


def biggan(
    label, x=None, height=8, width=8, channels=0, halvings=2, num_classes=10, num_latents=32, size=16, num_filters=16,
    low=0.0, high=1.0,
):  # fmt: skip
    z = numpyro.sample("z", standard(num_latents))
    e = embedding("classes", label, num_classes, size)
    f = conditional("generator", z, e, height, width, channels, halvings, num_filters)
    numpyro.sample("x", dist.Delta(ranged(f, low, high, channels), event_dim=3 if channels else 2), obs=x)


def critic(label, x, halvings=2, num_classes=10, num_filters=16, low=0.0, high=1.0):
    h = summed("critic", centred(x, low, high), halvings, 2 * num_filters)
    return projected("critic last", h, label, num_classes)


def rows(x, label):
    return {"x": x, "label": label}


model = Model(
    program=biggan,
    critic=critic,
    data=lambda: rows(load("digits_grey"), labels("digits_grey")),
    rows=rows,
    derived=of_pictures("x", label="label", most=2),
    settings={
        "num_steps": 4000, "batch_size": 64, "learning_rate": 0.002, "beta1": 0.0, "critic_steps": 2, "ema": 0.99,
        "loss": "hinge", "orthogonal": 1e-4, "spectral_norm": True, "penalty": 10.0,
    },
)  # fmt: skip
