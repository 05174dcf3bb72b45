"""A fit in a notebook: what was run, how far it came, its verdict, a small picture of learning or of chains.

It is quick and raises nothing. It computes no verdict, which may compile and climb for modes: it shows the one that
`fit.diagnose()` gave, and else says that there is none, with what the records alone tell to be wrong.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.algorithm import Learner
from probgen.data.large import blocks
from probgen.diagnostics.chains import r_hat
from probgen.diagnostics.verdict import Finding, Verdict, grade, unjudged
from probgen.fitted import Fitted
from probgen.pictures.style import COLOURS, grid, style
from probgen.target import Continuous

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 2_000_000  # numbers that are looked at
MOST_BYTES = 70_000  # of a picture, before base64
MOST_POINTS = 2_000  # of a line
MOST_SCALARS = 100  # among which those that mix worst are looked for


def shown(fit: Fitted) -> str:
    """HTML of a fit; where a part cannot be made, its error in its place."""
    try:
        told = f"<p style='margin:.3em 0'><b>{html.escape(_name(fit))}</b> {html.escape(_facts(fit))}</p>"
    except Exception as error:
        told = f"<p><b>{html.escape(type(fit).__name__)}</b> cannot tell what it is: {_said(error)}</p>"
    return (
        f"<div style='text-align:left'>{told}{_tried(_judged, fit, 'verdict')}{_tried(_picture, fit, 'picture')}</div>"
    )


def _tried(part: Any, fit: Fitted, what: str) -> str:
    try:
        return part(fit)
    except Exception as error:  # a notebook would show a traceback in place of the fit
        return f"<p><i>No {what} can be shown: {_said(error)}</i></p>"


def _said(error: Exception) -> str:
    return html.escape(f"{type(error).__name__}: {error}"[:400])


def _name(fit: Fitted) -> str:
    return getattr(fit.model.program, "__name__", type(fit.model.program).__name__)


def _facts(fit: Fitted) -> str:
    """The algorithm, how much there is, and how long it took."""
    if isinstance(fit.inference, Learner):
        much = f"{fit.num_steps:,} steps"
    else:
        much = f"{fit.z.shape[0]} chains x {fit.z.shape[1]:,} draws"
    return f"by {fit.inference.name} on {fit.target.engine}: {much}, {fit.seconds:.1f} s, seed {fit.seed}"


# ---- the verdict -----------------------------------------------------------------------------------------------------


def _judged(fit: Fitted) -> str:
    """The verdict that was asked for; else what is wrong at first sight, and how to have a verdict."""
    known = vars(fit).get("_verdict")
    if isinstance(known, Verdict):
        return known._repr_html_()
    return unjudged([*_at_sight(fit)])


def _at_sight(fit: Fitted) -> Iterator[Finding]:
    """What the records alone show to be wrong."""
    done, total = fit.num_steps, fit.inference.total_steps
    if not fit.complete:
        remedy = f"pg.resume({str(fit.directory)!r})" if fit.directory else "fit again, without stopping it"
        yield Finding("complete", "warn", done, total, f"the run was stopped at step {done:,} of {total:,}", remedy)
    if isinstance(fit.inference, Learner):
        yield from _of_learning(fit)
    else:
        yield from _of_chains(fit)


def _of_learning(fit: Fitted) -> Iterator[Finding]:
    loss = fit.records.get("loss")
    if loss is not None and not np.isfinite(loss[:, -1]).all():
        status = "warn" if np.isfinite(loss[:, loss.shape[1] // 2 :]).any() else "fail"
        yield Finding("loss", status, None, None, "the loss is NaN or infinite at the end", "a smaller learning_rate")
    bad = [key for key, value in fit.answer.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        names = ", ".join(bad[:5])
        yield Finding(
            "finite", "fail", None, None, f"what was learned is NaN or infinite: {names}", "a smaller learning_rate"
        )


def _of_chains(fit: Fitted) -> Iterator[Finding]:
    if fit.z.shape[1] == 0:
        yield Finding("draws", "fail", 0, 1, "there are no draws: the run stopped in its warm-up", "go on with it")
        return
    if bad := blocks.not_finite(fit.z)[0] if fit.z.dtype.kind == "f" else 0:
        yield Finding(
            "finite",
            "fail",
            bad,
            0,
            f"{bad:,} of {fit.z.size:,} numbers of the draws are NaN or infinite",
            "fit.diagnose()",
        )
    diverging = fit.records.get("diverging")
    if diverging is not None and (count := int(diverging[:, fit.num_warmup :].sum())):
        share = count / diverging[:, fit.num_warmup :].size
        message = f"{count:,} transitions diverged ({share:.2%}); none may"
        yield Finding("divergences", grade(share, 0.0, 0.005), count, 0, message, "fit.diagnose() says what to do")
    if (
        not bad
        and isinstance(fit.target, Continuous)
        and fit.z.shape[2]
        and fit.z.size <= LARGEST
        and fit.z.shape[1] > 3
    ):
        with np.errstate(all="ignore"):
            worst = float(np.nanmax(r_hat(np.moveaxis(fit.z, -1, 0))))
        if not worst <= 1.01:
            message = f"largest R-hat {worst:.3f}, of the unknowns on the real line; at most 1.01"
            yield Finding("r_hat", grade(worst, 1.01, 1.05), worst, 1.01, message, "fit.diagnose() says what to do")


# ---- the picture -----------------------------------------------------------------------------------------------------


def _picture(fit: Fitted) -> str:
    """One small picture as PNG within the page; nothing where there is nothing to draw."""
    with style():
        figure, told = _losses(fit) if isinstance(fit.inference, Learner) else _traces(fit)
        if figure is None:
            return ""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
    if len(content := buffer.getvalue()) > MOST_BYTES:
        return "<p><i>fit.plot() draws it.</i></p>"
    coded = base64.b64encode(content).decode()
    return f"<img alt='{html.escape(told, quote=True)}' src='data:image/png;base64,{coded}' style='max-width:100%'>"


def _losses(fit: Fitted) -> tuple[Figure | None, str]:
    loss = fit.records.get("loss")
    if loss is None or np.isfinite(loss).sum() < 2:
        return None, ""
    values = loss.mean(axis=0).astype(float)
    steps = np.flatnonzero(np.isfinite(values))[:: max(1, len(values) // MOST_POINTS)]
    picture, (panel,) = grid(1, 1, 1.8)
    panel.plot(steps, values[steps], lw=0.8, color=COLOURS[0])
    low, high = np.quantile(values[steps], [0.0, 0.98])
    panel.set(xlabel="step", ylabel="loss", ylim=(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9))
    return picture, f"the loss over {fit.num_steps} steps, {values[steps[-1]]:.4g} at the end"


def _traces(fit: Fitted) -> tuple[Figure | None, str]:
    """Two traces: of the scalars that mix worst where a verdict looked at them, else of the log density and an unknown."""
    lines = [(name, values) for name, values in _lines(fit) if np.isfinite(values).any()]
    if not lines or fit.z.shape[1] < 2:
        return None, ""
    picture, panels = grid(len(lines), 2, 1.8)
    for panel, (name, values) in zip(panels, lines, strict=True):
        every = max(1, values.shape[1] // MOST_POINTS)
        for chain, row in enumerate(values[:8, ::every]):
            panel.plot(np.arange(len(row)) * every, row, lw=0.4, color=COLOURS[chain % len(COLOURS)])
        panel.set(title=name, xlabel="draw")
    return picture, f"traces of {fit.z.shape[0]} chains: {' and '.join(name for name, _ in lines)}"


def _lines(fit: Fitted) -> list[tuple[str, np.ndarray]]:
    looked = vars(fit).get("_looked")
    if looked is not None and looked.scalars.names:
        from probgen.pictures.gallery import worst_first

        few = looked.scalars.pick(slice(MOST_SCALARS))
        worst = few.pick(worst_first(few)[:2])
        return list(zip(worst.names, worst.draws, strict=True))
    found = [("log density", fit.records["lp"][:, fit.num_warmup :])] if "lp" in fit.records else []
    if isinstance(fit.target, Continuous) and fit.z.shape[2]:
        found.append(("z[0], unconstrained", fit.z[..., 0]))
    return found
