"""The verdict on learned densities holds their draws against the rows: what does not describe them is warned of."""

import dataclasses
import functools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.diagnostics.samples.beside import APART, SURE, two_sample
from probgen.diagnostics.samples.densities import _columns, as_coarse
from probgen.diagnostics.samples.told_apart import told_apart, too_few
from probgen.evaluate.samples.drawn import held_out

fit = functools.partial(pg.fit, progress=False)
RNG = np.random.default_rng(0)
TWO = np.where(RNG.random(800) < 0.5, -3.0, 3.0) + RNG.normal(size=800)


def judged(found):
    """The finding on draws, or None."""
    return {f.check: f for f in found.diagnose().findings}.get("two_sample")


def normal(x=None):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), scale), obs=x)


def pyro_program():
    pyro = pytest.importorskip("pyro")
    import pyro.distributions as of
    import torch

    def normal(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=of.constraints.positive)
        with pyro.plate("row", len(x)):
            pyro.sample("x", of.Normal(loc, scale), obs=x)

    return normal


def at_best(program, x, **how):
    """The fit of a normal to rows, at the maximum of its likelihood."""
    found = fit(program, {"x": x}, inference="mle", num_steps=20, **how)
    best = {"loc": np.float32(x.mean()), "scale": np.float32(np.log(x.std()))}
    return dataclasses.replace(found, answer=best)


def check_normal(program, **how):
    """Of two modes it is warned of, with a lower bound on the distance of the laws that holds; of normal rows it passes."""
    wrong = at_best(program, TWO, **how)
    verdict, found = wrong.diagnose(), judged(wrong)
    grid = np.linspace(-15, 15, 3001)
    bell = lambda m, s: np.exp(-(((grid - m) / s) ** 2) / 2) / (s * (2 * np.pi) ** 0.5)  # noqa: E731
    apart = abs(bell(-3, 1) / 2 + bell(3, 1) / 2 - bell(TWO.mean(), TWO.std())).sum() * 0.005  # half of the integral
    assert found.status == "warn"
    assert 0.56 < found.value < (1 + apart) / 2 + 0.05
    assert verdict["new draws"].status == "pass"  # means and spreads are those of the rows
    assert judged(dataclasses.replace(wrong)) == found  # the seed says it all
    right = judged(at_best(program, RNG.normal(1.0, 2.0, 800), **how))
    assert right.status == "pass", right


def test_a_normal_of_two_modes_is_warned_of_and_one_of_a_normal_passes():
    check_normal(normal, by_row=True)


def test_the_same_of_pyro():
    check_normal(pyro_program())


def test_rows_held_out_are_those_that_draws_are_held_against():
    found = fit(normal, {"x": TWO}, inference="mle", by_row=True, num_steps=100, validation=0.25, held="last")
    assert np.array_equal(held_out(found), np.arange(600, 800))
    assert "400 held-out rows" not in judged(found).message
    assert "100 held-out rows" in judged(found).message  # a half of them teaches the classifier


def test_a_conditional_is_drawn_given_each_rows_own_inputs():
    def line(x, y=None):
        w, s = numpyro.param("w", jnp.zeros(2)), numpyro.param("s", 1.0, constraint=dist.constraints.positive)
        numpyro.sample("y", dist.Normal(x @ w, s), obs=y)

    x = RNG.normal(size=(800, 2))
    settings = {"inference": "mle", "by_row": True, "num_steps": 400, "learning_rate": 0.05}
    right = fit(line, {"x": x, "y": x @ [1.0, 2.0] + RNG.normal(size=800)}, **settings)
    assert judged(right).status == "pass"
    turned = dataclasses.replace(
        right, answer={**right.answer, "w": np.array([2.0, 1.0], "float32")}
    )  # y alone is of the same law
    assert judged(turned).status == "warn"


