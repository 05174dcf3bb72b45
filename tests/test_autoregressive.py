"""Autoregressive models: against enumeration, Jacobians, draws that keep nothing, and other fits of the same model."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from scipy.stats import chi2

import probgen as pg
from probgen import catalog, runtime
from probgen.datasets import bars_and_stripes
from probgen.nets import autoregressive

SMALL = {
    "fvsbn": {},
    "nade": {"num_hidden": 7},
    "made": {"width": 12, "depth": 2},
    "made, few units": {"width": 5, "depth": 3},
    "made, orders": {"width": 12, "num_orders": 3, "order": "random"},
    "made, indirect": {"width": 12, "direct": False},
    "pixelcnn": {"num_layers": 2, "num_filters": 4, "first": 3},
    "pixelcnn_pp": {"num_blocks": 2, "num_filters": 4, "levels": 2},
    "pixelrnn": {"num_layers": 2, "num_filters": 4, "first": 3},
}
LEVELS = {"2x2x1, 4 levels": (2, 2, 1, 4), "2x2x3, 2 levels": (2, 2, 3, 2), "1x2x3, 3 levels": (1, 2, 3, 3)}
SLOW = ("pixelcnn_pp", "pixelrnn")  # to compile
NETS = ["nade", "made", "pixelcnn", "pixelcnn_pp", "pixelrnn"]


def shaped(case, height, width):
    """The settings of a model on pictures of a size."""
    size = {"height": height, "width": width} if case.startswith("pixel") else {"dim": height * width}
    return SMALL[case] | size


def at_random(name, settings, size=0.4, seed=0):
    """The model's distribution with random parameters of some size."""
    program = catalog.model(name.partition(",")[0]).program
    shape = (settings["dim"],) if "dim" in settings else (settings["height"], settings["width"])
    x = np.zeros((*shape, settings["num_channels"]) if settings.get("num_channels", 1) > 1 else shape)
    run = handlers.seed(lambda: program(x, **settings), seed)

    @jax.jit
    def initial():
        return {k: v["value"] for k, v in handlers.trace(run).get_trace().items() if v["type"] == "param"}

    rng = np.random.default_rng(seed)
    shaken = jax.tree.map(lambda p: p + jnp.asarray(size * rng.normal(size=p.shape), p.dtype), initial())
    return handlers.trace(handlers.substitute(run, shaken)).get_trace()["x"]["fn"]


def leveled(case):
    height, width, channels, levels = LEVELS[case]
    sizes = {"height": height, "width": width, "num_channels": channels, "levels": levels}
    return at_random("pixelcnn_pp", sizes | {"num_blocks": 1, "num_filters": 4, "num_components": 2})


def any_of(case):
    return leveled(case) if case in LEVELS else at_random(case, shaped(case, 3, 3))


def table(fn):
    """Every point, and its probability: (point, *event), (point,)."""
    digits = itertools.product(np.arange(float(fn.net.levels)), repeat=int(np.prod(fn.event_shape)))
    points = np.array(list(digits)).reshape(-1, *fn.event_shape)
    return points, np.exp(np.asarray(jax.jit(fn.log_prob)(points), float))


def places(fn, x):
    """Where points are in the table."""
    flat = np.asarray(x, int).reshape(len(x), -1)
    return flat @ fn.net.levels ** np.arange(flat.shape[1])[::-1]


def misfit(drawn, p):
    """-log10 of the p-value of Pearson's chi-square of the numbers of draws; points of little probability are pooled."""
    counts, expected = np.bincount(drawn, minlength=len(p)), len(drawn) * p
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    if expected[-1] < 5:
        assert observed[-1] < 25
        observed, expected = observed[:-1], expected[:-1]
    df = len(expected) - 1
    assert df >= 2, "one point has all the probability: this would show nothing"
    return -chi2.logsf(((observed - expected) ** 2 / expected).sum(), df) / np.log(10)


