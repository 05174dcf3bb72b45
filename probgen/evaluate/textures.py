"""How a grown picture compares with the sample that it was grown from: pieces, patches, filters' responses."""

from __future__ import annotations

import numpy as np

from probgen.data.whole_numbers import generator

MOST = 500  # patches of one picture that are looked up among those of the other
SCALES, LEVELS = (1, 2, 4, 8), 200  # sides of the squares that filters compare, in pixels; quantiles of their responses
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
    rng = generator(seed)
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


def difference(grown: np.ndarray, sample: np.ndarray) -> float:
    """How far the laws of filters' responses are from the sample's, as a multiple of that between halves of the sample.

    The filters are Haar's: means of squares beside, above and across from each other subtracted. Between two laws the Wasserstein
    distance, averaged over the filters of a scale; the largest ratio of a scale. Other parts of one texture have about 1. NaN for
    pictures without two pixels in a row. Laws of filters' responses as what a texture is: Zhu, Wu and Mumford 1998
    (doi:10.1023/A:1007925832420).
    """
    height, width = sample.shape[:2]
    halves = [(sample[: height // 2], sample[height // 2 :]), (sample[:, : width // 2], sample[:, width // 2 :])]
    least = sample.std() * max(LEAST, (height * width) ** -0.5)  # few pixels differ by chance
    limit = min(height // 8, width // 8, *(n // 2 for n in grown.shape[:2]))
    ratios = []
    for side in [side for side in SCALES if side <= max(limit, 1)]:
        try:
            own = np.mean([_apart(a, b, side) for a, b in halves])
            ratios.append(_apart(grown, sample, side) / max(own, least, ROUNDING))
        except ValueError:  # a part is smaller than the filter
            continue
    return max(ratios, default=np.nan)


def _apart(a: np.ndarray, b: np.ndarray, side: int) -> float:
    """The mean distance of the responses' laws over two pictures."""
    return float(abs(_responses(a, side) - _responses(b, side)).mean())


def _responses(picture: np.ndarray, side: int) -> np.ndarray:
    """Quantiles of the responses of the filters that compare squares of so many pixels a side: (level, filter x channel)."""
    total = np.pad(picture.reshape(*picture.shape[:2], -1).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    square = total[side:, side:] - total[side:, :-side] - total[:-side, side:] + total[:-side, :-side]
    here, right = square[:-side, :-side], square[:-side, side:]
    below, across = square[side:, :-side], square[side:, side:]
    found = [here + right - below - across, here - right + below - across, here - right - below + across]
    if not here.size:
        raise ValueError(f"A picture of {picture.shape[:2]} pixels has no two squares of {side} beside each other.")
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    return np.quantile(np.concatenate(found, -1).reshape(-1, 3 * total.shape[2]), levels, axis=0) / (2 * side)


def patches(picture: np.ndarray, side: int) -> np.ndarray:
    """All squares of so many pixels a side: (patch, number)."""
    found = np.lib.stride_tricks.sliding_window_view(picture, (side, side), (0, 1))
    return found.reshape(found.shape[0] * found.shape[1], -1)


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squares of the differences of rows: (row of a, row of b)."""
    products = a @ b.T
    return np.maximum((a**2).sum(1)[:, None] - 2 * products + (b**2).sum(1), 0.0) / a.shape[1]