def test_right_models_are_told_apart_no_more_often_than_is_said():
    """Of 150 normals, bits and classes fitted in closed form to 200 rows of their own; power: frequencies of bars and stripes."""
    kinds = {
        "reals": (
            0,
            lambda rng: rng.normal(size=(200, 3)),
            lambda rng, x: x.mean(0) + x.std(0) * rng.normal(size=x.shape),
        ),
        "bits": (2, lambda rng: rng.random((200, 8)) < 0.3, lambda rng, x: rng.random(x.shape) < x.mean(0)),
        "levels": (
            4,
            lambda rng: rng.integers(4, size=(200, 2)),
            lambda rng, x: np.stack([rng.permutation(c) for c in x.T], 1),
        ),
    }
    alarms = 0
    for kind, (levels, rows, draws) in kinds.items():
        for seed in range(50):
            rng = np.random.default_rng(seed)
            x = rows(rng).astype(float)
            y = np.asarray(draws(rng, x), float)
            found = told_apart(*_columns(SimpleNamespace(kind=kind, levels=levels, size=x.shape[1]), None, x, y), seed)
            alarms += found.p_value < SURE and found.share > APART[0]
    assert alarms <= 3
    bars = np.asarray(pg.data.load("bars_and_stripes"), float).reshape(-1, 16)[RNG.integers(30, size=200)]
    bits = SimpleNamespace(kind="bits", levels=2, size=16)
    assert told_apart(*_columns(bits, None, bars, (RNG.random(bars.shape) < bars.mean(0)) * 1.0), 0).share > 0.9


def test_few_rows_cannot_tell_and_that_is_said():
    """Draws that have lost one of two modes: by 30 rows half of the tests miss them, by 60 a fifth or so, by 200 none."""

    def two(rng, n, lost=False):
        side = np.where(lost | (rng.random(n) < 0.5), 3.0, -3.0)
        return side[:, None] + rng.normal(size=(n, 1))

    told = {
        n: [told_apart(two(rng, n), two(rng, n, True), 0) for rng in map(np.random.default_rng, range(50))]
        for n in (30, 60, 200)
    }
    power = {n: np.mean([t.p_value < SURE and t.share > APART[0] for t in each]) for n, each in told.items()}
    assert 0.2 < power[30] < 0.8
    assert 0.55 < power[60] < 0.97
    assert power[200] == 1
    missed = next(t for t in told[60] if t.p_value >= SURE)
    assert missed.least == pytest.approx(0.72, abs=0.01)
    assert too_few(missed, SURE).startswith("60 rows are too few to tell: so many tell only laws that are 44% apart")
    assert not any(too_few(t, SURE) for t in told[200])
    rows = SimpleNamespace(rows=np.zeros((60, 1)), draws=np.zeros((60, 1)), held=[], own=False)
    fitted = SimpleNamespace(_told_apart=missed, _gathered=rows, target=None, num_steps=10)
    found = two_sample(SimpleNamespace(fit=fitted, settings={}))
    assert (found.status, found.remedy) == ("warn", "more data: 100 rows or more")
    density = at_best(normal, TWO[:60], by_row=True)
    verdict = density.diagnose()
    assert judged(density).status == "pass", "a plainly wrong one of which 60 rows do not tell"
    assert "60 rows are too few to tell" in " ".join(verdict.notes)
    assert "too few" not in " ".join(at_best(normal, RNG.normal(size=200), by_row=True).diagnose().notes)


def test_draws_are_rounded_as_rows_are_and_only_then():
    rows = np.stack([np.round(RNG.normal(40, 5, 500)), RNG.normal(size=500), np.maximum(RNG.normal(size=500), 0)], 1)
    draws = RNG.normal(40, 5, (500, 3))
    found = as_coarse(draws, rows)
    assert np.array_equal(found[:, 0], np.round(draws[:, 0]))
    assert np.array_equal(
        found[:, 1:], draws[:, 1:]
    )  # values that do not repeat, and a heap at zero that a density lacks


def test_what_is_not_compared_is_said():
    def masked(seen, x=None):
        with numpyro.handlers.mask(mask=seen):
            normal(x)

    part = fit(masked, {"x": TWO, "seen": TWO > 0}, inference="mle", by_row=True, num_steps=20)
    assert judged(part) is None
    assert any("a mask leaves out parts of 'x'" in note for note in part.diagnose().notes)
    few = fit(normal, {"x": TWO[:30]}, inference="mle", by_row=True, num_steps=20)
    assert judged(few) is None
    assert any("30 rows are too few" in note for note in few.diagnose().notes)
