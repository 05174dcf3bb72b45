"""The page and the comparison: complete, self-contained, and without a trace in matplotlib's state."""

import html.parser
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from test_diagnostics import chains, guide

import probgen as pg
from probgen import catalog
from probgen.fits.fit import Fit
from probgen.model import Model
from probgen.pictures.style import INK
from probgen.run import conditioned

Y = np.array([0.3, -0.2, 1.1, 0.8, 0.1])


def shifted(y=None):
    """mu ~ N(0, 1), y_i ~ N(mu, 1) <script>alert(1)</script>."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    many = numpyro.sample("many", dist.Normal(0.0, 1.0).expand([30]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + 0 * many[0], 1.0).expand([5]).to_event(1), obs=y)


def by_hand(seed=0, diverging=0, program=shifted, inference="nuts"):
    """Exact draws of `shifted` as a fit."""
    model, target = conditioned(program, {"y": Y})
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(4, 250, 31))
    z[..., -1] = Y.sum() / 6 + z[..., -1] / 6**0.5
    lp = -0.5 * (z**2).sum(-1)
    flags = np.zeros((4, 250), bool)
    flags.flat[:diverging] = True
    records = {"z": z, "lp": lp, "energy": -lp + 0.5 * rng.chisquare(31, (4, 250)), "diverging": flags}
    records |= {"n_steps": np.full((4, 250), 7), "tree_depth": np.full((4, 250), 3)}
    algorithm = catalog.inference(inference, {"num_warmup": 0, "num_samples": 250})
    return Fit(model, target, algorithm, seed, "float64", records, seconds=2.0)


class Page(html.parser.HTMLParser):
    """Reads a page: unbalanced tags, what it loads, its headings, its words."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use", "rect", "image"})

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.headings, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value[0] != "#"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("h2", "summary"):
            self.headings.append(data.strip())


