"""Kinds of Pyro programs that the library's examples are made of, each against Pyro itself or a closed form."""

import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

import probgen as pg
from probgen.engine.pyro import engine
from probgen.engine.pyro.executor import OPS
from probgen.inference.variational.guided_svi import Elbo

rng = np.random.default_rng(0)
X = rng.normal(size=(12, 3))


@pytest.fixture(autouse=True)
def own_generator():
    """Modules draw their first weights from torch's generator."""
    with torch.random.fork_rng():
        yield


ONE = Elbo("trace", 1, 0.0)


def short(program, data, guide, **settings):
    return pg.fit(program, data, "svi", guide=guide, num_steps=3, progress=False, **settings)


def fixed(module, seed):
    """The module with weights of a seed, whatever the process drew before."""
    numbers = np.random.default_rng(seed)
    for weight in module.parameters():
        weight.data = torch.as_tensor(numbers.normal(0, 0.5, weight.shape)).to(weight.dtype)
    return module


# ---- batch normalisation


class Nets(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False))
        self.decoder = nn.Linear(2, 3)
        fixed(self, 0)

    def model(self, x):
        pyro.module("nets", self)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.3).to_event(1))


def test_batch_normalisation_is_of_all_rows_and_moves_nothing():
    nets = Nets().double()
    before = {k: v.clone() for k, v in nets.state_dict().items()}
    found = short(nets.model, {"x": X}, nets.guide, num_draws=400)
    assert any("BatchNorm1d" in note for note in found.target.notes)
    assert all(torch.equal(v, before[k]) for k, v in nets.state_dict().items())
    target, begun = found.target, Nets().double()
    z, log_q = target.guide_draws(OPS.key(0), target.guide_start(OPS.key(0)), 300)
    names = list(target.structure.blocks)
    block = target.structure.blocks[names[-1] if names[-1] == "z" else "z"]
    mean = z[:, block.start : block.stop].reshape(-1, 12, 2).mean(0)
    expected = begun.encoder.train()(torch.as_tensor(X)).detach().numpy()
    assert np.abs(mean - expected).max() < 5 * 0.3 / np.sqrt(300)
    assert np.isfinite(log_q).all()


def test_rows_of_batch_normalisation_are_refused_by_themselves():
    nets = Nets().double()
    with pytest.raises(ValueError, match="BatchNorm1d"):
        pg.fit(nets.model, {"x": X}, "svi", guide=nets.guide, by_row=True, num_steps=2, progress=False)


# ---- one-hot labels, known or not: the two losses of a semi-supervised model


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder, self.label, self.code = nn.Linear(2 + 3, 3), nn.Linear(3, 3), nn.Linear(3 + 3, 2)
        fixed(self, 1)

    def model(self, x, y=None):
        pyro.module("labelled", self)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(len(x), 3) / 3), obs=y)
            pyro.sample("x", dist.Normal(self.decoder(torch.cat([z, y], -1)), 1.0).to_event(1), obs=x)

    def guide(self, x, y=None):
        with pyro.plate("rows", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.label(x)))
            pyro.sample("z", dist.Normal(self.code(torch.cat([x, y], -1)), 0.5).to_event(1))

    def label_model(self, x, y):
        pyro.module("labelled", self)
        with pyro.plate("rows", len(x)), poutine.scale(scale=7.0):
            pyro.sample("y_aux", dist.OneHotCategorical(logits=self.label(x)), obs=y)

    def label_guide(self, x, y):
        pass


LABELS = np.eye(3)[rng.integers(0, 3, 12)]


def test_one_hot_labels_are_summed_over():
    pair = Labelled().double()
    found = short(pair.model, {"x": X}, pair.guide)
    target = found.target
    with target.running(target.initial(0), 0), torch.no_grad():
        rows = target.batch(torch.arange(12))
        mine = [target.terms(rows) for _ in range(200)]
    apart = [t.likelihood - sum(x if x.dim() == 1 else x.flatten(1).sum(1) for x in t.kl.values()) for t in mine]
    elbo = torch.stack(apart).sum(1)
    with torch.random.fork_rng():
        theirs = torch.stack([by_hand(Labelled().double(), torch.as_tensor(X)) for _ in range(200)])
    error = (elbo.var() / 200 + theirs.var() / 200).sqrt()
    assert abs(elbo.mean() - theirs.mean()) < 5 * error


def by_hand(nets, x):
    """One estimate of the ELBO of all rows: labels by their sum, codes by a draw of each."""
    total, log_q = 0.0, nets.label(x).log_softmax(-1)
    with torch.no_grad():
        for k in range(3):
            y = torch.eye(3).double()[k].expand(len(x), 3)
            q = dist.Normal(nets.code(torch.cat([x, y], -1)), 0.5)
            z = q.sample()
            log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - np.log(3)
            log_p = log_p + dist.Normal(nets.decoder(torch.cat([z, y], -1)), 1.0).log_prob(x).sum(-1)
            total = total + (log_q[:, k].exp() * (log_p - q.log_prob(z).sum(-1) - log_q[:, k])).sum()
    return total


