"""The Ising model on a lattice: spins that pull their neighbours to their side; and a prior for noisy pictures.

    log p(x) = sum over rows r, columns c of s_rc (J_rc0 s_{r,c+1} + J_rc1 s_{r+1,c} + field_rc) - log Z,   s = 2 x - 1

With a noisy picture whose every bit was flipped with probability `flips` the target is the posterior of the clean one: to the
field comes (2 noisy - 1) log((1 - flips) / flips) / 2. For J >= 0 its mode is exact by a minimum cut.
J and the field are numbers, or arrays with an entry for every edge and site; left out, they are learned from rows of pictures.
The lattice closes on itself where `periodic`; it orders at J = log(1 + sqrt 2) / 2 = 0.4407.
Shapes: x, noisy: (height, width), J: () or (height, width, 2), field: () or (height, width).
Onsager 1944 (doi:10.1103/PhysRev.65.117); Geman and Geman 1984 (doi:10.1109/TPAMI.1984.4767596).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro

from probgen.measures import bits
from probgen.model import Model


def ising(x=None, noisy=None, J=None, field=None, flips=0.1, height=16, width=16, periodic=True):
    coupling: Any = (
        numpyro.param("J", jnp.zeros((height, width, 2))) if J is None else jnp.broadcast_to(J, (height, width, 2))
    )
    force: Any = numpyro.param("field", jnp.zeros((height, width))) if field is None else field
    s: Any = 2 * numpyro.sample("x", bits(height, width), obs=x) - 1
    right, below = s * jnp.roll(s, -1, 1), s * jnp.roll(s, -1, 0)
    if not periodic:
        right, below = right.at[:, -1].set(0), below.at[-1].set(0)
    numpyro.factor("energy", jnp.sum(coupling[..., 0] * right + coupling[..., 1] * below + force * s))
    if noisy is not None:
        numpyro.factor("noise", jnp.sum(s * (2 * noisy - 1)) * 0.5 * jnp.log((1 - flips) / flips))


def rows(x):
    return {"x": x, "height": x.shape[1], "width": x.shape[2], "periodic": False}


model = Model(program=ising, data={"J": np.log(1 + np.sqrt(2)) / 2, "field": np.array(0.0)}, rows=rows)
