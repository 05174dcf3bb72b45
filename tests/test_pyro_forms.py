"""Pyro programs as people write them: closed-over tensors, modules of random weights, chains, labels, plates of many kinds."""

import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
from conftest import needs_pyro
from scipy import stats
from scipy.special import logsumexp

import probgen as pg
from probgen.algorithm import Incompatible

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as dist  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.infer import config_enumerate  # noqa: E402
from pyro.infer.reparam import LocScaleReparam  # noqa: E402
from pyro.nn import PyroModule, PyroSample  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributions import constraints  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402
from probgen.engine.pyro.executor import OPS  # noqa: E402

pytestmark = needs_pyro

SMALL = {
    "nuts": {"num_samples": 300, "num_warmup": 200, "num_chains": 2},
    "svi": {"num_steps": 4000},
    "mean_field": {"num_steps": 4000},
}

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2)).astype(np.float32)
Y = X @ np.array([1.0, -1.0]) + 0.5 * RNG.normal(size=40)
PRECISION = np.eye(2) + X.T.astype(float) @ X / 0.25
MEAN = np.linalg.solve(PRECISION, X.T @ Y / 0.25)  # of the weights of Y on X, of noise .5 and standard normal prior


# ---- types --------------------------------------------------------------------------------------------------------


def made(kind, *sizes, seed=0, **options):
    """A module whose first weights leave torch's generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(*sizes, **options)


closed = torch.from_numpy(X)  # float32, as torch.randn makes it


def by_closure(y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(closed @ b, 0.5), obs=y)


def made_inside(y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2, dtype=torch.float32), 1.0).to_event(1))
    x = torch.stack([closed[:, 0], closed[:, 1]], -1).float()
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(torch.matmul(x, b), torch.tensor(0.5, dtype=torch.float32)), obs=y)


prior = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))


def of_a_prior(y):
    b = pyro.sample("b", prior)
    pyro.sample("y", dist.MultivariateNormal(closed @ b, scale_tril=0.5 * torch.eye(40, dtype=torch.float32)), obs=y)


class Features(nn.Module):
    """Fixed weights and a buffer in float32, which pass their input on."""

    def __init__(self):
        super().__init__()
        self.linear = made(nn.Linear, 2, 2, bias=False)
        self.linear.weight.data = torch.eye(2)
        self.register_buffer("shift", torch.zeros(2))

    def forward(self, x):
        return self.linear(x) + self.shift


features = Features().requires_grad_(False)


def of_a_net(y):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(features(closed.to(b.dtype)) @ b, 0.5), obs=y)


MIXED = {f.__name__: f for f in (by_closure, made_inside, of_a_prior, of_a_net)}


@pytest.mark.parametrize("name", MIXED)
def test_closed_over_tensors_are_lifted_to_the_precision_of_the_run(name):
    target = engine.prepare(MIXED[name], {"y": Y})
    z = np.array([0.3, -0.2])
    expected = stats.norm.logpdf(z).sum() + stats.norm.logpdf(Y, X.astype(float) @ z, 0.5).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradient = target.value_and_grad(z)
    assert target._gradient("full").is_compiled
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, PRECISION @ (MEAN - z), rtol=1e-10)
    assert engine.prepare(MIXED[name], {"y": Y[::-1]}).structure is target.structure


@pytest.mark.parametrize("inference", ["nuts", "svi", "map"])
def test_a_regression_on_closed_over_data_has_its_posterior(inference):
    fit = pg.fit(by_closure, {"y": Y}, inference, progress=False, **SMALL.get(inference, {}))
    sd = np.sqrt(np.diag(np.linalg.inv(PRECISION)))
    error = 1e-4 if inference == "map" else 5 * sd / np.sqrt(300)  # of 300 independent draws or more
    assert (np.abs(fit.posterior["b"].mean(("chain", "draw")).values - MEAN) < error).all()


def test_what_cannot_be_lifted_is_run_in_float32_and_told():
    class Doubled(torch.autograd.Function):  # a function of C++ would do as well: it sees no lifting
        @staticmethod
        def forward(ctx, x):
            with torch._C.DisableTorchFunction():
                return torch.mm(x, torch.eye(2, dtype=torch.float32))

        @staticmethod
        def backward(ctx, g):
            with torch._C.DisableTorchFunction():
                return torch.mm(g, torch.eye(2, dtype=torch.float32))

    def program(y):
        b = pyro.sample("b", dist.Normal(torch.zeros(1, 2), 1.0).to_event(2))
        pyro.sample("y", dist.Normal(Doubled.apply(b).sum(), 1.0), obs=y)

    target = engine.prepare(program, {"y": np.array(1.0)})
    assert target.precision == "float32"
    assert "float32" in target.notes[0]


def test_a_guide_of_modules_made_before_runs_in_the_precision_of_the_run():
    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.net = made(PyroModule[nn.Linear], 2, 2)

        def forward(self, y):
            h = self.net(torch.ones(2))
            pyro.sample("b", dist.Normal(h, 0.1).to_event(1))

    guide = Guide()
    fit = pg.fit(by_closure, {"y": Y}, "svi", guide=guide, progress=False, num_steps=300, num_particles=1)
    assert fit.target.precision == "float64"
    loss = fit.records["loss"][0]
    assert loss[-20:].mean() < loss[:5].mean() - 5


# ---- what is compiled, and what is not -----------------------------------------------------------------------------


class Weights(PyroModule):
    def __init__(self):
        super().__init__()
        self.b = PyroSample(dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    def forward(self, y):
        mean = closed.to(self.b.dtype) @ self.b
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


class Regression(PyroModule):
    """A layer of torch's with priors in place of its weights."""

    def __init__(self):
        super().__init__()
        self.linear = made(PyroModule[nn.Linear], 2, 1, bias=False)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 2]).to_event(2))

    def forward(self, x, y=None):
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("row", len(x)):
            return pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


