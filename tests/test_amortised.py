"""Programs with hidden sites and a learned guide: bounds against quadrature and closed forms, gradients, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm
from sklearn.decomposition import PCA

import probgen as pg
from probgen import catalog, runtime
from probgen.distributions.discretised import DiscretisedLogistic
from probgen.inference.likelihood.amortised_svi import AmortisedSVI
from probgen.nets.flows import BoundedAffine, autoregressive
from probgen.run import conditioned, meant

SMALL = {"width": 16, "num_latents": 3}
MODELS = {
    "vae": {},
    "beta_vae": {},
    "conditional_vae": {},
    "hierarchical_vae": {"num_top": 2},
    "iaf_vae": {"num_layers": 2, "flow_width": 8},
    "flow_prior_vae": {"num_layers": 2},
    "vamp_vae": {"num_inputs": 5},
    "autoencoder": {},
}


def small(name, rows=300, **settings):
    """A model's own data, shortened, for nets of a few units."""
    own = catalog.model(name).default_data()
    known = catalog.model(name).program.__code__.co_varnames
    short = {k: v[:rows] if isinstance(v, np.ndarray) else v for k, v in own.items()}
    return short | {k: v for k, v in ({**SMALL, **MODELS.get(name, {}), **settings}).items() if k in known}


def prepared(name, **settings):
    """The target of a small model, and its parameters before learning."""
    target = conditioned(name, small(name, **settings), precision="float32")[1]
    with runtime.jax_scope("float32"):
        return target, target.initial(jax.random.key(0))


@pytest.fixture(scope="module")
def plane():
    """A variational autoencoder with two latents, of sixteen pixels of the digits."""
    x = pg_digits()[:, 2:6, 2:6].reshape(-1, 16)
    return pg.fit("vae", {"x": x, "dim": 16, "num_latents": 2, "width": 32}, "svi", num_steps=1500, learning_rate=0.005)


def pg_digits():
    from probgen.data import load

    return load("digits")


def joint_on_grid(fit, row, side=401, reach=6.0):
    """log p(x, z) of a row on a grid of z, by the decoder's means alone: grid (point, 2), values (point,), the cell's area."""
    line = np.linspace(-reach, reach, side)
    z = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    p = np.clip(fit.decode(z=z)["x"].astype(float), 1e-12, 1 - 1e-7)
    log_p = np.where(row, np.log(p), np.log1p(-p)).sum(1) + norm.logpdf(z).sum(1)
    return z, log_p, (line[1] - line[0]) ** 2


def test_bounds_are_ordered_and_meet_quadrature(plane):
    rows = np.asarray(plane.target.data["x"][:20], float)
    exact = np.array([logsumexp(f) + np.log(cell) for _, f, cell in (joint_on_grid(plane, row) for row in rows)])
    elbo = plane.log_prob(rows, method="elbo", num_particles=2000)
    few, many = plane.log_prob(rows, num_particles=50), plane.log_prob(rows, num_particles=5000)
    assert elbo.value.mean() <= few.value.mean() <= many.value.mean()
    assert many.value.mean() == pytest.approx(exact.mean(), abs=0.05)
    assert (elbo.value <= exact + 4 * elbo.stderr).all()
    assert "lower bound: importance-weighted, 5000 draws" in many.kind
    assert many.khat.shape == (20,)
    assert np.isnan(few.khat).all()


def test_the_true_posterior_of_a_row_meets_quadrature(plane):
    row = np.asarray(plane.target.data["x"][0], float)
    z, log_p, _ = joint_on_grid(plane, row)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    mean = weights @ z
    sd = np.sqrt(weights @ (z - mean) ** 2)
    chains = pg.fit(plane.condition(row), inference="nuts", num_samples=2000)
    assert chains.diagnose().status != "fail"
    drawn = chains.draws["z"].reshape(-1, 2)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.1 * sd.max())
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.1)


def test_annealing_meets_quadrature(plane):
    rows = np.asarray(plane.target.data["x"][:1], float)
    _, log_p, cell = joint_on_grid(plane, rows[0])
    found = plane.log_prob(rows, method="ais")
    assert found.value[0] == pytest.approx(logsumexp(log_p) + np.log(cell), abs=0.05)


