"""Learners against a critic and by distances of samples, against closed forms; what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import norm

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.inference.adversarial import _augment, _weights
from probgen.inference.adversarial._distance import Words, sliced
from probgen.inference.adversarial._game import Play
from probgen.inference.adversarial.gan import GAN
from probgen.inference.adversarial.mmd import mmd_squared, squares
from probgen.inference.adversarial.r3gan import R3GAN
from probgen.inference.adversarial.sinkhorn import divergence
from probgen.inference.adversarial.wgan import WGAN
from probgen.inference.adversarial.wgan_gp import WGANGP
from probgen.model import Model
from probgen.nets.vae import linear, standard
from probgen.run import asked

KEY = jax.random.key(0)
WORDS = Words(KEY)
GRID = norm.ppf((np.arange(20_000) + 0.5) / 20_000)  # a standard normal's quantiles: means over them are quadrature


def play(judge):
    return Play(lambda points: judge(points["x"]), KEY, ("x",))


def best(loss, size=2):
    """The least value of a loss of a vector, and where it is."""
    found = minimize(jax.jit(jax.value_and_grad(loss)), np.zeros(size), jac=True, tol=1e-10)
    return float(found.fun), found.x


# ---- critics at their best


def test_best_critic_of_two_normals_is_their_log_ratio():
    means, sd = (0.7, -0.5), 1.3
    real, fake = ({"x": jnp.asarray(m + sd * GRID)} for m in means)
    value, (_at, slope) = best(lambda w: GAN().critic_loss(play(lambda x: w[0] + w[1] * x), real, fake))
    assert slope == pytest.approx((means[0] - means[1]) / sd**2, rel=1e-3)
    x = np.linspace(-12, 12, 200_001)
    p, q = (norm.pdf(x, m, sd) for m in means)
    middle = (p + q) / 2
    jsd = np.trapezoid(0.5 * p * np.log(p / middle) + 0.5 * q * np.log(q / middle), x)
    assert -value == pytest.approx(-np.log(4) + 2 * jsd, rel=1e-4)


def test_non_saturating_gradient_at_the_best_critic():
    """That of KL(q | p) - 2 JSD (Arjovsky and Bottou 2017), q = N(m, 1), p = N(0, 1), by quadrature."""
    x, m, step = np.linspace(-14, 14, 200_001), 0.8, 1e-4

    def value(m):
        p, q = norm.pdf(x), norm.pdf(x, m)
        middle = (p + q) / 2
        kl = np.trapezoid(q * (norm.logpdf(x, m) - norm.logpdf(x)), x)
        return kl - np.trapezoid(p * np.log(p / middle) + q * np.log(q / middle), x)

    expected = (value(m + step) - value(m - step)) / (2 * step)
    judge = lambda x: m**2 / 2 - m * x  # noqa: E731  log p - log q
    loss = lambda shift: GAN().model_loss(play(judge), None, {"x": shift + GRID})  # noqa: E731
    assert float(jax.grad(loss)(m)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("penalty", "shift"), [(10.0, 2.0), (0.1, 0.5)])
def test_penalised_linear_critic_of_a_shift(penalty, shift):
    real, fake = {"x": jnp.asarray(GRID + shift)}, {"x": jnp.asarray(GRID)}
    value, (slope,) = best(lambda w: WGANGP(penalty=penalty).critic_loss(play(lambda x: w[0] * x), real, fake), 1)
    assert slope == pytest.approx(1 + shift / (2 * penalty), rel=1e-4)
    assert -value == pytest.approx(shift + shift**2 / (4 * penalty), rel=1e-4)


def test_clipped_linear_critic_of_a_shift():
    game, shift = WGAN(clip=0.3), -1.7
    real, fake = {"x": jnp.asarray(GRID + shift)}, {"x": jnp.asarray(GRID)}
    ends = [game.bound_critic({"w": jnp.asarray([w])}) for w in (-9.0, 9.0)]
    values = [float(-game.critic_loss(play(lambda x, w=w["w"]: w * x), real, fake)) for w in ends]
    assert max(values) == pytest.approx(0.3 * abs(shift), rel=1e-5)


def test_slope_is_over_all_axes_of_a_row():
    weights = jax.random.normal(KEY, (4, 5, 3))
    judge = play(lambda x: jnp.tanh((x * weights).sum((1, 2, 3))))
    x = 0.1 * jax.random.normal(jax.random.key(1), (6, 4, 5, 3))
    slope = (1 - jnp.tanh((x * weights).sum((1, 2, 3))) ** 2) ** 2 * (weights**2).sum()
    np.testing.assert_allclose(judge.square_slope({"x": x}), slope, rtol=1e-5)


def test_relativistic_loss_has_the_half_of_gamma():
    real, fake = {"x": jnp.asarray([1.0, 2.0])}, {"x": jnp.asarray([0.5, -1.0])}
    loss = R3GAN(gamma=0.6).critic_loss(play(lambda x: 3 * x), real, fake)
    gaps = 3 * (np.array([1.0, 2.0]) - np.array([0.5, -1.0]))
    assert float(loss) == pytest.approx(-log_expit(gaps).mean() + 0.6 / 2 * (9 + 9), rel=1e-6)
    late = dataclasses.replace(play(lambda x: 3 * x), done=0.5)
    loss = R3GAN(gamma=0.6, gamma_left=0.01).critic_loss(late, real, fake)
    assert float(loss) == pytest.approx(-log_expit(gaps).mean() + 0.06 / 2 * (9 + 9), rel=1e-6)


# ---- steps of the game: the point mass at theta against the critic psi x, data at 0 (Mescheder et al. 2018)


def dirac(x=None):
    numpyro.sample("z", dist.Normal(0, 1))
    numpyro.sample("x", dist.Delta(numpyro.param("theta", jnp.array(0.1))), obs=x)


def dirac_critic(x):
    return numpyro.param("psi", jnp.array(0.1)) * x


def moved(inference, **settings):
    """The linear map of one step on (theta, psi) near 0."""
    model = Model(dirac, critic=dirac_critic, by_row=True)
    settings = {"optimizer": "sgd", "decay": "constant", "ema": 0.0, "held_out": 0.0, "critic_steps": 1} | settings
    algorithm, _, _, _, target = asked(model, {"x": np.zeros(4)}, inference, **settings)
    state, columns, size = algorithm.init(KEY, target), [], 1e-3
    for theta, psi in ((size, 0.0), (0.0, size)):
        rival = state.rival._replace(parameters={"psi": jnp.asarray(psi)})
        new, _ = algorithm.step(KEY, state._replace(parameters={"theta": jnp.asarray(theta)}, rival=rival), target)
        columns.append([float(new.parameters["theta"]) / size, float(new.rival.parameters["psi"]) / size])
    return np.array(columns).T


H = 0.2


@pytest.mark.parametrize(
    ("inference", "settings", "rate"),
    [
        ("gan", {}, 0.5j),
        ("gan", {"loss": "minimax"}, 0.5j),
        ("wgan", {"clip": 9.0}, 1j),
        ("r3gan", {"gamma": 0.0}, 0.5j),
        ("gan", {"r1": 0.6}, -0.3 + np.sqrt(0.09 - 0.25 + 0j)),
        ("gan", {"r1": 1.6}, -0.8 + np.sqrt(0.64 - 0.25)),
        ("r3gan", {"gamma": 0.4}, -0.4 + np.sqrt(0.16 - 0.25 + 0j)),  # both penalties: twice the damping
    ],
)
def test_rates_near_the_equilibrium(inference, settings, rate):
    values = np.linalg.eigvals(moved(inference, learning_rate=H, simultaneous=True, **settings))
    assert np.abs(values - (1 + H * rate)).min() < 1e-3


def test_simultaneous_steps_grow_and_alternating_ones_do_not():
    grows = np.abs(np.linalg.eigvals(moved("gan", learning_rate=H, simultaneous=True)))
    np.testing.assert_allclose(grows, np.sqrt(1 + H**2 / 4), rtol=1e-4)
    keeps = np.abs(np.linalg.eigvals(moved("gan", learning_rate=H)))
    np.testing.assert_allclose(keeps, 1.0, rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(moved("wgan", clip=9.0, learning_rate=H, simultaneous=True))),
                               np.sqrt(1 + H**2), rtol=1e-4)  # fmt: skip


# ---- weights and pictures


def test_spectral_norm_is_the_largest_singular_value():
    weights = {"w": jax.random.normal(KEY, (7, 5)), "k": jax.random.normal(KEY, (4, 3, 2)), "b": jnp.ones(3)}
    vectors = _weights.first_vectors(KEY, weights)
    for _ in range(200):
        vectors = _weights.iterated(weights, vectors)
    divided = _weights.divided(weights, vectors)
    for name, matrix in {"w": weights["w"], "k": weights["k"].reshape(4, 6)}.items():
        largest = np.linalg.svd(np.asarray(matrix), compute_uv=False)[0]
        np.testing.assert_allclose(divided[name].reshape(matrix.shape), matrix / largest, rtol=1e-4)
    assert (divided["b"] == weights["b"]).all()


def test_orthogonal_penalty_has_its_true_gradient():
    w = np.asarray(jax.random.normal(KEY, (4, 6)))
    off = (w @ w.T) * (1 - np.eye(4))
    np.testing.assert_allclose(jax.grad(_weights.off_diagonal)({"w": jnp.asarray(w)})["w"], 4 * off @ w, rtol=1e-4)


def test_augmentation_is_the_same_for_rows_and_draws_and_differentiable():
    x = jax.random.normal(KEY, (5, 16, 8))
    both = [_augment.changed(KEY, {"x": x}, ("x",), "both")["x"] for _ in range(2)]
    assert (both[0] == both[1]).all()
    assert not jnp.allclose(both[0], x)
    moved = _augment.changed(KEY, {"x": x}, ("x",), "translation")["x"]
    row = moved[0]
    assert any(jnp.array_equal(jnp.roll(x[0], (i, j), (0, 1))[3:-3, 2:-2], row[3:-3, 2:-2])
               for i in range(-2, 3) for j in range(-1, 2))  # fmt: skip
    slope = jax.grad(lambda x: _augment.changed(KEY, {"x": x}, ("x",), "cutout")["x"].sum())(x)
    assert set(np.unique(slope)) == {0.0, 1.0}


# ---- distances of samples


def _mmd(x, y, width):
    return mmd_squared(WORDS, *(squares(WORDS, a, b) for a, b in ((x, x), (x, y), (y, y))), [width])


def test_mmd_is_unbiased_and_matches_its_closed_form():
    rng, width, shift, count = np.random.default_rng(0), 0.8, 0.7, 40
    found = []
    estimate = jax.jit(lambda x, y: _mmd(x, y, width))
    for _ in range(400):
        x, y = rng.normal(size=(count, 1)), shift + rng.normal(size=(count, 1))
        found.append(float(estimate(jnp.asarray(x), jnp.asarray(y))))
    kernel = lambda d: width / np.sqrt(width**2 + 2) * np.exp(-(d**2) / (2 * (width**2 + 2)))  # noqa: E731
    expected = 2 * kernel(0) - 2 * kernel(shift)
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(len(found))


def test_transport_of_a_shift():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(200, 3)))
    shift = jnp.array([1.0, -2.0, 0.5])
    square = float((shift**2).sum())
    assert float(divergence(WORDS, x, x + shift, 0.01)) == pytest.approx(square, rel=0.02)
    assert float(sliced(WORDS, x, x + shift, 20_000)) == pytest.approx(square, rel=0.03)
    assert float(divergence(WORDS, x, x, 0.01)) == pytest.approx(0.0, abs=1e-4)


def test_sinkhorn_is_transport_on_a_line_and_has_its_gradient():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(100, 1)), 0.3 + 2 * rng.normal(size=(100, 1))
    exact = ((np.sort(x, 0) - np.sort(y, 0)) ** 2).mean()
    assert float(divergence(WORDS, jnp.asarray(x), jnp.asarray(y), 0.01)) == pytest.approx(exact, rel=0.002)
    slope = jax.grad(lambda y: divergence(WORDS, jnp.asarray(x), y, 0.01))(jnp.asarray(y))
    order, pairs = np.argsort(y[:, 0]), np.sort(x[:, 0])
    expected = np.empty(100)
    expected[order] = 2 * (np.sort(y[:, 0]) - pairs) / 100
    np.testing.assert_allclose(slope[:, 0], expected, atol=0.05 * np.abs(expected).max())


# ---- whole fits


def flat_program(x=None):
    z = numpyro.sample("z", standard(2))
    numpyro.sample("x", dist.Delta(linear("g", 2, 3)(z), event_dim=1), obs=x)


def test_linear_generator_under_transport_finds_the_principal_plane():
    rng = np.random.default_rng(3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    x = rng.normal(size=(2000, 3)) * [2.0, 1.0, 0.2] @ turn
    fit = pg.fit(Model(flat_program, by_row=True), {"x": x}, inference="sinkhorn", num_steps=600, learning_rate=0.02,
                 batch_size=200, progress=False)  # fmt: skip
    drawn = fit.sample(4000)["x"]
    left = np.cov(drawn.T) @ turn[2]
    assert np.linalg.norm(left) < 0.05
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(np.cov(drawn.T)))[1:], [1.0, 4.0], rtol=0.25)


def of_batch(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        w = numpyro.param("w", jnp.array([[0.5, 0.1], [0.0, 0.7]]))
        numpyro.sample("x", dist.Delta(z @ w, event_dim=1), obs=x)


def plain(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    w = numpyro.param("w", jnp.array([[0.5, 0.1], [0.0, 0.7]]))
    numpyro.sample("x", dist.Delta(z @ w, event_dim=1), obs=x)


@pytest.mark.parametrize("program", [of_batch, plain])
def test_programs_of_ones_own_are_implicit(program):
    x = np.random.default_rng(0).normal(size=(300, 2))
    fit = pg.fit(program, {"x": x}, inference="sliced_wasserstein", num_steps=200, learning_rate=0.02, progress=False)
    w = fit.parameters["w"]
    np.testing.assert_allclose(w.T @ w, np.cov(x.T), atol=0.2)
    for word in ("nuts", "mle", "svi"):
        with pytest.raises(Incompatible, match=r"needs a density.*Delta") as error:
            pg.fit(program, {"x": x}, inference=word)
        assert "r3gan" in str(error.value)


def test_a_flow_learns_by_a_critic_and_keeps_its_density():
    fit = pg.fit("realnvp", data="two_moons", inference="gan", num_steps=50, progress=False)
    assert np.isfinite(fit.log_prob().value).all()
    assert fit.sample(5)["x"].shape == (5, 2)


def test_bits_are_shown_at_their_means():
    fit = pg.fit("vae", data="digits", inference="r3gan", num_steps=20, batch_size=32, progress=False)
    assert any("mean stands for its draw" in note for note in fit.notes)


def switched(x=None):
    logit = numpyro.param("logit", jnp.array(0.0))
    k = numpyro.sample("k", dist.Bernoulli(logits=logit))
    numpyro.sample("x", dist.Normal(2.0 * k, 1.0), obs=x)


def coin_noise(x=None):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("x", dist.Normal(numpyro.param("a", jnp.array(1.0)) * k, 1.0), obs=x)


def mixed(x=None):
    share = numpyro.param("share", jnp.array([0.5, 0.5]), constraint=dist.constraints.simplex)
    parts = dist.Normal(jnp.array([0.0, 3.0]), 1.0)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(share), parts), obs=x)


def still(x=None):
    numpyro.sample("x", dist.Delta(numpyro.param("a", jnp.array(1.0))), obs=x)


def blind(x):
    return numpyro.param("b", jnp.array(0.0))


def wide(x):
    return numpyro.param("b", jnp.array(1.0)) * jnp.stack([x, x])


X = np.random.default_rng(0).normal(size=64)


def fitted(program, x=X, inference="gan", critic=None, **settings):
    settings = {"num_steps": 5, "progress": False} | settings
    return pg.fit(Model(program, critic=critic, by_row=True), {"x": x}, inference=inference, **settings)


def test_noise_that_no_parameter_moves_may_be_finite():
    assert fitted(coin_noise).sample(3)["x"].shape == (3,)


@pytest.mark.parametrize(
    ("program", "settings", "message"),
    [
        (switched, {}, "'k' .Bernoulli.* no gradient"),
        (mixed, {}, "'x' .Mixture.* no gradient"),
        (still, {}, "without any noise"),
        (coin_noise, {"critic": blind}, "does not look at the rows"),
        (coin_noise, {"critic": wide}, r"logit of shape \(2,\)"),
        (coin_noise, {"pack": 3, "batch_size": 32}, "pack is 3, which does not divide a batch of 32"),
        (coin_noise, {"augment": "cutout"}, "is for pictures"),
        (coin_noise, {"batch_size": 64}, "58 of 64 rows are learned from"),
        (coin_noise, {"loss": "softmax"}, "non_saturating"),
        (coin_noise, {"r1": -1.0}, "at least 0"),
        (coin_noise, {"inference": "sinkhorn", "epsilon": 1e-4}, "at least 0.005"),
        (plain, {"x": X.reshape(-1, 1)}, r"rows of shape \(1,\); the program draws 'x' of shape \(2,\)"),
    ],
)
def test_what_is_refused_says_why(program, settings, message):
    with pytest.raises((Incompatible, ValueError), match=message):
        fitted(program, **settings)


def test_average_is_the_moving_one():
    model = Model(plain, by_row=True)
    settings = {"optimizer": "sgd", "decay": "constant", "ema": 0.9, "learning_rate": 0.1}
    algorithm, _, _, _, target = asked(model, {"x": X.reshape(-1, 2)}, "sliced_wasserstein", **settings)
    state = algorithm.init(KEY, target)
    average = np.asarray(state.average["w"])
    for i in range(12):
        state, _ = jax.jit(algorithm.step)(jax.random.key(i), state, target)
        average = average + max(0.1, 1 / (i + 1)) * (np.asarray(state.parameters["w"]) - average)
    np.testing.assert_allclose(state.average["w"], average, rtol=1e-5)


SETTINGS = {
    "gan": {"spectral_norm": True, "pack": 2},
    "wgan_gp": {"critic_steps": 3},
    "r3gan": {"equalised": True, "orthogonal": 1e-4},
    "mmd": {},
}


@pytest.mark.parametrize("inference", SETTINGS)
def test_a_killed_run_goes_on_bit_for_bit(inference, tmp_path, killed):
    x = X.reshape(-1, 2)
    settings = {"num_steps": 60, "batch_size": 8, "progress": False, **SETTINGS[inference]}
    model = Model(plain, by_row=True)
    whole = pg.fit(model, {"x": x}, inference=inference, **settings)
    killed(pg.fit, model, {"x": x}, inference=inference, out=tmp_path / "run", **settings)
    resumed = pg.resume(tmp_path / "run", program=model, progress=False)
    for name, value in whole.answer.items():
        assert np.array_equal(value, resumed.answer[name]), name
    for name, value in whole.state.items():
        assert np.array_equal(value, resumed.state[name]), name


def test_weights_begin_where_a_fit_ended_whatever_their_scale():
    x = {"x": X.reshape(-1, 2)}
    settings = {"num_steps": 3, "progress": False, "held_out": 0.0}
    before = pg.fit(Model(plain, by_row=True), x, inference="gan", **settings)
    after = pg.fit(
        Model(plain, by_row=True), x, inference="gan", init=before, equalised=True, learning_rate=1e-9, **settings
    )
    np.testing.assert_allclose(after.parameters["w"], before.parameters["w"], atol=1e-6)


@pytest.mark.parametrize("inference", ["gan", "cycle_gan"])
def test_critics_begin_where_those_of_a_fit_ended(inference):
    program, data = (
        ("cycle_gan", maps()) if inference == "cycle_gan" else ("gan", {"x": X.reshape(-1, 2), "num_dims": 2})
    )
    fit = lambda **more: pg.fit(program, data, inference=inference, num_steps=2, progress=False, **more)  # noqa: E731
    before = fit(learning_rate=0.1)
    after = fit(init=before, learning_rate=1e-12)
    critics = [k for k in before.answer if "(critic" in k]
    assert len(critics) > 2
    for k in critics:
        np.testing.assert_allclose(after.answer[k], before.answer[k], atol=1e-6)
    assert not any("began anew" in note for note in after.notes)


def test_a_critic_of_other_packs_begins_anew_and_says_so():
    data = {"x": X.reshape(-1, 2), "num_dims": 2}
    fit = lambda **more: pg.fit("gan", data, inference="gan", num_steps=2, progress=False, batch_size=16, **more)  # noqa: E731
    assert "the critic began anew" in "".join(fit(init=fit(), pack=2).notes)


def maps():
    rng = np.random.default_rng(0)
    return {
        "a": rng.random((20, 4, 4)),
        "b": rng.random((24, 4, 4)),
        "height": 4,
        "width": 4,
        "halvings": 1,
        "num_filters": 2,
    }


@pytest.mark.parametrize("inference", ["gan", "mmd"])
def test_what_was_not_looked_at_yet_is_not_told_as_zero(inference):
    fit = fitted(coin_noise, inference=inference, num_steps=150)
    told = fit.tree["optimisation"]
    assert np.isnan(told["distance"].values[..., :99]).all()
    assert np.isfinite(told["distance"].values[..., 99:]).all()
    assert np.isnan(told["right"].values[..., :99]).all()


def test_rows_held_out_are_never_learned_from():
    algorithm, _, _, _, target = asked(Model(plain, by_row=True), {"x": X.reshape(-1, 2)}, "gan", held_out=0.25)
    state = algorithm.init(KEY, target)
    assert len(state.held) == 8
    assert not set(np.asarray(state.held)) & set(np.asarray(state.order))
    for i in range(10):
        state, _ = jax.jit(algorithm.step)(jax.random.key(i), state, target)
    assert sorted([*np.asarray(state.held), *np.asarray(state.order)]) == list(range(32))


def test_critic_of_the_answer_judges_as_it_did():
    fit = fitted(coin_noise, num_steps=50, spectral_norm=True)
    critic = {k.removesuffix(" (critic)"): v for k, v in fit.answer.items() if k.endswith(" (critic)")}
    assert critic
    assert np.isfinite(expit(float(fit.target.logits(critic, fit.target.rows(jnp.arange(1)))[0])))
