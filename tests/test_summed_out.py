"""Finite unknowns that are summed out: draws, what depends on them, predictions, pointwise terms; against enumeration by hand.

Frequencies over fits are compared with exact probabilities at the fits' own draws of the continuous unknowns: given those, the
finite ones are independent between draws, so that
z = (sum of draws - sum of probabilities) / sqrt(sum of variances) is standard normal.
Z is the largest |z| allowed: 4.5 is passed by chance in 7e-6 of all comparisons, some 150 of them in this file.
"""

import itertools
import warnings

import numpy as np
import pytest
from conftest import ENGINES, needs_pyro
from scipy import special, stats

import probgen as pg

Z = 4.5
RNG = np.random.default_rng(5)
STEPS = 14
COUNTS = RNG.poisson(np.where(np.arange(STEPS) < 5, 2.0, 5.0)).astype(float)
X = RNG.normal(size=24)
ROWS = np.where(RNG.random(24) < 0.4, 2.0, 0.0) + X + 0.7 * RNG.normal(size=24)
DESIGN = RNG.normal(size=(25, 3))
RESPONSE = DESIGN @ np.array([1.5, 0.0, 0.4]) + RNG.normal(size=25)
SERIES = np.array([-1.2, -0.4, 0.3, 1.4, 0.9, -0.2, 1.3])
MOVE = np.array([[0.8, 0.2], [0.3, 0.7]])
TABLE = RNG.normal([0.0, 1.5], 1.0, (3, 2))


# ---- programs, one pair for each kind ----------------------------------------------------------------------------


def change_numpyro(y=None, steps=STEPS):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    k = numpyro.sample("k", dist.DiscreteUniform(1, steps - 1))  # a support that does not begin at 0
    early, late = numpyro.sample("early", dist.Gamma(2.0, 1.0)), numpyro.sample("late", dist.Gamma(2.0, 0.5))
    numpyro.deterministic("sum", early + late)
    rate = numpyro.deterministic("rate", jnp.where(jnp.arange(steps) < k, early, late))
    with numpyro.plate("step", steps):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def change_pyro(y=None, steps=STEPS):
    import pyro
    import pyro.distributions as dist
    import torch

    k = 1 + pyro.sample("k", dist.Categorical(torch.ones(steps - 1)))
    early, late = pyro.sample("early", dist.Gamma(2.0, 1.0)), pyro.sample("late", dist.Gamma(2.0, 0.5))
    pyro.deterministic("sum", early + late)
    rate = pyro.deterministic("rate", torch.where(torch.arange(steps) < k, early, late))
    with pyro.plate("step", steps):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def mixture_numpyro(x, y=None):
    import numpyro
    import numpyro.distributions as dist

    weight, shift = numpyro.sample("weight", dist.Beta(2.0, 2.0)), numpyro.sample("shift", dist.Normal(2.0, 1.0))
    with numpyro.plate("row", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(weight))
        loc = numpyro.deterministic("loc", shift * z + x)
        numpyro.sample("y", dist.Normal(loc, 0.7), obs=y)


def mixture_pyro(x, y=None):
    import pyro
    import pyro.distributions as dist

    weight, shift = pyro.sample("weight", dist.Beta(2.0, 2.0)), pyro.sample("shift", dist.Normal(2.0, 1.0))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Bernoulli(weight))
        loc = pyro.deterministic("loc", shift * z + x, event_dim=0)
        pyro.sample("y", dist.Normal(loc, 0.7), obs=y)


def slab_numpyro(x, y=None):
    import numpyro
    import numpyro.distributions as dist

    b = [numpyro.sample(f"b{i}", dist.Normal(0.0, 1.0)) for i in range(3)]
    on = [numpyro.sample(f"on{i}", dist.Bernoulli(0.5)) for i in range(3)]
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(sum(on[i] * b[i] * x[:, i] for i in range(3)), 1.0), obs=y)


def slab_pyro(x, y=None):
    import pyro
    import pyro.distributions as dist

    b = [pyro.sample(f"b{i}", dist.Normal(0.0, 1.0)) for i in range(3)]
    on = [pyro.sample(f"on{i}", dist.Bernoulli(0.5)) for i in range(3)]
    with pyro.plate("row", len(x)):
        pyro.sample("y", dist.Normal(sum(on[i] * b[i] * x[:, i] for i in range(3)), 1.0), obs=y)