@pytest.mark.parametrize("by", ["labels known", "labels alone"])
def test_labels_that_are_known(by):
    pair = Labelled().double()
    if by == "labels known":
        assert short(pair.model, {"x": X, "y": LABELS}, pair.guide) is not None
        return
    found = short(pair.label_model, {"x": X, "y": LABELS}, pair.label_guide)
    loss, _ = found.target.guide_loss_and_gradient(OPS.key(0), found.target.guide_start(OPS.key(0)), ONE)
    logits = Labelled().double().label(torch.as_tensor(X))
    expected = -7 * dist.OneHotCategorical(logits=logits).log_prob(torch.as_tensor(LABELS)).sum()
    assert loss == pytest.approx(expected.item(), rel=1e-9)


# ---- bounded unknowns of rows


def test_bounded_unknowns_of_rows_are_learned_on_the_whole_data():
    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(x)):
            scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(loc, scale), obs=x)

    def guide(x):
        net = pyro.module("net", NET)
        with pyro.plate("rows", len(x)):
            pyro.sample("scale", dist.LogNormal(net(x[:, None])[:, 0], 0.5))

    found = short(model, {"x": X[:, 0]}, guide, num_draws=10)
    assert found.posterior["scale"].shape == (4, 10, 12)
    assert (found.posterior["scale"] > 0).all()


NET = fixed(nn.Linear(1, 1).double(), 2)


# ---- parameters, types, arguments


def test_a_parameter_gives_its_unconstrained_value():
    def model(y):
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        seen = scale.unconstrained()
        assert torch.allclose(seen.exp(), scale)
        with pyro.plate("n", 4, subsample_size=2) as i:
            own = pyro.param("own", torch.zeros(4), event_dim=0)  # of a subsampled plate: asks for it, too
            pyro.sample("y", dist.Normal(own, scale), obs=y[i])

    found = pg.fit(model, {"y": X[:4, 0]}, "svi", guide=lambda y: None, num_steps=3, num_draws=5, progress=False)
    assert np.isfinite(found.posterior["scale"].values).all()


def test_a_float32_guide_within_a_guide_is_lifted():
    locs = nn.Parameter(torch.tensor([-1.0, 1.0]))  # float32

    def model(y):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        with pyro.plate("n", len(y)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2) / 2))
            pyro.sample("y", dist.Normal(loc[k], 1.0), obs=y)

    def guide(y):
        pyro.sample("loc", dist.Normal(locs, torch.ones(2, dtype=torch.float32)).to_event(1))
        probs = pyro.param("probs", torch.ones(len(y), 2) / 2, constraint=dist.constraints.simplex)
        with pyro.plate("n", len(y)):
            pyro.sample("k", dist.Categorical(probs))

    found = short(model, {"y": X[:, 0]}, guide, num_draws=5)
    assert found.posterior["loc"].shape == (4, 5, 2)


def test_rows_without_columns_are_data():
    def model(y, covariates):
        w = pyro.sample("w", dist.Normal(torch.zeros(covariates.shape[1] + 1), 1.0).to_event(1))
        mean = w[0] + covariates @ w[1:]
        with pyro.plate("n", len(covariates)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    target = engine.prepare(model, {"y": X[:, 0], "covariates": np.zeros((12, 0))})
    found = pg.fit(
        model,
        {"y": X[:, 0], "covariates": np.zeros((12, 0))},
        "nuts",
        num_warmup=50,
        num_samples=50,
        num_chains=1,
        progress=False,
    )
    assert found.posterior["w"].shape == (1, 50, 1)
    precision = 13.0
    expected = -0.5 * precision * (0.3 - X[:, 0].sum() / precision) ** 2
    at = lambda w: float(target.log_density(np.array([w])))  # noqa: E731
    best = X[:, 0].sum() / precision
    assert at(0.3) - at(best) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="'y' is empty"):
        pg.fit(model, {"y": np.zeros(0), "covariates": np.zeros((0, 2))}, "nuts", progress=False)


def test_positional_arguments_of_a_module_have_names_of_their_own():
    from probgen.programs.arguments import taken_apart

    def program(*args, **kwargs):
        return args

    _, data = taken_apart(program, (np.ones(2), np.ones(3)), {})
    assert list(data) == ["args[0]", "args[1]"]


# ---- many points at once


