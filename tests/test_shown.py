"""Fits and verdicts in a notebook: quick, whole, escaped, and no failure hidden."""

import base64
import io
import re
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from test_diagnostics import chains, edited, guide
from test_report import Page

import probgen as pg
from probgen import catalog, watch
from probgen.diagnostics.verdict import COLOURS, Finding, Verdict
from probgen.model import Model


def read(html):
    """The words of a piece of HTML whose tags are balanced, and its pictures as PNG."""
    page = Page(html)
    assert page.open == []
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    return " ".join("".join(page.words).split()), [base64.b64decode(load.partition(",")[2]) for load in page.loads]


def test_a_fit_shows_what_it_is_and_that_nothing_is_judged_yet():
    words, (picture,) = read(chains()._repr_html_())
    assert words.startswith("normal by nuts on numpyro: 4 chains x 1,000 draws")
    assert "not judged yet fit.diagnose() gives the verdict" in words
    assert "pass" not in words
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "fit", [chains(), guide(), chains(diverging=np.ones_like)], ids=["chains", "guide", "diverging"]
)
def test_a_fit_that_was_judged_shows_its_verdict(fit):
    verdict = fit.diagnose()
    html = fit._repr_html_()
    words, pictures = read(html)
    assert verdict._repr_html_() in html
    assert COLOURS[verdict.status] in html
    assert "not judged" not in words
    assert len(pictures) == 1
    assert "alt=''" not in html


def nowhere(z):
    return edited(z, (1, 5, 0), np.nan)


def apart(z):
    return z + 3.0 * np.arange(4)[:, None, None]


WRONG = {
    "stopped": (lambda: chains(complete=False), "warn", "the run was stopped at step 1,000"),
    "no draws": (
        lambda: replace(chains(num_draws=50), inference=catalog.inference("nuts", {"num_warmup": 50})),
        "fail",
        "no draws",
    ),
    "not finite": (lambda: chains(z=nowhere), "fail", "1 of 12,000 numbers of the draws are NaN"),
    "diverged": (lambda: chains(diverging=np.ones_like), "fail", "4,000 transitions diverged (100.00%)"),
    "apart": (lambda: chains(z=apart), "fail", "largest R-hat"),
    "loss": (lambda: guide(loss=lambda v: edited(v, (0, -1), np.nan)), "warn", "the loss is NaN"),
    "learned": (lambda: nan_answer(guide()), "fail", "NaN or infinite: z"),
    "not converged": (lambda: guide(converged=False), "warn", "the run was stopped"),
}


def nan_answer(fit):
    return replace(fit, answer={**fit.answer, "z": np.full_like(fit.answer["z"], np.nan)})


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen_before_it_is_judged(name):
    make, status, message = WRONG[name]
    fit = make()
    html = fit._repr_html_()
    words, _ = read(html)
    assert f"at first sight: {status}" in words
    assert message in words
    assert COLOURS[status] in html
    judged = fit.diagnose().status
    assert judged == "fail" or status == judged, "first sight is not harder than the verdict"


def test_names_are_escaped():
    evil = "<img src=x onerror=alert(1)>"
    fit = chains()

    def program():
        """Nothing."""

    program.__name__ = evil
    html = replace(fit, model=Model(program))._repr_html_()
    assert "<img src=x" not in html
    assert "&lt;img src=x" in html
    finding = Finding(evil, "fail", 1.0, 0.0, evil, evil)
    html = Verdict((finding,), (evil,))._repr_html_()
    assert evil not in html
    assert html.count("&lt;img") == 4
    read(html)


def test_it_raises_nothing_and_says_what_is_missing():
    class Broken(type(chains().inference)):
        @property
        def total_steps(self):
            raise RuntimeError("no <steps>")

    fit = chains()
    words, pictures = read(replace(fit, inference=Broken())._repr_html_())
    assert "No verdict can be shown: RuntimeError: no <steps>" in words
    assert len(pictures) == 1
    words, _ = read(replace(fit, records={})._repr_html_())
    assert "No verdict can be shown: " in words
    assert "pass" not in words


def test_it_is_quick_and_small_and_leaves_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for fit in (chains(num_draws=20_000), guide(steps=100_000)):
        begun = time.process_time()
        html = fit._repr_html_()
        assert time.process_time() - begun < 2.0
        assert len(html) < 100_000
    assert dict(mpl.rcParams) == before


def test_a_verdict_is_a_line_a_finding_with_what_passed_folded():
    verdict = chains(diverging=np.ones_like).diagnose()
    html = verdict._repr_html_()
    words, _ = read(html)
    for finding in verdict.findings:
        assert " ".join(finding.message.split()) in words
        assert (" ".join(finding.remedy.split()) in words) == (finding.status != "pass")
    assert "<details><summary>" in html
    good = chains().diagnose()
    assert ("<details open>" in good._repr_html_()) == (good.status == "pass")
    assert [c for c in COLOURS.values() if not re.fullmatch("#[0-9a-f]{6}", c)] == []


def test_a_bar_is_for_terminals_and_notebooks(monkeypatch):
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    terminal = type("Terminal", (io.StringIO,), {"isatty": lambda self: True})
    for stream, unseen in ((io.StringIO(), True), (notebook(), False), (terminal(), False), (None, True)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert watch.unseen() == unseen


def test_learned_programs_show_their_loss():
    fit = pg.fit("rbm", None, "cd", num_steps=20, progress=False)
    words, pictures = read(fit._repr_html_())
    assert "by cd on numpyro: 20 steps" in words
    assert len(pictures) == 1