@pytest.mark.slow
def test_gaps_add_up(plane):
    rows = np.asarray(plane.target.data["x"][:2], float)
    found = plane.gaps(rows)
    missed = (
        plane.log_prob(rows, num_particles=5000).value - plane.log_prob(rows, method="elbo", num_particles=5000).value
    )
    np.testing.assert_allclose(found["amortisation"] + found["approximation"], missed, atol=0.05)
    assert (found["approximation"] > -0.02).all()


def test_codes_reconstructions_and_lines(plane):
    rows = np.asarray(plane.target.data["x"][:6], float)
    codes = plane.encode(rows)["z"]
    draws = plane.encode(rows, num_samples=400)["z"]
    assert draws.shape == (400, 6, 2)
    np.testing.assert_allclose(draws.mean(0), codes, atol=0.25)
    np.testing.assert_allclose(plane.reconstruct(rows)["x"], plane.decode(z=codes)["x"], atol=1e-6)
    line = plane.interpolate(rows[0], rows[1], 5)["x"]
    assert line.shape == (5, 16)
    np.testing.assert_allclose(line[[0, -1]], plane.reconstruct(rows[:2])["x"], atol=1e-5)
    new = plane.sample(50)
    assert new["x"].shape == (50, 16)
    assert set(np.unique(new["x"])) <= {0, 1}
    assert plane.activity()["z"].shape == (2,)


def test_what_is_asked_wrongly_is_said(plane):
    with pytest.raises(TypeError, match="decode takes z"):
        plane.decode(h=np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"z has shape \(4, 3\); expected rows of shape \(2,\)"):
        plane.decode(z=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="known: iwae, elbo, exact, ais"):
        plane.log_prob(method="best")
    with pytest.raises(ValueError, match="num_points is 1"):
        plane.interpolate(np.zeros(16), np.ones(16), 1)
    with pytest.raises(ValueError, match=r"x has shape \(3, 5\)"):
        plane.encode(np.zeros((3, 5)))


def test_a_linear_normal_model_meets_principal_components():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 2)) @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(800, 5)) + np.arange(5)
    data = {"x": x, "dim": 5, "num_latents": 2}
    fit = pg.fit("ppca", data, "svi", num_steps=3000, learning_rate=0.01, batch_size=400)
    score = PCA(2).fit(x).score(x)
    assert fit.log_prob(method="elbo").value.mean() == pytest.approx(score, abs=0.05)
    assert fit.log_prob(method="exact").value.mean() == pytest.approx(score, abs=0.02)


def test_a_linear_autoencoder_spans_the_principal_components():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(500, 8))
    fit = pg.fit("autoencoder", {"x": x, "dim": 8, "num_latents": 3, "depth": 0}, "svi", num_steps=3000)
    best = PCA(3).fit(x)
    error = ((best.inverse_transform(best.transform(x)) - x) ** 2).mean()
    assert ((fit.reconstruct()["x"] - x) ** 2).mean() == pytest.approx(error, rel=0.02)
    with pytest.raises(TypeError, match="its rows have no density"):
        fit.log_prob()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_and_makes_points(name):
    data = small(name)
    fit = pg.fit(name, data, "svi", num_steps=150, batch_size=100)
    loss = fit.records["loss"][0]
    assert np.isfinite(loss).all()
    assert loss[-20:].mean() < loss[0] - 5
    assert fit.reconstruct()["x"].shape == data["x"].shape
    if fit.target.proper:
        assert fit.sample(3)["x"].shape == (3, 64)
        assert np.isfinite(fit.log_prob(num_particles=5).value).all()
    told = fit.diagnose()["objective"].status
    assert told == (
        "warn" if name in ("beta_vae", "hierarchical_vae") else "pass"
    )  # the KL of the latter still comes in