def hmm_numpyro(y=None, length=7):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan

    gap = numpyro.sample("gap", dist.Normal(2.0, 1.0))

    def step(state, y):
        state = numpyro.sample("s", dist.Categorical(jnp.asarray(MOVE)[state]))
        numpyro.deterministic("level", gap * state)
        numpyro.sample("y", dist.Normal(gap * (state - 0.5), 0.8), obs=y)
        return state, None

    scan(step, jnp.array(0), y, length=length)


def hmm_pyro(y=None, length=7):
    import pyro
    import pyro.distributions as dist
    import torch

    gap, state = pyro.sample("gap", dist.Normal(2.0, 1.0)), torch.tensor(0)
    for t in pyro.markov(range(length)):
        state = pyro.sample(f"s{t}", dist.Categorical(torch.as_tensor(MOVE)[state]))
        pyro.sample(f"y{t}", dist.Normal(gap * (state - 0.5), 0.8), obs=None if y is None else y[t])


def nested_numpyro(y=None, rows=3):
    import numpyro
    import numpyro.distributions as dist

    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.plate("group", 2, dim=-1):
        k = numpyro.sample("k", dist.Bernoulli(0.4))
        with numpyro.plate("row", rows, dim=-2):
            z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.5 * k))
            numpyro.sample("y", dist.Normal(m + z + k, 0.6), obs=y)


def nested_pyro(y=None, rows=3):
    import pyro
    import pyro.distributions as dist

    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("group", 2, dim=-1):
        k = pyro.sample("k", dist.Bernoulli(0.4))
        with pyro.plate("row", rows, dim=-2):
            z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * k))
            pyro.sample("y", dist.Normal(m + z + k, 0.6), obs=y)


DATA = {
    "change": {"y": COUNTS},
    "mixture": {"x": X, "y": ROWS},
    "slab": {"x": DESIGN, "y": RESPONSE},
    "hmm": {"y": SERIES},
    "nested": {"y": TABLE},
}
USUAL = {"change": "nuts", "mixture": "mean_field", "slab": "mean_field", "hmm": "nuts", "nested": "laplace"}
FITS = {}


def fitted(kind, engine, inference=None):
    """A fit of one of the programs above, once a session."""
    inference = inference or USUAL[kind]
    if (kind, engine, inference) not in FITS:
        settings = {"num_warmup": 200, "num_samples": 400, "num_chains": 2} if inference == "nuts" else {}
        if inference == "mean_field":
            settings = {"num_steps": 300}
        program = globals()[f"{kind}_{engine}"]
        FITS[kind, engine, inference] = pg.fit(program, DATA[kind], inference, seed=7, progress=False, **settings)
    return FITS[kind, engine, inference]


def flat(fit):
    """The posterior's variables: (draw, *event)."""
    return {k: v.values.reshape(-1, *v.shape[2:]) for k, v in fit.posterior.items()}


def assert_frequencies(drawn, probability):
    """Draws of 0 and 1 against their probabilities, both (draw, unit); see this file's first lines."""
    assert drawn.shape == probability.shape
    variance = (probability * (1 - probability)).sum(0)
    score = abs(drawn.sum(0) - probability.sum(0)) / np.sqrt(np.maximum(variance, 1e-12))
    assert (score[variance > 1] <= Z).all()
    np.testing.assert_allclose(drawn.sum(0)[variance <= 1], probability.sum(0)[variance <= 1], atol=8)


# ---- exact conditionals, in NumPy --------------------------------------------------------------------------------


def change_probabilities(d):
    """p(k | early, late, y), k = 1, ..., STEPS - 1: (draw, k)."""
    steps = np.arange(STEPS)
    early, late = (stats.poisson.logpmf(COUNTS, d[k][:, None]) for k in ("early", "late"))
    log_p = np.stack([np.where(steps < k, early, late).sum(1) for k in range(1, STEPS)], 1)
    return special.softmax(log_p, axis=1)


