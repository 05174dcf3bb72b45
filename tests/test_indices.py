"""Indices out of range and observed values out of support, which neither JAX nor a compiled graph reports, are refused at fit."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES, needs_pyro
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density
from scipy.stats import norm

import probgen as pg
from probgen.engine.numpyro.programs import indices
from probgen.run import conditioned

G = np.repeat(np.arange(8), 5)
X = np.linspace(-1.0, 1.0, 40)
Y = np.random.default_rng(0).normal(size=40)
DATA = {"g": G, "x": X, "y": Y}


def numpyro_program(read):
    """A program whose means are read from eight unknowns t by groups g and a covariate x."""

    def program(g, x, y=None):
        t = numpyro.sample("t", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(read(t, g, x), 1.0).expand([40]), obs=y)

    return program


def scanned(t, g, x):
    return jax.lax.scan(lambda total, i: (total + t[i], t[i]), 0.0, g)[1]


def looped(t, g, x):
    return jax.lax.fori_loop(0, 40, lambda i, total: total + t[g[i]], 0.0) + 0 * x


def markov(t, g, x):
    def step(state, i):
        state = numpyro.sample("state", dist.Normal(state + t[i], 1.0))
        return state, state

    return scan(step, 0.0, g)[1]


READS = {
    "an index": lambda t, g, x: t[g],
    "take": lambda t, g, x: jnp.take(t, g),
    "take_along_axis": lambda t, g, x: jnp.take_along_axis(t, g, 0),
    "a vmapped index": lambda t, g, x: jax.vmap(lambda i: t[i])(g),
    "a compiled function": lambda t, g, x: jax.jit(lambda t, g: t[g])(t, g),
    "a checkpoint": lambda t, g, x: jax.checkpoint(lambda t, g: t[g])(t, g),
    "rows of a table": lambda t, g, x: jnp.stack([t, -t], 1)[g, 0],
    "rows of the identity": lambda t, g, x: jnp.eye(8)[g] @ t,
    "one_hot": lambda t, g, x: jax.nn.one_hot(g, 8) @ t,
    "sums of segments": lambda t, g, x: jax.ops.segment_sum(x, g, num_segments=8)[0] * t[0],
    "an update": lambda t, g, x: jnp.zeros(8).at[g].add(x) @ t,
    "a slice": lambda t, g, x: jax.lax.dynamic_slice(t, (g[-1],), (1,)) * x,
    "a scan": scanned,
    "a loop": looped,
    "a map": lambda t, g, x: jax.lax.map(lambda i: t[i], g),
    "a chain": markov,
    "a branch": lambda t, g, x: jax.lax.cond(g[0] >= 0, lambda: t[g], lambda: 0 * x),
}


@pytest.mark.parametrize("read", READS)
def test_groups_that_are_not_there_are_refused(read):
    program = numpyro_program(READS[read])
    conditioned(program, DATA)
    with pytest.raises(
        ValueError, match=r"(?s)'g' is an index of 8 entries, 0 to 7; g\[35\] is 8.\nNumber from 0: g - 1"
    ):
        conditioned(program, DATA | {"g": G + 1})
    conditioned(program, DATA)
    with pytest.raises(ValueError, match=r"'g' is an index of 8 entries, 0 to 7; g\[39\] is 12"):
        conditioned(program, DATA | {"g": np.where(np.arange(40) == 39, 12, G)})


COMPUTED = {
    "a sum": lambda t, g, x: t[g + 1],
    "floats made integers": lambda t, g, x: t[(4 * x + 5).astype(int)],
    "a search": lambda t, g, x: t[jnp.searchsorted(jnp.linspace(-1, 0.9, 8), x)],
    "an array of the program's own": lambda t, g, x: t[np.arange(1, 41) // 5],
    "a number": lambda t, g, x: t[8] * x,
    "below the first": lambda t, g, x: t[g - 9],
}


@pytest.mark.parametrize("read", COMPUTED)
def test_computed_indices_are_refused(read):
    with pytest.raises(ValueError, match=r"(?s)An index .* is -?\d+, of 8 entries, 0 to 7.*clip it in the program"):
        conditioned(numpyro_program(COMPUTED[read]), DATA)


MEANT = {
    "from the end": lambda t, g, x: t[g - 8],
    "groups from 1": lambda t, g, x: t[(g + 1) - 1],
    "clipped": lambda t, g, x: t[jnp.clip(g + 3, 0, 7)],
    "clipped by take": lambda t, g, x: jnp.take(t, g + 3, mode="clip"),
    "filled": lambda t, g, x: t.at[g + 3].get(mode="fill", fill_value=0.0),
    "modulo": lambda t, g, x: t[(g + 3) % 8],
    "no label": lambda t, g, x: jax.nn.one_hot(g - 1, 8) @ t,
    "interpolated": lambda t, g, x: jnp.interp(3 * x, jnp.linspace(-1, 1, 8), t),
    "repeated": lambda t, g, x: jnp.repeat(t, jnp.bincount(g, length=8), total_repeat_length=40),
    "rolled": lambda t, g, x: jnp.roll(x, g[-1]) + jnp.roll(t, 11)[0],
    "quantiles": lambda t, g, x: jnp.quantile(x, 0.9) + jnp.median(t),
    "sorted": lambda t, g, x: x[jnp.argsort(x)] + jnp.sort(t)[g],
    "unique": lambda t, g, x: t[jnp.unique(g, size=8)][g],
    "a branch not taken": lambda t, g, x: jax.lax.cond(g[0] > 0, lambda: t[g + 1], lambda: t[g]),
    "random rows": lambda t, g, x: x[jax.random.permutation(jax.random.key(0), 40)],
    "a slice over the end": lambda t, g, x: t[5:12].sum() * x,
    "a reversed index": lambda t, g, x: t[::-1][g],
}


@pytest.mark.parametrize("read", MEANT)
def test_what_is_meant_or_in_range_is_taken(read):
    program = numpyro_program(MEANT[read])
    target, z = conditioned(program, DATA)[1], np.linspace(-1.0, 1.0, 8)
    with jax.enable_x64(True):
        theirs = log_density(program, (), {k: jnp.asarray(v) for k, v in DATA.items()}, {"t": jnp.asarray(z)})[0]
        np.testing.assert_allclose(float(target.log_density(jnp.asarray(z))), float(theirs), rtol=1e-9)


def test_unknown_indices_are_left_alone():
    def mixture(y, k=3):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([k]))
        with numpyro.plate("row", len(y)):
            z = numpyro.sample("z", dist.Categorical(jnp.ones(k) / k), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    target, mu = conditioned(mixture, {"y": Y})[1].marginalise(), np.array([-1.0, 0.0, 1.5])
    exact = norm.logpdf(mu).sum() + np.log(norm.pdf(Y[:, None], mu).mean(1)).sum()
    with jax.enable_x64(True):
        np.testing.assert_allclose(float(target.log_density(jnp.asarray(mu))), exact, rtol=1e-9)


TRACED = []


def counted(t, g, x):
    TRACED.append(1)
    return t[g]


def test_nothing_is_compiled_or_traced_for_a_look():
    compiled = []
    program = numpyro_program(counted)
    conditioned(program, DATA)
    before = len(TRACED)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: "backend_compile" in event and compiled.append(event)
    )
    conditioned(program, DATA | {"g": G[::-1].copy()})
    with pytest.raises(ValueError, match=r"g\[35\] is 8"):
        conditioned(program, DATA | {"g": G + 1})
    assert len(TRACED) == before
    assert not compiled


# ---- supports that depend on data


def trials(n, y):
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    numpyro.sample("y", dist.Binomial(n, p), obs=y)


def labels(y):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("y", dist.Categorical(p).expand([4]), obs=y)


def bounded(low, y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.TruncatedNormal(m, 1.0, low=low), obs=y)


def shares(y):
    a = numpyro.sample("a", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Dirichlet(a * jnp.ones(3)), obs=y)


OWN = np.array([0.0, 1.0, 2.0])


def outside():
    p = numpyro.sample("p", dist.Beta(1.0, 1.0))
    numpyro.sample("y", dist.Bernoulli(p).expand([3]), obs=OWN)


SUPPORTS = {
    "more than were tried": (trials, {"n": [3, 4], "y": [3, 5]}, {"n": [3, 4], "y": [3, 4]}, r"site 'y' lies outside.*index \[1\]"),
    "a class too many": (labels, {"y": [0, 1, 2, 3]}, {"y": [0, 1, 2, 2]}, r"integers from 0 to 2; y\[3\] is 3"),
    "below its bound": (bounded, {"low": [0.0, 1.0], "y": [0.5, 0.5]}, {"low": [0, 1], "y": [0.5, 1.5]}, r"'y' lies.*index \[1\]"),
    "shares": (shares, {"y": [0.5, 0.4, 0.2]}, {"y": [0.5, 0.4, 0.1]}, r"'y' lies outside the support"),
    "data of the program": (outside, {}, None, r"'y' lies outside the support.*index \[2\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", SUPPORTS)
def test_values_outside_supports_of_data(case):
    program, bad, good, message = SUPPORTS[case]
    with pytest.raises(ValueError, match=message):
        pg.fit(program, bad, progress=False)
    if good:
        conditioned(program, good)


# ---- arguments of distributions


def shares_of(p, y):
    numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Categorical(p), obs=y)


def spread_by(s, y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def together(c, y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.MultivariateNormal(m * jnp.ones(2), c), obs=y)


def factored(c, y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.MultivariateNormal(m * jnp.ones(2), scale_tril=c), obs=y)


def in_turn(t, y):
    """A Markov chain of which t says whether rows or columns of the matrix are the probabilities of the next state."""
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(2)).expand([2]).to_event(1))
    rows = jnp.where(t, p.T, p)
    numpyro.sample("y", dist.Categorical(rows[y[:-1]]), obs=y[1:])


CHAIN = np.array([0, 1, 1, 0, 1])
ARGUMENTS = {
    "probabilities": (shares_of, {"p": [0.2, 0.2], "y": 1}, {"p": [0.2, 0.8], "y": 1}, "'probs' of site 'y'"),
    "a scale": (spread_by, {"s": [1.0, -1.0], "y": [0.0, 1.0]}, {"s": [1.0, 2.0], "y": [0.0, 1.0]}, r"'scale' of site 'y'.*\[1\]"),
    "a covariance": (together, {"c": [[1.0, 0.9], [0, 1]], "y": [0.0, 1]}, {"c": np.eye(2), "y": [0.0, 1]}, "'covariance_matrix'"),
    "a factor": (factored, {"c": [[1.0, 0.9], [0, 1]], "y": [0.0, 1]}, {"c": np.eye(2), "y": [0.0, 1]}, "'scale_tril' of site 'y'"),
    "a chain's columns": (in_turn, {"t": 1, "y": CHAIN}, {"t": 0, "y": CHAIN}, "'probs' of site 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_are_none_are_refused(case):
    program, bad, good, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        conditioned(program, {k: np.asarray(v) for k, v in bad.items()})
    conditioned(program, {k: np.asarray(v) for k, v in good.items()})


def test_what_is_masked_may_have_any_argument():
    def program(s, y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        with numpyro.handlers.mask(mask=s > 0):
            numpyro.sample("y", dist.Normal(m, s), obs=y)

    target = conditioned(program, {"s": np.array([1.0, -1.0]), "y": np.array([0.5, 0.0])})[1]
    with jax.enable_x64(True):
        assert float(target.log_density(jnp.zeros(1))) == pytest.approx(norm.logpdf(0) + norm.logpdf(0.5), abs=1e-5)


# ---- Pyro


def pyro_program(read):
    import pyro
    import pyro.distributions as dist
    import torch

    def program(g, x, y=None):
        t = pyro.sample("t", dist.Normal(torch.zeros(8), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(read(torch, t, g, x), 1.0).expand([40]), obs=y)

    return program


PYRO = {
    "an index": lambda torch, t, g, x: t[g],
    "index_select": lambda torch, t, g, x: t.index_select(0, g),
    "gather": lambda torch, t, g, x: t.gather(0, g),
    "take": lambda torch, t, g, x: torch.take(t, g),
    "an update": lambda torch, t, g, x: torch.zeros(8).scatter_add(0, g, x) @ t * x,
    "an embedding": lambda torch, t, g, x: torch.nn.functional.embedding(g, t[:, None])[:, 0],
    "floats made integers": lambda torch, t, g, x: t[g.double().long()],
}


@needs_pyro
@pytest.mark.parametrize("read", PYRO)
def test_pyro_groups_that_are_not_there_are_refused(read):
    """Also where a program of the same shapes is compiled already."""
    program = pyro_program(PYRO[read])
    for bad in (G + 1, G - 9):
        with pytest.raises(
            ValueError, match=r"(?s)does not run on this data \(g: \(40,\).*(index of 8 entries|out of range).* g?"
        ):
            conditioned(program, DATA | {"g": bad})
        target = conditioned(program, DATA)[1]
    if read == "an index":  # compiled once is enough
        assert np.isfinite(target.value_and_grad(np.zeros(8))[0])
    with pytest.raises(ValueError, match=r"(index of 8 entries|out of range).*(g\[35\] is 8|from 1 to 8)"):
        conditioned(program, DATA | {"g": G + 1})


@needs_pyro
def test_pyro_values_outside_supports():
    import pyro
    import pyro.distributions as dist
    import torch

    def trials(n, y):
        p = pyro.sample("p", dist.Beta(1.0, 1.0))
        pyro.sample("y", dist.Binomial(n.double(), p), obs=y.double())

    def classes(y):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3)))
        pyro.sample("y", dist.Categorical(p).expand([4]), obs=y)

    validated = pyro.settings.get("validate_distributions_torch"), pyro.settings.get("validate_distributions_pyro")
    try:
        for on in (True, False):
            pyro.settings.set(validate_distributions_torch=on, validate_distributions_pyro=on)
            conditioned(trials, {"n": np.array([3, 4]), "y": np.array([3, 4])})
            with pytest.raises(ValueError, match=r"(?s)'y'.*outside the support.*index \[1\]"):
                conditioned(trials, {"n": np.array([3, 4]), "y": np.array([3, 5])})
            with pytest.raises(ValueError, match=r"integers from 0 to 2; y\[3\] is 3"):
                conditioned(classes, {"y": np.array([0, 1, 2, 3])})
    finally:
        pyro.settings.set(validate_distributions_torch=validated[0], validate_distributions_pyro=validated[1])


# ---- rows of learned programs


def numpyro_rows(x=None, label=None):
    w = numpyro.param("w", jnp.zeros((3, 4)))
    numpyro.sample("x", dist.Normal(w[label], 1.0).to_event(1), obs=x)


def pyro_rows(x, label):
    import pyro
    import pyro.distributions as dist
    import torch

    w = pyro.param("w", torch.zeros((3, 4)))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(w[label], 1.0).to_event(1), obs=x)


ROWS, LABELS = np.random.default_rng(1).normal(size=(30, 4)), np.repeat([0, 1, 2], 10)


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_of_rows(engine):
    program = {"numpyro": numpyro_rows, "pyro": pyro_rows}[engine]
    settings = {"num_steps": 20, "batch_size": 10, "progress": False}
    for bad in (LABELS + 1, np.where(np.arange(30) == 20, 3, LABELS)):
        with pytest.raises(ValueError, match=r"'label' is an index of 3 entries, 0 to 2; label\[20\] is 3"):
            pg.fit(program, {"x": ROWS, "label": bad}, "mle", **settings)
    fit = pg.fit(program, {"x": ROWS, "label": LABELS}, "mle", **settings)
    w = fit.parameters["w"]
    found = fit.log_prob(ROWS[:2], label=[0, 2]).value
    exact = -0.5 * ((ROWS[:2] - w[[0, 2]]) ** 2).sum(1) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    with pytest.raises(ValueError, match=r"'label' is an index of 3 entries, 0 to 2; label\[1\] is 3"):
        fit.log_prob(ROWS[:2], label=[0, 3])
    with pytest.raises(ValueError, match=r"'label' is an index of 3 entries, 0 to 2"):
        fit.condition(label=3).sample(2)
    with pytest.raises(ValueError, match=r"label is from 0 to 2 .*; label\[1\] is -1, which counts from the end"):
        fit.log_prob(ROWS[:2], label=[0, -1])
    with pytest.raises(ValueError, match=r"label is -1, which counts from the end"):
        fit.condition(label=-1)
    with pytest.raises(ValueError, match=r"label holds whole numbers where it was learned from; label is 1.5"):
        fit.condition(label=1.5)
    assert fit.condition(label=2).sample(2)["x"].shape == (2, 4)


def test_indices_of_a_loop_that_no_data_enter_are_looked_at_once():
    """What else enters the loop is no reason to look row by row, as of a draw's loop over what a context of each row began."""

    def loop(x, places):
        def step(kept, at):
            i, j = at
            return kept.at[i].set(kept[i] + x[0]), x[j]

        return jax.lax.scan(step, jnp.zeros(4) + x, (jnp.arange(3), places))[1]

    for names, sources in ((("x", "places"), {"places"}), (("x",), set())):
        body = loop if len(names) == 2 else lambda x: loop(x, jnp.arange(3))
        closed = jax.make_jaxpr(body)(*[jnp.zeros(4), jnp.arange(3)][: len(names)])
        assert indices.of(closed, names).sources == sources


