"""Probabilistic matrix factorization: a table of which some entries are known is the product of two thin matrices, with noise.

    u_i, v_j ~ N(0, I / sqrt(rank)),   y_n ~ N(mu + u_i(n) . v_j(n), sigma^2)

u and v are known up to a rotation of both, so that their chains do not agree, and the product's do.
Shapes: row, column (whole numbers), y: (entry,), u: (num_rows, rank), v: (num_columns, rank), product: (num_rows, num_columns).
Salakhutdinov and Mnih 2008 (NeurIPS 20). The data: a random table of rank 2 with two thirds of its entries, noise 0.1.
"""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist

from probgen.model import Model


def matrix_factorization(row, column, y=None, num_rows=20, num_columns=15, rank=2):
    spread = rank**-0.25
    mu: Any = numpyro.sample("mu", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    u: Any = numpyro.sample("u", dist.Normal(0, spread).expand([num_rows, rank]).to_event(2))
    v: Any = numpyro.sample("v", dist.Normal(0, spread).expand([num_columns, rank]).to_event(2))
    product: Any = numpyro.deterministic("product", mu + u @ v.T)
    with numpyro.plate("entry", len(row)):
        numpyro.sample("y", dist.Normal(product[row, column], sigma), obs=y)


def table():
    rng = np.random.default_rng(0)
    product = rng.normal(0, 2**-0.25, (20, 2)) @ rng.normal(0, 2**-0.25, (15, 2)).T
    row, column = np.nonzero(rng.random(product.shape) < 2 / 3)
    return {"row": row, "column": column, "y": product[row, column] + 0.1 * rng.normal(size=len(row))}


model = Model(program=matrix_factorization, data=table)
