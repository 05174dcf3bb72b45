"""One self-contained HTML page about a Fit: verdict first, then numbers, pictures, program, settings and versions.

Pictures are SVG inside the page, drawn on figures of their own: matplotlib's backend, parameters and open figures stay
as the caller left them. Their ink is the page's text colour, so that they suit light and dark themes.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.diagnostics import Scalars, Verdict, r_hat, scalars, smoothed_weights, varying
from probgen.latent import LatentFit
from probgen.result import LearnedFit
from probgen.target import Conditional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probgen.result import Fit

INK, PAPER = "#123456", "none"
COLOURS = ("#3d85c6", "#e08a2e", "#52a36b", "#c2557a", "#8c6bb1", "#9a7b4f", "#3fa7a3", "#a0a032")
BAD = "#d64541"
MOST = 24  # scalars shown
CLOSE = 6  # scalars shown chain by chain
STYLE = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "savefig.edgecolor": PAPER,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "font.size": 9, "axes.titlesize": 9,
    "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "svg.fonttype": "path", "svg.hashsalt": "probgen", "text.parse_math": False, "text.usetex": False,
    "font.family": "DejaVu Sans", "axes.unicode_minus": True, "path.simplify": True, "figure.dpi": 100,
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows of words below a head; the first column is left-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part of a page: any of a note, a table, a picture (SVG) and program text."""

    title: str
    note: str = ""
    table: Table | None = None
    svg: str = ""
    code: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    subtitle: str
    verdict: Verdict | None = None
    sections: Sequence[Section] = field(default_factory=tuple)

    def write(self, path: str | Path) -> Path:
        """The page as one HTML file; its folder is made where it is missing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_template().render(page=self), encoding="utf-8")
        return path


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("probgen", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html")


def write(fit: Fit, path: str | Path) -> Path:
    """Write the page of a fit; returns its path."""
    verdict = fit.diagnose()
    if isinstance(fit, LearnedFit):
        subtitle = f"{fit.inference.name} on {fit.target.engine}, {fit.num_steps} steps, {fit.seconds:.1f} s"
        return Page(_name(fit), subtitle, verdict, [*_of_learned(fit), *_of_run(fit)]).write(path)
    chains, draws = fit.z.shape[:2] if verdict.findings[0].check != "draws" else (fit.records["z"].shape[0], 0)
    subtitle = f"{fit.inference.name} on {fit.target.engine}, {chains} chains × {draws} draws, {fit.seconds:.1f} s"
    sections = [*(_of_draws(fit) if draws else ()), *_of_run(fit)]
    return Page(_name(fit), subtitle, verdict, sections).write(path)


def _name(fit: Fit) -> str:
    return getattr(fit.model.program, "__name__", type(fit.model.program).__name__)


def _of_draws(fit: Fit) -> Iterator[Section]:
    every = scalars(fit)
    shown = every.pick(varying(every.draws))
    if not fit.answer:
        shown = shown.pick(worst_first(shown))
    if shown.names:
        yield Section("Summary", _note(fit, every, shown), table=summary(shown.pick(slice(MOST))))
    for title, note, draw in PICTURES:
        with style():
            found = draw(fit, shown)
            if isinstance(found, str):
                yield Section(title, found)
            elif found is not None:
                yield Section(title, note, svg=svg(found))


def _of_learned(fit: LearnedFit) -> Iterator[Section]:
    """Parameters as numbers and pictures, the loss, the gap between data and model."""
    table = fit.summary()
    cells = [
        [str(name), str(row[0]), *(f"{x:.3g}" for x in row[1:])]
        for name, row in zip(table.index, table.to_numpy(object), strict=True)
    ]
    yield Section("Parameters", table=Table(("", *map(str, table.columns)), cells))
    nothing = Scalars((), np.zeros((0, 1, 1)))
    with style():
        for title, note, draw in (
            ("Loss", "What the learner watches, in nats a row; see its documentation.", _loss(fit, nothing)),
            ("Gap", "Mean log weight of the data minus that of the model's own points, in nats: near zero at rest.", _gap(fit)),
            *_latent(fit),
            ("Filters", "Columns of the largest weights, in the shape of a point; red is positive, blue negative.", _filters(fit)),
        ):  # fmt: skip
            if draw is not None:
                yield Section(title, note, svg=svg(draw))


def _latent(fit: LearnedFit) -> Iterator[tuple[str, str, Figure | None]]:
    """Of programs with hidden sites and a guide."""
    if isinstance(fit, LatentFit):
        from probgen import latent_pictures

        yield (
            "Reconstructions",
            "Rows of the data, and below each what is made of its code.",
            latent_pictures.reconstructions(fit),
        )
        yield "New points", "Means of the visible site given draws of the hidden ones.", latent_pictures.new_points(fit)
        yield "Manifold", "Means over the plane of the two latents, at even quantiles.", latent_pictures.manifold(fit)
        yield (
            "Interpolation",
            "Means along straight lines between the codes of two rows each.",
            latent_pictures.interpolations(fit),
        )
        told = "Means where one coordinate of a row's code goes from two sds below to two above: the most active six."
        yield "Traversals", told, latent_pictures.traversals(fit)
        yield "Activity", "Variance over rows of the guide's middle, by coordinate.", latent_pictures.activity(fit)


def _gap(fit: Fit) -> Figure | None:
    if "gap" not in fit.records:
        return None
    gap = fit.records["gap"][0].astype(float)
    picture, (panel,) = grid(1, 1, 2.2)
    panel.plot(gap, lw=0.3, color=COLOURS[0], rasterized=True)
    low, high = np.nanquantile(gap, [0.005, 0.995])
    panel.axhline(0, color=INK, lw=0.5)
    panel.set(xlabel="step", ylabel="nats", ylim=(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9))
    return picture


def _filters(fit: LearnedFit) -> Figure | None:
    """Up to 32 columns of the first matrix whose rows are the pixels of a square."""
    sizes = {v.size for v in fit.target.visible}  # type: ignore[attr-defined]
    for value in fit.answer.values():
        side = round(len(value) ** 0.5) if value.ndim == 2 and len(value) in sizes else 0
        if side > 3 and side * side == len(value):
            break
    else:
        return None
    order = np.argsort(-np.linalg.norm(value, axis=0))[:32]
    rows = -(-len(order) // 8)
    picture = figure(height=0.9 * rows)
    limit = np.quantile(abs(value[:, order]), 0.99)
    for i, column in enumerate(order):
        panel = picture.add_subplot(rows, 8, i + 1)
        panel.imshow(value[:, column].reshape(side, side), cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.axis("off")
    return picture


def _note(fit: Fit, every: Scalars, shown: Scalars) -> str:
    """Which scalars the page shows."""
    order = "in the program's order" if fit.answer else "those that mix worst first"
    note = f"{len(shown.names)} scalars, {order}."
    if len(shown.names) > MOST:
        note = f"{MOST} of {len(shown.names)} scalars, {order}; fit.summary() has the rest."
    left_out = len(every.names) - len(shown.names)
    return f"{note} {left_out} that are constant or not finite are left out." if left_out else note


def worst_first(shown: Scalars) -> np.ndarray:
    """Indices of scalars by bulk ESS, the smallest first."""
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        sizes = array_stats.ess(shown.draws) if shown.names else np.zeros(0)
    return np.argsort(np.nan_to_num(sizes, nan=-1.0), kind="stable")


def summary(shown: Scalars) -> Table:
    """Mean, sd, quantiles and diagnostics of scalars."""
    from arviz_stats.base import array_stats

    head = ("", "mean", "sd", "5 %", "median", "95 %", "error of mean", "bulk ESS", "tail ESS", "R-hat")
    flat = shown.draws.reshape(len(shown.names), -1)
    with np.errstate(all="ignore"):
        columns = [
            flat.mean(1),
            flat.std(1),
            *np.quantile(flat, [0.05, 0.5, 0.95], axis=1),
            array_stats.mcse(shown.draws),
        ]
        sizes = [array_stats.ess(shown.draws), array_stats.ess(shown.draws, method="tail", prob=(0.05, 0.95))]
        mixing = r_hat(shown.draws)
    rows = [
        [name, *(f"{c[i]:.3g}" for c in columns), *(f"{c[i]:.0f}" for c in sizes), f"{mixing[i]:.3f}"]
        for i, name in enumerate(shown.names)
    ]
    return Table(head, rows)


def _of_run(fit: Fit) -> Iterator[Section]:
    from probgen.run import versions

    settings = [(key, str(value)) for key, value in fit.inference.settings().items()]
    steps = f"{fit.num_steps} of at most {fit.inference.total_steps}, warm-up included"
    facts = [("inference", fit.inference.name), ("seed", str(fit.seed)), ("precision", fit.precision), ("steps", steps)]
    facts += [("seconds", f"{fit.seconds:.2f}, compilation included"), *settings]
    yield Section("Settings", table=Table(("", ""), facts))
    yield Section("Data", table=Table(("", "shape", "type", "smallest", "largest"), [*_data_rows(fit)]))
    yield Section("Program", note=fit.model.doc, code=_source(fit.model.program), folded=True)
    yield Section("Versions", table=Table(("", ""), list(versions().items())), folded=True)


def _data_rows(fit: Fit) -> Iterator[Sequence[str]]:
    for key, value in fit.target.data.items():
        if isinstance(value, bool | int | str | None):
            yield key, "setting", type(value).__name__, str(value), ""
        else:
            array = np.asarray(value)
            yield (
                key,
                "×".join(map(str, array.shape)) or "scalar",
                str(array.dtype),
                f"{array.min():.4g}",
                f"{array.max():.4g}",
            )


def _source(program: Callable[..., Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(inspect.unwrap(getattr(program, "func", program))))
    except (OSError, TypeError):
        return "(The program's source is not in a file.)"


# ---- pictures ----------------------------------------------------------------------------------------------------


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's parameters for the pictures, for the time of the block."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def figure(width: float = 7.2, height: float = 3.0) -> Figure:
    """A figure of its own, in inches, unknown to pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(picture: Figure) -> str:
    """A figure as an SVG element that takes the page's text colour and its width."""
    buffer = io.StringIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=110)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    return _unique(text)