@pytest.mark.parametrize("name", ["vae", "iaf_vae", "hierarchical_vae", "vamp_vae"])
def test_the_terms_of_a_bound_agree(name):
    """KL terms in closed form, their draws, and the log ratio, which the guide's density gives again at the same draw."""
    target, parameters = prepared(name)
    with runtime.jax_scope("float32"):
        row = jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1)))
        keys = jax.random.split(jax.random.key(1), 20_000)
        terms = jax.jit(jax.vmap(lambda k: target.terms(k, parameters, row)))(keys)
        drawn = terms.likelihood - terms.log_ratio
        total = sum(k.reshape(len(keys), -1).sum(1) for k in terms.kl.values())
        assert float(abs((drawn - total).mean())) < 5 * float((drawn - total).std()) / 140 + 1e-4
        hidden = target.draw(keys[0], parameters, row)
        again, likelihood = target.log_ratio(parameters, parameters, row, hidden, keys[0])
        np.testing.assert_allclose(again, terms.log_ratio[0], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(likelihood, terms.likelihood[0], rtol=1e-5, atol=1e-4)


def test_a_site_whose_density_counts_twice_has_twice_the_kl():
    row = {"x": jnp.asarray(rows(1)["x"][0], "float32")}

    def terms(model):
        target = conditioned(model, rows(), precision="float32")[1]
        with runtime.jax_scope("float32"):
            found = target.terms(jax.random.key(0), target.initial(jax.random.key(0)), row)
            return float(found.log_ratio), float(found.likelihood), sum(float(jnp.sum(k)) for k in found.kl.values())

    once, _, closed = terms(pg.Model(program=program, guide=guide, by_row=True))
    twice, likelihood, kl = terms(pg.Model(program=counted_twice, guide=guide_counted_twice, by_row=True))
    assert twice == pytest.approx(2 * once, rel=1e-4)
    assert kl == pytest.approx(likelihood - twice, rel=1e-4)  # of the draw: the closed form knows no scale
    assert kl != pytest.approx(closed, rel=1e-2)


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_both_gradients_have_one_mean(objective):
    target, parameters = prepared("vae", num_latents=2)
    chains = {"elbo": 1, "iwae": 5}

    def mean(estimator):
        kernel = AmortisedSVI(objective=objective, num_particles=chains[objective], estimator=estimator)
        with runtime.jax_scope("float32"):
            batch = target.rows(jnp.arange(4))
            progress = kernel.first_chains(None, target, parameters, batch)
            one = lambda key: kernel.gradient(key, target, parameters, batch, progress)[0]  # noqa: E731
            many = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 3000))
        return {k: (np.asarray(v).mean(0), np.asarray(v).std(0) / np.sqrt(3000)) for k, v in many.items()}

    total, path = mean("total"), mean("path")
    for name in total:
        error = np.sqrt(total[name][1] ** 2 + path[name][1] ** 2) + 1e-6
        away = (total[name][0] - path[name][0]) / error
        assert abs(away).max() < 6, name
        assert np.sqrt((away**2).mean()) < 1.3, name


def test_a_flow_draws_with_the_density_that_its_inverse_gives():
    def program():
        return numpyro.sample("z", autoregressive("q", 4, BoundedAffine(2.0), 2, 8, 1, jnp.ones(3), invert=False))

    with runtime.jax_scope("float32"):
        trace = numpyro.handlers.trace(numpyro.handlers.seed(program, jax.random.key(0))).get_trace()
        site = trace["z"]
        (own,) = site["intermediates"]
        np.testing.assert_allclose(own, site["fn"].log_prob(site["value"]), atol=1e-4)


def test_the_vamp_prior_is_the_mean_of_the_guide():
    target, parameters = prepared("vamp_vae")
    z = jnp.array([0.3, -1.0, 0.5])
    with runtime.jax_scope("float32"):
        row = jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1)))
        pseudo = jax.nn.sigmoid(parameters["pseudo"])
        each = [target.guided(jax.random.key(0), parameters, {"x": u})["z"]["fn"].log_prob(z) for u in pseudo]
        prior = target.told(parameters, row, {"z": z})["z"]["fn"].log_prob(z)
    np.testing.assert_allclose(prior, logsumexp(each) - np.log(len(each)), atol=1e-5)


