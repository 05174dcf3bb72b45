"""Maps both ways between unpaired rows in Pyro: NumPyro's losses and slopes, whole runs, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as ndist
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible
from probgen.fits.seal import ChangedRun
from probgen.inference.adversarial.cycle_gan import _ways
from probgen.run import asked

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as dist  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402
from probgen.engine.pyro.programs.density import scoped  # noqa: E402

pytestmark = [needs_pyro, pytest.mark.usefixtures("one_thread")]
START = {"w": [[1.2, 0.3], [-0.4, 0.9]], "v": [[0.7, -0.2], [0.1, 1.1]], "c": [0.4, -1.0]}


def rows(count_a=80, count_b=60):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(count_a, 2))
    return {"a": a, "b": rng.normal(size=(count_b, 2)) * [2.0, 1.0] + [1.0, 0.0]}


def parameter(name):
    return pyro.param(name, lambda: torch.tensor(START[name]))


def there(a, b):
    with pyro.plate("row", len(a)):
        pyro.sample("b", dist.Delta(torch.tanh(a) @ parameter("w") + a, event_dim=1), obs=b)


def back(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Delta(torch.tanh(b) @ parameter("v"), event_dim=1))


def critic(a=None, b=None):
    return torch.sin(a if b is None else b) @ parameter("c")


def there_in_jax(a, b=None):
    numpyro.sample("b", ndist.Delta(jnp.tanh(a) @ numpyro.param("w", jnp.array(START["w"])) + a, event_dim=1), obs=b)


def back_in_jax(b):
    numpyro.sample("a", ndist.Delta(jnp.tanh(b) @ numpyro.param("v", jnp.array(START["v"])), event_dim=1))


def critic_in_jax(a=None, b=None):
    return jnp.sin(a if b is None else b) @ numpyro.param("c", jnp.array(START["c"]))


def prepared(program, guide, own_critic, data, **settings):
    target = engine.guided(engine.prepare(program, data, "float64"), guide, own_critic)
    inference = catalog.inference("cycle_gan", settings)
    return inference, inference.prepare(target)


def test_losses_and_slopes_are_those_of_numpyro():
    """In double precision, of both players, at rows of different number."""
    settings = {"cycle": 3.0, "identity": 0.7}
    model = pg.Model(there_in_jax, guide=back_in_jax, critic=critic_in_jax, by_row=True)
    inference, _, _, _, ours = asked(model, rows(), "cycle_gan", precision="float64", **settings)
    _, target = prepared(there, back, critic, rows(), **settings)
    critics = {"a": np.array([0.3, 0.8]), "b": np.array([-0.6, 0.5])}
    maps = {k: np.array(START[k]) for k in ("w", "v")}
    a, b = rows()["a"][:40], rows()["b"][20:]
    with runtime.jax_scope("float64"):
        there_critics = {k: {"c": jnp.asarray(v)} for k, v in critics.items()}
        there_maps = {k: jnp.asarray(v) for k, v in maps.items()}

        def of_critics(critics):
            ways = _ways(ours, there_maps, critics)
            return inference.critics_loss(ways, a, b, inference.fakes(ways, a, b))

        def of_maps(maps):
            return inference.maps_loss(_ways(ours, maps, there_critics), a, b)

        first = jax.jit(jax.value_and_grad(of_critics))(there_critics)
        second = jax.jit(jax.value_and_grad(of_maps))(there_maps)
    kernel, x, y = inference.on("pyro"), torch.from_numpy(a), torch.from_numpy(b)
    leaves = {k: {"c": torch.from_numpy(v).requires_grad_()} for k, v in critics.items()}
    own = {k: torch.from_numpy(v).requires_grad_() for k, v in maps.items()}
    with scoped("float64"), torch.enable_grad():
        ways = kernel.ways(target, own, leaves)
        found = inference.critics_loss(ways, x, y, inference.fakes(ways, x, y))
        slopes = torch.autograd.grad(found, [leaves[k]["c"] for k in "ab"])
        assert found.item() == pytest.approx(float(first[0]), rel=1e-9)
        for k, slope in zip("ab", slopes, strict=True):
            np.testing.assert_allclose(slope, first[1][k]["c"], rtol=1e-7)
        batch = {"a": x, "b": y}
        loss = kernel.loss_of_draws(engine.OPS.key(0), target, leaves, own, batch)
    assert loss.item() == pytest.approx(float(second[0]), rel=1e-9)
    for k, slope in zip("wv", torch.autograd.grad(loss, list(own.values())), strict=True):
        np.testing.assert_allclose(slope, second[1][k], rtol=1e-7)


def test_rows_of_both_kinds_have_orders_of_their_own_and_critics_a_rate():
    inference, target = prepared(there, back, critic, rows(), batch_size=10, critic_rate=1e-12)
    kernel, key = inference.on("pyro"), engine.OPS.key(0)
    with scoped("float64", seed=0):
        state = kernel.init(key, target)
        before = {k: v.parameters["c"].clone() for k, v in state.critics.items()}
        state, opponent, batch, _ = kernel.prepared(key, key, state, target, 0.1)
    np.testing.assert_array_equal(batch["a"], rows()["a"][state.order_given[:10]])
    np.testing.assert_array_equal(batch["b"], rows()["b"][state.order[:10]])
    assert sorted(state.order_given.tolist()) == list(range(80))
    for k, v in before.items():
        np.testing.assert_allclose(opponent[k]["c"], v, atol=1e-9)


def test_both_ways_are_learned_and_lead_back():
    """b = 1 + 2 a in law, or 1 - 2 a, and the way back its inverse; critics of the first two moments."""

    def forth(a, b):
        w, c = pyro.param("w", lambda: torch.ones(1)), pyro.param("c", lambda: torch.zeros(1))
        with pyro.plate("row", len(a)):
            pyro.sample("b", dist.Delta(w * a + c, event_dim=1), obs=b)

    def away(b):
        v, d = pyro.param("v", lambda: torch.ones(1)), pyro.param("d", lambda: torch.zeros(1))
        with pyro.plate("row", len(b)):
            pyro.sample("a", dist.Delta(v * b + d, event_dim=1))

    def moments(a=None, b=None):
        x = (a if b is None else b)[:, 0]
        s = pyro.param("s", lambda: torch.zeros(3))
        return s[0] + s[1] * x + s[2] * x**2

    rng = np.random.default_rng(1)
    data = {"a": rng.normal(size=(500, 1)), "b": 1 + 2 * rng.normal(size=(400, 1))}
    settings = {"num_steps": 500, "batch_size": 64, "learning_rate": 0.025, "cycle": 0.3, "ema": 0.98}
    fit = pg.fit(pg.Model(forth, guide=away, critic=moments), data, "cycle_gan", progress=False, **settings)
    p = fit.parameters
    print(p)
    np.testing.assert_allclose(
        fit.translate(a=data["a"][:5])["b"], p["w"] * data["a"][:5] + p["c"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        fit.translate(b=data["b"][:5])["a"], p["v"] * data["b"][:5] + p["d"], rtol=1e-4, atol=1e-5
    )
    assert fit.records["cycle"][0, -1] < 0.01
    np.testing.assert_allclose(p["v"] * p["w"], 1, atol=0.02)
    assert abs(p["w"]) == pytest.approx(2, rel=0.15)
    assert p["c"] == pytest.approx(1, abs=0.3)
    assert fit.target.unpaired
    assert fit.diagnose().findings


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, killed):
    model, settings = (
        pg.Model(there, guide=back, critic=critic),
        {"num_steps": 130, "batch_size": 16, "progress": False},
    )
    whole = pg.fit(model, rows(), "cycle_gan", **settings)
    killed(pg.fit, model, rows(), "cycle_gan", out=tmp_path / "part", **settings)
    resumed = pg.resume(tmp_path / "part", program=model, progress=False)
    assert set(resumed.answer) == {"w", "v", "c (critic of a)", "c (critic of b)"}
    assert set(resumed.state) == set(whole.state)
    for name, value in {**whole.answer, **whole.state}.items():
        np.testing.assert_array_equal(value, {**resumed.answer, **resumed.state}[name])
    again = pg.fit(model, rows(), "cycle_gan", init=whole, num_steps=2, learning_rate=1e-12, progress=False)
    for name, value in whole.answer.items():
        np.testing.assert_allclose(again.answer[name], value, atol=1e-5)


def another_back(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Delta(torch.sin(b) @ parameter("v"), event_dim=1))


def another_critic(a=None, b=None):
    return torch.cos(a if b is None else b) @ parameter("c")


@pytest.mark.parametrize(
    ("guide", "own", "told"), [(another_back, critic, "'draws a'"), (back, another_critic, "'the critic of a'")]
)
def test_a_run_of_another_guide_or_critic_does_not_go_on(tmp_path, guide, own, told):
    settings = {"num_steps": 2, "batch_size": 8, "progress": False}
    pg.fit(pg.Model(there, guide=back, critic=critic), rows(), "cycle_gan", out=tmp_path / "run", **settings)
    with pytest.raises(ChangedRun, match=rf"changed since it was begun: the program.*{told}"):
        pg.resume(tmp_path / "run", pg.Model(there, guide=guide, critic=own), progress=False)


def shared_name(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Delta(b @ parameter("w"), event_dim=1))


def wide(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Delta(torch.cat([b @ parameter("v"), b], 1), event_dim=1))


def another_site(b):
    with pyro.plate("row", len(b)):
        pyro.sample("z", dist.Delta(b @ parameter("v"), event_dim=1))


def noisy_back(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Normal(b @ parameter("v"), 1.0).to_event(1))


def noisy(a, b):
    with pyro.plate("row", len(a)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(a), 2), 1.0).to_event(1))
        pyro.sample("b", dist.Delta((a + z) @ parameter("w"), event_dim=1), obs=b)


@pytest.mark.parametrize(
    ("program", "guide", "own", "data", "settings", "said"),
    [
        (there, None, None, rows(), {}, "learns the way back as well: give a guide"),
        (there, shared_name, None, rows(), {}, "The guide's parameter 'w' is the program's as well"),
        (there, wide, None, rows(), {}, r"The guide draws 'a' of shape \(3, 4\) for 3 rows of b; expected \(3, 2\)"),
        (there, another_site, None, rows(), {}, "The guide draws z; expected 'a' alone"),
        (
            there,
            back,
            lambda a=None, b=None: 0 * critic(a, b),
            rows(),
            {},
            "Of a: The critic's gradient at rows is zero",
        ),
        (there, back, critic, {**rows(), "a": np.full((80, 2), np.nan)}, {}, "NaN"),
        (there, back, critic, {**rows(), "b": np.ones((60, 3))}, {}, "shape"),
        (there, back, critic, rows(), {"cycle": float("nan")}, "cycle is nan"),
        (noisy, back, critic, rows(60, 60), {}, "without noise; this has noise"),
    ],
)
def test_what_does_not_serve_is_said(program, guide, own, data, settings, said):
    with pytest.raises((Incompatible, ValueError), match=said):
        pg.fit(pg.Model(program, guide=guide, critic=own), data, "cycle_gan", num_steps=2, progress=False, **settings)


def test_a_map_without_its_way_back_is_refused_by_what_draws():
    with pytest.raises(Incompatible, match="without any noise"):
        pg.fit(there, rows(), "gan", num_steps=2)