def forward_backward(gap):
    """p(s_t = 1 | gap, y) by forward-backward, and log p(y_t | gap, the rest): (draw, time) both."""
    like = stats.norm.pdf(SERIES[:, None], gap[:, None, None] * (np.arange(2) - 0.5), 0.8)  # (draw, time, state)
    before, after = np.empty_like(like), np.ones_like(like)
    for t in range(len(SERIES)):
        before[:, t] = MOVE[0] if t == 0 else (before[:, t - 1] * like[:, t - 1]) @ MOVE
    for t in reversed(range(len(SERIES) - 1)):
        after[:, t] = (after[:, t + 1] * like[:, t + 1]) @ MOVE.T
    beside = before * after
    joint = beside * like
    return joint[..., 1] / joint.sum(-1), np.log(joint.sum(-1) / beside.sum(-1))


def nested_probabilities(m):
    """p(k_g = 1 | m, y), (draw, group), and p(z = 1 | m, k, y) for k = 0, 1: (draw, row, group, k)."""
    grid = [(k, z) for k in (0, 1) for z in (0, 1)]
    prior = {(k, z): stats.bernoulli.pmf(z, 0.2 + 0.5 * k) for k, z in grid}
    joint = {(k, z): prior[k, z] * stats.norm.pdf(TABLE, m[:, None, None] + z + k, 0.6) for k, z in grid}
    rows = np.stack([joint[k, 0] + joint[k, 1] for k in (0, 1)], -1)  # (draw, row, group, k)
    groups = rows.prod(1) * [0.6, 0.4]
    return groups[..., 1] / groups.sum(-1), np.stack([joint[k, 1] for k in (0, 1)], -1) / rows


# ---- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["nuts", "laplace"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_point_is_drawn_given_the_rates_and_its_rates_make_a_step(engine, inference):
    fit = fitted("change", engine, inference)
    d, k = flat(fit), flat(fit)["k"] + (engine == "pyro")
    assert fit.posterior["k"].dtype.kind == "i"
    assert_frequencies((k[:, None] == np.arange(1, STEPS)).astype(float), change_probabilities(d))
    step = np.where(np.arange(STEPS) < k[:, None], d["early"][:, None], d["late"][:, None])
    np.testing.assert_allclose(d["rate"], step)
    np.testing.assert_allclose(d["sum"], d["early"] + d["late"])


@pytest.mark.parametrize("engine", ENGINES)
def test_map_gives_a_draw_given_the_mode(engine):
    fit = fitted("mixture", engine, "map")
    d = flat(fit)
    np.testing.assert_allclose(d["loc"], d["shift"][:, None] * d["z"] + X)


@pytest.mark.parametrize("engine", ENGINES)
def test_assignments_of_a_mixture(engine):
    d = flat(fitted("mixture", engine))
    weight, shift = d["weight"][:, None], d["shift"][:, None]
    on = weight * stats.norm.pdf(ROWS, shift + X, 0.7)
    assert_frequencies(d["z"].astype(float), on / (on + (1 - weight) * stats.norm.pdf(ROWS, X, 0.7)))
    np.testing.assert_allclose(d["loc"], shift * d["z"] + X)


@pytest.mark.parametrize("engine", ENGINES)
def test_inclusion_of_three_effects_is_a_joint_draw(engine):
    """All eight states: the bits depend on each other given the effects."""
    d = flat(fitted("slab", engine))
    states = np.array(list(itertools.product((0, 1), repeat=3)))
    effects = np.stack([d[f"b{i}"] for i in range(3)], 1)
    log_p = [stats.norm.logpdf(RESPONSE, (effects * state) @ DESIGN.T, 1.0).sum(1) for state in states]
    drawn = np.stack([d[f"on{i}"] for i in range(3)], 1) @ [4, 2, 1]
    assert_frequencies((drawn[:, None] == np.arange(8)).astype(float), special.softmax(np.stack(log_p, 1), axis=1))


@pytest.mark.parametrize("engine", ENGINES)
def test_states_of_a_hidden_markov_model(engine):
    """Marginals by forward-backward, and pairs of neighbours, whose correlation a draw of the marginals alone would lose."""
    d = flat(fitted("hmm", engine))
    states = d["s"] if engine == "numpyro" else np.stack([d[f"s{t}"] for t in range(len(SERIES))], 1)
    assert_frequencies(states.astype(float), forward_backward(d["gap"])[0])
    paths = np.array(list(itertools.product((0, 1), repeat=len(SERIES))))
    chain = np.log(MOVE[np.c_[np.zeros(len(paths), int), paths[:, :-1]], paths]).sum(1)
    like = stats.norm.logpdf(SERIES, d["gap"][:, None, None] * (paths - 0.5), 0.8).sum(-1)
    p = special.softmax(chain + like, axis=1)
    both = np.stack([(paths[:, t] & paths[:, t + 1]) for t in range(len(SERIES) - 1)], 1)
    assert_frequencies((states[:, 1:] & states[:, :-1]).astype(float), p @ both)
    if engine == "numpyro":
        np.testing.assert_allclose(d["level"], d["gap"][:, None] * states)


