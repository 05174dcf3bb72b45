"""Pyro programs with parameters: the bounds of NumPyro twins, closed forms, gradients, what stays as it was, what is refused."""

import shutil

import jax
import numpy as np
import numpyro
import pytest
from conftest import needs_pyro
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.decomposition import PCA

import probgen as pg
from probgen import catalog, datasets, runtime
from probgen.algorithm import Incompatible
from probgen.run import conditioned, meant
from probgen.target import Learnable

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")

import pyro.distributions as dist  # noqa: E402
from torch import nn  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402

pytestmark = needs_pyro


def bits(rows=300, dim=12, seed=0):
    """Rows of bits with three causes."""
    rng = np.random.default_rng(seed)
    causes = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, dim))
    return (rng.random((rows, dim)) < 1 / (1 + np.exp(-2 * causes))).astype(float)


class User:
    """A program as its author would write it for Pyro alone: modules made once, registered at every run."""

    def __init__(self, dim=12, num_latents=2):
        self.num_latents = num_latents
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.decoder = nn.Sequential(nn.Linear(num_latents, 16), nn.Tanh(), nn.Linear(16, dim))
            self.encoder = nn.Sequential(nn.Linear(dim, 16), nn.Tanh(), nn.Linear(16, 2 * num_latents))

    def program(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.num_latents), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            mean, log_sd = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, log_sd.exp()).to_event(1))

    @property
    def model(self):
        return pg.Model(self.program, guide=self.guide)


# ---- twins


def twins():
    """The targets of `vae` and `vae_pyro` in double precision, and the same parameters for both."""
    x = bits()
    settings = {"num_latents": 3, "width": 16, "depth": 2}
    ours = conditioned("vae", {"x": x, "dim": 12, **settings})[1]
    theirs = conditioned("vae_pyro", {"x": x, **settings})[1]
    tensors = theirs.initial(0)
    arrays = [v.numpy() for k, v in sorted(tensors.items())]
    with runtime.jax_scope("float64"):
        names = sorted(ours.initial(jax.random.key(0)))
        begun = ours.initial(jax.random.key(0))
        chosen = {}
        for name, value in zip(_paired(names), arrays, strict=True):
            assert begun[name].shape == value.shape
            chosen[name] = value
    return ours, theirs, chosen, tensors


def _paired(names):
    """NumPyro's labels in the order of Pyro's names: decoder.0.bias, decoder.0.weight, decoder.2.bias, ..."""
    found = []
    for net in ("decoder", "encoder"):
        own = sorted((n for n in names if n.startswith(net)), key=lambda n: int(n.rpartition("[")[2][:-1]))
        for weight, bias in zip(own[::2], own[1::2], strict=True):
            found += [bias, weight]
    return found


def test_twins_agree_on_the_bound_of_the_same_weights():
    ours, theirs, chosen, tensors = twins()
    z = np.random.default_rng(1).normal(size=(300, 3))
    with runtime.jax_scope("float64"):
        rows = ours.rows(np.arange(300))
        one = jax.jit(jax.vmap(lambda row, h: ours.log_ratio(chosen, chosen, row, {"z": h}, jax.random.key(0))[0]))
        expected = np.asarray(one(rows, z))
        terms = jax.jit(jax.vmap(lambda row: ours.terms(jax.random.key(0), chosen, row).kl["z"]))(rows)
    with theirs.running(tensors, 0), torch.no_grad():
        batch = theirs.batch(torch.arange(300))
        found = theirs.log_ratio(batch, {"z": torch.from_numpy(z)})[0]
        kl = theirs.terms(batch).kl["z"]
    assert expected.dtype == np.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(kl.numpy(), terms, rtol=1e-9)