def test_levels_have_mass_one_and_the_moments_of_their_draws():
    q = DiscretisedLogistic(jnp.array([3.0, -2.0, 14.5]), jnp.array([1.5, 2.0, 0.4]), levels=16)
    p = np.exp(q.log_prob(jnp.arange(16.0)[:, None]))
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    edge = expit((0.5 - 3.0) / 1.5)
    assert p[0, 0] == pytest.approx(edge, rel=1e-5)
    drawn = np.asarray(q.sample(jax.random.key(0), (40_000,)))
    np.testing.assert_allclose(drawn.mean(0), (np.arange(16) @ p), atol=0.05)
    grey = np.random.default_rng(0).integers(0, 256, (120, 9))
    fit = pg.fit("vae", {"x": grey, "dim": 9, "likelihood": "levels", **SMALL}, "svi", num_steps=100, batch_size=60)
    assert np.isfinite(fit.log_prob(num_particles=5).value).all()


# ---- words, settings, records ------------------------------------------------------------------------------------


def program(x=None, dim=6):
    loc = numpyro.param("loc", jnp.zeros(dim))
    scale = numpyro.sample("scale", dist.Normal(0, 1))
    shift = numpyro.sample("shift", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(loc + scale + jnp.repeat(shift, dim // 2), 0.5).to_event(1), obs=x)


def guide(x):
    scale = numpyro.param("guide scale", jnp.zeros(()))
    numpyro.sample("scale", dist.Normal(scale + x.mean(), 0.3))
    numpyro.sample("shift", dist.Normal(x.reshape(2, -1).mean(1) - x.mean(), 0.3).to_event(1))


def counted_twice(x=None, dim=6):
    with numpyro.handlers.scale(scale=2.0):
        program(x, dim)


def guide_counted_twice(x):
    with numpyro.handlers.scale(scale=2.0):
        guide(x)


def incomplete(x):
    numpyro.sample("scale", dist.Normal(x.mean(), 0.3))


def rows(count=200):
    return {"x": np.random.default_rng(0).normal(size=(count, 6))}


def test_one_word_has_the_meaning_that_suits_the_program():
    assert meant("svi", pg.Model(program, by_row=True), rows()) == ("amortised_svi", {})
    assert meant("svi", "eight_schools") == ("svi", {})
    assert meant("svi", "two_normals_pyro") == ("svi", {})
    assert meant("svi", "beta_vae") == ("amortised_svi", {"kl_weight": 2.0})
    assert meant("nuts", "beta_vae") == ("nuts", {})
    fit = pg.fit("beta_vae", small("beta_vae"), "svi", num_steps=20, kl_weight=3.0)
    assert fit.inference.kl_weight == 3
    assert fit.inference.name == "amortised_svi"
    with pytest.raises(TypeError, match="needs a Bounded target"):
        pg.fit("made", inference="iwae")


def test_a_guide_of_ones_own_is_found_again(tmp_path):
    model = pg.Model(program=program, guide=guide, data=rows(), by_row=True)
    fit = pg.fit(model, inference="svi", num_steps=60, out=tmp_path / "run")
    assert set(fit.parameters) == {"loc", "guide scale"}
    for again in (pg.load(tmp_path / "run"), pg.load(tmp_path / "run", program)):
        np.testing.assert_array_equal(again.encode()["shift"], fit.encode()["shift"])
    assert "guide" in json.loads((tmp_path / "run" / "run.json").read_text())["program"]


@pytest.mark.parametrize("inference", ["svi", "iwae"])
def test_learning_goes_on_from_its_state_bit_for_bit(tmp_path, killed, inference):
    settings = {"num_steps": 150, "batch_size": 64, "by_row": True}
    whole = pg.fit(program, rows(), inference, out=tmp_path / "whole", **settings)
    killed(pg.fit, program, rows(), inference, out=tmp_path / "part", **settings)
    for fit in (pg.resume(tmp_path / "part"), pg.load(tmp_path / "part")):
        for name in whole.answer:
            np.testing.assert_array_equal(fit.answer[name], whole.answer[name])
        np.testing.assert_array_equal(fit.records["loss"], whole.records["loss"])


def test_collapse_and_other_objectives_are_flagged():
    x = (np.random.default_rng(0).random((400, 16)) < 0.5).astype(float)
    data = {"x": x, "dim": 16, "width": 16, "num_latents": 4}
    verdict = pg.fit("vae", data, "svi", num_steps=600, kl_weight=5.0, learning_rate=0.01).diagnose()
    assert verdict["activity"].status == "fail"
    assert "collapsed" in verdict["activity"].remedy
    assert verdict["objective"].status == "warn"
    assert "the KL counts 5 times" in verdict["objective"].message


def test_bad_input_is_told_before_anything_compiles():
    bits = small("vae")
    with pytest.raises(ValueError, match=r"whose support is integers from 0 to 1; x\[0, 3\] is 2"):
        pg.fit("vae", bits | {"x": np.where(np.arange(64) == 3, 2, bits["x"])}, "svi")
    labels = small("conditional_vae")
    with pytest.raises(ValueError, match=r"integers from 0 to 9; y\[2\] is 10"):
        pg.fit("conditional_vae", labels | {"y": np.where(np.arange(300) == 2, 10, labels["y"])}, "svi")
    with pytest.raises(ValueError, match="number of latents is 0; it must be at least 1"):
        pg.fit("vae", bits | {"num_latents": 0}, "svi")
    with pytest.raises(ValueError, match="batch_size is 500; the data have 300 rows"):
        pg.fit("vae", bits, "svi", batch_size=500)
    with pytest.raises(ValueError, match="known: bernoulli, normal, levels"):
        pg.fit("vae", bits | {"likelihood": "round"}, "svi")
    with pytest.raises(ValueError, match="'shift' is not drawn by the guide"):
        pg.fit(pg.Model(program=program, guide=incomplete, data=rows(), by_row=True), inference="svi")
    with pytest.raises(ValueError, match="are for objective='elbo'"):
        pg.fit("vae", bits, "iwae", kl_weight=2.0)
    with pytest.raises(ValueError, match="objective is 'best'; known: elbo, iwae"):
        pg.fit("vae", bits, "svi", objective="best")
    with pytest.raises(ValueError, match="free_bits is -1"):
        pg.fit("vae", bits, "svi", free_bits=-1)


# ---- posteriors of latents without parameters --------------------------------------------------------------------


def test_a_table_is_completed_by_its_factors():
    data = catalog.model("matrix_factorization").default_data()
    fit = pg.fit("matrix_factorization", data, "mean_field", num_steps=3000)
    rng = np.random.default_rng(0)
    product = rng.normal(0, 2**-0.25, (20, 2)) @ rng.normal(0, 2**-0.25, (15, 2)).T
    known = np.zeros(product.shape, bool)
    known[data["row"], data["column"]] = True
    error = (fit.draws["product"].mean((0, 1)) - product)[~known]
    assert np.sqrt((error**2).mean()) < 0.15


@pytest.mark.slow
def test_sparse_codes_are_sparse_at_the_mode():
    data = catalog.model("sparse_coding").default_data()
    data = {"x": data["x"][:400], "dim": 64, "num_atoms": 80}
    fit = pg.fit("sparse_coding", data, "svi", num_steps=800)
    code = pg.fit(fit.condition(x=data["x"][0]), inference="map").draws["z"][0, 0]
    again = fit.decode(z=code[None])["x"][0]
    assert (abs(code) < 0.01).mean() > 0.4
    assert ((again - data["x"][0]) ** 2).mean() < 0.3 * (data["x"][0] ** 2).mean()


# ---- hidden sites of finitely many values


def test_labels_are_summed_over_and_known_ones_count():
    data = small("semi_supervised_vae", rows=20) | {"num_classes": 10}
    target = conditioned("semi_supervised_vae", data, precision="float32")[1]
    with runtime.jax_scope("float32"):
        parameters = target.initial(jax.random.key(0))
        parameters = {
            k: v + 0.1 * jax.random.normal(jax.random.key(i), v.shape) for i, (k, v) in enumerate(parameters.items())
        }
        rows, key = target.rows(jnp.arange(20)), jax.random.key(5)
        for i, known in ((0, True), (1, False)):
            row = {k: v[i] for k, v in rows.items()}
            assert (row["y"] >= 0) == known
            weights, ratios, likelihoods, kl = [], [], [], []
            for label in range(10):
                q = target.guided(key, parameters, row, given={"label": jnp.int32(label)})
                hidden = {"label": label, "z": q["z"]["value"]}
                p = target.told(parameters, row, hidden)
                log = lambda site: float(np.sum(site["fn"].log_prob(site["value"])))  # noqa: E731
                weights.append(np.exp(log(q["label"])))
                likelihoods.append(log(p["x"]))
                kl.append(log(q["label"]) - log(p["label"]))
                ratios.append(log(p["x"]) + log(p["z"]) + log(p["label"]) - log(q["z"]))
            found = target.terms(key, parameters, row)
            assert np.isclose(sum(weights), 1, atol=1e-5)
            assert float(found.likelihood) == pytest.approx(np.dot(weights, likelihoods), rel=1e-4)
            assert float(found.kl["label"]) == pytest.approx(np.dot(weights, kl), abs=1e-4)
            assert float(found.log_ratio) == pytest.approx(logsumexp(ratios), rel=1e-4)
            if known:
                assert np.argmax(weights) == row["y"]
                assert max(weights) == 1
            assert (float(found.beside) == 0) == (not known)


def test_few_labels_teach_a_classifier():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    found = load_digits()
    known = np.arange(1797) % 10 == 0
    x = (found.data >= 8).astype(float)
    fit = pg.fit("semi_supervised_vae", inference="svi", num_steps=600)
    asked = -np.ones((~known).sum())
    labels = fit.encode(x=x[~known], y=asked)["label"]
    other = LogisticRegression(max_iter=2000).fit(x[known], found.target[known]).score(x[~known], found.target[~known])
    assert np.mean(labels == found.target[~known]) > other
    drawn = fit.condition(y=3).sample(6)
    assert drawn["x"].shape == (6, 64)
    line = fit.interpolate(x[0], x[1], 4, y=-1)["x"]
    np.testing.assert_allclose(line[[0, -1]], fit.reconstruct(x=x[:2], y=asked[:2])["x"], atol=1e-5)
    assert set(fit.activity(x=x[:50], y=asked[:50])) == {"z"}
    assert any("'known label' is learned beside it" in f.message for f in fit.diagnose().findings)


def test_labels_out_of_range_and_too_many_states_are_told():
    data = small("semi_supervised_vae", rows=40)
    data["y"] = data["y"].copy()
    data["y"][7] = 12
    with pytest.raises(ValueError, match=r"'y' is an index of 10 entries, 0 to 9; y\[7\] is 12"):
        pg.fit("semi_supervised_vae", data, "svi")
    with pytest.raises(pg.Incompatible, match="estimator='path' is for hidden reals alone; 'label'"):
        pg.fit("semi_supervised_vae", small("semi_supervised_vae"), "svi", estimator="path")

    def program(x=None):
        w = numpyro.param("w", jnp.ones(11))
        h = numpyro.sample("h", dist.Bernoulli(0.5).expand([11]).to_event(1))
        numpyro.sample("x", dist.Normal(h @ w, 1), obs=x)

    def guide(x):
        numpyro.sample("h", dist.Bernoulli(logits=x * jnp.ones(11)).to_event(1))

    model = pg.Model(program=program, guide=guide, data={"x": np.arange(200.0)}, by_row=True)
    with pytest.raises(ValueError, match=r"states of 'h' cannot be enumerated: there are 2.05e\+03, at most 1024"):
        pg.fit(model, inference="svi")


def test_a_program_with_hidden_bits_alone_is_learned(tmp_path):
    """Two normals, the bit used as an index; EM's answer, a verdict without hidden coordinates, a report without their picture."""

    def program(x=None):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        h = numpyro.sample("h", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[h], 1.0), obs=x)

    def guide(x):
        slope, start = numpyro.param("slope", jnp.ones(())), numpyro.param("start", jnp.zeros(()))
        numpyro.sample("h", dist.Bernoulli(logits=slope * x + start))

    bits = np.arange(400) % 2
    x = np.where(bits, 2.5, -1.5) + np.random.default_rng(0).normal(size=400)
    fit = pg.fit(
        pg.Model(program=program, guide=guide, data={"x": x}, by_row=True),
        inference="svi",
        num_steps=4000,
        learning_rate=0.02,
    )
    # a logistic guide can be the posterior: the bound is the likelihood at its maximum
    low, high = fit.parameters["loc"]
    exact = logsumexp([norm.logpdf(x, low), norm.logpdf(x, high)], axis=0) - np.log(2)
    np.testing.assert_allclose(fit.parameters["slope"], high - low, atol=0.2)
    np.testing.assert_allclose(fit.log_prob(num_particles=1).value, exact, atol=1e-4)
    np.testing.assert_allclose([low, high], _em(x), atol=0.05)
    assert (fit.encode()["h"] == bits).mean() > 0.9
    verdict = fit.diagnose()
    assert verdict["rollbacks"].status == "pass"
    assert "activity" not in [f.check for f in verdict.findings]
    fit.report(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size


def _em(x):
    """Means of two unit normals, equally probable."""
    loc = np.array([-1.0, 1.0])
    for _ in range(500):
        weight = expit((loc[1] - loc[0]) * (x - loc.mean()))
        loc = np.array([((1 - weight) * x).sum() / (1 - weight).sum(), (weight * x).sum() / weight.sum()])
    return loc


def test_svi_is_decided_on_the_data_as_given():
    def program(dim, x=None):
        w = numpyro.param("w", jnp.ones(dim))
        numpyro.sample("x", dist.Normal(w * numpyro.sample("z", dist.Normal(0, 1)), 1).to_event(1), obs=x)

    model = pg.Model(program=program, rows=lambda x: {"x": x, "dim": x.shape[1]})
    assert meant("svi", model, np.ones((5, 3)))[0] == "amortised_svi"
    with pytest.raises(TypeError, match="Unknown data 'widht' for vae"):
        pg.fit("vae", small("vae") | {"widht": 3}, "svi", batch_size=8)


# ---- bits whose data are probabilities


def test_grey_levels_are_drawn_anew_at_each_step():
    from probgen.data import load

    grey = load("digits_grey")[:200].reshape(200, 64)
    data = {"x": grey, "dim": 64, **SMALL}
    target = conditioned("vae", data, precision="float32")[1]
    assert target.grey == ("x",)
    with runtime.jax_scope("float32"):
        drawn = np.stack([target.rows(jnp.arange(3), jax.random.key(i))["x"] for i in range(4000)])
        again = target.rows(jnp.arange(3))["x"], target.rows(jnp.arange(3))["x"]
    assert set(np.unique(drawn)) == {0, 1}
    np.testing.assert_allclose(drawn.mean(0), grey[:3], atol=4.5 * 0.5 / 4000**0.5)
    np.testing.assert_array_equal(*again)
    fit = pg.fit("vae", data, "svi", num_steps=60)
    assert np.isfinite(fit.log_prob(num_particles=5).value).all()
    assert fit.reconstruct(grey[:3])["x"].shape == (3, 64)
    with pytest.raises(ValueError, match=r"support is numbers from 0 to 1; x\[0, 3\] is 1.3"):
        pg.fit("vae", data | {"x": grey * 1.6}, "svi")


def test_grey_levels_teach_what_their_draws_teach():
    """A Bernoulli's probability is the mean of the grey levels, whether they are drawn once or anew."""

    def program(x=None):
        logits = numpyro.param("logits", jnp.zeros(3))
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    grey = np.random.default_rng(0).uniform(0.1, 0.9, (500, 3)) ** 2
    fit = pg.fit(program, {"x": grey}, "mle", num_steps=3000, batch_size=250, start="program")
    np.testing.assert_allclose(1 / (1 + np.exp(-fit.parameters["logits"])), grey.mean(0), atol=0.01)
