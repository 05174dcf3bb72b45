"""Learners without a critic on Pyro programs: NumPyro's numbers on the same draws, closed forms, whole runs, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible
from probgen.evaluate.samples import distances
from probgen.inference.adversarial._distance import Words

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as dist  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402
from probgen.engine.pyro.programs.density import scoped  # noqa: E402
from probgen.inference.adversarial._torch import _draws  # noqa: E402

pytestmark = [needs_pyro, pytest.mark.usefixtures("one_thread")]
LEARNERS = ["mmd", "sliced_wasserstein", "sinkhorn"]


def sample(rows=200, dim=2, seed=0):
    return np.random.default_rng(seed).normal(1.0, 0.5, (rows, dim))


def linear(x, outputs=2, inputs=2):
    """x = W z + b, z ~ N(0, I)."""
    w = pyro.param("w", lambda: torch.eye(inputs, outputs) + 0.1)
    b = pyro.param("b", lambda: torch.zeros(outputs))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), inputs), 1.0).to_event(1))
        pyro.sample("x", dist.Delta(z @ w + b, event_dim=1), obs=x)


# ---- the numbers of NumPyro


class SameLines(Words):
    def normal(self, shape, like):
        return jnp.asarray(np.random.default_rng(5).normal(size=shape))


class SameLinesInTorch(_draws.Words):
    def normal(self, shape, like):
        return torch.from_numpy(np.random.default_rng(5).normal(size=shape))


SETTINGS = {
    "mmd": [{}, {"scales": (0.3, 2.0)}],
    "sliced_wasserstein": [{}, {"num_lines": 7}],
    "sinkhorn": [{}, {"epsilon": 0.01}],
}


@pytest.mark.parametrize(("word", "settings"), [(w, s) for w, several in SETTINGS.items() for s in several])
def test_distances_and_slopes_are_those_of_numpyro(word, settings):
    """In double precision, of as many points x as y, beside points of which two are the same."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), 0.4 + 1.5 * rng.normal(size=(60, 3))
    y[7] = x[3]
    inference = catalog.inference(word, settings)
    with runtime.jax_scope("float64"):
        found = jax.jit(jax.value_and_grad(lambda y: inference.distance(SameLines(), jnp.asarray(x), y)))(y)
        value, slope = float(found[0]), np.asarray(found[1])
    leaf = torch.from_numpy(y).requires_grad_()
    loss = inference.distance(SameLinesInTorch(), torch.from_numpy(x), leaf)
    assert loss.item() == pytest.approx(value, rel=1e-5, abs=1e-10)
    np.testing.assert_allclose(torch.autograd.grad(loss, leaf)[0], slope, rtol=1e-5, atol=1e-5 * abs(slope).max())


def test_the_kernel_gives_the_distance_of_its_draws_to_its_parameters():
    """The slope in the program's parameters, against finite differences of the closed form of the same draws."""
    target = engine.prepare(linear, {"x": sample()}, "float64")
    for word in LEARNERS:
        inference = catalog.inference(word, {})
        kernel, batch = inference.on("pyro"), target.batch(torch.arange(50))
        key, begun = engine.OPS.key(3), target.initial(0)

        def loss(parameters, key=key, kernel=kernel, batch=batch):
            with scoped("float64", seed=1):
                return kernel.loss_of_draws(key, target, None, parameters, batch)

        leaves = {k: v.requires_grad_() for k, v in target.initial(0).items()}
        slope = torch.autograd.grad(loss(leaves), leaves["b"])[0]
        for i in range(2):
            step = torch.zeros(2, dtype=torch.float64)
            step[i] = 1e-5
            ends = [loss({**begun, "b": begun["b"] + sign * step}).item() for sign in (1, -1)]
            assert slope[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-2, abs=1e-4)


# ---- closed forms


