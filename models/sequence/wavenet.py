"""WaveNet: sound, a sample at a time, by dilated causal convolutions.

    p(x | context) = prod_t p(x_t | x_{t-R}, ..., x_{t-1}),   R = 2 + num_blocks (2^num_layers - 1), the field

    z = tanh(W * h) sigmoid(V * h),   h' = h + A z,   outputs = C relu(B relu(sum of S z over all layers) + b) + c

W * h sees h at t and at t - d, d = 1, 2, 4, ..., 2^(num_layers - 1) in every block. A density of windows of `length` samples given
the R before them, which are not scored: no zeros stand for a past that is not known, and windows that follow each other add up
to the density of the recording given its first R samples. The outputs are logits of the levels, or, with num_components of 1 or
more, a mixture of logistics cut into levels. law, rate: how levels are heard, of which the density knows nothing.
Shapes: x: (length,), context: (place,), the last R count; whole numbers from 0 to levels - 1.
Van den Oord et al. 2016 (arXiv:1609.03499); Salimans et al. 2017 (arXiv:1701.05517) for the mixture.
"""

import numpy as np
import numpyro

from probgen.data.values import sounds
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.pixel_networks import at_random
from probgen.nets.waves.dilated import Dilated
from probgen.nets.waves.heads import Classes, Mixture
from probgen.nets.waves.wave import Wave, check_context


def wavenet(
    context, x=None, length=512, levels=256, num_blocks=2, num_layers=6, num_filters=24, num_skips=32, num_components=0,
    centre=127.5, spread=64.0, law="mu", rate=16000,
):  # fmt: skip
    check_sizes(
        length=length, num_blocks=num_blocks, num_layers=num_layers, num_filters=num_filters, num_skips=num_skips
    )
    check_context(context, num_blocks, num_layers)
    head = Mixture(levels, num_components, centre, spread) if num_components else Classes(levels)
    sizes = num_blocks, num_layers, num_filters, num_skips
    net = numpyro.param("net", lambda key: at_random(key, Dilated(head.num_outputs, *sizes)))
    numpyro.sample("x", Autoregressive(Wave(net, context, head, length, centre, spread)), obs=x)


def rows(x, rate, levels=256, law="mu", num_blocks=2, num_layers=6, length=512, num_components=10):
    """The data of a waveform (time,), -1 to 1, of so many samples a second: windows of levels, and the samples before each."""
    found = sounds.cut(x, rate, levels, law, num_blocks, num_layers, length)
    return {**found, "num_components": num_components}


def made():
    """A resonance of known entropy, in fine levels."""
    settings = {"num_blocks": 1, "num_layers": 4, "length": 128, "num_components": 3}
    return {**rows(sounds.resonance(), 8000, sounds.LEVELS, "linear", **settings), "num_filters": 16, "num_skips": 16}


def silence(data):
    """A context without a sound."""
    quiet = np.zeros(data["context"].shape[-1])
    return {"context": sounds.levels_of(quiet, data.get("levels", 256), data.get("law", "mu"))}


settings = {"batch_size": 16, "validation": 0.1, "held": "last"}
model = Model(program=wavenet, data=made, rows=rows, derived=sounds.of_windows, begins=silence, settings=settings)
