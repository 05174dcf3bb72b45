"""A velocity as a flow in Pyro: beside the one in NumPyro with the same weights, and against closed forms."""

import numpy as np
import pytest
from conftest import needs_pyro
from scipy import stats

pytestmark = needs_pyro
MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.9], [0.9, 1.0]])


@pytest.fixture(autouse=True)
def quietly():
    """torch's own generator is left as it was."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def noise(dist, *shape):
    import torch

    return dist.Normal(torch.zeros(shape), 1.0).to_event(len(shape))


def affine(x, u):
    """The velocity of straight paths from N(0, I) to N(MEAN, COVARIANCE), of rows."""
    import torch

    mean, covariance, eye = (torch.tensor(v, dtype=x.dtype) for v in (MEAN, COVARIANCE, np.eye(2)))
    total = u**2 * covariance + (1 - u) ** 2 * eye
    return mean + torch.linalg.solve(total, (x - u * mean).T).T @ (u * covariance - (1 - u) * eye)


def test_both_engines_give_one_density_and_one_gradient():
    import jax
    import jax.numpy as jnp
    import numpyro.distributions as jax_dist
    import pyro.distributions as dist
    import torch

    from probgen.nets.diffusion import flow as in_jax
    from probgen.nets.torch_diffusion import flow as in_torch
    from probgen.nets.torch_diffusion.transform import ContinuousFlow

    rng = np.random.default_rng(0)
    weights, x = [rng.normal(size=shape) for shape in ((8, 3), (8,), (2, 8))], rng.normal(size=(6, 2))

    def ours(weights, x):
        first, bias, last = weights
        velocity = lambda x, u: last @ jnp.tanh(first @ jnp.append(x, u) + bias)  # noqa: E731
        solver = in_jax.Solver(rtol=1e-8, atol=1e-8)
        learned = in_jax.ContinuousFlow(velocity, 2, solver=solver)
        return (
            jax_dist.TransformedDistribution(jax_dist.Normal(0, 1).expand((2,)).to_event(1), [learned])
            .log_prob(x)
            .sum()
        )

    with jax.enable_x64(True):
        value, slopes = jax.jit(jax.value_and_grad(ours))([jnp.asarray(w) for w in weights], jnp.asarray(x))
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    first, bias, last = tensors
    velocity = lambda x, u: torch.tanh(torch.cat([x, u.expand(len(x), 1)], 1) @ first.T + bias) @ last.T  # noqa: E731
    twin = ContinuousFlow(velocity, 2, solver=in_torch.Solver(rtol=1e-8, atol=1e-8))
    found = dist.TransformedDistribution(noise(dist, 2), [twin]).log_prob(torch.tensor(x)).sum()
    found.backward()
    assert abs(found.item() / float(value) - 1) < 1e-6
    for tensor, slope in zip(tensors, slopes, strict=True):
        np.testing.assert_allclose(tensor.grad, slope, atol=1e-5)


def test_straight_paths_to_a_normal_have_its_density_in_a_program():
    import pyro
    import pyro.distributions as dist
    import torch

    from probgen.nets.torch_diffusion.transform import ContinuousFlow

    def program(x=None):
        flow = dist.TransformedDistribution(
            noise(dist, 2), [ContinuousFlow(affine, 2), dist.transforms.AffineTransform(3.0, 2.0)]
        )
        with pyro.plate("row", 5):
            return pyro.sample("x", flow, obs=x)

    x = program()
    assert x.shape == (5, 2)
    trace = pyro.poutine.trace(program).get_trace(x)
    trace.compute_log_prob()
    exact = stats.multivariate_normal(3 + 2 * MEAN, 4 * COVARIANCE).logpdf(x.numpy())
    np.testing.assert_allclose(trace.nodes["x"]["log_prob"], exact, atol=2e-4)
    assert not x.requires_grad
    start = torch.randn(3, 4, 2, requires_grad=True)  # as a guide draws: its volume is kept
    flow = ContinuousFlow(affine, 2)
    y = flow(start)
    kept, solved = flow.log_abs_det_jacobian(start, y), ContinuousFlow(affine, 2).log_abs_det_jacobian(start, y)
    np.testing.assert_allclose(kept.detach(), solved.detach(), atol=1e-4)
    np.testing.assert_allclose(ContinuousFlow(affine, 2).inv(y.detach()), start.detach(), atol=1e-4)


def test_pictures_probes_and_solves_that_stop():
    import pyro.distributions as dist
    import torch

    from probgen.nets.torch_diffusion.flow import Solver
    from probgen.nets.torch_diffusion.transform import ContinuousFlow

    double = lambda x, u: np.log(2.0) * x  # noqa: E731
    pictures = dist.TransformedDistribution(noise(dist, 1, 6, 6), [ContinuousFlow(double, (1, 6, 6), num_probes=2)])
    x = torch.randn(3, 1, 6, 6)
    np.testing.assert_allclose(pictures.log_prob(x), dist.Normal(0.0, 2.0).log_prob(x).sum((1, 2, 3)), rtol=1e-4)
    with pytest.raises(ValueError, match=r"points of shape \(1, 6, 6\)"):
        ContinuousFlow(double, (1, 6, 6))(x[..., 1:])
    points = torch.tensor(stats.multivariate_normal(MEAN, COVARIANCE, seed=0).rvs(50), dtype=torch.float32)
    ask = lambda **how: dist.TransformedDistribution(noise(dist, 2), [ContinuousFlow(affine, 2, **how)])  # noqa: E731
    exact = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(points)
    errors = ask(exact=False, num_probes=1, seed=None).log_prob(points).numpy() - exact
    np.testing.assert_allclose(np.abs(errors), 1.4722, atol=2e-3)  # in two dimensions a probe is off by its deviation
    assert 5 < (errors > 0).sum() < 45
    assert len(np.unique(np.round(ask(exact=False, num_probes=1).log_prob(points).numpy() - exact, 2))) == 1
    with torch.no_grad():
        volumes = ContinuousFlow(affine, 2, solver=Solver(max_steps=3)).carry(points)[1]
    assert np.isnan(volumes.numpy()).all()