def read(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    assert [load for load in page.loads if not load.startswith("data:image/png;base64,")] == []
    return page, "".join(page.words)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = by_hand(diverging=3).report(tmp_path_factory.mktemp("pages") / "new" / "fit.html")
    return read(path), path


def test_the_page_has_every_part(page):
    (parsed, words), _ = page
    for part in ("Summary", "Chains", "Effective sample size", "Energy", "Posterior", "Pairs", "Settings", "Data"):
        assert part in parsed.headings
    assert {"Posterior predictive check", "Program", "Versions"} <= set(parsed.headings)
    assert "3 of 1000 transitions diverged" in words
    assert "target_accept=0.95" in words
    assert 'numpyro.sample("mu"' in words
    assert "24 of 31 scalars" in words


def test_the_page_is_escaped_and_self_contained(page):
    text = page[1].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert (
        re.findall(r"(?:url\(|@import|https?://(?!www\.w3\.org|doi|arxiv))[^)\s\"]*", text.replace("url(#", "")) == []
    )
    assert "prefers-color-scheme: dark" in text
    assert INK not in text


def test_pictures_do_not_share_identifiers(page):
    text = page[1].read_text(encoding="utf-8")
    found = re.findall(r'\bid="([^"]+)"', text)
    assert len(found) > 50
    assert len(found) == len(set(found))


def test_matplotlib_is_left_as_it_was(tmp_path):
    with mpl.rc_context({"lines.linewidth": 7.0, "text.usetex": True, "axes.facecolor": "pink"}):
        before, backend = dict(mpl.rcParams), mpl.rcParams._get("backend")
        path = by_hand().report(tmp_path / "fit.html")
        assert dict(mpl.rcParams) == before
        assert mpl.rcParams._get("backend") is backend
    assert "ffc0cb" not in path.read_text(encoding="utf-8")


def test_a_check_that_cannot_be_drawn_says_why(tmp_path):
    class Refusing(type(by_hand().target)):
        def predict(self, *_):
            raise RuntimeError("no new data")

    fit = by_hand()
    fit = replace(fit, target=Refusing(fit.target.structure, fit.target.arrays))
    _, words = read(fit.report(tmp_path / "fit.html"))
    assert "Not drawn: RuntimeError: no new data" in words


@pytest.mark.parametrize("fit", [guide(), guide(without=("log_q", "log_p")), chains(num_chains=1), chains(num_draws=3)])
def test_every_kind_of_fit_has_a_page(fit, tmp_path):
    parsed, _ = read(fit.report(tmp_path / "fit.html"))
    assert "Settings" in parsed.headings
    assert ("Loss" in parsed.headings) == bool(fit.answer)


def test_a_fit_without_draws_has_a_page(tmp_path):
    fit = chains(num_draws=50, complete=False)
    stopped = replace(fit, inference=catalog.inference("nuts", {"num_warmup": 50}))
    parsed, words = read(stopped.report(tmp_path / "fit.html"))
    assert "there are no draws" in words
    assert "Summary" not in parsed.headings


def test_a_page_of_draws_that_are_not_finite(tmp_path):
    fit = chains(z=lambda z: np.where(np.arange(4)[:, None, None] == 2, np.nan, z))
    _, words = read(fit.report(tmp_path / "fit.html"))
    assert "draws are NaN or infinite" in words


# ---- comparison --------------------------------------------------------------------------------------------------


def test_compare_tells_agreement_cost_and_verdict(tmp_path):
    compared = pg.compare({"good": by_hand(0), "again": by_hand(1), "diverging": by_hand(2, diverging=600)})
    table = compared.table
    assert compared.reference in ("good", "again")
    assert list(table.verdict) == ["pass", "pass", "fail"]
    assert (table.gradients == 7000).all()
    assert (table.seconds == 2.0).all()
    assert (table.min_ess / 2 == table.ess_per_s).all()
    other = table.drop(compared.reference)
    assert (other.mean_diff < 5 * other.noise).all()
    assert (other.sd_diff < 0.15).all()
    text = str(compared)
    assert text.splitlines()[0].split()[:2] == ["verdict", "mean_diff"]
    assert len({len(line) for line in text.splitlines()[:4]}) == 1
    worst = compared.verdicts["diverging"]["divergences"]
    faults = [line for line in text.splitlines() if line.startswith(("good:", "again:", "diverging:"))]
    assert faults == [f"diverging: fail, divergences: {worst.message}"]
    assert "<br>diverging: fail, divergences: " in compared._repr_html_()
    parsed, words = read(compared.report(tmp_path / "compared.html"))
    assert "Posterior" in parsed.headings
    assert "again" in words


def test_compare_sees_a_shift():
    fit = by_hand(1)
    z = fit.records["z"] * 1.2 + 0.5
    compared = pg.compare({"right": by_hand(0), "wrong": replace(fit, records=dict(fit.records) | {"z": z})})
    row = compared.table.loc["wrong" if compared.reference == "right" else "right"]
    assert row.mean_diff > 0.35
    assert row.sd_diff == pytest.approx(0.2, abs=0.08)


def test_what_is_not_counted_is_no_number_of_gradients():
    """A step of a ladder of temperatures or of a search is not one gradient, and a sampler of one's own may take none."""
    fit = by_hand(1)
    silent = replace(fit, records={k: v for k, v in fit.records.items() if k != "n_steps"})
    table = pg.compare({"nuts": by_hand(0), "own": silent}).table
    assert table.gradients["nuts"] == 7000
    assert np.isnan(table.gradients["own"])


def test_compare_holds_guides_against_chains():
    compared = pg.compare({"guide": guide(steps=100, scale=0.8), "chains": chains()})
    assert compared.reference == "chains"
    row = compared.table.loc["guide"]
    assert row.gradients == 100 * 32
    assert row.k_hat < 0.7
    assert row.min_ess < 4000
    assert row.sd_diff == pytest.approx(0.2, abs=0.05)


def test_compare_by_leave_one_out():
    def other(y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("many", dist.Normal(0.0, 1.0).expand([30]).to_event(1))
        numpyro.sample("y", dist.Normal(mu, 3.0).expand([5]), obs=y)

    def same(y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("many", dist.Normal(0.0, 1.0).expand([30]).to_event(1))
        numpyro.sample("y", dist.Normal(mu, 1.0).expand([5]), obs=y)

    fits = {"wrong": by_hand(program=other), "right": by_hand(program=same)}
    compared = pg.compare(fits, loo=True)
    assert list(compared.loo.index) == ["right", "wrong"]
    assert "elpd" in str(compared)


def test_compare_refuses_nothing_and_other_data():
    with pytest.raises(ValueError, match="nothing to compare"):
        pg.compare({})
    fit = by_hand()
    model, target = conditioned(Model(shifted), {"y": Y})
    assert model.program is fit.model.program
    with pytest.raises(ValueError, match="are fits of different data"):
        pg.compare({"a": fit, "b": chains()}, loo=True)
    assert target.dim == 31
