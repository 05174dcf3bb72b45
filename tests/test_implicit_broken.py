"""Programs without a density that cannot be learned as they are, and what was once wrong of others in silence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from numpyro import handlers

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as pdist  # noqa: E402

ROWS = np.random.default_rng(0).normal(1.0, 0.5, size=(300, 2))
LABELS = (ROWS[:, 0] > 1).astype(int)


def normal() -> Any:
    return numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))


def weights() -> Any:
    return numpyro.param("W", jnp.array([[0.3, 0.1], [-0.1, 0.2]]))


def seen(value, x):
    numpyro.sample("x", dist.Delta(value, event_dim=1), obs=x)


def linear(x=None):
    seen(normal() @ weights(), x)


def shifted(x=None):  # its parameters begin as those of `linear`
    seen(normal() @ weights() + 50.0, x)


def rounded(x=None):
    seen(jnp.round(normal() @ weights()), x)


def chosen(x=None):
    seen(jax.nn.one_hot(jnp.argmax(normal() @ weights()), 2), x)


def whole(x=None):
    seen((normal() @ weights()).astype(int), x)


def unmoved(x=None):
    weights()
    seen(normal(), x)


def still(x=None):
    normal()
    seen(weights()[0], x)


def masked(x=None):
    numpyro.sample("x", dist.Delta(normal() @ weights(), event_dim=1).mask(jnp.array(False)), obs=x)


def scaled(x=None):
    with handlers.scale(scale=3.0):
        linear(x)


def with_constant(x=None):
    linear(x)
    numpyro.sample("c", dist.Normal(weights()[0, 0], 1.0), obs=jnp.zeros(()))


def pairs(x=None, y=None):
    z = normal()
    seen(z @ weights(), x)
    numpyro.sample("y", dist.Normal(z[0], numpyro.param("sd", 1.0)), obs=y)


def half(x=None, y=None):
    z = normal()
    seen(z @ weights(), x)
    numpyro.sample("y", dist.Delta(z[0]), obs=y)


def switched(x=None):
    logits = numpyro.param("logits", jnp.zeros(2))
    kind = jnp.argmax(logits + numpyro.sample("g", dist.Gumbel(0, 1).expand([2]).to_event(1)))
    seen(weights()[kind] + 0.1 * normal(), x)


def by_key(x=None):
    seen(weights()[0] * jax.random.normal(numpyro.prng_key(), (2,)), x)


def roots(x=None):
    h = normal() @ weights()
    seen(jnp.where(h > 0, jnp.sqrt(h), 0.0), x)


def fitted(program, data=None, inference="sliced_wasserstein", **settings):
    data = {"x": ROWS} if data is None else data
    return pg.fit(program, data, inference=inference, progress=False, **{"num_steps": 2, "batch_size": 50} | settings)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (rounded, "'x' is moved by parameters, but its gradient is zero"),
        (chosen, "argmax.*\n.*softmax in place of argmax"),
        (whole, "whole numbers"),
        (unmoved, "No parameter moves 'x'.*\n.*numpyro.param"),
        (masked, "'x' has a mask or a scale"),
        (scaled, "'x' has a mask or a scale"),
        (with_constant, "'c' is observed at values that are no rows"),
    ],
)
def test_programs_that_draws_cannot_teach_are_refused(program, told):
    with pytest.raises(Incompatible, match=told):
        fitted(program)


@pytest.mark.parametrize(
    ("program", "data", "told"),
    [
        (half, {"x": ROWS, "y": ROWS[:, 0]}, "No parameter moves 'y', which is drawn as the program says."),
        (still, {"x": ROWS}, "No noise reaches 'x'"),
        (switched, {"x": ROWS}, "The parameters 'logits' move draws by steps alone"),
    ],
)
def test_what_no_gradient_moves_is_noted(program, data, told):
    assert any(told in note for note in fitted(program, data).target.notes)


def test_noise_may_be_of_the_programs_own_key():
    assert fitted(by_key).sample(4)["x"].std(0).min() > 0


def test_a_visible_site_with_a_density_beside_a_point_mass_is_drawn_and_learned():
    fit = fitted(pairs, {"x": ROWS, "y": ROWS[:, 0]}, num_steps=20)
    drawn = fit.sample(5)
    assert set(drawn) == {"x", "y", "z"}
    assert fit.target.inputs == ()
    assert fit.answer["sd"] != 1.0  # y was once an input, and sd stayed


def labelled(x=None, label=None):
    label = numpyro.sample("label", dist.Categorical(jnp.array([0.3, 0.7])), obs=label)
    seen(normal() @ weights() + numpyro.param("middles", jnp.zeros((2, 2)))[jnp.asarray(label, int)], x)


@pytest.mark.parametrize("inference", ["wgan_gp", "r3gan"])
def test_a_class_that_is_drawn_too_is_a_number_to_the_critic(inference):
    fit = fitted(labelled, {"x": ROWS, "label": LABELS}, inference)
    assert fit.target.inputs == ()
    assert np.isfinite(fit.records["critic_loss"]).all()
    assert abs(fit.sample(2000)["label"].mean() - 0.7) < 0.05
    assert any("No parameter moves 'label'" in note for note in fit.target.notes)


def test_programs_with_like_parameters_are_not_run_by_each_others_code():
    near, far = fitted(linear), fitted(shifted)  # once one text, and the second ran by the code of the first
    assert near.records["loss"][0, 0] < 10
    assert far.records["loss"][0, 0] > 1000


def a_map(a, b=None):
    numpyro.sample("b", dist.Delta(a * numpyro.param("forth", jnp.ones(())), event_dim=1), obs=b)


def way_back(b):
    numpyro.sample("a", dist.Delta(b * numpyro.param("back", jnp.ones(())), event_dim=1))


def other_way_back(b):
    numpyro.sample("a", dist.Delta(b * numpyro.param("back", jnp.ones(())) + 100.0, event_dim=1))


def test_maps_with_other_guides_are_not_run_by_each_others_code():
    data = {"a": ROWS, "b": ROWS + 1}
    losses = [
        fitted(a_map, data, "cycle_gan", guide=guide, batch_size=20).records["loss"][0, 0]
        for guide in (way_back, other_way_back)
    ]
    assert losses[0] < 20
    assert losses[1] > 1000


def test_a_way_back_with_noise_is_refused():
    def noisy(b):
        numpyro.sample("a", dist.Normal(b * numpyro.param("back", jnp.ones(())), 0.1).to_event(1))

    with pytest.raises(ValueError, match="The guide draws 'a' with noise; a way back has none"):
        fitted(a_map, {"a": ROWS, "b": ROWS}, "cycle_gan", guide=noisy, batch_size=20)


def test_parameters_that_are_not_finite_fail_and_say_where_to_look():
    verdict = fitted(roots).diagnose()
    found = next(f for f in verdict.findings if f.check == "draws")
    assert found.status == "fail"
    assert "'W' is NaN or infinite" in found.message
    assert "`where`" in found.remedy


@pytest.mark.parametrize("inference", ["mmd", "sinkhorn", "sliced_wasserstein"])
def test_a_mean_far_from_zero_costs_kernels_no_digits(inference):
    x, y = np.random.default_rng(1).normal(size=(2, 64, 2))
    near, far = (_loss(inference, x + shift, 1.5 * y + shift) for shift in (0.0, 4096.0))
    assert abs(near - far) < 0.02 * abs(near)


def _loss(inference, x, y):
    from probgen.inference.adversarial._distance import Words

    settings = {"sliced_wasserstein": {"num_lines": 32}, "mmd": {"scales": (1.0,)}}.get(inference, {})
    with runtime.jax_scope("float32"):
        x, y = jnp.asarray(x, "float32"), jnp.asarray(y, "float32")
        return float(catalog.inference(inference, settings).distance(Words(jax.random.key(0)), x, y))


def test_kernels_compare_pairs_of_rows():
    with pytest.raises(ValueError, match="mmd compares pairs of rows of a batch: batch_size is 1"):
        fitted(linear, inference="mmd", batch_size=1)


@pytest.mark.parametrize(
    ("critic", "told"),
    [
        (lambda x: jnp.round(x @ numpyro.param("c", jnp.ones(2))), "gradient at rows is zero everywhere"),
        (lambda x: 0 * x[0] + numpyro.param("c", jnp.ones(2)).sum(), "zero everywhere: it ignores them"),
        (lambda x: (x * jnp.zeros(2)) @ numpyro.param("c", jnp.ones(2)), "zero everywhere: it ignores them"),
        (lambda x: x.sum(), "no parameters to be learned"),
        (lambda x: x @ numpyro.param("c", jnp.ones(2)) + numpyro.sample("e", dist.Normal(0, 1)), "draws at random"),
        (lambda x: numpyro.param("c", jnp.ones(2)) is None or None, "returns a NoneType; expected a logit"),
    ],
)
def test_critics_that_teach_nothing_are_refused(critic, told):
    with pytest.raises(ValueError, match=told):
        fitted(pg.Model(linear, critic=critic), inference="gan")


def test_a_critic_that_begins_at_zero_is_taken():
    assert fitted(pg.Model(linear, critic=lambda x: x @ numpyro.param("c", jnp.zeros(2))), inference="gan").complete


def test_a_critic_of_one_kind_that_ignores_its_rows_is_refused():
    def there(a, b=None):
        numpyro.sample("b", dist.Delta(a * numpyro.param("w", jnp.ones(2)), event_dim=1), obs=b)

    def back(b):
        numpyro.sample("a", dist.Delta(b * numpyro.param("v", jnp.ones(2)), event_dim=1))

    def critic(a=None, b=None):
        return numpyro.param("c", jnp.ones(2)) @ (0 * a if b is None else b)

    model = pg.Model(there, guide=back, critic=critic, by_row=True)
    with pytest.raises(ValueError, match="Of a: The critic's gradient at rows is zero everywhere: it ignores them"):
        pg.fit(model, {"a": ROWS, "b": ROWS}, inference="cycle_gan", num_steps=2, progress=False)


@pytest.mark.parametrize(
    ("inference", "name"),
    [("r3gan", "gamma"), ("wgan_gp", "penalty"), ("gan", "r1"), ("gan", "orthogonal"), ("cycle_gan", "cycle")],
)
def test_weights_that_are_no_numbers_are_refused(inference, name):
    with pytest.raises(ValueError, match=f"{name} is nan"):
        fitted(linear, inference=inference, **{name: float("nan")})


def test_counts_that_are_no_whole_numbers_are_refused():
    fit = fitted(linear)
    for ask in (fit.sample, fit.simulate):
        with pytest.raises(ValueError, match=r"num_samples is 2\.5; expected a whole number"):
            ask(2.5)
    with pytest.raises(TypeError, match="num_samples is '3'; expected a whole number"):
        pg.evaluate(fit, ROWS, num_samples="3")


# ---- Pyro


def of_pyro(make):
    def program(x):
        W = pyro.param("W", lambda: torch.tensor([[0.3, 0.1], [-0.1, 0.2]]))
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", pdist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", pdist.Delta(make(z, W)).to_event(1), obs=x)

    return program


@needs_pyro
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda z, W: torch.round(z @ W), "'x' is moved by parameters, but its gradient is zero"),
        (lambda z, W: z @ W * 0 + torch.floor(z @ W), "gradient is zero"),
        (lambda z, W: (z @ W > 0).float(), "No parameter moves 'x'.*\n.*pyro.param"),
        (lambda z, W: torch.where(z @ W > 0, (z @ W).sqrt(), 0 * z), "in 'W' is NaN or infinite"),
    ],
)
def test_pyro_programs_that_draws_cannot_teach_are_refused(make, told):
    with pytest.raises(Incompatible, match=told):
        fitted(of_pyro(make), inference="gan")


@needs_pyro
def test_pyro_parameters_that_are_nan_are_told_as_such():
    fit = fitted(of_pyro(lambda z, W: z @ W), inference="gan", learning_rate=1e30, num_steps=5)
    assert np.isnan(fit.sample(2)["x"]).all()  # once refused, as a program that reads its rows
    found = next(f for f in fit.diagnose().findings if f.check == "draws")
    assert found.status == "fail"
    assert "'W' is NaN or infinite" in found.message
