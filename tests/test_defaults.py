"""The algorithm of a fit that names none, and the order of suggestions: what is named runs."""

from __future__ import annotations

import re

import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest

import probgen as pg
from probgen import catalog, runtime
from probgen.algorithm import Incompatible
from probgen.engine.numpyro.sums import blocking
from probgen.run import conditioned, fitting, suggestions

pyro = pytest.importorskip("pyro", reason="Pyro's side of defaults")
import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from torch.distributions import constraints  # noqa: E402

Y = np.random.default_rng(0).normal(1.0, 1.0, 30)
QUICK = {"progress": False, "num_warmup": 20, "num_samples": 10}


def posterior(y):
    numpyro.sample("y", nd.Normal(numpyro.sample("m", nd.Normal(0, 1)), 1), obs=y)


def pyro_posterior(y):
    m = pyro.sample("m", dist.Normal(0, 1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, 1), obs=y)


def bits(n):
    x = numpyro.sample("x", nd.Bernoulli(0.5).expand([n]).to_event(1))
    numpyro.factor("energy", x[1:] @ x[:-1])


def learned(y):
    m, s = numpyro.param("m", 0.0), numpyro.param("s", 1.0, constraint=nd.constraints.positive)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", nd.Normal(m, s), obs=y)


def pyro_learned(y):
    m, s = pyro.param("m", torch.tensor(0.0)), pyro.param("s", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(m, s), obs=y)


@pytest.mark.parametrize(("program", "data"), [(posterior, {"y": Y}), (pyro_posterior, {"y": Y})])
def test_a_posterior_is_sampled_by_nuts(program, data):
    assert pg.fit(program, data, **QUICK).inference.name == "nuts"


def test_bits_are_sampled_by_gibbs():
    fit = pg.fit(bits, {"n": 5}, **QUICK)
    assert fit.inference.name == "gibbs"
    assert any("gibbs is the one that serves this program best" in note for note in fit.notes)


@pytest.mark.parametrize("program", [learned, pyro_learned])
def test_parameters_are_learned(program):
    fit = pg.fit(program, {"y": Y}, progress=False)
    assert fit.inference.name in ("mle", "maximum_likelihood")
    assert fit.draws["m"].item() == pytest.approx(Y.mean(), abs=0.02)


def test_a_guide_is_learned():
    def guide(y):
        m, s = numpyro.param("at", 0.0), numpyro.param("by", 1.0, constraint=nd.constraints.positive)
        numpyro.sample("m", nd.Normal(m, s))

    assert pg.fit(posterior, {"y": Y}, guide=guide, num_steps=50, progress=False).inference.name == "guided_svi"


@pytest.mark.parametrize("name", ["gaussian", "eight_schools", "rbm", "ppca"])
def test_what_is_suggested_takes_the_model(name):
    _, target = conditioned(name, None)
    words = list(suggestions.working(target))
    assert words[0] in ("nuts", "mle", "pcd", "amortised_svi")
    assert all(suggestions.takes(word, target) for word in words)
    with pytest.raises(Incompatible, match="Try inference=") as caught:
        pg.fit(name, inference="gibbs" if name == "eight_schools" else "nuts", progress=False)
    first = re.search(r"Try inference='(\w+)'", str(caught.value)).group(1)
    assert first in ("nuts", "mle", "pcd", "svi")


def test_nothing_unknown_is_told_as_before():
    def observed(y):
        numpyro.sample("y", nd.Normal(0, 1), obs=y)

    with pytest.raises(Incompatible, match="It has no unknowns"):
        pg.fit(observed, {"y": Y})


def test_the_command_line_needs_no_inference(tmp_path, capsys):
    from probgen.cli import main

    assert main(["fit", "gaussian", "--out", str(tmp_path / "run"), "--no-progress"]) == 0
    assert pg.load(tmp_path / "run").inference.name == "mle"
    assert main(["show", "gaussian"]) == 0
    assert "best first: mle" in capsys.readouterr().out


def test_capitals_are_no_obstacle_to_a_suggestion():
    with pytest.raises(ValueError, match=r"Unknown inference 'NUTS'. Did you mean 'nuts'\?"):
        pg.fit(posterior, {"y": Y}, "NUTS")


def test_algorithms_are_tried_until_one_serves(monkeypatch):
    """Of a program that many take, each trial of which may compile: the choice needs the first, an error's hint the first few."""
    tried, takes = [], suggestions.takes
    watch = lambda word, target: tried.append((word, takes(word, target))) or tried[-1][1]  # noqa: E731
    monkeypatch.setattr(suggestions, "takes", watch)
    assert fitting.default_algorithm(bits, {"n": 5}) == "gibbs"
    assert [served for _, served in tried] == [False] * (len(tried) - 1) + [True]
    tried.clear()
    with pytest.raises(Incompatible, match="gibbs"):
        pg.fit(bits, {"n": 5}, "nuts", **QUICK)
    assert sum(served for _, served in tried) == suggestions.FEW


def test_blocks_of_a_target_are_found_once(monkeypatch):
    asked, find = [], blocking.find_blocks
    monkeypatch.setattr(blocking, "find_blocks", lambda *a, **k: asked.append(k["evaluate"]) or find(*a, **k))
    with runtime.jax_scope("float32"):
        target = conditioned("rbm", {"v": np.eye(6)[:, :4], "num_visible": 4, "num_hidden": 2}, precision="float32")[1]
        found = [target.blocked(), target.blocked(), target.blocked(evaluate=True)]
    assert asked == [False, True]
    assert found[0] is not found[1]
    assert found[0].structure.blocks == found[1].structure.blocks


@pytest.mark.parametrize(("name", "first"), [("velocity", "flow_matching"), ("edm", "denoising"), ("ddpm", "svi")])
def test_what_noise_learns_in_seconds_is_not_learned_through_an_ode(name, first):
    model = catalog.model(name)
    target = conditioned(name, model.default_data())[1]
    assert (model.inference or suggestions.best(target, most=1)[0]) == first
    assert ("mle" in suggestions.best(target, most=9)) == (name != "ddpm")


@pytest.mark.parametrize("program", ["gaussian", "rbm", lambda y=None: None])
def test_an_algorithm_in_the_place_of_data_is_told(program):
    with pytest.raises(TypeError, match="data is 'nuts', the name of an algorithm: write inference='nuts'"):
        pg.fit(program, "nuts")


@pytest.mark.parametrize(
    ("model", "inference", "shape"),
    [("masked_diffusion", "svi", (16,)), ("velocity_images_numpyro", "flow_matching", (8, 8, 1))],
)
def test_a_model_s_own_batch_is_cut_to_the_rows(model, inference, shape):
    x = np.random.default_rng(0).normal(size=(20, *shape))
    x = (x > 0).astype(int) if inference == "svi" else x
    algorithm = fitting.asked(model, x, inference)[0]
    assert algorithm.batch_size <= 20
    with pytest.raises(ValueError, match="batch_size is 64"):
        fitting.asked(model, x, inference, batch_size=64)
