"""The next-token transformer: every token given those before it, by masked attention.

    p(x) = prod_t p(x_t | x_<t),   p(x_t | x_<t) = softmax(W norm(h_t)),   h^0_t = W[x_{t-1}] + P_t

    h <- h + attention(norm(h)),   h <- h + perceptron(norm(h)),   each token seeing itself and those before it

Tokens are whole numbers from 0: words of a language, characters of a text (`alphabet` says which), pixels in rows from the top.
W serves inputs and outputs; P are learned places; nothing stands before the first token. `context` is the length of a row.
Shapes: x: (context,), W: (num_words, width), P: (context, width), h: (context, width).
Vaswani et al. 2017 (arXiv:1706.03762); Radford et al. 2018, 2019 (GPT, GPT-2); of pictures: Chen et al. 2020 (iGPT).
"""

import numpyro

from probgen.data import load
from probgen.data.values.text import as_rows, of_words
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive
from probgen.nets.tokens.next_token import next_token


def transformer(x=None, num_words=7, context=32, width=64, depth=2, num_heads=4, alphabet=""):
    if alphabet and len(alphabet) != num_words:
        raise ValueError(f"alphabet has {len(alphabet)} characters and num_words is {num_words}; expected the same.")
    net = next_token("net", num_words, context, width, depth, num_heads)
    numpyro.sample("x", Autoregressive(net), obs=x)


def rows(x, context=64):
    """Rows of tokens or pictures of them, (row, ...); or characters of one text, (character,), of which windows are cut."""
    return as_rows(x, context)


model = Model(
    program=transformer,
    data=lambda: rows(load("grammar")),
    rows=rows,
    derived=of_words("x"),
    inference="mle",
    settings={"num_steps": 3000, "batch_size": 32, "learning_rate": 0.002, "validation": 0.1},
)