@pytest.mark.parametrize("name", ["vae_pyro", "conv_vae"])
def test_models_learn_sample_and_reconstruct(name, tmp_path):
    x = catalog.model(name).default_data()["x"][:400]
    fit = pg.fit(name, {"x": x, "num_latents": 4}, "svi", num_steps=300)
    shape = fit.target.visible[0].shape
    drawn = fit.sample(5)
    assert drawn["x"].shape == (5, *shape)
    assert set(np.unique(drawn["x"])) <= {0, 1}
    rows = fit.target.all_rows()["x"][:50]
    told = fit.reconstruct(rows)["x"]
    assert (abs(told - rows)).mean() < 0.8 * abs(rows.mean(0) - rows).mean()
    assert fit.diagnose()["rollbacks"].status == "pass"
    fit.report(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size


# ---- closed forms


def linear(x, num_latents=2):
    w = pyro.param("w", lambda: 0.1 * torch.randn(num_latents, x.shape[1]))
    loc = pyro.param("loc", lambda: torch.zeros(x.shape[1]))
    sigma = pyro.param("sigma", torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(num_latents), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(loc + z @ w, sigma).to_event(1), obs=x)


@pytest.fixture(scope="module")
def linear_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(500, 5)) + 1.0
    return x, pg.fit(linear, {"x": x}, "svi", num_steps=4000, learning_rate=0.01, batch_size=250)


def test_a_linear_program_with_the_default_guide_meets_pca(linear_fit):
    x, fit = linear_fit
    exact = PCA(2).fit(x).score(x)
    found = fit.log_prob(method="elbo", num_particles=20).value.mean()
    assert exact - 0.05 < found < exact + 0.01
    assert fit.log_prob(num_particles=200).value.mean() == pytest.approx(exact, abs=0.05)
    assert fit.parameters["sigma"] > 0


def test_the_true_posterior_of_a_row_is_the_closed_one(linear_fit):
    """Of two rows, since the second uses the compiled code of the first."""
    x, fit = linear_fit
    p = fit.parameters
    precision = np.eye(2) + p["w"] @ p["w"].T / p["sigma"] ** 2
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    for row in x[:2]:
        mean = np.linalg.solve(precision, p["w"] @ (row - p["loc"])) / p["sigma"] ** 2
        chains = pg.fit(fit.condition(x=row), inference="nuts", num_samples=500, num_warmup=200)
        drawn = chains.draws["z"].reshape(-1, 2)
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.15 * sd.max())
        np.testing.assert_allclose(drawn.std(0), sd, rtol=0.15)
        np.testing.assert_allclose(fit.encode(row[None])["z"][0], mean, atol=0.15)


def gaussian(x):
    loc = pyro.param("loc", torch.zeros(2))
    scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
    pyro.sample("x", dist.Normal(loc.expand(len(x), 2), scale).to_event(1), obs=x)


def test_maximum_likelihood_of_a_normal_is_its_moments():
    x = np.random.default_rng(0).normal([1.0, -2.0], [0.5, 3.0], size=(400, 2))
    fit = pg.fit(gaussian, {"x": x}, "mle", num_steps=3000, learning_rate=0.02, batch_size=400)
    np.testing.assert_allclose(fit.parameters["loc"], x.mean(0), atol=0.01)
    np.testing.assert_allclose(fit.parameters["scale"], x.std(0), rtol=0.01)
    exact = norm.logpdf(x[:5], fit.parameters["loc"], fit.parameters["scale"]).sum(1)
    np.testing.assert_allclose(fit.log_prob(x[:5]).value, exact, rtol=1e-5)
    np.testing.assert_allclose(fit.energy(x[:5]), -exact, rtol=1e-5)
    drawn = fit.sample(4000)["x"]
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.2)
    held = pg.fit(gaussian, {"x": x}, "mle", num_steps=4000, learning_rate=0.1, validation=0.2, patience=2)
    assert held.num_steps < 4000
    assert np.isfinite(held.records["validation"][0, -1])


def mixture(x):
    loc = pyro.param("loc", torch.tensor([-1.0, 1.0]))
    with pyro.plate("row", len(x)):
        h = pyro.sample("h", dist.Categorical(torch.ones(2) / 2))
        pyro.sample("x", dist.Normal(loc[h], 1.0), obs=x)


