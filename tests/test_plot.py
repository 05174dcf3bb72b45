"""Pictures in one word: `fit.plot()` of any fit, `probgen plot`, `sample -o grid.png`, `report --open`, ArviZ's plots."""

import shutil

import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from matplotlib.figure import Figure
from test_diagnostics import chains, guide

import probgen as pg
from probgen.cli import main
from probgen.pictures import samples
from probgen.pictures.gallery import pictures

Y = {"y": np.array([0.3, -0.2, 1.1, 0.8, 0.1])}


def by_school(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("school", 5):
        theta = numpyro.sample("theta", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


MODEL = pg.Model(by_school, dims={"theta": ["school"]}, coords={"school": ["A", "B", "C", "D", "E"]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "schools"
    pg.fit(MODEL, Y, num_warmup=200, num_samples=100, num_chains=2, out=path, progress=False)
    return path


@pytest.fixture(scope="module")
def fit(folder):
    return pg.load(folder, MODEL)


@pytest.fixture(scope="module")
def rbm(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "rbm"
    return pg.fit("rbm", "digits", "pcd", num_steps=30, out=path, progress=False)


def words(picture):
    """Everything that is written on a picture."""
    return " ".join(text.get_text() for text in picture.findobj(mpl.text.Text))


def test_chains_tell_most_of_a_posterior(fit):
    picture = fit.plot()
    assert isinstance(picture, Figure)
    assert "draws in order, a colour a chain" in words(picture)
    assert picture.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert picture._repr_png_()[:4] == b"\x89PNG"


def test_a_picture_goes_by_its_title_and_by_what_people_say(fit):
    assert words(fit.plot("ess")) == words(fit.plot("Effective sample size"))
    assert words(fit.plot("ppc")) == words(fit.plot("posterior-predictive check"))
    assert "mu" in words(fit.plot("pairs"))


def test_some_sites_by_name(fit):
    told = words(fit.plot("forest", var_names="theta"))
    assert "theta[C]" in told
    assert "mu" not in told.split()
    axes = fit.plot("pairs", var_names=["theta[B]", "mu"]).axes
    assert [(a.get_xlabel(), a.get_ylabel()) for a in axes] == [("theta[B]", "mu")]
    with pytest.raises(ValueError, match=r"No scalars of 'thet' vary\. Did you mean 'theta'\?"):
        fit.plot(var_names="thet")


def test_a_name_that_a_fit_does_not_have_is_answered_with_those_it_has(fit, rbm):
    with pytest.raises(
        ValueError, match=r"Unknown picture 'pair'\. Did you mean 'pairs'\?\nPictures of this fit: chains,"
    ):
        fit.plot("pair")
    with pytest.raises(ValueError, match="This fit has no picture 'loss'") as raised:
        fit.plot("loss")
    assert "importance_weights" not in str(raised.value)
    with pytest.raises(ValueError, match=r"Unknown picture 'nothing'\.\nPictures of fits of this kind.*filters"):
        rbm.plot("nothing")
    with pytest.raises(TypeError, match="var_names chooses among draws"):
        rbm.plot(var_names="W")


def test_every_name_that_is_listed_can_be_drawn(fit):
    with pytest.raises(ValueError, match="Pictures of this fit") as raised:
        fit.plot("")
    names = str(raised.value).rpartition(": ")[2].rstrip(".").split(", ")
    assert set(names) >= {"chains", "posterior", "pairs", "samples"}
    for name in names:
        assert fit.plot(name).axes


def test_a_guide_shows_intervals_and_few_draws_are_refused():
    assert guide().plot("loss").axes
    assert words(guide().plot()) == words(guide().plot("posterior"))
    assert [samples.whence(found) for found in (guide(), chains())] == ["from the guide", "from the posterior"]
    point = pg.fit(by_school, Y, "map", progress=False)
    assert "1 data set drawn at the point" in words(point.plot("ppc"))
    with pytest.raises(ValueError, match="no picture 'pairs': it takes two unknowns that vary, and draws"):
        point.plot("pairs")
    with pytest.raises(ValueError, match="There is no picture of this fit"):
        chains(num_chains=1, num_draws=3, z=lambda z: np.full_like(z, np.nan)).plot()


def test_an_energy_shows_its_samples(rbm):
    image = rbm.plot().axes[0].images[0].get_array().filled(np.nan)
    assert image.shape == (8 * 9, 8 * 9)
    assert set(np.unique(image[np.isfinite(image)])) == {0.0, 1.0}
    assert rbm.plot("filters").axes


def test_completed_points_are_pictures(rbm):
    digit = np.where(np.arange(64) < 32, rbm.target.all_rows()["v"][0], np.nan)
    half = pg.fit(
        rbm.condition(v=digit), inference="gibbs", num_chains=8, num_samples=20, num_warmup=20, progress=False
    )
    image = half.plot().axes[0].images[0].get_array().filled(np.nan)
    upper = image.reshape(8, 9, 8, 9)[:, :4, :, :8]
    assert (upper == digit.reshape(8, 8)[:4][None, :, None, :]).all()


def test_reports_show_the_same_pictures(fit, tmp_path):
    text = fit.report(tmp_path / "fit.html").read_text()
    shown = [p.title for p in pictures(fit) if p.draw() is not None]
    assert [t for t in shown if f"<h2>{t}</h2>" in text] == shown


def test_samples_of_each_kind(fit, rbm):
    rng = np.random.default_rng(0)
    assert "data sets drawn from the posterior" in words(samples.of(fit, {"y": rng.normal(size=(7, 5))}))
    assert "neither a picture" in samples.of(rbm, {"v": rng.normal(size=(7, 5))})
    panel = samples.of(rbm, {"v": rng.normal(size=(7, 2))}).axes[0]
    assert panel.lines[-1].get_xydata().shape == (7, 2)
    assert samples.side_by_side(rng.normal(size=(5, 4, 4))).axes[0].images[0].get_array().shape == (10, 15)


def test_matplotlib_is_left_as_it_was(fit):
    with mpl.rc_context({"text.usetex": True, "axes.facecolor": "pink"}):
        before = dict(mpl.rcParams)
        fit.plot()
        assert dict(mpl.rcParams) == before


def drawn_in_the_shell(run, out, sites):
    assert main(["plot", str(run), "--overwrite"]) == 0
    assert main(["plot", str(run), "pairs", "--var-names", *sites, "-o", str(out / "p.svg")]) == 0
    assert main(["sample", str(run), "-o", str(out / "grid.png")]) == 0
    assert (run / "plot.png").read_bytes()[:4] == (out / "grid.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / "p.svg").read_text().lstrip().startswith("<?xml")


def test_a_run_read_from_disk_is_drawn_in_the_shell(folder, tmp_path, capsys):
    drawn_in_the_shell(folder, tmp_path, ["mu", "theta[B]"])
    assert main(["plot", str(folder), "pears"]) == 2
    assert "Did you mean 'pairs'?" in capsys.readouterr().err
    assert main(["plot", str(folder), "-o", "fit.gif"]) == 2
    assert "fit.gif is no picture" in capsys.readouterr().err


@needs_pyro
def test_a_pyro_run_read_from_disk_is_drawn_in_the_shell(tmp_path):
    run = tmp_path / "run"
    pg.fit("eight_schools_pyro", inference="laplace", out=run, progress=False)
    drawn_in_the_shell(run, tmp_path, ["mu", "tau"])


def test_report_opens_a_browser_where_there_is_one(folder, tmp_path, capsys, monkeypatch):
    run, asked = shutil.copytree(folder, tmp_path / "run"), []
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["report", str(run), "--open"]) == 0
    told = capsys.readouterr()
    assert f"Open {run.resolve() / 'report.html'} in yours" in told.err
    assert asked == []
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["report", str(run), "--open"]) == 0
    assert asked == [(run / "report.html").resolve().as_uri()]
    assert capsys.readouterr().err == ""
    assert main(["report", str(run)]) == 2


def test_arviz_plots_the_tree_with_names_of_coordinates(fit):
    azp = pytest.importorskip("arviz_plots")
    import matplotlib.pyplot as plt

    azp.plot_forest(fit.tree, backend="matplotlib")
    told = words(plt.gcf())
    plt.close("all")
    assert {"mu", "theta", "A", "E"} <= set(told.split())
    azp.plot_trace(fit.tree, var_names=["theta"], coords={"school": ["B"]}, backend="matplotlib")
    assert "B" in words(plt.gcf())
    plt.close("all")
