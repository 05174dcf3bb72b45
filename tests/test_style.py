"""Style transfer: correlations by SciPy, shifts, its mode; and the climb of many unknowns that it needs, by closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest
from conftest import needs_pyro
from numpyro.infer.util import log_density

import probgen as pg
from probgen.data.values.photographs import woven
from probgen.inference.variational import _curvature
from probgen.models.texture.style_transfer import model, rows, shaded
from probgen.nets.features.filters import coarse, correlations, filters_at_random

MANY = 1200  # unknowns: more than have a matrix


def test_correlations_equal_their_definition_in_colour():
    rng = np.random.default_rng(0)
    x, k = rng.random((7, 6, 3)), filters_at_random(3, side=3, num_filters=4)
    with jax.enable_x64(True):
        found = np.asarray(correlations(jnp.asarray(x), jnp.asarray(k), 2))
    small = x[:6, :6].reshape(3, 2, 3, 2, 3).mean((1, 3))
    for g, y in zip(found, (x, small), strict=True):
        h, w, _ = y.shape
        f = np.zeros((h, w, 4))
        for i, j in np.ndindex(h, w):
            near = np.array([[y[(i + a) % h, (j + b) % w] for b in (-1, 0, 1)] for a in (-1, 0, 1)])
            f[i, j] = np.maximum(np.einsum("abc,abcf->f", near, k), 0)
        np.testing.assert_allclose(g, np.einsum("hwf,hwg->fg", f, f) / (h * w), rtol=1e-10)


def test_the_density_is_scipys():
    """Up to one constant; with other numbers than the defaults as well."""
    data = model.whole(model.default_data()) | {"style_sd": 0.05, "content_sd": 0.2}
    points = np.random.default_rng(1).random((3, *data["content"].shape))
    with jax.enable_x64(True):
        ours = [float(log_density(model.program, (), data, {"x": jnp.asarray(x)})[0]) for x in points]
    exact = [model.oracle.log_density({"x": x}, data) for x in points]
    assert np.ptp(exact) > 1
    np.testing.assert_allclose(np.subtract(ours, ours[0]), np.subtract(exact, exact[0]), rtol=1e-9, atol=1e-6)


def test_a_shift_keeps_the_style_and_an_even_light_has_none():
    k, x = filters_at_random(1), woven()
    g = correlations(x, k, 2)
    np.testing.assert_allclose(correlations(np.roll(x, (4, -8), (0, 1)), k, 2), g, rtol=1e-4)
    np.testing.assert_allclose(correlations(x + 0.3, k, 2), g, rtol=1e-3, atol=1e-6)
    assert float(jnp.abs(correlations(np.full((20, 20), 0.7), k, 2)).max()) < 1e-10


@pytest.fixture(scope="module")
def transferred():
    content, style = shaded(32), woven(32)
    start = {"x": content}
    return pg.fit("style_transfer", data=(content, style), num_steps=600, init=start, progress=False), content, style


def test_a_picture_takes_the_style_and_keeps_its_content(transferred):
    fit, content, style = transferred
    x, k = fit.draws["x"].reshape(content.shape), filters_at_random(1)
    to_style = lambda y: float(jnp.sum((correlations(y, k, 2) - correlations(style, k, 2)) ** 2))  # noqa: E731
    assert to_style(x) < to_style(content) / 50
    assert abs(np.asarray(coarse(x, 2) - coarse(content, 2))).max() < 0.3
    assert np.corrcoef(np.ravel(coarse(x, 2)), np.ravel(coarse(content, 2)))[0, 1] > 0.95


def test_the_verdict_says_that_other_modes_were_not_looked_for(transferred):
    finding = {f.check: f for f in transferred[0].diagnose().findings}["modes"]
    assert finding.status == "warn"
    assert "1024 unknowns" in finding.message


def test_its_own_style_is_its_mode():
    x = woven(24)
    fit = pg.fit("style_transfer", data=(x, x), num_steps=5, init={"x": x}, progress=False)
    np.testing.assert_allclose(fit.draws["x"].reshape(x.shape), x, atol=0.05)
    panels = fit.plot().axes
    assert [panel.get_title() for panel in panels] == ["content", "style", "x"]
    shown = [panel.images[0].get_array() for panel in panels]
    np.testing.assert_allclose(shown[2], shown[0], atol=0.1)


@pytest.mark.parametrize(
    ("content", "style", "word"),
    [
        (np.zeros((20, 20)), np.zeros((20, 20, 3)), "content is grey and style coloured"),
        (np.zeros((20, 20)), np.zeros((8, 8)), "style is 8 by 8 pixels"),
        (np.zeros((5, 20, 20)), np.zeros((20, 20)), "content has shape"),
    ],
)
def test_bad_pictures_are_refused(content, style, word):
    with pytest.raises(ValueError, match=word):
        pg.fit("style_transfer", data=(content, style), progress=False)


def test_bad_filters_are_refused():
    data = rows(shaded(), woven())
    with pytest.raises(ValueError, match="of an odd side"):
        pg.fit("style_transfer", data=data | {"filters": np.zeros((4, 4, 1, 3))}, progress=False)
    with pytest.raises(ValueError, match="content has 1 channels and the filters 3"):
        pg.fit("style_transfer", data=data | {"filters": np.zeros((3, 3, 3, 3))}, progress=False)


def test_the_model_offers_its_own_algorithm():
    assert model.inference == "map"


# ---- the climb of many unknowns


def chained_numpyro(y, sd):
    x: Any = numpyro.sample("x", nd.Normal(0.0, sd).to_event(1))
    numpyro.sample("y", nd.Normal(x[1:] - x[:-1], 0.5).to_event(1), obs=y)


def chained_pyro(y, sd):
    import pyro
    import pyro.distributions as pd

    x = pyro.sample("x", pd.Normal(0.0, sd).to_event(1))
    pyro.sample("y", pd.Normal(x[1:] - x[:-1], 0.5).to_event(1), obs=y)


@pytest.mark.parametrize("program", [chained_numpyro, pytest.param(chained_pyro, marks=needs_pyro)])
def test_map_of_many_unknowns_is_the_closed_form(program):
    rng: Any = np.random.default_rng(1)
    y, sd = rng.normal(size=MANY - 1), np.exp(rng.uniform(-1, 2, MANY))
    fit = pg.fit(program, {"y": y, "sd": sd}, inference="map", num_steps=400, progress=False)
    step = np.diff(np.eye(MANY), axis=0)
    precision = np.diag(sd**-2) + step.T @ step / 0.25
    mode = np.linalg.solve(precision, step.T @ y / 0.25)
    np.testing.assert_allclose(fit.draws["x"].ravel(), mode, atol=1e-5)
    assert fit.records["loss"].size < 400, "it ends where it has arrived"
    if program is chained_numpyro:
        told = fit.diagnose()["modes"]
        assert (told.status, f"{MANY} unknowns" in told.message) == ("warn", True), "other modes were not looked for"


def test_the_last_steps_stand_for_the_matrix():
    """While none is forgotten, limited memory equals the matrix that begins as its diagonal does: one of the last step's scale."""
    from types import SimpleNamespace

    rng = np.random.default_rng(2)
    a = rng.normal(size=(6, 6))
    hessian, ops = a @ a.T + np.eye(6), SimpleNamespace(xp=jnp, where=jnp.where)
    with jax.enable_x64(True):
        pairs = jnp.zeros((2, _curvature.MEMORY, 6))
        steps = jnp.asarray(rng.normal(size=(4, 6)))
        for s in steps:
            pairs = _curvature.updated(ops, pairs, s, hessian @ s)
        s, y = steps[-1], hessian @ steps[-1]
        matrix = jnp.eye(6) * (s @ y) / (y @ y)
        for s in steps:
            matrix = _curvature.updated(ops, matrix, s, hessian @ s)
        g = jnp.asarray(rng.normal(size=6))
        np.testing.assert_allclose(_curvature.times(ops, pairs, g), matrix @ g, rtol=1e-10)
        same = _curvature.updated(ops, pairs, s, -s)
        assert (same == pairs).all(), "a step along which the density is not concave teaches nothing"