def assignment(x):
    slope = pyro.param("slope", torch.ones(()))
    with pyro.plate("row", len(x)):
        pyro.sample("h", dist.Categorical(logits=torch.stack([torch.zeros_like(x), slope * x], -1)))


def test_hidden_levels_are_summed_over():
    truth = np.arange(400) % 2
    x = np.where(truth, 2.5, -2.5) + np.random.default_rng(0).normal(size=400)
    fit = pg.fit(pg.Model(mixture, guide=assignment), {"x": x}, "svi", num_steps=1000, learning_rate=0.02)
    exact = logsumexp([norm.logpdf(x, m, 1.0) for m in fit.parameters["loc"]], axis=0) - np.log(2)
    np.testing.assert_allclose(fit.log_prob(num_particles=1).value, exact, atol=1e-4)
    np.testing.assert_allclose(fit.parameters["loc"], [-2.5, 2.5], atol=0.2)
    assert (fit.encode()["h"] == truth).mean() > 0.95


class Constrained(pyro.nn.PyroModule):
    """Parameters of its own, one of them positive, and a module inside."""

    def __init__(self):
        super().__init__()
        self.w = pyro.nn.PyroParam(0.1 * torch.ones(2, 4))
        self.sigma = pyro.nn.PyroParam(torch.ones(()), constraint=dist.constraints.positive)
        self.inner = pyro.nn.PyroModule[nn.Linear](2, 4)

    def forward(self, x):
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.w + self.inner(z), self.sigma).to_event(1), obs=x)


def test_a_module_of_pyro_is_a_program():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        program = Constrained()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(300, 4))
    fit = pg.fit(program, {"x": x}, "svi", num_steps=800, learning_rate=0.01)
    assert {"w", "sigma", "inner.weight", "inner.bias"} <= set(fit.parameters)
    assert fit.parameters["sigma"] == pytest.approx(0.3, abs=0.1)
    assert program.sigma.item() == 1.0
    assert fit.sample(3)["x"].shape == (3, 4)


def shifted(x, y):
    """Bits given a label, which is an index."""
    table = pyro.param("table", torch.zeros(3, 4))
    pyro.sample("x", dist.Bernoulli(logits=table[y]).to_event(1), obs=x)


