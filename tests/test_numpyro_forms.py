"""NumPyro programs in forms that its examples have: handlers as decorators, state that changes, scalars of arrays as shapes."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.module import eqx_module
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import potential_energy

import probgen as pg
from probgen import runtime

Y = np.random.default_rng(0).normal(1.5, 1.0, 40)
GROUP = np.arange(40) % 4
SHORT = {"num_warmup": 20, "num_samples": 20, "num_chains": 1, "progress": False}


@handlers.reparam(config={"effect": LocScaleReparam(0)})
def decorated(group, scale, y=None):
    """Looks at its data, and is a handler that knows no signature."""
    with numpyro.plate("groups", len(np.unique(group))):
        effect = numpyro.sample("effect", dist.Normal(0.0, scale))
    with numpyro.plate("rows", len(group)):
        numpyro.sample("y", dist.Normal(effect[group], 1.0), obs=y)


def positional(*given):
    """Looks at arguments that have no names."""
    y, group = given
    with numpyro.plate("groups", len(np.unique(group))):
        effect = numpyro.sample("effect", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(group)):
        numpyro.sample("y", dist.Normal(effect[group], 1.0), obs=y)


def in_a_container(batch):
    with numpyro.plate("groups", len(np.unique(batch["group"]))):
        effect = numpyro.sample("effect", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(batch["y"])):
        numpyro.sample("y", dist.Normal(effect[batch["group"]], 1.0), obs=batch["y"])


@pytest.mark.parametrize(
    ("program", "args"),
    [(decorated, (GROUP, 2.0, Y)), (positional, (Y, GROUP)), (in_a_container, ({"y": Y, "group": GROUP},))],
)
def test_the_density_is_numpyros_own(program, args):
    fit = pg.fit(program, None, "nuts", args=args, **SHORT)
    z = fit.z[0, -1]
    assert fit.target.dim == 4
    with runtime.jax_scope("float64"):
        theirs = -float(potential_energy(program, args, {}, fit.target.structure.unravel(z)))
        assert float(fit.target.log_density(z)) == pytest.approx(theirs, rel=1e-9)


def test_a_handler_as_a_decorator_takes_data_by_name():
    fit = pg.fit(decorated, {"group": GROUP, "scale": 2.0, "y": Y}, "nuts", **SHORT)
    assert any("group" in note for note in fit.target.notes)
    assert "y" in fit.tree["observed_data"]


def test_a_scalar_of_an_array_is_a_shape():
    def program(y, count):
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros((count,)), 1.0).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(weights.sum(), 1.0), obs=y)

    for count in (jnp.asarray(GROUP).max(), GROUP.max()):
        fit = pg.fit(program, None, "laplace", args=(Y, count), progress=False)
        assert fit.draws["weights"].shape[-1] == 3


# ---- state that changes


def counting(y):
    running = numpyro.primitives.mutable("running", {"mean": jnp.zeros(()), "runs": jnp.zeros((), int)})
    running["mean"] = 0.9 * running["mean"] + 0.1 * y.mean()
    running["runs"] = running["runs"] + 1
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def normal(y):
    numpyro.sample(
        "mu", dist.Normal(numpyro.param("m", 0.0), numpyro.param("s", 1.0, constraint=dist.constraints.positive))
    )


def stateful(guide, y):
    seen = numpyro.primitives.mutable("seen")  # as flax_module asks
    if seen is None:
        seen = numpyro.primitives.mutable("seen", {"largest": jnp.zeros(())})
    seen["largest"] = jnp.maximum(seen["largest"], y.max())
    guide(y)


def test_state_moves_with_a_guide():
    """Of 40 rows with sd 1 and a normal prior: mean sum / 41, variance 1 / 41; the running mean ends at the data's."""
    fit = pg.fit(counting, {"y": Y}, "svi", guide=functools.partial(stateful, normal), progress=False)
    assert fit.inference.name == "guided_svi"
    assert fit.draws["mu"].mean() == pytest.approx(Y.sum() / 41, abs=0.03)
    assert fit.draws["mu"].std() == pytest.approx(41**-0.5, rel=0.1)
    named = {k: v.reshape(-1)[0] for k, v in fit.draws.items() if k.startswith("running")}
    assert named["running[0]"] == pytest.approx(Y.mean(), rel=1e-3)
    assert named["running[1]"] > 100