class Net(PyroModule):
    """A small Bayesian network."""

    def __init__(self):
        super().__init__()
        self.first = made(PyroModule[nn.Linear], 2, 3)
        self.first.weight = PyroSample(dist.Normal(0.0, 1.0).expand([3, 2]).to_event(2))
        self.first.bias = PyroSample(dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        self.last = PyroSample(dist.Normal(0.0, torch.ones(3)).to_event(1))

    def forward(self, x, y=None):
        mean = torch.tanh(self.first(x)) @ self.last
        pyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


@pytest.mark.parametrize("program", [Weights(), Regression(), Net()], ids=["attribute", "layer", "net"])
def test_modules_of_random_weights_are_compiled(program):
    data = {"y": Y} if isinstance(program, Weights) else {"x": X, "y": Y}
    target = engine.prepare(program, data)
    z = np.linspace(-0.5, 0.5, target.dim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, gradient = target.value_and_grad(z)
    assert target._gradient("full").is_compiled
    mean = X.astype(float) @ z if target.dim == 2 else None
    if mean is None:
        blocks = {k: z[b.start : b.stop].reshape(b.shape) for k, b in target.structure.blocks.items()}
        mean = np.tanh(X.astype(float) @ blocks["first.weight"].T + blocks["first.bias"]) @ blocks["last"]
    np.testing.assert_allclose(value, stats.norm.logpdf(z).sum() + stats.norm.logpdf(Y, mean, 0.5).sum(), rtol=1e-10)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("inference", ["nuts", "svi", "mean_field"])
def test_a_layer_with_priors_has_the_posterior_of_a_regression(inference):
    fit = pg.fit(Regression(), {"x": X, "y": Y}, inference, progress=False, **SMALL.get(inference, {}))
    mean = fit.posterior["linear.weight"].mean(("chain", "draw")).values.ravel()
    assert (np.abs(mean - MEAN) < 5 * np.sqrt(np.diag(np.linalg.inv(PRECISION)) / 300)).all()
    assert fit.predict(x=X[:3])["y"].shape[-1] == 3


def chain(seq):
    change = pyro.sample("change", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    show = pyro.sample("show", dist.Dirichlet(torch.ones(2, 3)).to_event(1))
    x = 0
    for t in pyro.markov(range(len(seq))):
        x = pyro.sample(f"x_{t}", dist.Categorical(change[x]), infer={"enumerate": "parallel"})
        pyro.sample(f"y_{t}", dist.Categorical(show[x]), obs=seq[t])


def test_a_markov_chain_of_24_states_is_compiled_and_exact():
    """The forward algorithm beside; a graph of this size goes without Inductor."""
    seq = RNG.integers(0, 3, 24)
    target = engine.prepare(chain, {"seq": seq}).marginalise()
    z = RNG.normal(size=target.dim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, gradient = target.value_and_grad(z)
    assert target._gradient("full").is_compiled
    sites = target.constrain(z[None, None])
    change, show = sites["change"][0, 0], sites["show"][0, 0]
    found = []
    for series, at in (
        (seq, target),
        (seq[::-1].copy(), engine.prepare(chain, {"seq": seq[::-1].copy()}).marginalise()),
    ):
        alpha = np.log(change[0]) + np.log(show[:, series[0]])
        for y in series[1:]:
            alpha = logsumexp(alpha[:, None] + np.log(change), 0) + np.log(show[:, y])
        found.append(at.value_and_grad(z)[0] - logsumexp(alpha))
    assert found[0] == pytest.approx(
        found[1], rel=1e-10
    )  # the priors and the bijections, which know nothing of the data
    step = 1e-5 * np.eye(target.dim)[0]
    slope = (target.value_and_grad(z + step)[0] - target.value_and_grad(z - step)[0]) / 2e-5
    assert gradient[0] == pytest.approx(slope, rel=1e-6)


def test_a_refusal_to_compile_names_the_line():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("kink", -x if x > 0 else 3 * x)

    target = engine.prepare(program, {})
    with pytest.warns(RuntimeWarning, match=r"reads a value of an unknown.*test_pyro_forms.py: pyro.factor\("):
        target.value_and_grad(np.array([1.0]))


# ---- finite unknowns ----------------------------------------------------------------------------------------------


def one_hot(y):
    where = pyro.sample("where", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("row", len(y)):
        k = pyro.sample("k", dist.OneHotCategorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal((k * where).sum(-1), 1.0), obs=y)


@config_enumerate
def labelled(y, size=None):
    where = pyro.sample("where", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("row", len(y), subsample_size=size) as i:
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", dist.Normal(where[k], 1.0), obs=y[i])


FOUR = np.array([0.0, 1.0, -2.0, 3.0])


def two_parts(z):
    """The log density of the programs above."""
    each = np.log([0.3, 0.7])[:, None] + stats.norm.logpdf(FOUR, z[:, None])
    return stats.norm.logpdf(z, 0, 3).sum() + logsumexp(each, 0).sum()


@pytest.mark.parametrize("program", [one_hot, labelled])
def test_labels_of_any_form_are_summed_out(program):
    z = np.array([0.2, 0.5])
    target = engine.prepare(program, {"y": FOUR}).marginalise()
    np.testing.assert_allclose(target.value_and_grad(z)[0], two_parts(z), rtol=1e-12)
    fit = pg.fit(program, {"y": FOUR}, "map", progress=False)
    assert fit.posterior["k"].shape[:3] == (1, 1, 4)


def test_minibatches_of_rows_with_labels_are_unbiased():
    z = np.array([0.2, 0.5])
    target = engine.prepare(labelled, {"y": FOUR, "size": 2}).marginalise()
    found = {round(target.minibatch_value_and_grad(OPS.key(seed), z)[0], 9) for seed in range(60)}
    assert len(found) == 6
    np.testing.assert_allclose(np.mean(list(found)), two_parts(z), rtol=1e-8)


def test_finite_unknowns_alone_are_refused_in_plain_words():
    def rain(wet):
        r = pyro.sample("rain", dist.Bernoulli(0.2))
        pyro.sample("wet", dist.Bernoulli(torch.where(r == 1, 0.9, 0.2)), obs=wet)

    for inference in ("nuts", "gibbs"):
        with pytest.raises(Incompatible, match="NumPyro"):
            pg.fit(rain, {"wet": np.array(1.0)}, inference, progress=False)


# ---- sites --------------------------------------------------------------------------------------------------------


def schools(y, centred):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with poutine.reparam(config={"theta": LocScaleReparam(centred)}), pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, 3.0))
        pyro.sample("y", dist.Normal(theta, 10.0), obs=y)


def test_a_reparametrised_site_is_in_the_posterior_and_is_no_observation():
    y = np.array([28.0, 8.0, -3.0, 7.0])
    fit = pg.fit(schools, {"y": y, "centred": 0.0}, "map", progress=False)
    found = {k: v.values[0, 0] for k, v in fit.posterior.items()}
    np.testing.assert_allclose(found["theta"], found["mu"] + 3 * found["theta_decentered"], rtol=1e-12)
    assert fit.target.named("observed") == ("y",)


def deltas(y):
    scale = pyro.sample("scale", dist.Delta(torch.tensor(2.0)))
    m = pyro.sample("m", dist.Normal(0.0, scale))
    with pyro.plate("row", len(y)):
        twice = pyro.sample("twice", dist.Delta(2 * m.expand(len(y))))
        pyro.sample("y", dist.Normal(twice, 1.0), obs=y)


@pytest.mark.parametrize("inference", ["map", "nuts"])
def test_unobserved_point_masses_are_computed_values(inference):
    fit = pg.fit(deltas, {"y": FOUR}, inference, progress=False, **SMALL.get(inference, {}))
    np.testing.assert_allclose(fit.posterior["twice"].values[..., 0], 2 * fit.posterior["m"].values)
    assert (fit.posterior["scale"] == 2).all()
    assert np.abs(float(fit.posterior["m"].mean()) - 2 * FOUR.sum() / (4 * 4 + 0.25)) < 0.15


@pytest.mark.parametrize("axes", [(1, 3), (1, 1, 3)])
def test_data_are_observed_with_the_leading_axes_that_broadcasting_gives_them(axes):
    def program(y):
        m = pyro.sample("m", dist.Normal(torch.zeros(axes), 1.0).to_event(len(axes)))
        pyro.sample("y", dist.Normal(m, 1.0).to_event(len(axes)), obs=y)

    y = np.array([1.0, 2.0, 3.0])
    fit = pg.fit(program, {"y": y}, "map", progress=False)
    np.testing.assert_allclose(fit.posterior["m"].values.ravel(), y / 2, rtol=1e-5)
    assert fit.target.observed_values()["y"].shape == axes


def test_data_that_broadcasting_would_enlarge_are_still_refused():
    def program(y):
        m = pyro.sample("m", dist.Normal(torch.zeros(3, 1), 1.0).to_event(2))
        pyro.sample("y", dist.Normal(m, 1.0), obs=y)

    with pytest.raises(ValueError, match="larger than the data"):
        pg.fit(program, {"y": np.ones(3)}, "map", progress=False)


# ---- plates -------------------------------------------------------------------------------------------------------


def grouped(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    for i in pyro.plate("group", len(y)):
        m = pyro.sample(f"m_{i}", dist.Normal(mu, 2.0))
        for j in pyro.plate(f"row_{i}", y.shape[1]):
            pyro.sample(f"y_{i}_{j}", dist.Normal(m, 1.0), obs=y[i, j])


def test_nested_sequential_plates_have_the_density_of_a_loop():
    y = RNG.normal(size=(2, 3))
    target = engine.prepare(grouped, {"y": y})
    z = np.array([0.5, -1.0, 2.0])
    m = z[1:]
    expected = stats.norm.logpdf(z[0], 0, 5) + stats.norm.logpdf(m, z[0], 2).sum()
    np.testing.assert_allclose(
        target.value_and_grad(z)[0], expected + stats.norm.logpdf(y, m[:, None]).sum(), rtol=1e-12
    )


def sized(y, size):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y), subsample_size=size) as i:
        weights = torch.ones(size)
        pyro.sample("y", dist.Normal(m * weights, 1.0), obs=y[i])


@pytest.mark.parametrize("size", [10, 15])
def test_a_program_of_minibatches_only_has_the_density_of_all_rows(size):
    target = engine.prepare(sized, {"y": Y, "size": size})
    value, gradient = target.value_and_grad(np.array([0.3]))
    np.testing.assert_allclose(value, stats.norm.logpdf(0.3) + stats.norm.logpdf(Y, 0.3).sum(), rtol=1e-12)
    np.testing.assert_allclose(gradient, [Y.sum() - 41 * 0.3], rtol=1e-12)
    np.testing.assert_array_equal(target.observed_values()["y"], Y)
    terms = target.log_likelihood({"m": np.array([[0.3]])}, target.data)["y"]
    np.testing.assert_allclose(terms[0, 0], stats.norm.logpdf(Y, 0.3), rtol=1e-12)


@pytest.mark.parametrize("inference", ["nuts", "svi", "map"])
def test_a_program_of_minibatches_only_is_fitted(inference):
    fit = pg.fit(sized, {"y": Y, "size": 10}, inference, progress=False, **SMALL.get(inference, {}))
    assert abs(float(fit.posterior["m"].mean()) - Y.sum() / 41) < 5 / np.sqrt(41 * 200)
    assert fit.predict()["y"].shape[-1] == 40


def test_too_many_minibatches_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"torch.ones\(len\(i\)\)"):
        engine.prepare(sized, {"y": np.ones(37), "size": 10})


@pytest.mark.parametrize(
    "handler", [lambda: poutine.scale(scale=2.0), lambda: poutine.mask(mask=torch.tensor([True, False, True, True]))]
)
def test_parameters_under_scale_and_mask(handler):
    def program(y):
        p = pyro.param("p", torch.tensor(0.5), constraint=constraints.unit_interval)
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)), handler():
            pyro.sample("y", dist.Bernoulli(p), obs=y)
            pyro.sample("x", dist.Normal(m, 1.0), obs=torch.ones(4))

    fit = pg.fit(program, {"y": np.array([1.0, 1.0, 0.0, 1.0])}, "map", progress=False)
    scaled = isinstance(handler(), poutine.scale_messenger.ScaleMessenger)
    p, m = (3 / 4, 8 / 9) if scaled else (2 / 3, 3 / 4)
    assert float(fit.posterior["p"].squeeze()) == pytest.approx(p, abs=1e-4)
    assert float(fit.posterior["m"].squeeze()) == pytest.approx(m, abs=1e-4)