def test_inputs_are_conditioned_on():
    rng = np.random.default_rng(0)
    p, y = np.array([[0.1] * 4, [0.5] * 4, [0.9] * 4]), rng.integers(0, 3, 600)
    x = (rng.random((600, 4)) < p[y]).astype(float)
    fit = pg.fit(shifted, {"x": x, "y": y}, "mle", num_steps=1000, learning_rate=0.05)
    share = np.stack([x[y == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(1 / (1 + np.exp(-fit.parameters["table"])), share, atol=0.02)
    drawn = fit.condition(y=2).sample(500)["x"]
    np.testing.assert_allclose(drawn.mean(0), share[2], atol=0.06)
    exact = np.where(x[:9], np.log(share[y[:9]]), np.log1p(-share[y[:9]])).sum(1)
    np.testing.assert_allclose(fit.log_prob(x=x[:9], y=y[:9]).value, exact, atol=0.2)
    with pytest.raises(TypeError, match="given y"):
        fit.sample(3)


# ---- the learner


@pytest.mark.parametrize("settings", [{}, {"objective": "iwae", "num_particles": 5}])
def test_both_estimators_have_one_mean(settings):
    from probgen.inference.likelihood import _torch
    from probgen.inference.likelihood.amortised_svi import AmortisedSVI

    user = User()
    target = conditioned(user.model, {"x": bits(40)}, precision="float32")[1]
    values = {k: v.requires_grad_() for k, v in target.initial(0).items()}
    means = {}
    for estimator in ("total", "path"):
        kernel = _torch.Bound(AmortisedSVI(estimator=estimator, **settings))
        drawn = []
        for seed in range(300):
            with target.running(values, seed, train=True):
                gradient, _, _ = kernel.gradient(target, values, target.batch(torch.arange(40)), 0)
            drawn.append(np.concatenate([g.detach().numpy().ravel() for g in gradient]))
        drawn = np.array(drawn)
        means[estimator] = drawn.mean(0), drawn.std(0) / np.sqrt(len(drawn))
    (a, da), (b, db) = means.values()
    score = abs(a - b) / np.sqrt(da**2 + db**2 + 1e-12)
    assert np.mean(score) < 1.2
    assert score.max() < 6


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_learning_goes_on_from_its_state_bit_for_bit(tmp_path, killed, optimizer):
    user, grey = User(), np.clip(0.9 * bits() + 0.05, 0, 1)
    settings = {"num_steps": 150, "batch_size": 64, "optimizer": optimizer, "momentum": 0.5, "learning_rate": 0.01}
    before = [p.detach().clone() for p in (*user.decoder.parameters(), *user.encoder.parameters())]
    whole = pg.fit(user.model, {"x": grey}, "svi", out=tmp_path / "whole", **settings)
    for old, new in zip(before, (*user.decoder.parameters(), *user.encoder.parameters()), strict=True):
        assert torch.equal(old, new)
    assert not pyro.get_param_store().keys()
    killed(pg.fit, user.model, {"x": grey}, "svi", out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part", user.model), pg.load(tmp_path / "part", user.model)):
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        np.testing.assert_array_equal(fit.records["loss"], whole.records["loss"])


def test_the_seed_decides_and_a_catalogue_model_begins_anew_with_it():
    data = {"x": bits(100), "width": 8, "num_latents": 2}
    one, two, other = (pg.fit("vae_pyro", data, "svi", num_steps=3, batch_size=50, seed=s).answer for s in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert not np.allclose(one["decoder.0.weight"], other["decoder.0.weight"], atol=0.05)


def test_runs_are_found_again(tmp_path):
    data = {"x": bits(100), "width": 8, "num_latents": 2}
    fit = pg.fit("vae_pyro", data, "svi", num_steps=20, batch_size=50, out=tmp_path / "learned")
    again = pg.load(tmp_path / "learned")
    np.testing.assert_array_equal(again.log_prob(num_particles=5).value, fit.log_prob(num_particles=5).value)
    point = fit.condition(x=data["x"][0])
    chains = pg.fit(point, inference="nuts", num_samples=20, num_warmup=20, num_chains=2, out=tmp_path / "chains")
    np.testing.assert_array_equal(pg.load(tmp_path / "chains").draws["z"], chains.draws["z"])
    np.testing.assert_array_equal(pg.resume(tmp_path / "chains").draws["z"], chains.draws["z"])


def test_adam_takes_the_gradients_entries_by_their_index():
    """A convolution of pictures in channels-last has its gradient in that order, which Adam in one pass would take by place."""
    from probgen.inference.likelihood import _torch

    key = torch.Generator().manual_seed(0)
    begun = {"w": torch.randn(4, 3, 2, 2, generator=key), "b": torch.randn(4, generator=key)}
    slopes = [torch.randn(p.shape, generator=key) for p in begun.values()]
    slopes[0] = slopes[0].contiguous(memory_format=torch.channels_last)
    parameters = {k: p.clone() for k, p in begun.items()}
    moments = {word: {k: torch.zeros_like(p) for k, p in begun.items()} for word in ("first", "second")}
    kernel = _torch.Kernel(catalog.inference("mle", {}))
    for i in range(2):
        kernel._update(_torch.State(i, parameters, {}, moments, slopes[0], 0.0, None, ()), slopes, 0.1)
    means, squares = [[np.zeros(p.shape) for p in begun.values()] for _ in range(2)]
    for i, (p, g) in enumerate(zip(begun.values(), slopes, strict=True)):
        x, g = p.numpy().astype(float), g.numpy().astype(float)
        for step in (1, 2):  # Kingma and Ba 2015, algorithm 1
            means[i], squares[i] = 0.9 * means[i] + 0.1 * g, 0.999 * squares[i] + 0.001 * g**2
            x = x - 0.1 * means[i] / (1 - 0.9**step) / (np.sqrt(squares[i] / (1 - 0.999**step)) + 1e-8)
        assert np.allclose(list(parameters.values())[i], x, atol=1e-6)


def test_a_runaway_is_rolled_back():
    fit = pg.fit("vae_pyro", {"x": bits(), "width": 16, "num_latents": 2}, "svi", num_steps=400, learning_rate=30.0)
    verdict = fit.diagnose()
    assert verdict["rollbacks"].status != "pass"
    assert all(np.isfinite(v).all() for v in fit.answer.values())


def test_every_pass_takes_all_rows_in_a_new_order():
    from probgen.engine.pyro.engine import OPS
    from probgen.inference.likelihood import _torch
    from probgen.inference.likelihood.mle import MLE

    target = conditioned(gaussian, {"x": np.arange(20.0).reshape(10, 2)}, precision="float32")[1]
    taken, batch = [], target.batch
    target.batch = lambda index, seed=0: taken.append(index.tolist()) or batch(index, seed)
    kernel = _torch.Likelihood(MLE(batch_size=5, num_steps=6))
    state = kernel.init(OPS.key(0), target)
    taken.clear()
    for step in range(6):
        state, _ = kernel.step(OPS.fold_in(OPS.key(1), step), state, target)
    passes = [taken[i] + taken[i + 1] for i in (0, 2, 4)]
    assert all(sorted(rows) == list(range(10)) for rows in passes)
    assert passes[0] != passes[1] != passes[2]


def test_dropout_is_for_learning_alone():
    user = User()
    user.decoder = nn.Sequential(user.decoder[0], nn.Tanh(), nn.Dropout(0.5), user.decoder[2])
    fit = pg.fit(user.model, {"x": bits()}, "svi", num_steps=50)
    z = np.zeros((200, 2))
    assert np.ptp(fit.decode(z=z)["obs"], axis=0).max() == 0
    assert user.decoder.training


def test_bits_may_be_booleans_and_integers():
    x, settings = bits(50), {"width": 8, "num_latents": 2}
    losses = [
        pg.fit("vae_pyro", {"x": x.astype(kind), **settings}, "svi", num_steps=3, batch_size=50).records["loss"]
        for kind in (float, bool, int, np.uint8)
    ]
    for loss in losses[1:]:
        np.testing.assert_array_equal(loss, losses[0])


def test_gaps_are_not_negative():
    fit = pg.fit("vae_pyro", {"x": bits(), "width": 16, "num_latents": 2}, "svi", num_steps=300)
    found = fit.gaps(bits()[:2], num_particles=500)
    assert (found["amortisation"] > -0.05).all()
    assert (found["approximation"] > -0.05).all()


def test_grey_levels_are_drawn_anew():
    target = conditioned("vae_pyro", {"x": np.full((2000, 12), 0.3), "width": 8}, precision="float32")[1]
    one, two = (target.batch(torch.arange(2000), seed)["x"] for seed in (0, 1))
    assert set(np.unique(one)) == {0, 1}
    assert not torch.equal(one, two)
    assert one.mean().item() == pytest.approx(0.3, abs=0.02)


# ---- what words mean, and what is refused


def test_svi_of_a_program_with_parameters_is_amortised():
    assert meant("svi", linear, {"x": np.ones((4, 3))})[0] == "amortised_svi"
    assert meant("svi", "eight_schools_pyro")[0] == "svi"


def batch_norm(x):
    net = pyro.module("net", NORMED)
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)


NORMED = nn.Sequential(nn.Linear(2, 12), nn.BatchNorm1d(12))


def wrong_guide(x):
    with pyro.plate("row", len(x)):
        pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def autoregressive(x):
    w = pyro.param("w", torch.zeros(12, 12))
    logits = x @ w.tril(-1).T
    pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def test_the_engine_that_is_named_decides():
    def program(x):
        assert numpyro  # so that the engine cannot be told
        linear(x)

    with pytest.raises(ValueError, match="say which"):
        pg.fit(program, {"x": bits()}, "svi", num_steps=2)
    assert pg.fit(program, {"x": bits()}, "svi", num_steps=2, engine="pyro").num_steps == 2


def test_activity_is_known_before_the_end():
    fit = pg.fit("vae_pyro", {"x": bits(), "width": 16, "num_latents": 2}, "svi", num_steps=120, learning_rate=0.01)
    assert fit.records["active"][0, 50:].min() > 0


def test_a_few_rows_have_a_report(tmp_path):
    fit = pg.fit("conv_vae", {"x": bits(6, 64).reshape(6, 8, 8), "num_latents": 3}, "svi", num_steps=5, batch_size=6)
    assert fit.report(tmp_path / "report.html").stat().st_size


def test_bad_input_is_told():
    x = bits()
    with pytest.raises(ValueError, match=r"whose support is integers from 0 to 1; x\[0, 3\] is 2"):
        pg.fit("vae_pyro", {"x": np.where(np.arange(12) == 3, 2.0, x)}, "svi")
    with pytest.raises(ValueError, match="number of latents is 0"):
        pg.fit("vae_pyro", {"x": x, "num_latents": 0}, "svi")
    with pytest.raises(ValueError, match="batch_size is 301; the data have 300 rows"):
        pg.fit("vae_pyro", {"x": x}, "svi", batch_size=301)
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        pg.fit("conv_vae", {"x": x.reshape(300, 6, 2)}, "svi")
    with pytest.raises((TypeError, ValueError), match="GroupNorm"):
        pg.fit(batch_norm, {"x": x}, "svi")
    with pytest.raises(ValueError, match="'w' is unknown to the program"):
        pg.fit(pg.Model(User().program, guide=wrong_guide), {"x": x}, "svi")
    with pytest.raises(Incompatible, match="inference='svi'"):
        pg.fit("vae_pyro", {"x": x}, "mle")
    with pytest.raises(Incompatible, match="nuts"):
        pg.fit("vae_pyro", {"x": x}, "nuts")
    fit = pg.fit("vae_pyro", {"x": x, "width": 8, "num_latents": 2}, "svi", num_steps=5)
    with pytest.raises(Incompatible, match="known in part"):
        fit.condition(x=np.where(np.arange(12) < 6, x[0], np.nan))
    with pytest.raises(ValueError, match="expected rows of shape"):
        fit.log_prob(x[:, :5])
    for method in ("exact", "ais"):
        with pytest.raises(Incompatible):
            fit.log_prob(x[:2], method=method)


def test_an_autoregressive_program_has_densities_but_is_not_run_forward():
    fit = pg.fit(autoregressive, {"x": bits()}, "mle", num_steps=300, learning_rate=0.05)
    w = np.tril(fit.parameters["w"], -1)
    logits = bits()[:20] @ w.T
    exact = (bits()[:20] * logits - np.logaddexp(0, logits)).sum(1)
    np.testing.assert_allclose(fit.log_prob(bits()[:20]).value, exact, rtol=1e-4)
    with pytest.raises(Incompatible, match="run forward"):
        fit.sample(3)


def test_how_a_program_was_read_once_is_not_how_it_is_read_next():
    user = User()
    prepare = lambda by_row=None: type(engine.prepare(user.program, {"x": bits()}, "float32", by_row))  # noqa: E731
    rows = prepare()
    assert issubclass(rows, Learnable)
    assert not issubclass(prepare(by_row=False), Learnable)
    assert prepare() is rows


# ---- levels ------------------------------------------------------------------------------------------------------


def test_the_discretised_logistic_is_that_of_the_other_engine():
    from probgen.distributions.discretised import DiscretisedLogistic as Theirs
    from probgen.distributions.pyro_discretised import DiscretisedLogistic

    loc, scale = np.array([-3.0, 2.2, 7.9, 30.0]), np.array([0.4, 1.0, 0.05, 6.0])
    ours = DiscretisedLogistic(torch.from_numpy(loc), torch.from_numpy(scale), 9)
    found = ours.log_prob(ours.enumerate_support()).numpy()
    np.testing.assert_allclose(np.exp(found).sum(0), 1, atol=1e-9)
    with runtime.jax_scope("float64"):
        expected = [np.asarray(Theirs(loc, scale, 9).log_prob(np.full(4, float(k)))) for k in range(9)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = ours.sample((20_000,)).numpy()
    share = (drawn[None] == np.arange(9)[:, None, None]).mean(1)
    np.testing.assert_allclose(share, np.exp(found), atol=0.02)


@pytest.mark.parametrize("name", ["vae_pyro", "conv_vae"])
def test_autoencoders_learn_levels(name):
    x = np.round(255 * datasets.digits_grey()[:300]).astype(int)
    x = x.reshape(300, -1) if name == "vae_pyro" else x
    data = {"x": x, "num_latents": 4, "likelihood": "levels"}
    fit = pg.fit(name, data, "svi", num_steps=400, batch_size=50, progress=False)
    loss = fit.records["loss"][0]
    assert loss[-50:].mean() < loss[:50].mean() - 20
    drawn = fit.sample(4)["x"]
    assert drawn.min() >= 0
    assert drawn.max() <= 255
    assert (drawn == np.round(drawn)).all()
    with pytest.raises(ValueError, match="known: bernoulli, normal, levels"):
        pg.fit(name, data | {"likelihood": "poisson"}, "svi")


# ---- how networks run --------------------------------------------------------------------------------------------


def test_mixed_precision_rounds_the_networks_and_nothing_else():
    """Beside the same steps in float32: losses differ as bfloat16 does, in float32 digits."""
    x = (np.random.default_rng(0).random((100, 12)) < 0.3).astype(float)
    learn = lambda **settings: pg.fit(  # noqa: E731
        "vae_pyro",
        {"x": x, "width": 16, "num_latents": 2},
        "svi",
        num_steps=20,
        batch_size=50,
        progress=False,
        **settings,
    )
    exact, mixed = learn(), learn(mixed_precision=True)
    a, b = exact.records["loss"].ravel(), mixed.records["loss"].ravel()
    assert (a != b).all()
    np.testing.assert_allclose(b, a, rtol=0.01)
    assert len(np.unique(np.round(b, 3))) > 15
    assert {v.dtype for v in mixed.answer.values()} == {np.dtype("float32")}


def test_mixed_precision_in_jax_asks_for_products_in_bfloat16():
    from probgen.inference.likelihood.mle import MLE
    from probgen.run import conditioned

    def steps(learner):
        target = learner.prepare(conditioned("made", {"x": np.eye(6), "dim": 6, "width": 8}, precision="float32")[1])
        state = jax.eval_shape(learner.init, jax.random.key(0), target)
        return str(jax.make_jaxpr(learner.step)(jax.random.key(0), state, target))

    with runtime.jax_scope("float32"):
        plain, mixed = steps(MLE(batch_size=3)), steps(MLE(batch_size=3, mixed_precision=True))
    assert "BF16_BF16_F32" in mixed
    assert "BF16_BF16_F32" not in plain


def test_mixed_precision_is_of_single_precision():
    with pytest.raises(ValueError, match="mixed_precision is for precision='float32'; the target's is 'float64'"):
        pg.fit("made", {"x": np.eye(6), "dim": 6}, "mle", batch_size=3, mixed_precision=True, precision="float64")


@pytest.mark.parametrize("setting", ["mixed_precision", "compiled"])
def test_how_networks_run_is_said_of_networks_that_are_registered(setting):
    with pytest.raises(
        ValueError, match=f"{setting} is for networks that .*; the program has none.\nUse torch.compile or"
    ):
        pg.fit(User().model, {"x": bits()}, "svi", num_steps=5, progress=False, **{setting: True})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler for torch.compile")
def test_compiled_networks_learn_the_same():
    x = (np.random.default_rng(0).random((100, 12)) < 0.3).astype(float)
    learn = lambda **settings: pg.fit(  # noqa: E731
        "vae_pyro",
        {"x": x, "width": 16, "num_latents": 2},
        "svi",
        num_steps=5,
        batch_size=50,
        progress=False,
        **settings,
    )
    np.testing.assert_allclose(learn(compiled=True).records["loss"], learn().records["loss"], rtol=1e-4)
