"""Softmax regression: classes given inputs.

    y ~ Categorical(softmax(x W + b))

Shapes: x: (dim,), an input, on which the density is conditioned; y: a class, 0 to num_classes - 1; W: (dim, class), b: (class,).
Its likelihood is concave: the maximum is that of scikit-learn's LogisticRegression without a penalty.
"""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.model import Model


def softmax_regression(x, y=None, num_classes=10):
    weights = numpyro.param("W", jnp.zeros((x.shape[-1], num_classes)))
    biases = numpyro.param("b", jnp.zeros(num_classes))
    numpyro.sample("y", dist.CategoricalLogits(logits=x @ weights + biases), obs=y)


def digits():
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return {"x": found.data / 16, "y": found.target}


model = Model(program=softmax_regression, data=digits, dims={"W": ["feature", "class"], "b": ["class"]}, by_row=True)