def _unique(text: str) -> str:
    """The SVG with identifiers that no other picture on the page has."""
    mark = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{mark}-', text)
    text = re.sub(r'href="#', f'href="#{mark}-', text)
    return re.sub(r"url\(#", f"url(#{mark}-", text)


def grid(count: int, columns: int, height: float) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels, so many in a row, each `height` inches high."""
    rows = -(-count // columns)
    picture = figure(height=rows * height)
    panels = [picture.add_subplot(rows, columns, i + 1) for i in range(count)]
    return picture, panels


def _traces(fit: Fit, shown: Scalars) -> Figure | None:
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


def _ess_growth(fit: Fit, shown: Scalars) -> Figure | None:
    """Effective sample size of longer and longer parts of the chains: a straight line where they mix."""
    from arviz_stats.base import array_stats

    close, (chains, draws) = shown.pick(slice(CLOSE)), shown.draws.shape[1:]
    if not close.names or draws < 100 or fit.answer:
        return None
    cuts = np.linspace(draws // 10, draws, 10).astype(int)
    picture, panels = grid(2, 2, 2.6)
    kinds: list[tuple[str, dict[str, Any]]] = [("bulk", {}), ("tail", {"prob": (0.05, 0.95)})]
    for panel, (kind, keywords) in zip(panels, kinds, strict=True):
        with np.errstate(all="ignore"):
            sizes = [array_stats.ess(close.draws[..., :cut], method=kind, **keywords) for cut in cuts]
        for name, line, colour in zip(close.names, np.transpose(sizes), COLOURS, strict=False):
            panel.plot(cuts * chains, line, color=colour, marker="o", ms=2.5, lw=1, label=name)
        panel.axhline(100 * chains, color=BAD, lw=0.8, ls="--")
        panel.set(title=f"{kind} ESS", xlabel="draws", ylim=(0, None))
    panels[0].legend(loc="upper left")
    return picture


def _energy(fit: Fit, shown: Scalars) -> Figure | None:
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
    """Medians with 50 % and 94 % intervals, a panel a site.

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
    low, quarter, middle, three, high = np.quantile(draws, [0.03, 0.25, 0.5, 0.75, 0.97], axis=1)
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