@pytest.mark.parametrize("engine", ENGINES)
def test_units_of_nested_plates(engine):
    d = flat(fitted("nested", engine))
    group, row = nested_probabilities(d["m"])
    assert_frequencies(d["k"].astype(float), group)
    chosen = np.take_along_axis(row, d["k"][:, None, :, None].astype(int), -1)[..., 0]
    assert_frequencies(d["z"].reshape(len(chosen), -1).astype(float), chosen.reshape(len(chosen), -1))


# ---- predictions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_of_the_fits_own_rows_use_the_draws(engine):
    """The means of replicated counts are those of the drawn rates, which are a step."""
    fit = fitted("change", engine)
    rate, drawn = flat(fit)["rate"], fit.predict(seed=1)["y"].values.reshape(-1, STEPS)
    assert (abs(drawn.sum(0) - rate.sum(0)) / np.sqrt(rate.sum(0)) < Z).all()
    some = fit.sample(500, seed=2)["y"]
    late = rate.mean(0)[-1]
    assert some.shape == (500, STEPS)
    assert abs(some[:, -1].mean() - late) < Z * np.sqrt(2 * late / 500)


@pytest.mark.parametrize("engine", ENGINES)
def test_new_rows_of_a_mixture_have_assignments_of_their_own(engine):
    """New x, as many rows or not: the mean is that of the prior of an assignment given the posterior of the others."""
    fit, d = fitted("mixture", engine), flat(fitted("mixture", engine))
    for size in (5, len(X)):
        drawn = fit.predict(seed=size, x=np.zeros(size))["y"].values.reshape(-1, size)
        mean = d["weight"] * d["shift"]
        sd = np.sqrt((0.49 + d["weight"] * (1 - d["weight"]) * d["shift"] ** 2).mean() / len(drawn))
        assert (abs(drawn.mean(0) - mean.mean()) < Z * sd).all()
    own = fit.predict(seed=1)["y"].values.reshape(-1, len(X))
    assert (abs(own.mean(0) - d["loc"].mean(0)) < Z * 0.7 / np.sqrt(len(own))).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_inclusion_stays_that_of_the_posterior_for_new_rows(engine):
    fit, d = fitted("slab", engine), flat(fitted("slab", engine))
    drawn = fit.predict(seed=4, x=np.eye(3))["y"].values.reshape(-1, 3)
    mean = np.stack([d[f"on{i}"] * d[f"b{i}"] for i in range(3)], 1)
    assert (abs((drawn - mean).mean(0)) < Z / np.sqrt(len(drawn))).all()


def test_a_series_goes_on_from_its_last_state():
    """In Pyro each step is a site of its own, and those of the fit are what is predicted."""
    fit, d = fitted("hmm", "numpyro"), flat(fitted("hmm", "numpyro"))
    more = fit.predict(seed=5, y=None, length=len(SERIES) + 1)
    drawn = more["y"].values[..., -1].ravel()
    on = MOVE[d["s"][:, -1].astype(int), 1]
    sd = np.sqrt((0.64 + on * (1 - on) * d["gap"] ** 2).mean() / len(on))
    assert abs((drawn - d["gap"] * (on - 0.5)).mean()) < Z * sd


@pytest.mark.parametrize("engine", ENGINES)
def test_groups_that_were_not_there_are_refused(engine):
    program = {"numpyro": groups_numpyro, "pyro": groups_pyro}[engine]
    fit = pg.fit(program, {"g": np.arange(12) % 3, "y": ROWS[:12]}, "map", progress=False)
    assert fit.predict(g=np.array([0, 2]))["y"].shape[-1] == 2
    with pytest.raises(ValueError, match=r"'k' has shape \(3,\) in the fit and \(4,\) on the new data"):
        fit.predict(g=np.array([0, 3]), groups=4)