# ---- the density -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*SMALL, *LEVELS])
def test_probabilities_sum_to_one_and_draws_have_them(case):
    """Chi-square of 20,000 draws: a false alarm in 10^5 runs."""
    fn = any_of(case)
    points, p = table(fn)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert np.ptp(np.log(np.maximum(p, 1e-30))) > 2, "nearly uniform: this would show little"
    drawn = places(fn, fn.sample(jax.random.key(1), (20_000,)))
    assert misfit(drawn, p) < 5
    assert fn.log_prob(points[:4].reshape(2, 2, *fn.event_shape)).shape == (2, 2)
    assert bool(fn.support(jnp.asarray(points)).all())
    assert not bool(fn.support(jnp.asarray(points[0] + 0.5)))


def test_probabilities_sum_to_one_in_double_precision():
    with runtime.jax_scope("float64"):
        for case in ("made, orders", "pixelcnn", "pixelrnn", "2x2x1, 4 levels"):
            assert table(any_of(case))[1].sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("case", SMALL)
def test_a_unit_sees_those_before_it_alone(case):
    """The Jacobian of the conditionals is strictly triangular in the order, and not zero over most of the triangle."""
    more = {"num_filters": 8} if case.startswith("pixel") else {}
    fn = at_random(case, shaped(case, 4, 5) | more, 0.2)
    points = jax.random.uniform(jax.random.key(0), (20, *fn.event_shape))
    for order in fn.net.orders:
        says = fn.net.outputs if case.startswith("pixel") else fn.net.logits
        says = (lambda x, says=says, order=order: says(x, order)) if case == "made, orders" else says
        slopes = np.asarray(jax.jit(jax.vmap(jax.jacobian(says)))(points)).reshape(20, 20, -1, 20)
        seen = (abs(slopes).max((0, 2)) > 0)[order][:, order]
        assert not np.triu(seen).any()
        assert seen.sum() > 0.4 * 190  # the few units of a MADE have few degrees, row LSTMs see a triangle


def test_channels_of_a_pixel_see_pixels_before_and_no_others():
    fn = leveled("2x2x3, 2 levels")
    slopes = np.asarray(jax.jit(jax.jacobian(fn.net.outputs))(jnp.full((2, 2, 3), 0.4))).reshape(4, -1, 4, 3)
    seen = abs(slopes).max((1, 3)) > 0
    np.testing.assert_array_equal(seen, np.tri(4, k=-1, dtype=bool))


@pytest.mark.parametrize(("case", "depth"), [("pixelcnn", {"num_layers": 6}), ("pixelcnn_pp", {"num_blocks": 4})])
def test_there_is_no_blind_spot(case, depth):
    """With depth enough, every pixel sees all pixels before it; with one layer, not all."""
    seen = {}
    for layers in (1, 6):
        settings = {name: min(count, layers) for name, count in depth.items()} | {"num_filters": 8}
        fn = at_random(case, shaped(case, 6, 6) | settings, 0.1)
        points = jax.random.uniform(jax.random.key(0), (6, 6, 6))
        slopes = np.asarray(jax.jit(jax.vmap(jax.jacobian(fn.net.outputs)))(points)).reshape(6, 36, -1, 36)
        seen[layers] = abs(slopes).max((0, 2)) > 0
    np.testing.assert_array_equal(seen[6], np.tri(36, k=-1, dtype=bool))
    assert seen[1].sum() < seen[6].sum()