def _marginals(fit: Fit, shown: Scalars) -> Figure | None:
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


def _forest(fit: Fit, shown: Scalars) -> Figure | None:
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


def _pairs(fit: Fit, shown: Scalars) -> Figure | None:
    """At most four scalars, one of each site first, against each other; divergent transitions in red."""
    firsts = [rows[0] for rows in by_site(shown.names).values()]
    rows = (firsts + [i for i in range(len(shown.names)) if i not in firsts])[:4]
    if len(rows) < 2 or isinstance(fit.target, Conditional):
        return None
    close = shown.pick(np.array(rows))
    flat = close.draws.reshape(len(close.names), -1)
    diverging = fit.records["diverging"][:, fit.num_warmup :].ravel() if "diverging" in fit.records else None
    keep = np.random.default_rng(fit.seed).permutation(flat.shape[1])[:2000]
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
    return picture


def _predictive(fit: Fit, shown: Scalars) -> Figure | str | None:
    """Distribution functions of data drawn from the posterior, behind that of the data."""
    if not fit.target.named("observed"):
        return "The program observes nothing."
    try:
        drawn, observed = fit.predict(), fit.target.observed_values()
    except Exception as error:  # whatever a user's program raises on new data is a reason, not an end
        return f"Not drawn: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    sites = [name for name in observed if name in drawn and np.size(observed[name])][:4]
    if not sites:
        return "Not drawn: the observed sites have no predictive draws."
    picture, panels = grid(len(sites), min(2, len(sites)), 2.6)
    rng = np.random.default_rng(fit.seed)
    for name, panel in zip(sites, panels, strict=True):
        new = np.asarray(drawn[name]).reshape(-1, np.size(observed[name]))
        for row in new[rng.permutation(len(new))[:60]]:
            _steps(panel, row, color=COLOURS[0], lw=0.5, alpha=0.35, rasterized=True)
        _steps(panel, observed[name].ravel(), color=BAD, lw=1.8, label="data")
        panel.set(xlabel=name, ylim=(0, 1), ylabel="share at or below")
        panel.plot([], [], color=COLOURS[0], lw=0.8, label="60 data sets drawn from the posterior")
    panels[0].legend(loc="upper left")
    return picture


