"""Couplings of noise and points: the best of all permutations, the map of optimal transport, and the losses they leave."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import sqrtm

from probgen.nets.diffusion.coupling import assignment, paired

A, B = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([[0.5, -0.2], [-0.2, 2.0]])
MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.9], [0.9, 1.0]])


def root(matrix):
    return np.real(sqrtm(matrix))


def test_an_assignment_is_the_best_of_all_permutations():
    cost = np.random.default_rng(0).normal(size=(4, 6, 6))
    got = jax.vmap(assignment)(jnp.asarray(cost))
    for one, columns in zip(cost, got, strict=True):
        best = min(one[range(6), p].sum() for p in itertools.permutations(range(6)))
        assert abs(one[range(6), columns].sum() - best) < 1e-6


def test_pairs_of_normals_are_those_of_optimal_transport():
    """T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 is the gradient of a convex function: T's own pairs cost least, on average Bures'."""
    half, back = root(A), np.linalg.inv(root(A))
    move = back @ root(half @ B @ half) @ back
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(2), A, (20, 200))
    y = x @ move.T
    shuffled = rng.permuted(np.broadcast_to(np.arange(200)[:, None], (20, 200, 2)), axis=1)[..., :1]
    mixed = np.take_along_axis(x, shuffled, 1)
    got = jax.jit(lambda x, y: jax.lax.scan(lambda _, both: (None, paired(*both)), None, (x, y))[1])(mixed, y + 3.0)
    np.testing.assert_allclose(got, x, atol=1e-6)
    cost = np.sum((got - y) ** 2, -1)
    assert abs(cost.mean() - 0.753617) < 4 * cost.std() / np.sqrt(cost.size)


def test_what_a_velocity_cannot_learn_is_nothing_after_optimal_transport():
    rng = np.random.default_rng(1)
    e = rng.normal(size=(256, 64, 2))
    u = rng.uniform(size=(256, 64, 1))
    x = rng.multivariate_normal(MEAN, COVARIANCE, (256, 64))
    z = u * x + (1 - u) * e
    per_axis = np.linalg.eigh(COVARIANCE)
    turned = (z - u * MEAN) @ per_axis[1]
    slope = (u * per_axis[0] - (1 - u)) / (u**2 * per_axis[0] + (1 - u) ** 2)
    apart = np.sum((x - e - MEAN - (slope * turned) @ per_axis[1].T) ** 2, -1)
    floor = np.pi / 2 * np.sqrt(per_axis[0]).sum()
    assert abs(apart.mean() - floor) < 4 * apart.std() / np.sqrt(apart.size)
    straight = MEAN + e @ root(COVARIANCE)
    order = rng.permutation(64)
    near = np.stack(
        [paired(jnp.asarray(one[order]), jnp.asarray(to)) for one, to in zip(e[:4], straight[:4], strict=True)]
    )
    change = root(COVARIANCE) - np.eye(2)
    for one, to, t in zip(near, straight[:4], u[:4], strict=True):
        between = t * to + (1 - t) * one - t * MEAN
        said = [
            MEAN + change @ np.linalg.solve(np.eye(2) + s * change, b) for s, b in zip(t[:, 0], between, strict=True)
        ]
        np.testing.assert_allclose(said, to - one, atol=1e-4)


def test_pictures_are_paired_as_vectors_and_nan_passes_through():
    points = jax.random.normal(jax.random.key(0), (8, 1, 3, 3))
    noise = points[::-1] + 0.01
    np.testing.assert_allclose(paired(noise, points), points + 0.01, atol=1e-6)
    assert np.isnan(jax.jit(paired)(noise.at[0].set(jnp.nan), points)).any()


def test_gradients_pass_by_the_assignment():
    noise, points = jax.random.normal(jax.random.key(0), (2, 5, 2))
    loss = lambda points: jnp.sum((paired(noise, points) - points) ** 2)  # noqa: E731
    np.testing.assert_allclose(jax.grad(loss)(points), 2 * (points - paired(noise, points)), atol=1e-5)
