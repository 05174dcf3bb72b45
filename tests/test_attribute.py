"""Points moved in latent spaces along the direction of a number: against linear models, of which the direction is known."""

import re
from pathlib import Path

import flowjax.distributions as flowjax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax.bijections import Affine

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.evaluate.attribute import slant, thickness
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused
from probgen.nets.flows import Flow

ROWS = np.random.default_rng(0).normal(size=(50, 2))
STILL = {"num_steps": 1, "learning_rate": 1e-9, "progress": False}
W = np.array([[1.0, 0.3], [0.5, 2.0]])


def plane(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Delta(z @ numpyro.param("W", jnp.asarray(W)), event_dim=1), obs=x)


def critic(x):
    return -numpyro.param("w", jnp.array(0.1)) * jnp.sum(x**2)


def decoder(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(z @ numpyro.param("W", jnp.asarray(W)), 0.5).to_event(1), obs=x)


def encoder(x):
    mean = x @ jnp.linalg.inv(jnp.asarray(W, x.dtype)) + numpyro.param("b", jnp.zeros(2))
    numpyro.sample("z", dist.Normal(mean, 0.1).to_event(1))


def affine(x=None):
    scale = numpyro.param("scale", jnp.array([2.0, 0.5]))
    numpyro.sample("x", Flow(flowjax.Transformed(flowjax.StandardNormal((2,)), Affine(jnp.zeros(2), scale))), obs=x)


def denoised(x=None):
    mean = numpyro.param("mean", jnp.zeros(2))
    variance = numpyro.param("variance", jnp.array([4.0, 0.25]), constraint=dist.constraints.positive)
    numpyro.sample("x", diffused(Normal(Straight(), mean, jnp.diag(variance)), (2,)), obs=x)


FITS = {
    "generator": (lambda: pg.fit(pg.Model(plane, critic=critic), {"x": ROWS}, inference="gan", **STILL), "z"),
    "latent": (lambda: pg.fit(pg.Model(decoder, guide=encoder, by_row=True), {"x": ROWS}, inference="svi", **STILL), "z"),
    "flow": (lambda: pg.fit(pg.Model(affine, by_row=True), {"x": ROWS}, inference="mle", **STILL), "u"),
    "denoiser": (
        lambda: pg.fit(pg.Model(denoised, by_row=True), {"x": ROWS}, inference="flow_matching", **STILL), "noise"),
}  # fmt: skip


def first(point):
    return point[0]


@pytest.fixture(scope="module", params=list(FITS))
def kind(request):
    make, site = FITS[request.param]
    return request.param, make(), site


def test_the_direction_of_a_linear_model(kind):
    name, fit, site = kind
    found = fit.attribute(first, amounts=(-1.0, 0.0, 2.0), num_rows=4, num_draws=300)
    known = W[:, 0] if name in ("generator", "latent") else np.array([2.0, 0.0])
    unit = known / np.linalg.norm(known)
    direction = found.direction[site].ravel()
    assert direction @ unit / np.linalg.norm(direction) > 0.999
    assert found.share > 0.99
    assert found.slope == pytest.approx(np.linalg.norm(known), rel=0.12)  # by the sd of 300 draws
    assert found.points.shape == (3, 4, 2)
    np.testing.assert_allclose(found.values, found.points[..., 0])
    np.testing.assert_allclose(found.values[2] - found.values[1], 2 * found.slope, rtol=0.02)
    assert not found.notes
    assert "R^2" in str(found)


def test_rows_are_moved_where_a_way_leads_to_their_noise(kind):
    name, fit, _ = kind
    if name == "generator":
        with pytest.raises(TypeError, match="Leave x out"):
            fit.attribute(first, ROWS[:3])
        return
    found = fit.attribute(first, ROWS[:3], amounts=(0.0, 1.0), num_draws=300)
    np.testing.assert_allclose(found.points[0], ROWS[:3], atol=0.02)
    np.testing.assert_allclose(found.values[1] - found.values[0], found.slope, rtol=0.02)


def test_numbers_without_a_direction_are_told(kind):
    _, fit, _ = kind
    found = fit.attribute(lambda x: np.sin(40 * x[1]), num_draws=300, num_rows=4)
    assert found.share < 0.2
    assert any("hardly follows" in note for note in found.notes)
    with pytest.raises(ValueError, match="no direction"):
        fit.attribute(lambda x: 1.0, num_draws=60)
    with pytest.raises(ValueError, match="thickness"):
        fit.attribute("width")
    with pytest.raises(ValueError, match="grey pictures"):
        fit.attribute("slant", num_draws=60)
    with pytest.raises(TypeError, match="one number"):
        fit.attribute(lambda x: x, num_draws=60)
    with pytest.raises(ValueError, match="expected rows of shape"):
        fit.attribute(first, ROWS[0])


def test_energies_have_no_latent_space():
    def energy(x=None):
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)), obs=x)
        numpyro.factor("f", -jnp.sum((x - numpyro.param("m", jnp.zeros(2))) ** 2))

    fit = pg.fit(pg.Model(energy, by_row=True), {"x": ROWS}, inference="pcd", **STILL)
    with pytest.raises(Incompatible, match="no latent space"):
        fit.attribute(first)


def bar(width, lean, size=32):
    """A bar of a width that leans to the right by `lean` pixels a pixel of height."""
    rows, columns = np.indices((size, size)) + 0.5
    middle = size / 2 + lean * (size / 2 - rows)
    inside = (np.abs(columns - middle) < width / 2) & (np.abs(rows - size / 2) < size * 0.4)
    return inside.astype(float)


def test_thickness_and_slant_of_bars():
    wide = np.array([thickness(bar(w, 0.0)) for w in (2, 4, 8)])
    np.testing.assert_allclose(wide, [2, 4, 8], rtol=0.35)
    assert (np.diff(wide) > 0).all()
    for lean in (-0.4, 0.0, 0.3):
        assert slant(bar(4, lean)) == pytest.approx(lean, abs=0.03)
    flat = bar(4, 0.3)
    assert slant(flat.ravel()) == slant(flat[..., None]) == slant(255 * flat)
    assert thickness(np.zeros((8, 8))) == slant(np.zeros((8, 8))) == 0


def test_the_page_runs(capsys):
    names = {}
    for block in re.findall(
        "```python\n(.*?)```", (Path(__file__).parent.parent / "docs" / "attributes.md").read_text(), re.S
    ):
        exec(compile(block, "docs/attributes.md", "exec"), names)
    slanted = names["slanted"]
    assert "one standard deviation of the latent" in capsys.readouterr().out
    assert slanted.slope > 4 * slanted.slope_stderr
    assert slanted.values[0].mean() < slanted.values[1].mean() < slanted.values[2].mean()
    assert names["right"].share > 0.3