def groups_numpyro(g, y=None, groups=3):
    import numpyro
    import numpyro.distributions as dist

    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.plate("group", groups):
        k = numpyro.sample("k", dist.Bernoulli(0.4))
    for i in range(groups):
        numpyro.deterministic(f"of {i}", m + i)
    with numpyro.plate("row", len(g)):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(m + z, 1.0), obs=y)
    with numpyro.plate("group", groups):
        numpyro.factor("tilt", 0.3 * k)


def groups_pyro(g, y=None, groups=3):
    import pyro
    import pyro.distributions as dist

    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("group", groups):
        k = pyro.sample("k", dist.Bernoulli(0.4))
        pyro.factor("tilt", 0.3 * k)
    with pyro.plate("row", len(g)):
        z = pyro.sample("z", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(m + z, 1.0), obs=y)


# ---- pointwise terms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_terms_of_a_mixture_are_marginal(engine):
    fit, d = fitted("mixture", engine), flat(fitted("mixture", engine))
    terms = fit.log_likelihood()["y"].values.reshape(-1, len(X))
    weight, shift = d["weight"][:, None], d["shift"][:, None]
    expected = np.logaddexp(
        np.log(weight) + stats.norm.logpdf(ROWS, shift + X, 0.7), np.log1p(-weight) + stats.norm.logpdf(ROWS, X, 0.7)
    )
    np.testing.assert_allclose(terms, expected, rtol=1e-5, atol=1e-5)
    with warnings.catch_warnings():  # the draws are a guide's: one row weighs much
        warnings.simplefilter("ignore", UserWarning)
        assert np.isfinite(fit.loo().elpd)
    new = fit.log_prob(x=np.zeros(2), y=np.array([0.0, 2.0])).value
    at = np.log(weight * stats.norm.pdf([0.0, 2.0], shift, 0.7) + (1 - weight) * stats.norm.pdf([0.0, 2.0], 0, 0.7))
    np.testing.assert_allclose(new, special.logsumexp(at, axis=0) - np.log(len(at)), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_terms_of_a_change_point_are_those_at_its_draws(engine):
    fit = fitted("change", engine)
    terms = fit.log_likelihood()["y"].values.reshape(-1, STEPS)
    np.testing.assert_allclose(terms, stats.poisson.logpmf(COUNTS, flat(fit)["rate"]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_terms_of_a_hidden_markov_model_leave_one_step_out(engine):
    fit = fitted("hmm", engine)
    found = fit.log_likelihood()
    names = ["y"] if engine == "numpyro" else [f"y{t}" for t in range(len(SERIES))]
    terms = np.concatenate([found[n].values.reshape(fit.z.shape[0] * fit.z.shape[1], -1) for n in names], axis=1)
    np.testing.assert_allclose(terms, forward_backward(flat(fit)["gap"])[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_terms_of_nested_plates_sum_out_what_is_a_rows_own(engine):
    fit, d = fitted("nested", engine), flat(fitted("nested", engine))
    k, m = d["k"][:, None], d["m"][:, None, None]
    on = 0.2 + 0.5 * k
    expected = np.log(on * stats.norm.pdf(TABLE, m + 1 + k, 0.6) + (1 - on) * stats.norm.pdf(TABLE, m + k, 0.6))
    np.testing.assert_allclose(fit.log_likelihood()["y"].values.reshape(-1, 3, 2), expected, rtol=1e-5, atol=1e-5)


# ---- what surrounds them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_draws_are_a_function_of_the_seed_and_outlive_the_disk(engine, tmp_path):
    fit = fitted("mixture", engine)
    fit.save(tmp_path / "run")
    loaded = pg.load(tmp_path / "run", globals()[f"mixture_{engine}"])
    for name in ("z", "loc"):
        np.testing.assert_array_equal(loaded.posterior[name].values, fit.posterior[name].values)
    z = fit.posterior["z"].values
    assert (z[:, 1:] != z[:, :-1]).any(axis=(0, 2)).mean() > 0.9  # every draw is a fresh one
    other = fit.target.drawn(fit.z, 4)["z"]
    assert (other != z).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_verdict_reads_the_continuous_unknowns_alone_and_the_summary_all(engine):
    fit = fitted("change", engine)
    assert set(fit.target.summed) == {"k", "rate"}
    assert {"k", "sum"} <= set(fit.summary().index)
    assert not [f.message for f in fit.diagnose().findings if "(k)" in f.message or "rate[" in f.message]


def test_a_second_fit_traces_nothing():
    runs = []

    def counted(x, y=None):
        runs.append(1)
        mixture_numpyro(x, y)

    for scale in (1.0, 2.0):
        runs.clear()
        data = {"x": X, "y": scale * ROWS}
        fit = pg.fit(counted, data, "random_walk", num_samples=50, num_warmup=50, num_chains=2, progress=False)
        assert fit.draws["loc"].shape == (2, 50, 24)
        fit.log_likelihood()
    assert not runs


# ---- sums that NumPyro gets wrong, and what cannot be summed ------------------------------------------------------


def sum_by_hand(program, shapes, levels):
    """The log sum of the joint density over all values of finite sites, at the origin of the others."""
    import jax
    import jax.numpy as jnp
    from numpyro import handlers
    from numpyro.infer.util import log_density

    @jax.jit
    def at_state(state):
        values, at = {"m": jnp.zeros(())}, 0
        for name, size, shape in units:
            values[name], at = state[at : at + size].reshape(shape), at + size
        return log_density(handlers.seed(program, jax.random.key(0)), (), {}, values)[0]

    units = [(name, int(np.prod(shape)), shape) for name, shape in shapes.items()]
    states = itertools.product(*[levels[name] for name, size, _ in units for _ in range(size)])
    return special.logsumexp([float(at_state(jnp.array(state))) for state in states])


def scanned(step):
    """A program of a scan over two steps of data, or of a global bit and a scan."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan

    def program():
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        scan(step(m), jnp.array(0), jnp.asarray(SERIES[:3]))

    return program


def local_first(m):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def step(s, y):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        s = numpyro.sample("s", dist.Categorical(jnp.asarray(MOVE)[s]))
        numpyro.sample("y", dist.Normal(m + s + z, 0.8), obs=y)
        return s, None

    return step


def global_outside(m):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    g = numpyro.sample("g", dist.DiscreteUniform(2, 3))

    def step(s, y):
        s = numpyro.sample("s", dist.Categorical(jnp.asarray(MOVE)[s]))
        numpyro.sample("y", dist.Normal(m + s - g, 0.8), obs=y)
        return s, None

    return step


@pytest.mark.parametrize(
    ("step", "shapes", "levels"),
    [
        (local_first, {"z": (3,), "s": (3,)}, {"z": (0, 1), "s": (0, 1)}),
        (global_outside, {"g": (), "s": (3,)}, {"g": (2, 3), "s": (0, 1)}),
    ],
)
def test_sums_over_scans_are_those_by_hand(step, shapes, levels):
    import jax

    from probgen.engine.numpyro import engine

    program = scanned(step)
    target = engine.prepare(program, {}).marginalise()
    with jax.enable_x64():
        found = float(target.log_density(np.zeros(target.dim)))
        assert found == pytest.approx(sum_by_hand(program, shapes, levels), abs=1e-9)
    drawn = target.drawn(np.zeros((1, 50, target.dim)), 0)
    assert {k: drawn[k].shape[2:] for k in shapes} == shapes
    assert set(np.unique(drawn["s"])) == {0, 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sum_along_a_plate_is_refused_for_enumeration_does_not_follow_it(engine):
    program = {"numpyro": total_numpyro, "pyro": total_pyro}[engine]
    with pytest.raises(ValueError, match=r"(?s)cannot be summed out: .* combines units of a plate"):
        pg.fit(program, {"y": ROWS}, "nuts", num_samples=10, num_warmup=10, progress=False)


def total_numpyro(y):
    import numpyro
    import numpyro.distributions as dist

    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", 12):  # of fewer units all joint states are summed over
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(m + z.sum(), 1.0), obs=y)


def total_pyro(y):
    import pyro
    import pyro.distributions as dist

    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("unit", 3):
        z = pyro.sample("z", dist.Bernoulli(0.3))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(m + z.sum(), 1.0), obs=y)


def test_a_scan_backward_is_refused():
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.control_flow import scan

    def backward(y):
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))

        def step(s, y):
            s = numpyro.sample("s", dist.Categorical(jnp.asarray(MOVE)[s]))
            numpyro.sample("y", dist.Normal(m + s, 0.8), obs=y)
            return s, None

        scan(step, jnp.array(0), y, reverse=True)

    with pytest.raises(ValueError, match="Reverse the data and scan forward"):
        pg.fit(backward, {"y": SERIES}, "nuts", num_samples=10, num_warmup=10, progress=False)


@needs_pyro
def test_one_hot_assignments_and_their_counts():
    """A finite site with events, and a deterministic site that adds its units up."""
    import pyro
    import pyro.distributions as dist
    import torch

    def program(y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.2, 0.5, 0.3])))
            pyro.sample("y", dist.Normal(m + (z * torch.arange(3.0)).sum(-1), 0.7), obs=y)
        pyro.deterministic("count", z.sum(-2))

    fit = pg.fit(program, {"y": ROWS}, "laplace", progress=False)
    d = flat(fit)
    np.testing.assert_array_equal(d["count"], d["z"].sum(1))
    p = np.array([0.2, 0.5, 0.3]) * stats.norm.pdf(ROWS[:, None], d["m"][:, None, None] + np.arange(3), 0.7)
    p /= p.sum(-1, keepdims=True)
    assert_frequencies(d["z"].reshape(len(p), -1).astype(float), p.reshape(len(p), -1))


def test_bits_of_one_event_are_drawn_from_their_slopes():
    """Bits that do not interact given the reals: p(on_i | b, y) by two evaluations."""
    import numpyro
    import numpyro.distributions as dist

    def program(y):
        b = numpyro.sample("b", dist.Normal(0.0, 1.0))
        on = numpyro.sample("on", dist.Bernoulli(0.3).expand([4]).to_event(1))
        numpyro.deterministic("level", b * on)
        numpyro.factor(
            "fit", (on * (y * b - b**2 / 2) / 0.5**2).sum()
        )  # the normal density, written affine in the bits

    y = np.array([1.0, -0.2, 0.9, 0.3])
    fit = pg.fit(program, {"y": y}, "nuts", num_samples=400, num_warmup=200, num_chains=2, seed=1, progress=False)
    d = flat(fit)
    np.testing.assert_allclose(d["level"], d["b"][:, None] * d["on"])
    on = 0.3 * stats.norm.pdf(y, d["b"][:, None], 0.5)
    assert_frequencies(d["on"].astype(float), on / (on + 0.7 * stats.norm.pdf(y, 0, 0.5)))


def test_rows_without_a_plate_are_summed_over_as_rows():
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    from probgen.engine.numpyro import engine

    def loose(y):
        k = numpyro.sample("k", dist.Categorical(jnp.ones(3) / 3))
        m = numpyro.sample("m", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(m + k, 1.0), obs=y)

    target = engine.prepare(loose, {"y": ROWS}).marginalise()
    with jax.enable_x64():
        found = float(target.log_density(np.array([0.4])))
    parts = stats.norm.logpdf(ROWS[:, None], 0.4 + np.arange(3)).sum(0) - np.log(3)
    assert found == pytest.approx(np.logaddexp.reduce(parts) + stats.norm.logpdf(0.4), abs=1e-9)


@needs_pyro
def test_sums_do_not_depend_on_the_library_that_used_funsor_last():
    """Pyro's AutoGaussian(backend="funsor") leaves funsor, which both libraries use, at torch."""
    import funsor
    import numpyro.contrib.funsor.infer_util  # noqa: F401  sets it to jax when it is first imported, and at no time after

    from probgen.run import conditioned

    def program(y, shift=0.0):
        import jax.numpy as jnp
        import numpyro
        import numpyro.distributions as dist

        mu = numpyro.sample("mu", dist.Normal(shift, 1.0))
        with numpyro.plate("row", len(y)):
            k = numpyro.sample("k", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("y", dist.Normal(mu + 3.0 * k, 1.0), obs=y)

    y = np.array([2.0, -1.0, 3.5])
    funsor.set_backend("torch")
    try:
        target = conditioned(program, {"y": y, "shift": 0.125})[1].marginalise()
        value = target.gradients(np.array([[0.5]]))[0][0]
        used = funsor.util.get_backend()
    finally:
        funsor.set_backend("jax")
    assert used == "jax", "sums that need einsum would be torch's, which JAX's tracers are no arguments of"
    assert not target.notes, "it was summed out state by state"
    each = np.log([0.3, 0.7]) + stats.norm.logpdf(y[:, None], 0.5 + 3.0 * np.arange(2))
    exact = stats.norm.logpdf(0.5, 0.125) + special.logsumexp(each, axis=1).sum()
    assert value == pytest.approx(exact, rel=1e-9)