# ---- modules, methods, objects -------------------------------------------------------------------------------------


class Decoder(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = made(PyroModule[nn.Linear], 1, 3)

    def forward(self, x):
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 0.5).to_event(1), obs=x)


class Encoder(PyroModule):
    def __init__(self, name):
        super().__init__()
        setattr(self, name, made(PyroModule[nn.Linear], 3, 2, seed=1))
        self.name = name

    def forward(self, x):
        h = getattr(self, self.name)(x)
        with pyro.plate("row", len(x)):
            pyro.sample("z", dist.Normal(h[:, :1], h[:, 1:].exp()).to_event(1))


def test_program_and_guide_may_have_one_attribute():
    """The same as under two names, step by step."""
    x = RNG.normal(size=(200, 1)) @ RNG.normal(size=(1, 3)) + 0.3 * RNG.normal(size=(200, 3))
    decoder = Decoder()
    losses = []
    for name in ("net", "other"):
        fit = pg.fit(decoder, {"x": x}, "svi", guide=Encoder(name), progress=False, num_steps=200)
        losses.append(fit.records["loss"])
        noted = any("guide.net.weight" in note for note in fit.target.notes)
        assert noted == (name == "net")
    np.testing.assert_allclose(*losses, rtol=1e-5)


class Coin:
    """A program that is an object, and one that is its method."""

    def __init__(self):
        self.prior = torch.tensor([2.0, 2.0])

    def __call__(self, y):
        p = pyro.sample("p", dist.Beta(*self.prior))
        with pyro.plate("toss", len(y)):
            pyro.sample("y", dist.Bernoulli(p), obs=y)

    def model(self, y):
        return self(y)


@pytest.mark.parametrize("program", [Coin(), Coin().model], ids=["object", "method"])
@pytest.mark.parametrize("inference", ["nuts", "map"])
def test_objects_and_methods_are_programs(program, inference):
    fit = pg.fit(program, {"y": np.array([1.0, 1.0, 0.0, 1.0])}, inference, progress=False, **SMALL.get(inference, {}))
    assert 0.5 < float(fit.posterior["p"].mean()) < 0.75


# ---- without Pyro --------------------------------------------------------------------------------------------------


def test_the_matrix_without_pyro_leaves_its_models_out():
    script = """
    import sys
    sys.modules.update(pyro=None, torch=None)
    import probgen as pg
    from probgen import catalog, cli
    known = catalog.modules("probgen.models")
    few = {k: known[k] for k in ("coin", "eight_schools_pyro") if k in known}
    catalog.modules = lambda group, all=catalog.modules: few if group == "probgen.models" else all(group)
    table = pg.matrix()
    print(list(table.model.values), table.attrs["left_out"])
    try:
        catalog.model("eight_schools_pyro")
    except ModuleNotFoundError as error:
        print(error)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "['eight_schools_pyro']" in run.stdout
    assert "pip install 'probgen[pyro]'" in run.stdout