def _steps(panel: Any, values: np.ndarray, **keywords: Any) -> None:
    values = np.sort(values.astype(float))
    panel.step(values, np.arange(1, len(values) + 1) / len(values), where="post", **keywords)


def _loss(fit: Fit, shown: Scalars) -> Figure | None:
    """The loss, and its running mean."""
    if "loss" not in fit.records:
        return None
    loss = fit.records["loss"].mean(axis=0).astype(float)
    finite = np.flatnonzero(np.isfinite(loss))
    if len(finite) < 10:
        return None
    picture, (panel,) = grid(1, 1, 2.6)
    width = max(1, len(finite) // 100)
    blocks = loss[finite][: len(finite) // width * width].reshape(-1, width).mean(axis=1)
    panel.plot(finite, loss[finite], lw=0.3, alpha=0.5, color=COLOURS[0], rasterized=True, label="every step")
    panel.plot(finite[: len(blocks) * width : width] + width / 2, blocks, color=BAD, lw=1.4, label=f"mean of {width}")
    low, high = np.quantile(loss[finite][len(finite) // 20 :], [0.001, 0.999])
    panel.set(xlabel="step", ylabel="loss, nats", ylim=(low - 0.1 * (high - low), high + 0.3 * (high - low)))
    panel.legend()
    return picture


def _importance(fit: Fit, shown: Scalars) -> Figure | str | None:
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


PICTURES: tuple[tuple[str, str, Callable[[Fit, Scalars], Figure | str | None]], ...] = (
    ("Loss", "Minus the bound on the log evidence.", _loss),
    ("Importance weights", "Narrow is good: a long right tail means that the guide misses mass.", _importance),
    ("Chains", f"The {CLOSE} scalars that mix worst. Even ranks, inside the band, mean that chains agree.", _traces),
    ("Effective sample size", "A straight line means that more draws help; the dashed line is the bar.", _ess_growth),
    ("Energy", "The two should be alike.", _energy),
    ("Posterior", "Medians with 50 % and 94 % intervals.", _forest),
    ("Means", "Of every site, light to dark.", _marginals),
    ("Pairs", "At most four scalars, one of each site first; red crosses are divergent transitions.", _pairs),
    ("Posterior predictive check", "Data drawn from the posterior, as distribution functions.", _predictive),
)
