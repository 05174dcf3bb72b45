"""Runs of programs learned from draws, from disk: the shell's words, the page and its pictures, fits side by side."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.cli import main
from probgen.nets.flows import registered
from probgen.pictures import implicit


def plane(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    W = numpyro.param("W", jnp.array([[1.0, 0.3], [0.0, 1.0]]))
    numpyro.sample("x", dist.Delta(z @ W, event_dim=1), obs=x)


def squares(label, x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([4]).to_event(1))
    f = registered("f", lambda key: eqx.nn.Linear(7, 64, key=key))
    numpyro.sample("x", dist.Delta(f(jnp.concatenate([z, jnp.eye(3)[label]])).reshape(8, 8), event_dim=2), obs=x)


def round_critic(x):
    return -numpyro.param("w", jnp.array(0.1)) * jnp.sum(x**2)


def flat_critic(x, label):
    return registered("d", lambda key: eqx.nn.MLP(67, "scalar", 8, 1, jax.nn.relu, key=key))(
        jnp.concatenate([x.ravel(), jnp.eye(3)[label]])
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders by name, each made when it is asked for: a run in the plane by two learners, one of pictures with classes."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    settings = {"num_steps": 300, "batch_size": 8, "ema": 0.9, "progress": False}
    rows = {"x": rng.normal(size=(300, 2))}
    labelled = {"x": rng.random((60, 8, 8)), "label": np.arange(60) % 3}

    def made(name):
        if not (folder / name).exists():
            model, data = (pg.Model(plane, critic=round_critic), rows)
            if name == "squares":
                model, data = pg.Model(squares, critic=flat_critic), labelled
            pg.fit(model, data, inference="r3gan" if name == "r3gan" else "gan", out=folder / name, **settings)
        return folder / name

    return made


def titles(fit):
    return [title for title, _, draw in (*implicit.LEARNING, *implicit.PICTURES) if draw(fit) is not None]


def test_pictures_of_the_plane_and_of_classes(runs):
    assert titles(pg.load(runs("gan"))) == ["Losses", "Looks", "Draws", "Critic", "Interpolation", "Truncation"]
    assert titles(pg.load(runs("squares"))) == ["Losses", "Looks", "New points"]


def test_the_landscape_is_the_critics(runs):
    fit = pg.load(runs("gan"))
    picture = implicit.landscape(dataclasses.replace(fit, answer={**fit.answer, "w (critic)": np.float32(1.0)}))
    assert picture is not None
    levels = picture.axes[0].collections[0].get_array()
    assert levels.min() < 0 < levels.max()
    packed = dataclasses.replace(
        fit, target=fit.target.judged_by(lambda x: jnp.sum(x) * numpyro.param("w", jnp.ones(())), 2)
    )
    assert implicit.landscape(packed) is None


def test_pictures_of_classes_are_a_line_each(runs):
    fit = pg.load(runs("squares"))
    picture = implicit.new_points(fit)
    assert picture is not None
    assert picture.axes[0].images[0].get_array().shape[:2] == (3 * 9, 12 * 9)  # with a line between


def test_the_page_is_whole(runs, tmp_path):
    page = pg.load(runs("gan")).report(tmp_path / "gan.html").read_text()
    for title in ("Losses", "Looks", "Draws", "Critic", "Interpolation", "Truncation", "two_sample", "coverage"):
        assert title in page
    assert "nats a row" not in page.split("Settings")[0]
    order = [page.index(f">{title}<") for title in ("Draws", "Critic", "Losses", "Parameters", "Settings")]
    assert order == sorted(order), "what is drawn comes first, weights of networks last"


def test_a_page_replaces_a_page_and_no_other_file(runs, tmp_path):
    fit = pg.load(runs("gan"))
    (tmp_path / "mine.html").write_text("<html>my own notes</html>")
    with pytest.raises(FileExistsError, match=r"mine.html exists already and is no page of probgen's"):
        fit.report(tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text() == "<html>my own notes</html>"
    for _ in range(2):
        assert fit.report(tmp_path / "page.html").stat().st_size > 10_000


def test_a_flow_learned_from_draws_shows_its_density_too(tmp_path):
    def normal(x=None):
        sd = numpyro.param("sd", jnp.ones(2))
        numpyro.sample("x", dist.Normal(0, sd).to_event(1), obs=x)

    rows = {"x": np.random.default_rng(0).normal(size=(300, 2))}
    model = pg.Model(normal, critic=round_critic)
    fit = pg.fit(model, rows, inference="gan", num_steps=200, batch_size=8, progress=False)
    page = fit.report(tmp_path / "flow.html").read_text()
    for title in ("Looks", "Draws", "Critic", "Density"):
        assert f"<h2>{title}</h2>" in page
    assert "Truncation" not in page


def test_the_shell_knows_such_runs(runs, tmp_path, capsys):
    code = main(["diagnose", str(runs("gan"))])
    told = capsys.readouterr().out
    assert code in (0, 1, 2)
    assert "two_sample" in told
    main(["sample", str(runs("gan")), "-n", "5", "-o", str(tmp_path / "draws.npz")])
    drawn = np.load(tmp_path / "draws.npz")
    np.testing.assert_array_equal(drawn["x"], pg.load(runs("gan")).sample(5)["x"])
    main(["report", str(runs("gan")), "-o", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_draws_given_inputs_by_the_shell(runs, tmp_path, capsys):
    main(["sample", str(runs("squares")), "-n", "5", "-o", str(tmp_path / "draws.npz")])
    drawn = np.load(tmp_path / "draws.npz")
    assert drawn["x"].shape == (5, 8, 8)
    assert set(drawn["label"]) <= {0, 1, 2}


def test_fits_side_by_side(runs):
    fits = {name: pg.load(runs(name)) for name in ("gan", "r3gan")}
    found = pg.compare(fits)
    assert {"verdict", "told_apart", "coverage", "quality", "seconds"} <= set(found.table.columns)
    assert "log_prob" not in found.table.columns
    for name, fit in fits.items():
        assert found.table.loc[name, "told_apart"] == fit.diagnose()["two_sample"].value
    with pytest.raises(ValueError, match="loo is for posterior draws"):
        pg.compare(fits, loo=True)
    with pytest.raises(ValueError, match="fits of different data"):
        pg.compare({**fits, "other": pg.load(runs("squares"))})
