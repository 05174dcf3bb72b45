"""Pictures of draws: chains, effective sample sizes, posteriors, guides, predictive checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.data.fixed import arrays_of
from probgen.data.whole_numbers import generator
from probgen.diagnostics import Scalars, convention, smoothed_weights
from probgen.fitted import Fitted
from probgen.pictures.learned import loss
from probgen.pictures.samples import behind
from probgen.pictures.style import BAD, COLOURS, INK, figure, grid
from probgen.target import Conditional

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MOST = 24  # scalars shown
CLOSE = 6  # scalars shown chain by chain


def _traces(fit: Fitted, shown: Scalars) -> Figure | None:
    """Traces, and the ranks of every chain among all draws: even where chains agree."""
    close = shown.pick(slice(CLOSE))
    chains, draws = shown.draws.shape[1:]
    if not close.names or chains * draws < 40 or fit.answer:
        return None
    picture, panels = grid(2 * len(close.names), 2, 0.95)
    for name, values, left, right in zip(close.names, close.draws, panels[::2], panels[1::2], strict=True):
        for chain, line in enumerate(values):
            left.plot(line, lw=0.4, alpha=0.8, color=COLOURS[chain % len(COLOURS)], rasterized=True)
        left.set_ylabel(name)
        left.margins(x=0)
        _ranks(right, values)
    for panel in panels[:-2]:
        panel.set_xticklabels([])
    panels[0].set_title("draws in order, a colour a chain")
    panels[1].set_title("ranks among all draws" if chains > 1 else "one chain: no ranks to compare")
    return picture


def _ranks(panel: Any, values: np.ndarray) -> None:
    """Histograms of the ranks of each chain's draws (chain, draw), with the band that holds 95 % of even ones."""
    from scipy.stats import binom

    chains, draws = values.shape
    bins = min(20, max(4, draws // 25))
    ties = np.random.default_rng(0).random(values.size)  # in random order, or chains of bits would look apart
    ranks = np.lexsort((ties, values.ravel())).argsort().reshape(chains, draws)
    low, high = binom.interval(0.95, draws, 1 / bins)
    panel.axhspan(low, high, color=INK, alpha=0.12, lw=0)
    for chain, row in enumerate(ranks if chains > 1 else []):
        counts, edges = np.histogram(row, bins=bins, range=(0, chains * draws))
        panel.stairs(counts, edges, color=COLOURS[chain % len(COLOURS)], lw=1, baseline=None)
    panel.set_xlim(0, chains * draws)
    panel.set_ylim(0, None)
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)


def _ess_growth(fit: Fitted, shown: Scalars) -> Figure | None:
    """Effective sample size of longer and longer parts of the chains: a straight line where they mix."""
    from arviz_stats.base import array_stats

    close, (chains, draws) = shown.pick(slice(CLOSE)), shown.draws.shape[1:]
    if not close.names or draws < 100 or fit.answer:
        return None
    cuts = np.linspace(draws // 10, draws, 10).astype(int)
    picture, panels = grid(2, 2, 2.6)
    kinds: list[tuple[str, Callable[[Any], Any]]] = [("bulk", array_stats.ess), ("tail", convention.tail_ess)]
    for panel, (kind, of) in zip(panels, kinds, strict=True):
        with np.errstate(all="ignore"):
            sizes = [of(close.draws[..., :cut]) for cut in cuts]
        for name, line, colour in zip(close.names, np.transpose(sizes), COLOURS, strict=False):
            panel.plot(cuts * chains, line, color=colour, marker="o", ms=2.5, lw=1, label=name)
        panel.axhline(100 * chains, color=BAD, lw=0.8, ls="--")
        panel.set(title=f"{kind} ESS", xlabel="draws", ylim=(0, None))
    panels[0].legend(loc="upper left")
    return picture


def _energy(fit: Fitted, shown: Scalars) -> Figure | None:
    """The energy's distribution and that of its steps: alike where momentum resampling moves it enough."""
    if "energy" not in fit.records:
        return None
    energy = fit.records["energy"][:, fit.num_warmup :]
    if energy.shape[1] < 20 or not np.isfinite(energy).all():
        return None
    picture, (panel,) = grid(1, 1, 2.4)
    centred, steps = (energy - energy.mean(axis=1, keepdims=True)).ravel(), np.diff(energy, axis=1).ravel()
    edges = np.histogram_bin_edges(np.concatenate([centred, steps]), bins=60)
    for values, label, colour in ((centred, "energy, centred", COLOURS[0]), (steps, "steps of the energy", COLOURS[1])):
        heights, _ = np.histogram(values, edges, density=True)
        panel.stairs(heights, edges, fill=True, alpha=0.35, color=colour, label=label)
    panel.set(xlabel="nats", yticks=[])
    panel.spines["left"].set_visible(False)
    panel.legend()
    return picture


def forest(groups: Sequence[tuple[str, Sequence[str], dict[str, np.ndarray]]]) -> Figure | None:
    """Medians with 50 % intervals and those of ArviZ's `stats.ci_prob`, a panel a site.

    groups: for every panel the title, the names of its scalars, and for each fit their draws (scalar, draw).
    """
    if not groups:
        return None
    rows = [len(names) for _, names, _ in groups]
    fits = list(dict.fromkeys(word for *_, drawn in groups for word in drawn))
    line = 0.2 + 0.1 * (len(fits) - 1)
    picture = figure(height=sum(rows) * line + 0.62 * len(rows) + 0.2)
    panels = picture.subplots(len(groups), 1, squeeze=False, height_ratios=[n * line + 0.3 for n in rows])[:, 0]
    for panel, (title, names, drawn) in zip(panels, groups, strict=True):
        for i, (word, draws) in enumerate(drawn.items()):
            _intervals(panel, draws, (i - (len(drawn) - 1) / 2) * 0.7 / len(fits), COLOURS[fits.index(word) % 8], word)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.set_title(title, loc="left")
        panel.grid(axis="x", color=INK, alpha=0.15, lw=0.5)
    if len(fits) > 1:
        picture.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return picture


def _intervals(panel: Any, draws: np.ndarray, shift: float, colour: str, label: str) -> None:
    (low, high), (quarter, three) = convention.interval(draws), convention.interval(draws, 0.5)
    middle = np.median(draws, axis=1)
    at = np.arange(len(draws)) + shift
    panel.hlines(at, low, high, color=colour, lw=1)
    panel.hlines(at, quarter, three, color=colour, lw=3)
    panel.plot(middle, at, "o", ms=4, color=colour, mec=INK, mew=0.7, label=label)


def by_site(names: Sequence[str]) -> dict[str, list[int]]:
    """Indices of scalars by the site they belong to."""
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name.partition("[")[0], []).append(i)
    return groups


def _marginals(fit: Fitted, shown: Scalars) -> Figure | None:
    """Means of an energy's sites: in their own shape where that is a picture, in a row where it is not."""
    sites = (
        {k: v.mean((0, 1)) for k, v in fit.draws.items() if v.ndim > 2} if isinstance(fit.target, Conditional) else {}
    )
    if not sites:
        return None
    picture, panels = grid(len(sites), min(4, len(sites)), 2.0)
    for (name, mean), panel in zip(sites.items(), panels, strict=True):
        side = round(mean.size**0.5)
        shape = (
            mean.shape if mean.ndim == 2 else (side, side) if side > 3 and side * side == mean.size else (1, mean.size)
        )
        panel.imshow(mean.reshape(shape), cmap="Greys")
        panel.set(title=name, xticks=[], yticks=[])
    return picture


def _pictures(fit: Fitted, shown: Scalars) -> Figure | None:
    """Data that are pictures, and beside them a draw of each unknown that has the shape of one."""
    data, unknown = pictured(fit)
    if not unknown:
        return None
    low, high = min(v.min() for v in data.values()), max(v.max() for v in data.values())
    picture, panels = grid(len(data) + len(unknown), len(data) + len(unknown), 2.6)
    for (name, x), panel in zip((data | unknown).items(), panels, strict=True):
        told = np.clip((x - low) / ((high - low) or 1.0), 0, 1)
        panel.imshow(told, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panel.set(title=name, xticks=[], yticks=[])
    return picture


def pictured(fit: Fitted) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Data that are pictures, and a draw of each unknown of the shape of one, by name; nothing where there are too many."""
    if isinstance(fit.target, Conditional):
        return {}, {}
    data = {k: v for k, v in arrays_of(fit.target.data).items() if _is_picture(v.shape)}
    shapes = {v.shape for v in data.values()}
    unknown = {k: v[0, -1] for k, v in fit.draws.items() if v.shape[2:] in shapes}
    return (data, unknown) if len(data) + len(unknown) <= CLOSE else ({}, {})


def _is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an array is one picture of at least 8 pixels a side, grey or coloured."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) and min(shape[:2]) >= 8


def _forest(fit: Fitted, shown: Scalars) -> Figure | None:
    if not shown.names or isinstance(fit.target, Conditional):
        return None
    most = shown.pick(slice(MOST))
    most = most.pick(np.argsort([scalars_order(name) for name in most.names], kind="stable"))
    flat = most.draws.reshape(len(most.names), -1)
    return forest(
        [(site, [most.names[i] for i in rows], {"": flat[rows]}) for site, rows in by_site(most.names).items()]
    )


def scalars_order(name: str) -> str:
    """A key that sorts theta[2] before theta[10]."""
    return re.sub(r"\d+", lambda found: found.group().zfill(8), name)


def _pairs(fit: Fitted, shown: Scalars) -> Figure | None:
    """At most four scalars, one of each site first, against each other; divergent transitions in red."""
    firsts = [rows[0] for rows in by_site(shown.names).values()]
    rows = (firsts + [i for i in range(len(shown.names)) if i not in firsts])[:4]
    if len(rows) < 2 or isinstance(fit.target, Conditional):
        return None
    close = shown.pick(np.array(rows))
    flat = close.draws.reshape(len(close.names), -1)
    diverging = fit.records["diverging"][:, fit.num_warmup :].ravel() if "diverging" in fit.records else None
    keep = generator(fit.seed).permutation(flat.shape[1])[:2000]
    count = len(rows) - 1
    picture = figure(height=1.9 * count)
    for row in range(count):
        for column in range(row + 1):
            panel = picture.add_subplot(count, count, row * count + column + 1)
            x, y = flat[column], flat[row + 1]
            panel.plot(x[keep], y[keep], ".", ms=2, alpha=0.35, color=COLOURS[0], mec="none", rasterized=True)
            if diverging is not None and diverging.size == x.size:
                panel.plot(x[diverging], y[diverging], "x", ms=4, color=BAD)
            panel.set(xlabel=close.names[column] if row == count - 1 else "")
            panel.set(ylabel=close.names[row + 1] if column == 0 else "")
    if diverging is not None and diverging.size == flat.shape[1] and diverging.any():
        picture.legend(handles=[picture.axes[0].lines[-1]], labels=["divergent transition"], loc="upper right")
    return picture


def _predictive(fit: Fitted, shown: Scalars) -> Figure | str | None:
    """Distribution functions of data drawn from the fit, behind that of the data."""
    if not fit.target.named("observed"):
        return "The program observes nothing."
    try:
        drawn, observed = fit.predict(), fit.target.observed_values()
    except Exception as error:  # whatever a user's program raises on new data is a reason, not an end
        return f"Not drawn: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    rng = generator(fit.seed)
    new = {}
    for name in observed:
        if name in drawn and np.size(observed[name]):
            sets = np.asarray(drawn[name]).reshape(-1, np.size(observed[name]))
            new[name] = sets[rng.permutation(len(sets))[:60]]
    return behind(new, observed, fit) or ("Not drawn: the observed sites have no predictive draws.")


def _importance(fit: Fitted, shown: Scalars) -> Figure | str | None:
    """Importance weights of the guide's draws."""
    if "log_q" not in fit.answer:
        return None
    try:
        weights, khat = smoothed_weights(fit)
    except ValueError as error:
        return f"Not drawn: {error}"
    picture, (panel,) = grid(1, 1, 2.2)
    ratios = np.log(np.maximum(weights * weights.size, 1e-300))
    panel.hist(ratios[ratios > -30], bins=60, color=COLOURS[0], alpha=0.6)
    panel.set(xlabel=f"log p/q, smoothed and centred, in nats (k-hat {khat:.2f})", ylabel="draws")
    return picture


def intervals() -> str:
    """The note of a forest plot."""
    return f"Medians with 50 % and {convention.per_cent()} intervals."


PICTURES: tuple[tuple[str, str | Callable[[], str], Callable[[Fitted, Scalars], Figure | str | None]], ...] = (
    ("Loss", "Minus the bound on the log evidence.", lambda fit, shown: loss(fit)),
    ("Importance weights", "Narrow is good: a long right tail means that the guide misses mass.", _importance),
    ("Chains", f"The {CLOSE} scalars that mix worst. Even ranks, inside the band, mean that chains agree.", _traces),
    ("Effective sample size", "A straight line means that more draws help; the dashed line is the bar.", _ess_growth),
    ("Energy", "The two should be alike.", _energy),
    ("Posterior", intervals, _forest),
    ("Means", "Of every site, light to dark.", _marginals),
    ("Pictures", "Data that are pictures, and a draw of what has the shape of one.", _pictures),
    ("Pairs", "At most four scalars, one of each site first; red crosses are divergent transitions.", _pairs),
    ("Posterior predictive check", "Data drawn from the fit, as distribution functions.", _predictive),
)
