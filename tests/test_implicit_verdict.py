"""The verdict on programs learned from draws: it passes a perfect sampler, and flags whatever is planted.

The program draws a point of a bank and adds normal noise, so that parameters set by hand make it any sampler: a perfect one of the
data, which are 25 modes in the plane, one that has lost modes, one that copies rows. It is learned for a few steps only.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.diagnostics.samples.gathered import features
from probgen.diagnostics.samples.looks import trend
from probgen.diagnostics.samples.regions import copies, covered, inside
from probgen.diagnostics.samples.told_apart import told_apart

SIZE, STEPS = 1800, 1200
MODES = np.stack(np.meshgrid(*[np.arange(-4.0, 5.0, 2.0)] * 2), -1).reshape(-1, 2)


def bank(x=None):
    i = numpyro.sample("i", dist.Categorical(probs=jnp.ones(SIZE) / SIZE))
    e = numpyro.sample("e", dist.Normal(0, 1).expand([2]).to_event(1))
    points, sd = numpyro.param("points", jnp.zeros((SIZE, 2))), numpyro.param("sd", jnp.array(0.1))
    numpyro.sample("x", dist.Delta(points[i] + sd * e, event_dim=1), obs=x)


def linear(x):
    return x @ numpyro.param("w", jnp.ones(2))


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    rows = MODES[rng.integers(25, size=2000)] + 0.05 * rng.normal(size=(2000, 2))
    model = pg.Model(bank, critic=linear)
    return pg.fit(model, {"x": rows}, inference="gan", num_steps=STEPS, ema=0.9, batch_size=8, progress=False)


def known(fit):
    rows = np.asarray(fit.target.data["x"])
    return np.delete(rows, fit.inference.held(fit.state, len(rows)), axis=0)


def planted(fit, points, sd=0.05, **looks):
    """The fit with other parameters, and with other looks: numbers, or arrays (look,)."""
    rng = np.random.default_rng(1)
    records = {k: v.copy() for k, v in fit.records.items()}
    noise = 0.2 * (1 + 0.1 * rng.normal(size=STEPS // 100))
    for name, value in {"distance": noise, "last": noise, "right": 0.6, "slope": 1.0, **looks}.items():
        records[name] = np.repeat(np.broadcast_to(value, STEPS // 100), 100)[None]
    points = np.resize(points, (SIZE, 2)).astype("float32")
    return dataclasses.replace(fit, answer={**fit.answer, "points": points, "sd": np.float32(sd)}, records=records)


def test_a_perfect_sampler_passes(fit):
    verdict = planted(fit, MODES).diagnose()
    assert verdict.status == "pass", str(verdict)
    made = {f.check for f in verdict.findings}
    assert made == {
        "loss", "draws", "two_sample", "coverage", "quality", "memorisation", "range", "convergence", "oscillation", "critic",
        "complete",
    }  # fmt: skip


def test_lost_modes_are_flagged(fit):
    few = planted(fit, MODES[:20]).diagnose()
    assert few["coverage"].status == "warn"
    assert 0.75 < few["coverage"].value < 0.9  # 20 of 25
    half = planted(fit, MODES[:12]).diagnose()
    assert half["coverage"].status == "fail"
    assert abs(half["two_sample"].value - 0.76) < 0.06  # (1 + 13 / 25) / 2
    assert half["quality"].status == half["memorisation"].status == "pass"
    assert "pack=2" in half["coverage"].remedy


@pytest.mark.parametrize("place", [MODES[12], MODES[0] + 1.0], ids=["on a mode", "off the data"])
def test_a_single_point_is_a_collapse_and_no_copy(fit, place):
    verdict = planted(fit, place, sd=1e-4).diagnose()
    assert verdict["coverage"].status == verdict["two_sample"].status == "fail"
    assert verdict["memorisation"].status == "pass"


def test_copies_of_rows_are_flagged(fit):
    verdict = planted(fit, known(fit), sd=0.001).diagnose()
    assert verdict["memorisation"].status == "fail"
    assert verdict["memorisation"].value > 0.7
    half = np.concatenate([known(fit)[: SIZE // 2], np.resize(MODES, (SIZE // 2, 2)) + 0.05 * _normal(SIZE // 2)])
    found = planted(fit, half, sd=0.001).diagnose()["memorisation"]
    assert found.status in ("warn", "fail")
    assert abs(found.value - 0.5) < 0.25


def test_all_modes_with_few_draws_of_high_quality_are_flagged(fit):
    rng = np.random.default_rng(2)
    points = np.concatenate([np.resize(MODES, (SIZE // 10, 2)), rng.uniform(-4, 4, size=(SIZE - SIZE // 10, 2))])
    verdict = planted(fit, points).diagnose()
    assert verdict["quality"].status == verdict["two_sample"].status == "fail"
    assert verdict["quality"].value < 0.3


def test_a_critic_that_has_won_and_one_that_is_beaten(fit):
    won = planted(fit, MODES[:3], right=0.97).diagnose()["critic"]
    assert (won.status, won.message[:18]) == ("warn", "the critic has won")
    assert planted(fit, MODES[:3], right=1.0).diagnose()["critic"].status == "fail"
    assert planted(fit, MODES, right=0.97).diagnose()["critic"].status == "pass"  # there is nothing to teach
    for looks in ({"right": 0.5}, {"slope": 1e-6}):
        beaten = planted(fit, MODES[:3], **looks).diagnose()["critic"]
        assert beaten.status == "warn"
        assert "beaten" in beaten.message
        assert "critic_steps=2" in beaten.remedy


def test_a_run_stopped_early_and_one_that_gets_worse(fit):
    at = np.linspace(0, 1, STEPS // 100)
    early = planted(fit, MODES, distance=3 - 2.5 * at).diagnose()["convergence"]
    assert early.status == "fail"
    assert early.message.startswith("stopped early")
    assert early.remedy == "num_steps=20000"  # the default of gan
    worse = planted(fit, MODES, distance=0.2 + at).diagnose()["convergence"]
    assert worse.status == "warn"
    assert "rose" in worse.message


def test_parameters_that_go_round(fit):
    off = planted(fit, MODES, last=0.5 + 0.01 * np.arange(STEPS // 100)).diagnose()["oscillation"]
    assert off.status == "warn"
    swing = 0.2 * (1 + np.cos(np.arange(STEPS // 100)))
    assert planted(fit, MODES, distance=swing, last=swing).diagnose()["oscillation"].status == "warn"


def test_values_out_of_range_and_draws_that_are_nan(fit):
    wide = planted(fit, MODES, sd=2.0).diagnose()
    assert wide["range"].status in ("warn", "fail")
    points = np.resize(MODES, (SIZE, 2))
    points[0] = np.nan
    broken = planted(fit, points).diagnose()
    assert broken["draws"].status == "fail"
    assert broken["draws"].value >= 1


def test_a_short_run_says_what_it_cannot_tell(fit):
    rows = np.asarray(fit.target.data["x"])[:40]
    verdict = pg.fit(
        pg.Model(bank, critic=linear), {"x": rows}, inference="gan", num_steps=10, batch_size=8, progress=False
    ).diagnose()
    assert {f.check: f.status for f in verdict.findings}["convergence"] == "warn"
    assert "40 rows are too few" in verdict["draws"].message
    assert "1200" in verdict["convergence"].message


def test_without_held_out_rows_copies_cannot_be_told(fit):
    free = dataclasses.replace(
        planted(fit, MODES), inference=dataclasses.replace(fit.inference, held_out=0.0), state={}
    )
    assert free.diagnose()["memorisation"].status == "warn"


def test_a_density_that_draws_alone_have_taught_is_held_against_its_baseline():
    def normal(x=None):
        mean, sd = numpyro.param("mean", jnp.zeros(2)), numpyro.param("sd", 0.01 * jnp.ones(2))
        numpyro.sample("x", dist.Normal(mean, sd).to_event(1), obs=x)

    rows = np.random.default_rng(0).normal(size=(300, 2))
    model = pg.Model(normal, critic=linear)
    verdict = pg.fit(model, {"x": rows}, inference="gan", num_steps=5, batch_size=8, progress=False).diagnose()
    assert verdict["baseline"].status == "warn"
    assert "held-out rows" in verdict["baseline"].message
    assert "fit.log_prob is not to be relied on" in verdict["baseline"].remedy


# ---- false alarms ------------------------------------------------------------------------------------------------


def _normal(count, dim=2, seed=5):
    return np.random.default_rng(seed).normal(size=(count, dim))


LAWS = {
    1: lambda rng, n: rng.exponential(size=(n, 1)),
    2: lambda rng, n: MODES[rng.integers(25, size=n)] + 0.05 * rng.normal(size=(n, 2)),
    64: lambda rng, n: rng.standard_t(4, size=(n, 64)),
}


@pytest.mark.parametrize(
    ("dim", "count", "times"), [(1, 200, 30), (2, 200, 30), (64, 200, 30), (2, 1000, 6), (64, 800, 3)]
)
def test_a_perfect_sampler_hardly_ever_alarms(dim, count, times):
    """Of 1104 samples (of 200 to 5000 rows, in 1, 2 and 64 dimensions) one alarmed; here at most 1 of 30."""
    alarms = 0
    for seed in range(times):
        rng = np.random.default_rng([seed, dim, count])
        held, rows, draws = (LAWS[dim](rng, n) for n in (count // 10, count - count // 10, count))
        all_rows = np.concatenate([held, rows])
        told = told_apart(all_rows, draws, seed)
        cover, within = covered(all_rows, draws), inside(all_rows[count // 3 :], draws, all_rows[: count // 3])
        copied = copies(rows, held, draws, seed)
        alarms += (
            (told.p_value < 0.005 and told.share > 0.56)
            or cover.value < 0.85 * cover.perfect
            or (within.value < 0.85 * within.perfect and within.value - within.perfect < -3 * within.error)
            or (copied.p_value < 0.001 and copied.share > 0.1)
        )
    assert alarms <= 1


def test_p_values_are_even_where_laws_are_one():
    rng = np.random.default_rng(0)
    p = np.array([told_apart(rng.normal(size=(100, 2)), rng.normal(size=(100, 2)), i).p_value for i in range(200)])
    for bar in (0.1, 0.3, 0.5):
        assert abs(np.mean(p <= bar) - bar) < 3 * np.sqrt(bar * (1 - bar) / 200) + 0.05  # they are multiples


def test_pairs_with_one_input_are_one_law():
    rng = np.random.default_rng(0)
    p = []
    for i in range(100):
        given = 3 * rng.normal(size=(120, 1))
        rows, draws = (np.concatenate([given, given + 0.1 * rng.normal(size=(120, 1))], 1) for _ in range(2))
        p.append(told_apart(rows, draws, i, paired=True).p_value)
    assert np.mean(np.array(p) < 0.05) < 0.12
    wrong = np.concatenate([given, -given + 0.1 * rng.normal(size=(120, 1))], 1)
    assert told_apart(rows, wrong, 0, paired=True).share > 0.8


@pytest.mark.parametrize(
    ("shift", "scale", "share"), [(1.0, 1.0, 0.691), (0.0, 3.0, 0.742)], ids=["another mean", "another sd"]
)
def test_the_share_told_right_is_near_the_best_there_is(shift, scale, share):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2000, 1)), shift + scale * rng.normal(size=(2000, 1))
    assert abs(told_apart(x, y, 0).share - share) < 0.03  # (1 + total variation) / 2


def test_bits_and_constant_columns():
    rng = np.random.default_rng(0)
    rows, same, other = (np.c_[rng.random((500, 8)) < p, np.ones(500)].astype(float) for p in (0.5, 0.5, 0.7))
    assert told_apart(rows, same, 0).p_value > 0.01
    assert told_apart(rows, other, 0).share > 0.68
    constant, moved = np.full((100, 1), 5.0), 5 + 0.1 * rng.normal(size=(100, 1))
    x, y = features(constant, moved, np.arange(100))
    assert told_apart(x, y, 0).share > 0.95


def test_units_do_not_matter():
    rng = np.random.default_rng(0)
    rows, draws = rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + np.array([0.0, 0.0, 1.0])
    units = np.array([1e6, 1.0, 1e-6])
    x, y = features(rows * units, draws * units, np.arange(400))
    assert abs(told_apart(x, y, 0).share - told_apart(rows, draws, 0).share) < 0.05


def test_repeated_rows_say_nothing_of_copies():
    rng = np.random.default_rng(0)
    rows = rng.integers(3, size=(400, 2)).astype(float)
    assert copies(rows[:300], rows[300:], rows[:100], 0) is None


def test_a_flat_curve_has_no_trend():
    rng = np.random.default_rng(0)
    found = [trend(1 + 0.1 * rng.normal(size=40)) for _ in range(300)]
    assert np.mean([abs(f.fall) > f.sure * f.error for f in found]) < 0.05


def test_a_small_column_beside_large_ones_counts_as_much():
    rng = np.random.default_rng(0)
    for scale in ([1000.0, 1.0], [1000.0, 1000.0, 1.0], [1.0] * 20 + [0.01]):
        rows = rng.normal(size=(400, len(scale))) * scale
        wrong = rng.normal(size=(400, len(scale))) * scale
        wrong[:, -1] += 2 * scale[-1]
        x, y = features(rows, wrong, np.arange(400))
        assert y[:, -1].mean() - x[:, -1].mean() == pytest.approx(2.0, abs=0.3)


def test_a_pixel_that_is_hardly_ever_lit_is_no_more_than_any_other():
    rng = np.random.default_rng(0)
    pictures = (rng.random((400, 40)) < 0.3).astype(float)
    pictures[:, 0] = 0.05 * (rng.random(400) < 0.005)
    x, _ = features(pictures, pictures, np.arange(400))
    assert np.abs(x[:, 0]).max() < 0.2