def test_state_that_cannot_be_learned_is_refused():
    def keyed(y):
        dropout = numpyro.primitives.mutable("dropout", {"key": jax.random.key(0)})
        dropout["key"], _ = jax.random.split(dropout["key"])
        normal(y)

    def number(y):
        numpyro.primitives.mutable("count", jnp.zeros(()))
        normal(y)

    def growing(y):
        numpyro.primitives.mutable("seen", {}).update(mean=y.mean())
        normal(y)

    def word(y):
        numpyro.primitives.mutable("mode", {"of": "training"})
        normal(y)

    for program, what in (
        (keyed, "'dropout' is state with keys"),
        (growing, "'seen' is state of another form"),
        (word, "'mode' is state in a str; expected a dictionary"),
        (number, "'count' is state in a .*expected a dictionary"),
    ):
        with pytest.raises(ValueError, match=what):
            pg.fit(program, {"y": Y}, "svi", guide=normal, progress=False)


def test_batch_norm_of_equinox_has_seen_the_data():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, "rows", mode="ema", momentum=0.9)

    def program(y):
        net, moving = eqx_module("norm", norm), numpyro.primitives.mutable("norm$state", {"state": state})
        run = jax.vmap(net, in_axes=(0, None), out_axes=(0, None), axis_name="rows")
        out, moving["state"] = run(y[:, None], moving["state"])
        numpyro.sample("y", dist.Normal(out[:, 0], 1.0), obs=y)

    fit = pg.fit(program, {"y": Y}, "svi", guide=lambda y: None, num_steps=200, num_draws=1, progress=False)
    unseen, mean, variance = (fit.draws[f"norm$state[{i}]"].reshape(-1)[0] for i in range(3))
    assert not unseen
    assert mean == pytest.approx(Y.mean(), rel=1e-4)
    assert variance == pytest.approx(Y.var(), rel=1e-4)
    assert (fit.target.precision, fit.notes) == ("float64", ())


def test_keys_in_state_stay_and_what_is_counted_beside_them_moves():
    """As those of `nnx.Dropout`: the mean of rows about m + noise is m where noise is drawn anew, and off by 2 where it is not."""

    def program(y):
        held = numpyro.primitives.mutable("rngs", {"key": jax.random.key(1), "count": jnp.zeros((), jnp.uint32)})
        noise = 2.0 * jax.random.rademacher(jax.random.fold_in(held["key"], held["count"]), ())
        held["count"] = held["count"] + 1
        numpyro.sample("y", dist.Normal(numpyro.param("m", 1.0) + noise, 1.0), obs=y)

    settings = {"num_steps": 2000, "learning_rate": 0.01, "num_draws": 1, "progress": False}
    fit = pg.fit(program, {"y": Y}, "svi", guide=lambda y: None, **settings)
    assert fit.draws["m"].item(0) == pytest.approx(Y.mean(), abs=0.6)
    assert fit.draws["rngs[0]"].item(0) > 1000


def test_noise_that_a_density_holds_is_told():
    def program(y, used=True):
        noise = 2.0 * jax.random.rademacher(numpyro.prng_key(), ())
        numpyro.sample("y", dist.Normal(numpyro.param("m", 1.0) + (noise if used else 0.0), 1.0), obs=y)

    settings = {"num_steps": 2000, "learning_rate": 0.01, "num_draws": 1, "progress": False}
    anew = pg.fit(program, {"y": Y}, "svi", guide=lambda y: None, **settings)
    held = pg.fit(program, {"y": Y}, "mle", by_row=False, progress=False)
    assert anew.draws["m"].item(0) == pytest.approx(Y.mean(), abs=0.6)
    assert abs(held.draws["m"].item(0) - Y.mean()) == pytest.approx(2.0, rel=1e-3)
    assert "density is that of one draw" in " ".join(held.notes)
    unused = {"y": Y, "used": False}
    assert not pg.fit(program, unused, "mle", by_row=False, progress=False).notes