# ---- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in SMALL if case != "made, orders"])
def test_what_is_kept_gives_the_draws_of_one_pass_a_unit(case):
    """The same uniform numbers, and all conditionals anew for every unit: the same draws, bit for bit."""
    fn = at_random(case, shaped(case, 5, 7), 0.3)
    pictures = case.startswith("pixel")
    every, keys = fn.sample(jax.random.key(3), (20,)), jax.random.split(jax.random.key(3), 20)

    def anew(key):
        uniform = jax.random.uniform(key if pictures else jax.random.split(key)[1], (35,))

        def step(i, x):
            picture = x.reshape(fn.event_shape)
            if pictures:
                outputs = fn.net.outputs(picture).reshape(35, -1)[i]
                new = fn.net.head.draw(outputs, uniform[i, None], jnp.zeros(1), jnp.zeros(1, bool))[0]
            else:
                new = uniform[i] < jax.nn.sigmoid(fn.net.logits(picture)[i])
            return x.at[i].set(new)

        return jax.lax.fori_loop(0, 35, step, jnp.zeros(35)).reshape(fn.event_shape)

    again = np.asarray(jax.jit(jax.vmap(anew))(keys))
    np.testing.assert_array_equal(every, again)
    assert 0.05 < again.mean() < 0.95


@pytest.mark.parametrize("case", [case for case in [*SMALL, *LEVELS] if case != "made, orders"])
def test_completion_of_a_prefix_has_the_enumerated_conditional(case):
    fn = any_of(case)
    points, p = table(fn)
    start = points[np.argsort(p)[-20]]
    known = (np.arange(start.size) < start.size // 2).reshape(start.shape)
    assert fn.exact(known)
    given = np.where(known, start, np.nan)
    keys = jax.random.split(jax.random.key(2), 20_000)
    drawn = np.asarray(jax.vmap(lambda key: fn.complete(key, given, known))(keys))
    assert (drawn[:, known] == start[known]).all()
    agree = (points[:, known] == start[known]).all(1)
    assert misfit(places(fn, drawn), np.where(agree, p, 0) / p[agree].sum()) < 5


def test_completion_chooses_an_order_by_what_is_known(monkeypatch):
    """Two orders with the same first half: the mixture's conditional is exact, which a uniform choice of the order is not."""
    orders = np.array([[0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3]], np.int32)
    monkeypatch.setattr(autoregressive, "_orders", lambda dim, count, natural: orders[:count])
    fn = at_random("made", {"dim": 6, "width": 10, "num_orders": 2}, 1.0)
    known = np.arange(6) < 3
    assert fn.exact(known)
    assert not fn.exact(np.arange(6) < 2)
    points, p = table(fn)
    keys = jax.random.split(jax.random.key(2), 20_000)
    differs = []
    for first in itertools.product([0.0, 1.0], repeat=3):
        value = np.array([*first, 0, 0, 0])
        agree = (points[:, :3] == first).all(1)
        drawn = places(fn, jax.vmap(lambda key, value=value: fn.complete(key, value, known))(keys))
        exact = np.where(agree, p, 0) / p[agree].sum()
        assert misfit(drawn, exact) < 5
        each = [np.exp(autoregressive.bits_log_prob(jax.vmap(lambda x, o=o: fn.net.logits(x, o))(points), points))
                for o in orders]  # fmt: skip
        uniform = np.where(agree, sum(np.asarray(e)[:, 3:].prod(1) for e in each) / 2, 0)
        differs.append(misfit(drawn, uniform))
    assert max(differs) > 20


@pytest.mark.parametrize("case", SMALL)
def test_completion_keeps_what_is_known_and_says_whether_it_is_exact(case):
    fn = at_random(case, shaped(case, 3, 4))
    rng = np.random.default_rng(0)
    known, value = rng.random(fn.event_shape) < 0.5, rng.integers(0, 2, fn.event_shape).astype(float)
    assert not fn.exact(known)
    assert fn.exact(np.zeros(fn.event_shape, bool))
    assert fn.exact(np.ones(fn.event_shape, bool))
    one = fn.complete(jax.random.key(0), value, known)
    assert one.shape == fn.event_shape
    assert (np.asarray(one)[known] == value[known]).all()
    with pytest.raises(ValueError, match=r"value has shape \(2,\); expected that of one point"):
        fn.complete(jax.random.key(0), value.ravel()[:2], known)
    first = (np.arange(12) < 5).reshape(fn.event_shape)
    assert fn.exact(first) == (case != "made, orders")
    assert not fn.exact(~first)


def test_a_learned_model_completes_a_point():
    """Through a fit: a prefix as enumeration says, silently; another mask with a warning, and as enumeration by Gibbs."""
    x = np.random.default_rng(0).integers(0, 2, size=(300, 5)).astype(float)
    x[:, 4] = x[:, 0]
    fit = pg.fit("made", {"x": x, "dim": 5, "width": 16}, "mle", num_steps=300)
    every = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    p = np.exp(fit.log_prob(x=every).value)

    def away(drawn, given):
        """In standard deviations of a share, at most, of 32 cells."""
        agree = (every == np.where(np.isnan(given), every, given)).all(1)
        exact = np.where(agree, p, 0) / p[agree].sum()
        found = np.array([(drawn == row).all(1).mean() for row in every])
        return np.abs(found - exact).max()

    prefix, other = np.array([1, 0, np.nan, np.nan, np.nan]), np.array([np.nan, np.nan, 1, np.nan, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert away(fit.condition(x=prefix).sample(20_000)["x"], prefix) < 0.02
    with pytest.warns(UserWarning, match="conditionals='evaluation'"):
        drawn = fit.condition(x=other).sample(20_000)["x"]
    assert away(drawn, other) > 0.1
    chains = pg.fit(fit.condition(x=other), inference="gibbs", conditionals="evaluation", num_samples=4000)
    assert away(chains.draws["x"].reshape(-1, 5), other) < 0.02


def test_the_lower_half_of_a_picture_is_completed():
    x = bars_and_stripes(4).reshape(-1, 4, 4)
    data = catalog.model("pixelcnn").given_rows(x) | {"num_layers": 2, "num_filters": 16, "first": 3}
    fit = pg.fit("pixelcnn", data, "mle", num_steps=600, batch_size=30)
    half = np.where(np.arange(4)[:, None] < 2, x[5], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = fit.condition(x=half).sample(50)["x"]
    agree = x[(x[:, :2] == x[5, :2]).all((1, 2))]
    assert np.mean([(agree == row).all((1, 2)).any() for row in drawn]) > 0.9


def test_other_parameters_compile_nothing():
    for case in ("made", "pixelcnn"):
        key, known = jax.random.key(0), np.zeros(shaped(case, 2, 3).get("dim", (2, 3)), bool)
        at_random(case, shaped(case, 2, 3)).complete(key, known * 1.0, known)
        at_random(case, shaped(case, 2, 3)).sample(key, (3,))
        before = autoregressive._complete._cache_size(), autoregressive._sample._cache_size()
        other = at_random(case, shaped(case, 2, 3), seed=1)
        other.complete(key, known * 1.0, ~known)
        other.sample(key, (3,))
        assert (autoregressive._complete._cache_size(), autoregressive._sample._cache_size()) == before


def test_many_draws_in_parts_are_those_of_one_call(monkeypatch):
    fn = at_random("made", shaped("made", 2, 3))
    every = fn.sample(jax.random.key(0), (10, 3))
    monkeypatch.setattr(autoregressive, "CHUNK", 8)
    np.testing.assert_array_equal(fn.sample(jax.random.key(0), (10, 3)), every)


# ---- learning ----------------------------------------------------------------------------------------------------


def test_a_sigmoid_belief_network_is_many_logistic_regressions():
    """Its likelihood is convex: the maximum against scikit-learn's, one bit after the other."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    hidden = rng.random((2000, 2)) < 0.5
    x = (rng.random((2000, 5)) < 0.2 + 0.6 * (hidden @ rng.integers(0, 2, (2, 5)) > 0)).astype(float)
    fit = pg.fit("fvsbn", {"x": x, "dim": 5}, "mle", num_steps=1500, batch_size=2000, learning_rate=0.05)
    best = x[:, 0].mean() * np.log(x[:, 0].mean()) + (1 - x[:, 0].mean()) * np.log(1 - x[:, 0].mean())
    for i in range(1, 5):
        regression = LogisticRegression(C=1e8, tol=1e-8, max_iter=1000).fit(x[:, :i], x[:, i])
        best += regression.predict_log_proba(x[:, :i])[np.arange(2000), x[:, i].astype(int)].mean()
        np.testing.assert_allclose(fit.parameters["W"][i, :i], regression.coef_[0], atol=0.02)
    assert fit.log_prob().value.mean() == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("name", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in NETS])
def test_networks_learn_bars_and_stripes(name):
    """To 0.15 nats of the entropy; independent bits are 3.6 nats above it."""
    x = bars_and_stripes(3)
    rows = catalog.model(name).rows(x)
    settings = {"nade": {"num_hidden": 30}, "made": {"width": 60}}.get(name, {"num_filters": 12})
    settings |= {"first": 3, "num_layers": 2} if name in ("pixelcnn", "pixelrnn") else {}
    fit = pg.fit(name, rows | settings, "mle", num_steps=500, batch_size=16, learning_rate=0.02, seed=1)
    entropy = (4 - 2 ** (1 - 3)) * np.log(2)
    points = np.array(list(itertools.product([0.0, 1.0], repeat=9))).reshape(-1, *rows["x"].shape[1:])
    p = np.exp(fit.log_prob(x=points).value.astype(float))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert entropy - 1e-3 < -fit.log_prob().value.mean() < entropy + 0.15
    drawn = fit.sample(300, seed=0)["x"].reshape(300, 9)
    allowed = {row.tobytes() for row in x.reshape(-1, 9).astype(drawn.dtype)}
    assert np.mean([row.tobytes() in allowed for row in drawn]) > 0.8


def test_rows_are_taken_from_pictures():
    grey = np.random.default_rng(0).integers(0, 17, (4, 5, 6)) / 16
    data = catalog.model("pixelcnn_pp").rows(grey)
    assert (data["height"], data["width"], data["num_channels"], data["levels"]) == (5, 6, 1, int(16 * grey.max()) + 1)
    np.testing.assert_allclose(data["x"], 16 * grey)
    colour = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3)).astype(np.uint8)
    data = catalog.model("pixelcnn_pp").rows(colour)
    assert (data["x"].shape, data["num_channels"], data["levels"]) == ((40, 5, 6, 3), 3, 256)
    assert catalog.model("pixelcnn_pp").rows(colour[..., :1])["x"].shape == (40, 5, 6)


@pytest.mark.parametrize("name", ["fvsbn", *NETS])
def test_bad_input_is_refused(name):
    pictures = name.startswith("pixel")
    data = catalog.model(name).rows(bars_and_stripes(3))
    with pytest.raises(ValueError, match=r"support is integers from 0 to .*; x\[0, .* is 300"):
        pg.fit(name, data | {"x": np.full_like(data["x"], 300)}, "mle")
    with pytest.raises(ValueError, match=r"(height|dim) is 0; expected a whole number, 1 or more"):
        pg.fit(name, data | {"height" if pictures else "dim": 0}, "mle")
    with pytest.raises(ValueError, match="shape"):
        pg.fit(name, data | {"width" if pictures else "dim": 4}, "mle")
    if pictures:
        with pytest.raises(ValueError, match=r"expected pictures \(row, height, width\)"):
            catalog.model(name).rows(np.zeros((5, 9)))
    wrong = {"made": ("depth", 0), "nade": ("num_hidden", 0), "pixelcnn": ("kernel", 4), "pixelcnn_pp": ("levels", 1)}
    if name in wrong:
        setting, value = wrong[name]
        with pytest.raises(ValueError, match=f"{setting} is {value}; expected"):
            pg.fit(name, data | {setting: value}, "mle")
