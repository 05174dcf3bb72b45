#!/usr/bin/env bash
# On a CPU the gradient of a convolution by its weights takes some seventy times as long within jax.lax.scan as the same gradient
# jitted alone, called as often; the numbers are equal. jax and jaxlib 0.10.2. Seen, 64 pictures of 16 x 16 x 32, a kernel of
# 3 x 3 x 32 x 64, milliseconds of CPU for each gradient on two busy cores: 23 alone, 1661 in a scan. As one product of the shifted
# neighbours side by side it takes about as long in both. That convolutions with channels first are slow forwards in a loop is known
# (jax-ml/jax issue 12868, where channels last, as here, are the remedy).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import time

import jax
import jax.numpy as jnp

STEPS = 3
x = jax.random.normal(jax.random.key(0), (64, 16, 16, 32))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 32, 64))


def convolved(w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def product(w):
    seen = [x[:, i : i + 14, j : j + 14] for i in range(3) for j in range(3)]
    return jnp.concatenate(seen, -1) @ w.reshape(-1, 64)


def spent(run):
    found = jax.block_until_ready(run(kernel))
    begun = time.process_time()
    jax.block_until_ready(run(kernel))
    return (time.process_time() - begun) / STEPS * 1000, found


def race(apply):
    move = lambda w: w - 1e-9 * jax.grad(lambda w: (apply(w) ** 2).sum())(w)
    once = jax.jit(move)

    def by_calls(w):
        for _ in range(STEPS):
            w = once(w)
        return w

    in_scan = jax.jit(lambda w: jax.lax.scan(lambda w, _: (move(w), None), w, None, length=STEPS)[0])
    (alone, one), (loop, other) = spent(by_calls), spent(in_scan)
    assert jnp.allclose(one, other, rtol=1e-4, atol=1e-4)
    print(f"{apply.__name__}: {alone:.0f} ms alone, {loop:.0f} ms in a scan")
    return loop / alone


assert race(product) < 4, "the product is slow as well"
assert race(convolved) > 10, "the behaviour has changed"
PY