# ---- indices that count from the end


def on_both(engine, read):
    return {"numpyro": numpyro_program(read), "pyro": pyro_program(lambda torch, *given: read(*given))}[engine]


LOST = np.where(np.arange(40) == 3, -1, G)  # as pandas codes a missing category


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_category_is_not_the_last_one(engine):
    with pytest.raises(ValueError, match=r"g\[3\] is -1, which counts from the end: the entry that 7 stands for"):
        conditioned(on_both(engine, lambda t, g, x: t[g]), DATA | {"g": LOST})
    conditioned(on_both(engine, lambda t, g, x: (g >= 0) * t[g]), DATA | {"g": LOST})
    conditioned(on_both(engine, lambda t, g, x: t[g % 8]), DATA | {"g": LOST % 8})
    conditioned(on_both(engine, lambda t, g, x: t[0] * g), DATA | {"g": LOST})


@pytest.mark.parametrize("engine", ENGINES)
def test_nor_is_it_where_new_rows_are_predicted(engine):
    fit = pg.fit(on_both(engine, lambda t, g, x: t[g]), DATA, "laplace", num_draws=20, progress=False)
    with pytest.raises(ValueError, match=r"g\[3\] is -1, which counts from the end: the entry that 7 stands for"):
        fit.predict(g=LOST)
    asked = on_both(engine, lambda t, g, x: (g >= 0) * t[g])
    assert pg.fit(asked, DATA, "laplace", num_draws=20, progress=False).predict(g=LOST)["y"].shape[2:] == (40,)
