"""The verdict when it errs the other way: what is right is not failed, and what it says does not contradict itself."""

import functools
import re
import warnings
from dataclasses import replace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from scipy import stats
from test_diagnostics import FLAWS, GUIDES, chains, guide

import probgen as pg
from probgen import diagnostics
from probgen.diagnostics import convention, screen
from probgen.diagnostics.verdict import Finding, agreed, beside

fit = functools.partial(pg.fit, progress=False, num_warmup=300, num_samples=500)


# ---- observations that are masked --------------------------------------------------------------------------------

Y, SEEN = np.random.default_rng(1).normal(1.0, 2.0, 12), np.arange(12) % 3 > 0


def masked(y, seen):
    m = numpyro.sample("m", dist.Normal(0.0, 5.0))
    numpyro.sample("y", dist.Normal(m, 2.0), obs=y, obs_mask=seen)


def pyro_programs():
    pyro = pytest.importorskip("pyro")
    import pyro.distributions as of
    import torch

    def masked(y, seen):
        m = pyro.sample("m", of.Normal(0.0, 5.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", of.Normal(m, 2.0), obs=y, obs_mask=seen)

    def angle(y):
        m = pyro.sample("m", of.VonMises(torch.tensor(0.0), torch.tensor(0.1)))
        with pyro.plate("row", len(y)):
            pyro.sample("y", of.VonMises(m, torch.tensor(4.0)), obs=y)

    def counts(exposure, y):
        rate = pyro.sample("rate", of.Gamma(2.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", of.Poisson(rate * exposure), obs=y)

    return {"masked": masked, "angle": angle, "counts": counts}


def check_masked(program):
    found = fit(program, {"y": np.where(SEEN, Y, 1e6), "seen": SEEN})
    precision = SEEN.sum() / 4 + 1 / 25
    assert found.diagnose().status == "pass", str(found.diagnose())
    m = found.draws["m"]
    assert abs(m.mean() - Y[SEEN].sum() / 4 / precision) < 6 * precision**-0.5 / 500**0.5
    assert m.std() == pytest.approx(precision**-0.5, rel=0.15)
    filled = found.draws["y"]
    assert np.ptp(filled[..., SEEN], axis=(0, 1)) == pytest.approx(0, abs=1e-12)
    assert filled[..., ~SEEN].std((0, 1)) == pytest.approx((1 / precision + 4) ** 0.5, rel=0.15)


def test_masked_observations_are_right_and_pass():
    check_masked(masked)


def test_masks_of_positive_and_of_vector_observations():
    """Where an entry is observed its unknown is N(0, 1) in unconstrained space: the density integrates to the evidence."""

    def positive(y, seen):
        numpyro.sample("y", dist.Gamma(3.0, 2.0), obs=y, obs_mask=seen)

    def vector(y, seen):
        numpyro.sample("y", dist.Dirichlet(np.ones(3)), obs=y, obs_mask=seen)

    from probgen.run import conditioned

    seen = np.array([True, False])
    _, target = conditioned(positive, {"y": np.array([1.0, 1.0]), "seen": seen})
    grid = np.linspace(-8, 8, 401)
    points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    values, _ = target.gradients(points)
    evidence = stats.gamma(3, scale=0.5).logpdf(1.0)
    assert np.log(np.exp(values).sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(evidence, abs=1e-6)
    _, target = conditioned(vector, {"y": np.full((2, 3), 1 / 3), "seen": seen})
    z = np.random.default_rng(0).normal(size=(20, target.dim))
    values, gradients = target.gradients(z)
    assert np.isfinite(values).all()
    assert gradients[:, :2] == pytest.approx(-z[:, :2], abs=1e-6)  # of the entry that is observed


# ---- angles ------------------------------------------------------------------------------------------------------

AROUND = np.array([3.1, -3.1, 3.0, -2.9, 3.14])


def angle(y):
    m = numpyro.sample("m", dist.VonMises(0.0, 0.1))
    numpyro.sample("y", dist.VonMises(m, 4.0), obs=y)


def check_angle(program):
    found = fit(program, {"y": AROUND})
    grid = np.linspace(0, 2 * np.pi, 4001)
    density = np.exp(0.1 * np.cos(grid) + sum(4 * np.cos(y - grid) for y in AROUND))
    mean = (grid * density).sum() / density.sum()
    sd = np.sqrt(((grid - mean) ** 2 * density).sum() / density.sum())
    turned = found.draws["m"] % (2 * np.pi)
    assert abs(turned.mean() - mean) < 6 * sd / 400**0.5
    assert turned.std() == pytest.approx(sd, rel=0.15)
    assert abs(found.draws["m"]).max() <= np.pi
    assert found.diagnose().status == "pass", str(found.diagnose())
    row = found.summary(round_to="none").loc["m"]
    assert row["mean"] % (2 * np.pi) == pytest.approx(turned.mean(), abs=0.02)
    assert row["sd"] == pytest.approx(sd, rel=0.15)
    return found


def test_an_angles_density_integrates_to_the_evidence():
    """Over the plane of the point behind it, by polar quadrature; the radius, of log radius N(0, 1/4), changes nothing."""
    from probgen.run import conditioned

    target = conditioned(angle, {"y": AROUND})[1]
    turn, log_r = np.linspace(-np.pi, np.pi, 73)[:-1], np.linspace(-1.5, 1.5, 41)
    r, at = np.meshgrid(np.exp(log_r), turn)
    values, _ = target.gradients(np.stack([r * np.cos(at), r * np.sin(at)], -1).reshape(-1, 2))
    mass = (np.exp(values).reshape(r.shape) * r**2).sum(1) * (log_r[1] - log_r[0])  # r dr is r^2 d log r
    prior = stats.vonmises(0.1).logpdf(turn)
    joint = prior + stats.vonmises(4.0).logpdf(AROUND - turn[:, None]).sum(1)
    np.testing.assert_allclose(mass, np.exp(joint), rtol=1e-4)


def test_an_angle_at_the_cut_is_right_and_passes():
    found = check_angle(angle)
    other = fit(angle, {"y": AROUND}, seed=1)
    assert pg.compare({"a": found, "b": other}).table["mean_diff"].max() < 0.3


def test_chains_on_two_sides_of_a_circle_fail():
    found = fit(angle, {"y": AROUND})
    z = found.records["z"].copy()
    z[::2] *= -1  # the opposite angle
    assert replace(found, records=found.records | {"z": z}).diagnose()["r_hat"].status == "fail"


# ---- counts without exposure -------------------------------------------------------------------------------------

COUNTS = {"exposure": np.array([0.0, 0.0, 1.0, 2.5, 4.0]), "y": np.array([0, 0, 2, 3, 7])}


def counts(exposure, y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate * exposure), obs=y)


def check_counts(program):
    found = fit(program, COUNTS)
    shape, inverse = 2 + COUNTS["y"].sum(), 1 + COUNTS["exposure"].sum()
    assert found.diagnose().status == "pass", str(found.diagnose())
    assert abs(found.draws["rate"].mean() - shape / inverse) < 6 * shape**0.5 / inverse / 500**0.5
    assert found.draws["rate"].std() == pytest.approx(shape**0.5 / inverse, rel=0.15)


def test_counts_without_exposure_are_right_and_pass():
    check_counts(counts)


def test_edges_keep_densities_and_their_slopes():
    """Against the library's own away from the edge, against the limit at it."""
    from jax import grad

    from probgen.engine.numpyro.programs import edges

    for rate in (0.3, 2.0):
        for value in (0, 1, 5):
            ours, theirs = edges._edged(dist.Poisson(rate), True), dist.Poisson(rate)
            assert float(ours.log_prob(value)) == pytest.approx(float(theirs.log_prob(value)), abs=1e-6)
    slope = lambda value, rate: grad(lambda r: edges._edged(dist.Poisson(r), True).log_prob(value))(rate)  # noqa: E731
    assert float(slope(0, 0.0)) == -1.0
    assert float(slope(3, 2.0)) == pytest.approx(0.5)
    assert float(edges._edged(dist.Poisson(0.0), True).log_prob(1)) == -np.inf
    chances = lambda p: dist.Multinomial(3, np.array([0.0, 1.0, 1.0]) * p)  # noqa: E731
    seen = np.array([0, 1, 2])
    found = grad(lambda p: edges._edged(chances(p), True).log_prob(seen))(0.5)
    assert float(found) == pytest.approx(6.0)


@needs_pyro
@pytest.mark.parametrize("name", ["masked", "angle", "counts"])
def test_the_same_on_pyro(name):
    {"masked": check_masked, "angle": check_angle, "counts": check_counts}[name](pyro_programs()[name])


# ---- chains of finite unknowns that stand still ------------------------------------------------------------------


def assignments(y):
    with numpyro.plate("row", len(y)):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(20.0 * k - 10.0, 1.0), obs=y)


def chain_of_bits(coupling):
    x = numpyro.sample("x", dist.Bernoulli(0.5).expand([4]).to_event(1))
    s = 2.0 * x - 1.0
    numpyro.factor("energy", coupling * (s[1:] * s[:-1]).sum() + 0.2 * s.sum())


def test_certain_assignments_pass():
    found = fit(assignments, {"y": np.array([-10.0, -9.0, 10.0, 11.0])}, "gibbs", conditionals="evaluation")
    assert found.diagnose().status == "pass", str(found.diagnose())
    assert found.draws["k"].mean((0, 1)).tolist() == [0, 0, 1, 1]


def test_frozen_bits_fail_whether_chains_agree_or_not():
    """All ones against all zeros: log odds of 1.6, which only chains from new starts can see where all stand at one point."""
    settings = {"conditionals": "evaluation", "num_samples": 100, "num_warmup": 50}
    found = fit(chain_of_bits, {"coupling": 30.0}, "gibbs", num_chains=8, **{k: v for k, v in settings.items()})
    assert found.diagnose().status == "fail"
    ones = found.z[:, -1].all(axis=1)
    if ones.any():
        same = {k: v[ones][[0] * 4] for k, v in found.records.items()}
        finding = replace(found, records=same).diagnose()["stuck"]
        assert finding.status == "fail"
        assert finding.value == pytest.approx(1 / (1 + np.exp(1.6)), abs=0.01)


# ---- what the findings say ---------------------------------------------------------------------------------------

MANY = [
    *(lambda seed=seed: chains(seed) for seed in range(3)),
    *(lambda flaw=flaw: chains(0, **FLAWS[flaw][0]) for flaw in FLAWS),
    *(lambda flaw=flaw: guide(0, **GUIDES[flaw][0]) for flaw in GUIDES),
    *(lambda scale=scale: guide(1, scale=scale) for scale in (0.75, 0.78, 0.8, 0.82, 1.0, 1.2, 1.25, 1.3)),
    *(lambda shift=shift: guide(2, shift=shift) for shift in (0.25, 0.3, 0.35, 0.4)),
]


def contradictions(verdict):
    """Findings whose status is not what their value says beside their bar, or whose text says otherwise."""
    found = []
    for f in verdict.findings:
        if f.value is None or f.bar is None or f.check == "convergence" or (f.check == "complete" and f.value == f.bar):
            continue
        least = "at least" in f.message or f.check in ("chains", "complete", "draws", "activity", "codes")
        within = f.value >= f.bar if least else f.value <= f.bar
        if within != (f.status == "pass"):
            found.append(f)
        number = re.search(r"(?:R-hat|ESS|mean|BFMI|factor of|off by) ([\d.]+)", f.message)
        told = re.search(r"at (?:most|least) ([\d.]+)", f.message)
        if number and told and np.isfinite(f.value):
            value, bar = (float(m.group(1).rstrip(".")) for m in (number, told))
            if (value >= bar if least else value <= bar) != (f.status == "pass"):
                found.append(f)
    return found


@pytest.mark.parametrize("number", range(len(MANY)))
def test_a_pass_lies_within_the_bar_that_is_shown(number):
    assert contradictions(MANY[number]().diagnose()) == []


def test_numbers_stand_on_their_own_side_of_the_bar():
    assert beside(1.0104, 1.01, ".3f") == "1.0104"
    assert beside(1.0096, 1.01, ".3f") == "1.0096"
    assert beside(399.7, 400, ".0f") == "399.7"
    assert beside(0.0996, 0.1, ".0%") == "9.96%"
    assert beside(1.003, 1.01, ".3f") == "1.003"


def test_one_verdict_names_one_number_of_steps():
    steps = {"convergence": "num_steps=400, or a larger learning_rate", "two_sample": "num_steps=1600", "draws": ""}
    told = agreed([Finding(name, "warn", 1.0, 0.0, "", remedy) for name, remedy in steps.items()])
    assert [f.remedy for f in told] == ["num_steps=1600, or a larger learning_rate", "num_steps=1600", ""]
    passed = Finding("k", "pass", 0.0, 0.0, "", "num_steps=9000")
    assert agreed([told[0], passed])[0].remedy == told[0].remedy  # what passed asks for nothing
    both = agreed([Finding("k", "fail", 1.0, 0.0, "", "num_samples=20, num_steps=5"), told[0]])
    assert both[0].remedy == "num_samples=20, num_steps=1600"


def test_remedies_of_a_guide_say_what_to_do():
    seen = set()
    for found in (guide(0, scale=s) for s in (0.3, 0.5, 0.6, 0.7, 0.75)):
        finding = found.diagnose()["k_hat"]
        seen.add(finding.status)
        if finding.status != "pass":
            assert finding.remedy.startswith(
                "fit.resample(1000)" if finding.value <= 0.7 else "fit again by inference='nuts'"
            )
    assert "fail" in seen


def test_seconds_of_compiling_are_counted_apart(tmp_path):
    found = replace(chains(), seconds=10.0, compiling=8.0)
    table = pg.compare({"a": found}).table
    assert table.loc["a", "seconds"] == 2.0
    assert table.loc["a", "compiling"] == 8.0
    assert table.loc["a", "ess_per_s"] == table.loc["a", "min_ess"] / 2
    done = fit(masked, {"y": np.where(SEEN, Y, 1e6), "seen": SEEN}, seed=7)
    assert 0 < done.compiling < done.seconds
    done.save(tmp_path / "run")
    assert pg.load(tmp_path / "run").compiling == done.compiling


def test_nearly_equal_weights_are_no_failure():
    """A wrinkle of the ratio in the bulk can give any k-hat; the weights say that it carries nothing."""
    found = guide(0, scale=1.0)
    ratios = 0.05 * np.cbrt(np.random.default_rng(0).standard_cauchy(found.answer["log_p"].shape)).clip(-3, 3)
    found = replace(found, answer=dict(found.answer) | {"log_p": found.answer["log_q"] + ratios})
    finding = found.diagnose()["k_hat"]
    assert finding.status == "pass"


# ---- one convention ----------------------------------------------------------------------------------------------


def test_intervals_and_tails_are_arvizs_everywhere(tmp_path):
    found = chains()
    table = found.summary(round_to="none")
    every = diagnostics.scalars(found)
    low, high = convention.interval(every.draws.reshape(len(every.names), -1)[-3:])
    ends = [c for c in table.columns if "_lb" in c or "_ub" in c]
    assert table.loc[["x[0]", "x[1]", "x[2]"], ends].to_numpy() == pytest.approx(np.array([low, high]).T, abs=0.01)
    names, draws = diagnostics.looked_at(found).scalars
    worst = found.diagnose()["ess_tail"].value
    assert worst == pytest.approx(convention.tail_ess(draws).min())
    assert worst == pytest.approx(table["ess_tail"].loc[list(names)].min())
    text = found.report(tmp_path / "page.html").read_text()
    assert "89 % intervals" in text
    assert "94 %" not in text


def test_the_convention_can_be_changed(tmp_path):
    found = chains()
    before = found.summary(round_to="none")
    with rcParams_of(ci_prob=0.8, ci_kind="hdi"):
        table = found.summary(round_to="none")
        assert "80 % intervals" in found.report(tmp_path / "page.html").read_text()
        row = table.loc["x[0]"]
        draws = found.draws["x"][..., 0].ravel()
        assert np.mean((draws >= row["hdi80_lb"]) & (draws <= row["hdi80_ub"])) == pytest.approx(0.8, abs=0.01)
    assert table["ess_tail"].loc["x[0]"] != before["ess_tail"].loc["x[0]"]


def test_the_error_of_an_sd_is_that_of_chains_that_alternate():
    """Of an autoregression by -.9 around 0, in closed form: the squares of its draws follow one by .81."""

    def alternating(z):
        for t in range(1, z.shape[1]):
            z[:, t] = -0.9 * z[:, t - 1] + 0.19**0.5 * z[:, t]
        return z

    exact = (1.81 / 0.19 / (2 * 4000)) ** 0.5
    for found, expected in [(chains(z=alternating), exact), (chains(), 8000**-0.5)]:
        told = found.summary(round_to="none")["mcse_sd"].loc[["x[0]", "x[1]", "x[2]"]]
        assert told.mean() == pytest.approx(expected, rel=0.15)
    assert found.summary(var_names="x", round_to=3).loc["x[0]", "mcse_sd"] == 0.012


def rcParams_of(**values):
    from arviz_base import rc_context

    return rc_context({f"stats.{k}": v for k, v in values.items()})


# ---- no NaN and no warnings of others ----------------------------------------------------------------------------


def test_tables_and_verdicts_have_no_nan_and_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in (chains(), chains(num_draws=1), chains(num_draws=3), chains(num_chains=1)):
            assert "nan" not in str(found.summary()).lower()
            assert "nan" not in found.summary()._repr_html_().lower()
            assert "nan" not in str(found.diagnose()).lower()
        point = guide(without=("log_q", "log_p"))
        point = replace(point, answer={"z": point.answer["z"][:1, :1]})
        assert list(point.summary().columns)[:2] == ["mean", "sd"]
    assert chains().summary()["r_hat"].isna().any()  # of what is constant, still a number's absence


def test_loo_says_what_an_outlier_means():
    def normal(y):
        m = numpyro.sample("m", dist.Normal(0.0, 100.0))
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)

    found = fit(normal, {"y": np.array([0.0, 0.5, 60.0])})
    with pytest.warns(UserWarning, match=r"loo is unreliable at \d of 3 observations"):
        found.loo()


# ---- very many scalars -------------------------------------------------------------------------------------------


def test_a_quick_look_finds_the_worst():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 400, 3000))
    draws[1, :, 17] += 3.0  # a chain apart
    draws[2, :, 99] *= 5.0  # one of another spread
    draws[:, :, 1234] = 0.02 * np.cumsum(draws[:, :, 1234], axis=1)  # slow
    draws[:, :, 5] = 1.0
    draws[0, 0, 6] = np.nan
    found = screen.look(draws)
    chosen = screen.worst(found, 20)
    assert {17, 99, 1234} <= set(chosen)
    assert not {5, 6} & set(chosen)
    assert found.varies.sum() == 2998


def test_many_deterministic_scalars_are_looked_at_and_the_rest_is_told():
    def many():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        numpyro.deterministic("wide", x[0] * np.linspace(1.0, 2.0, 1300))

    found = fit(many, {}, engine="numpyro")
    looked = diagnostics.looked_at(found)
    assert looked.varying == looked.total == 1303
    assert len(looked.scalars.names) == 203
    assert {"x[0]", "x[1]", "x[2]"} <= set(looked.scalars.names)
    assert "the worst 203 of 1,303" in found.diagnose()["r_hat"].message
    table = found.summary()
    assert len(table) == 3
    assert "wide" in str(table)
    assert len(found.summary(var_names=["wide"], kind="stats")) == 1300
