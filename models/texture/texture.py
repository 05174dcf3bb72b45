"""A texture: what a pixel may be is what it is in a sample where its surroundings look alike.

    p(x_i | x_N(i)) = 1 / |A|  for the pixels s_j, j in A,   A = {j: d_j <= (1 + tolerance) min_k d_k}

    d_j = sum_o g_o (x_{i+o} - s_{j+o})^2 / sum_o g_o,   over the offsets o within the window at which x is known

A Markov random field written as its conditionals, without a joint density: g is a Gaussian of standard deviation window / 6.4.
"efros_leung" draws it pixel by pixel, "quilting" lays blocks of the sample by the same distance.
Shapes: sample: (height, width) or (height, width, 3), in any units; x: `height` by `width` pixels, by default twice
the sample's, at most 128. Efros and Leung 1999 (doi:10.1109/ICCV.1999.790383).
"""

import numpy as np
import numpyro

from probgen.data.values.photographs import woven
from probgen.distributions.patches import Patches
from probgen.model import Model

LARGEST = 128  # pixels a side, where nothing is said


def texture(sample, height=128, width=128, window=11, tolerance=0.1):
    numpyro.sample("x", Patches(sample, height, width, window, tolerance))


def rows(x):
    """One picture: (height, width) or (height, width, 3)."""
    x = np.asarray(x)
    if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] != 3):
        raise ValueError(
            f"The sample of a texture has shape {x.shape}; expected one picture, (height, width) or (height, width, 3)."
        )
    height, width = (max(side, min(2 * side, LARGEST)) for side in x.shape[:2])
    window = min(11, max(1, min(x.shape[:2]) // 2) - 1 | 1)  # odd, with other places beside it in a small sample
    return {"sample": x.astype(float), "height": height, "width": width, "window": window}


model = Model(program=texture, data=lambda: rows(woven()), rows=rows, by_row=False)
