"""How a grown picture compares with the sample that it was grown from: pieces, patches, filters' responses."""

from __future__ import annotations

import numpy as np

MOST = 500  # patches of one picture that are looked up among those of the other
FILTERS, SCALES, LEVELS = 24, (2, 3, 5, 9), 200  # filters of a scale, sides in pixels, quantiles of their responses
LEAST = 0.02  # standard deviations of the sample: what parts of a sample always may differ by


def pieces(sources: np.ndarray, width: int) -> np.ndarray:
    """Sizes of the pieces that were copied in one part, in pixels, the largest first: (piece,).

    sources: of every pixel, which of the sample it is, counted in rows of `width`, -1 for none: (height, width). Two neighbours
    belong to one piece where they are neighbours in the sample.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = np.arange(sources.size).reshape(sources.shape)
    there = sources >= 0
    row, column = np.divmod(sources, width)
    beside = there[:, 1:] & there[:, :-1] & (row[:, 1:] == row[:, :-1]) & (column[:, 1:] == column[:, :-1] + 1)
    below = there[1:] & there[:-1] & (column[1:] == column[:-1]) & (row[1:] == row[:-1] + 1)
    one = np.concatenate([place[:, :-1][beside], place[:-1][below]])
    other = np.concatenate([place[:, 1:][beside], place[1:][below]])
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), (sources.size, sources.size))
    _, piece = connected_components(graph, directed=False)
    sizes = np.bincount(piece[there.ravel()])
    return np.sort(sizes[sizes > 0])[::-1]


def used(sources: np.ndarray, size: int) -> float:
    """The effective share of a sample's pixels that were drawn: exp of the entropy of the sources over how many there could be.

    sources: as for `pieces`; size: pixels of the sample.
    """
    counts = np.unique(sources[sources >= 0], return_counts=True)[1]
    share = counts / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()) / min(size, counts.sum()))


def strangeness(grown: np.ndarray, sample: np.ndarray, side: int, seed: int = 0) -> float:
    """Mean distance of grown patches to the nearest of the sample, as a multiple of that of the sample's own to its others.

    grown, sample: (height, width) or (height, width, 3). side: of a patch, in pixels. Patches of the sample that overlap are no
    others. 1 where both distances are nothing; NaN for a sample without two patches apart.
    """
    rng = np.random.default_rng(seed)
    spread = sample.std() or 1.0
    one, other = (patches((x - sample.mean()) / spread, side) for x in (grown, sample))
    few = [rng.permutation(len(x))[:MOST] for x in (one, other)]
    row, column = np.divmod(np.arange(len(other)), sample.shape[1] - side + 1)
    overlap = (abs(row[few[1], None] - row) < side) & (abs(column[few[1], None] - column) < side)
    own = np.where(overlap, np.inf, _squares(other[few[1]], other)).min(1)
    if not np.isfinite(own).any():
        return np.nan
    far, near = float(_squares(one[few[0]], other).min(1).mean()), float(own[np.isfinite(own)].mean())
    return 1.0 if max(far, near) < ROUNDING else far / max(near, ROUNDING)


ROUNDING = 1e-9  # distances that are none


def difference(grown: np.ndarray, sample: np.ndarray, seed: int = 0) -> float:
    """How far the laws of filters' responses are from the sample's, as a multiple of that between halves of the sample.

    Random filters without a mean, at several scales; between two laws the Wasserstein distance, averaged over the filters of a
    scale; the largest ratio of a scale. 1 is what a part of the texture that is as large as half the sample has.
    Filters' responses as what a texture is: Zhu, Wu and Mumford 1998 (doi:10.1023/A:1007925832420).
    """
    rng = np.random.default_rng(seed)
    channels = sample.shape[2] if sample.ndim == 3 else 1
    height, width = sample.shape[:2]
    halves = [(sample[: height // 2], sample[height // 2 :]), (sample[:, : width // 2], sample[:, width // 2 :])]
    sides = [side for side in SCALES if side <= min(height // 2, width // 2, *grown.shape[:2])]
    least = sample.std() * max(LEAST, (height * width) ** -0.5)  # few pixels differ by chance
    worst = 0.0
    for side in sides:
        bank = rng.normal(size=(FILTERS, side * side * channels))
        bank -= bank.mean(1, keepdims=True)
        bank /= np.linalg.norm(bank, axis=1, keepdims=True)
        own = np.mean([abs(_responses(a, bank, side) - _responses(b, bank, side)).mean() for a, b in halves])
        far = abs(_responses(grown, bank, side) - _responses(sample, bank, side)).mean()
        worst = max(worst, far / max(own, least, ROUNDING))
    return worst if sides else np.nan


def _responses(picture: np.ndarray, bank: np.ndarray, side: int) -> np.ndarray:
    """Quantiles of the filters' responses over a picture: (level, filter)."""
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    return np.quantile(patches(picture, side) @ bank.T, levels, axis=0)


def patches(picture: np.ndarray, side: int) -> np.ndarray:
    """All squares of so many pixels a side: (patch, number)."""
    found = np.lib.stride_tricks.sliding_window_view(picture, (side, side), (0, 1))
    return found.reshape(found.shape[0] * found.shape[1], -1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squares of the differences of rows: (row of a, row of b)."""
    products = a @ b.T
    return np.maximum((a**2).sum(1)[:, None] - 2 * products + (b**2).sum(1), 0.0) / a.shape[1]