def with_noise(y):
    """A hidden site beside a mean with noise of +-2, which one held draw of it would move the mean by."""
    noise = 2.0 * jax.random.rademacher(numpyro.prng_key(), (1,))
    with numpyro.plate("row", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(numpyro.param("m", 1.0) + noise + 0 * z, 1.0), obs=y)


def guide_with_noise(y):
    with numpyro.plate("row", len(y)):
        scale = numpyro.param("s", 0.5, constraint=dist.constraints.positive)
        numpyro.sample("z", dist.Normal(numpyro.param("a", 0.0), scale))


def test_noise_of_programs_of_rows_is_drawn_anew_by_svi_and_told():
    def row(y=None):
        noise = 2.0 * jax.random.rademacher(numpyro.prng_key(), ())
        numpyro.sample("y", dist.Normal(numpyro.param("m", 1.0) + noise, 1.0), obs=y)

    settings = {"learning_rate": 0.01, "num_steps": 2000, "progress": False}
    anew = pg.fit(with_noise, {"y": Y}, "svi", guide=guide_with_noise, **settings)
    held = pg.fit(row, {"y": Y}, "mle", by_row=True, num_steps=2000, progress=False)
    assert (anew.inference.name, held.inference.name) == ("amortised_svi", "mle")
    assert anew.answer["m"] == pytest.approx(Y.mean(), abs=0.6)
    assert abs(held.answer["m"] - Y.mean()) == pytest.approx(2.0, abs=0.1)
    for fit in (anew, held):
        assert "density is that of one draw" in " ".join(fit.notes)


def test_state_without_a_guide_is_refused():
    for word in ("nuts", "mean_field", "map"):
        with pytest.raises(ValueError, match="'running' is state that changes"):
            pg.fit(counting, {"y": Y}, word, progress=False)


def test_fewer_draws_are_kept_of_pairs_with_many_parameters(monkeypatch):
    monkeypatch.setattr("probgen.inference.variational.guided_svi.HELD", 100)

    def program(y):
        weights = numpyro.param("weights", jnp.zeros(50))
        mu = numpyro.sample("mu", dist.Normal(weights.sum(), 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([len(y)]).to_event(1), obs=y)

    fit = pg.fit(program, {"y": Y}, "svi", guide=normal, num_steps=20, progress=False)
    assert fit.draws["mu"].shape == (4, 10)
    assert any("10 draws, not 1000" in note and "51 numbers" in note for note in fit.target.notes)


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoDelta", "AutoMultivariateNormal"])
def test_an_automatic_guide_that_the_library_has_used(kind):
    from numpyro.infer import SVI, Trace_ELBO, autoguide

    def program(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        sd = numpyro.sample("sd", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.Normal(mu, sd).expand([len(y)]).to_event(1), obs=y)

    used, fresh = getattr(autoguide, kind)(program), getattr(autoguide, kind)(program)
    SVI(program, used, numpyro.optim.Adam(0.01), Trace_ELBO()).run(jax.random.key(0), 10, Y[:7], progress_bar=False)
    first, second = (
        pg.fit(program, {"y": Y}, "svi", guide=guide, num_steps=50, progress=False) for guide in (used, fresh)
    )
    for name in ("mu", "sd"):
        np.testing.assert_allclose(first.draws[name], second.draws[name], rtol=1e-6)


def test_a_minibatch_given_as_the_data_is_refused():
    """The plate has 40 rows, the data 10 of them: what the others are is not known."""

    def program(x, y):
        with numpyro.plate("rows", 40, subsample_size=10):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(z * x, 1.0), obs=y)

    with pytest.raises(
        ValueError, match="all rows of plate 'rows' at once: its arrays have a minibatch's length, 10 of 40"
    ):
        pg.fit(program, {"x": Y[10:20], "y": Y[:10]}, "nuts", progress=False)