def test_mmd_of_equal_laws_is_zero_on_the_mean_and_below_it_at_times():
    rng, inference = np.random.default_rng(1), catalog.inference("mmd", {"scales": (0.5, 1.0)})
    draw = lambda: torch.from_numpy(rng.normal(size=(30, 2)))  # noqa: E731
    found = np.array([inference.distance(_draws.Words(), draw(), draw()).item() for _ in range(400)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    assert (found < 0).mean() > 0.2
    far = inference.distance(_draws.Words(), draw(), 0.7 + draw()).item()
    assert far > found.mean() + 3 * found.std()


def test_sinkhorn_is_the_divergence_of_the_evaluation_and_ends_at_its_limits():
    """Against an own solver, double precision; at large epsilon the squared distance of means, of equal points zero."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 2)), 0.3 + rng.normal(size=(50, 2))
    unit = 2 * x.var(0).sum()
    of = lambda y, epsilon: catalog.inference("sinkhorn", {"epsilon": epsilon}).distance(  # noqa: E731
        _draws.Words(), torch.from_numpy(x), torch.from_numpy(y)
    )
    for epsilon in (0.05, 0.5):
        exact = distances.sinkhorn_divergence(x, y, epsilon * unit).value
        assert of(y, epsilon).item() == pytest.approx(exact, rel=2e-3)
    assert of(y, 1e4).item() == pytest.approx(((x.mean(0) - y.mean(0)) ** 2).sum(), rel=1e-3)
    assert of(x, 0.05).item() == pytest.approx(0.0, abs=1e-4)


def test_sliced_transport_of_a_shift_is_its_square():
    x = torch.from_numpy(sample(100, 3))
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = catalog.inference("sliced_wasserstein", {"num_lines": 20_000}).distance(_draws.Words(0), x, x + shift)
    assert found.item() == pytest.approx((shift**2).sum().item(), rel=0.03)


@pytest.mark.parametrize("word", LEARNERS)
def test_a_mean_far_from_zero_costs_no_digits(word):
    x, y = (torch.from_numpy(v.astype("float32")) for v in np.random.default_rng(1).normal(size=(2, 64, 2)))
    near, far = (catalog.inference(word, {}).distance(_draws.Words(), x + s, 1.5 * y + s).item() for s in (0.0, 4096.0))
    assert abs(near - far) < 0.02 * abs(near)


# ---- whole runs


@pytest.mark.parametrize("word", LEARNERS)
def test_the_mean_and_scales_of_a_normal_are_found(word):
    x = np.random.default_rng(3).normal(size=(1000, 2)) * [1.5, 0.8] + [1.0, -1.0]
    settings = {"num_steps": 150, "batch_size": 80, "learning_rate": 0.08, "ema": 0.95}
    settings |= {"epsilon": 0.2} if word == "sinkhorn" else {}
    fit = pg.fit(linear, {"x": x}, word, progress=False, **settings)
    assert type(fit).__name__ == "ImplicitFit"
    w, b = fit.parameters["w"], fit.parameters["b"]
    np.testing.assert_allclose(b, x.mean(0), atol=0.15)
    np.testing.assert_allclose(np.sqrt(np.diag(w.T @ w)), [1.5, 0.8], rtol=0.12)
    drawn = fit.sample(4000)["x"]
    np.testing.assert_allclose(drawn.mean(0), b, atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), w.T @ w, atol=0.2)
    assert fit.records["distance"][0, -1] < fit.records["distance"][0, 99] + 0.2
    with pytest.raises(Incompatible, match="has no density"):
        fit.condition(x=np.zeros(2))
    with pytest.raises(Incompatible, match="no critic"):
        fit.judge()
    found = {finding.check: finding for finding in fit.diagnose().findings}
    assert "critic" not in found


def test_a_linear_generator_finds_the_principal_plane():
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x = rng.normal(size=(2000, 3)) * [2.0, 1.0, 0.2] @ turn
    data = {"x": x, "outputs": 3}
    fit = pg.fit(linear, data, "sliced_wasserstein", num_steps=200, learning_rate=0.05, ema=0.9, progress=False)
    drawn = fit.sample(4000)["x"]
    assert np.linalg.norm(np.cov(drawn.T) @ turn[2]) < 0.1
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(np.cov(drawn.T)))[1:], [1.0, 4.0], rtol=0.25)


@pytest.mark.parametrize("word", LEARNERS)
def test_a_killed_run_goes_on_bit_for_bit(word, tmp_path, killed):
    settings = {"num_steps": 60, "batch_size": 24, "progress": False}
    settings |= {"epsilon": 0.5} if word == "sinkhorn" else {}
    whole = pg.fit(linear, {"x": sample()}, word, **settings)
    killed(pg.fit, linear, {"x": sample()}, word, out=tmp_path / "part", **settings)
    resumed = pg.resume(tmp_path / "part", program=linear, progress=False)
    assert set(resumed.state) == set(whole.state)
    for name, value in {**whole.answer, **whole.state}.items():
        np.testing.assert_array_equal(value, {**resumed.answer, **resumed.state}[name])
    np.testing.assert_array_equal(whole.records["loss"], resumed.records["loss"])


def test_rows_held_out_are_never_learned_from():
    target = engine.prepare(linear, {"x": sample()}, "float32")
    inference = catalog.inference("mmd", {"held_out": 0.25})
    executor = engine.Executor(inference, inference.prepare(target), 0, 1)
    executor.init()
    state = executor._states[0]
    np.testing.assert_array_equal(np.sort(torch.cat([state.order, state.held])), np.arange(200))
    np.testing.assert_array_equal(inference.held(executor.state(), 200), state.held)


def test_a_program_with_a_density_learns_from_draws_and_keeps_it():
    def normal(x):
        scale = pyro.param("scale", lambda: torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("row", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(2), scale).to_event(1), obs=x)

    x = 3 * np.random.default_rng(0).normal(size=(500, 2))
    settings = {"num_steps": 100, "batch_size": 100, "learning_rate": 0.08}
    fit = pg.fit(normal, {"x": x}, "sliced_wasserstein", progress=False, **settings)
    np.testing.assert_allclose(fit.parameters["scale"], x.std(0), rtol=0.15)
    expected = -np.log(2 * np.pi) - np.log(fit.parameters["scale"]).sum()
    assert fit.log_prob(np.zeros((1, 2))).value[0] == pytest.approx(expected, rel=1e-4)


# ---- what is refused, before anything runs


def without_noise(x):
    b = pyro.param("b", lambda: torch.zeros(2))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Delta(b.expand(len(x), 2), event_dim=1), obs=x)


@pytest.mark.parametrize(
    ("word", "program", "x", "settings", "said"),
    [
        ("mmd", linear, sample(), {"batch_size": 1}, "mmd compares pairs of rows of a batch: batch_size is 1"),
        ("mmd", linear, sample(), {"scales": ()}, "scales is"),
        ("mmd", linear, sample(), {"scales": (1.0, float("nan"))}, "scales is"),
        ("mmd", without_noise, sample(), {}, "without any noise: all draws are the same"),
        ("sinkhorn", without_noise, sample(), {}, "without any noise: all draws are the same"),
        ("sinkhorn", linear, sample(), {"epsilon": float("nan")}, "epsilon is nan"),
        ("sinkhorn", linear, sample(dim=3), {}, r"x has rows of shape \(3,\); the program draws 'x' of shape \(2,\)"),
        ("sliced_wasserstein", linear, sample(), {"num_lines": 0}, "num_lines is 0"),
        ("sliced_wasserstein", linear, sample(), {"batch_size": 190}, "batch_size is 190; 180 of 200 rows"),
        ("sliced_wasserstein", linear, np.where(sample() > 1.2, np.nan, 1.0), {}, "NaN"),
        ("mmd", linear, np.where(sample() > 1.2, np.inf, 1.0), {}, "inf"),
    ],
)
def test_what_does_not_serve_is_said(word, program, x, settings, said):
    with pytest.raises((Incompatible, ValueError), match=said):
        pg.fit(program, {"x": x}, word, num_steps=2, progress=False, **settings)


def test_a_reconstruction_weighs_in_the_game_of_torch():
    """mean |x - x'| beside the game's loss: the same batch and draws, by hand."""
    from probgen.engine.pyro.games.critics import as_reals

    def of_input(x, label):
        w = pyro.param("w", lambda: torch.ones(2))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Delta(w * z + label[:, None], event_dim=1), obs=x)

    target = engine.prepare(of_input, {"x": sample(), "label": np.arange(200) % 3}, "float64").judged_by(None, 1)
    batch, key = as_reals(target, target.batch(torch.arange(40))), engine.OPS.key(0)
    critic, values = target.critic_initial(0), []
    for weight in (0.0, 2.5):
        kernel = catalog.inference("gan", {"reconstruction": weight}).on("pyro")
        with scoped("float64", seed=4):
            values.append(kernel.loss_of_draws(key, target, (critic, {}), target.initial(0), batch).item())
    with scoped("float64", seed=4), target.holding(target.initial(0)), torch.no_grad():
        apart = (target.simulated(batch)["x"] - batch["x"]).abs().mean().item()
    assert values[1] - values[0] == pytest.approx(2.5 * apart, rel=1e-9)