def test_sums_over_finite_unknowns_run_at_many_points_at_once():
    def model(y):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
        z = torch.zeros(())
        for t in pyro.markov(range(4)):
            z = pyro.sample(f"z{t}", dist.Bernoulli(0.1 + 0.8 * p * (1 - 0.5 * z)))
            pyro.sample(f"y{t}", dist.Normal(2 * z, 1.0), obs=y[t])

    target = engine.prepare(model, {"y": X[:4, 0]}).marginalise()
    points = torch.as_tensor(rng.normal(size=(5, 1)), dtype=torch.float64).requires_grad_()
    with target.structure.scope():
        together = torch.vmap(lambda z: target.structure.log_density(z, target.tensors))(points)
        apart = torch.stack([target.structure.log_density(z, target.tensors) for z in points])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    (one,), (other,) = torch.autograd.grad(together.sum(), points), torch.autograd.grad(apart.sum(), points)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_libraries_from_a_checkout_are_libraries(monkeypatch):
    from probgen.programs import contents

    monkeypatch.setattr(contents, "_place", lambda root: "/home/someone/pyro/pyro/__init__.py")
    monkeypatch.setattr(contents, "_places", {})
    assert contents.is_library("pyro.infer.svi")
    assert not contents.is_library("notes_of_mine")


# ---- data that are a minibatch already, and settings that are objects


def of_many(x, y):
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 1200, len(x)):
        pyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def test_data_that_are_a_minibatch_count_as_in_pyro():
    x, y = X[:, 0], X[:, 1]
    target = engine.prepare(of_many, {"x": x, "y": y})
    for b in (0.0, 0.7):
        with torch.random.fork_rng():
            told = poutine.trace(poutine.condition(of_many, {"b": torch.tensor(b).double()}))
            expected = told.get_trace(torch.as_tensor(x), torch.as_tensor(y)).log_prob_sum()
        assert float(target.log_density(np.array([b]))) == pytest.approx(
            float(expected), rel=1e-7
        )  # of constants in single precision
    assert any("counts 100 times" in note for note in target.notes)
    found = short(of_many, {"x": x, "y": y}, pyro.infer.autoguide.AutoNormal, num_draws=5)
    assert found.posterior["b"].shape == (4, 5)


def test_a_guide_gets_settings_as_they_are_given():
    import argparse

    def model(y, args=None):
        m = pyro.sample("m", dist.Normal(0.0, args.width))
        pyro.sample("y", dist.Normal(m, 1.0).expand([len(y)]).to_event(1), obs=y)

    def guide(y, args=None):
        pyro.sample("m", dist.Normal(pyro.param("loc", torch.tensor(0.0)), args.width))

    found = short(model, {"y": X[:, 0], "args": argparse.Namespace(width=2.0)}, guide, num_draws=5)
    assert found.posterior["m"].shape == (4, 5)


def test_a_cholesky_factor_is_a_parameter():
    """The guide's normal has the posterior's covariance: log p - log q is the evidence at every draw."""
    import math

    covariance = np.linalg.inv(np.eye(2) + X[:, :2].T @ X[:, :2])
    mean, root = covariance @ X[:, :2].T @ X[:, 2], np.linalg.cholesky(covariance)

    def model(x, y):
        root_of = pyro.param("root", torch.as_tensor(root), constraint=dist.constraints.lower_cholesky)
        w = pyro.sample("w", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
        pyro.sample("y", dist.Normal(x @ w, 1.0 + 0 * root_of.sum()).to_event(1), obs=y)

    def guide(x, y):
        root_of = pyro.param("root", torch.as_tensor(root), constraint=dist.constraints.lower_cholesky)
        pyro.sample("w", dist.MultivariateNormal(torch.as_tensor(mean), scale_tril=root_of))

    target = engine.guided(engine.prepare(model, {"x": X[:, :2], "y": X[:, 2]}, by_row=False), guide)
    pair = target.paired()
    z, log_q = pair.guide_draws(OPS.key(0), pair.guide_start(OPS.key(0)), 20)
    whole = np.eye(12) + X[:, :2] @ X[:, :2].T
    evidence = -0.5 * (
        X[:, 2] @ np.linalg.solve(whole, X[:, 2]) + np.linalg.slogdet(whole)[1] + 12 * math.log(2 * math.pi)
    )
    np.testing.assert_allclose(pair.log_density_batch(z) - log_q, evidence, rtol=1e-8)


def test_a_convolution_that_mixes_types_runs_in_one():
    kernel = fixed(nn.Conv2d(1, 1, 2), 3)  # float32 weights, not registered

    def model(images, y):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        features = kernel(images).flatten(1).mean(1)
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(m * features, 1.0), obs=y)

    images, y = X[:, None, :, None] * np.ones((1, 1, 1, 3)), X[:, 0]
    target = engine.prepare(model, {"images": images, "y": y})
    features = copy.deepcopy(kernel).double()(torch.as_tensor(images)).flatten(1).mean(1).detach()
    expected = dist.Normal(0.5 * features, 1.0).log_prob(torch.as_tensor(y)).sum() + dist.Normal(0.0, 1.0).log_prob(
        torch.tensor(0.5)
    )
    assert float(target.log_density(np.array([0.5]))) == pytest.approx(float(expected), rel=1e-5)
