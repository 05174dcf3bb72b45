# %% [markdown]
# # Sound by WaveNet
# A resonance is learned a sample at a time. The bits that the best model needs are known, so that those of this one tell how far it
# is from that; its draws are heard, and have the resonance's spectrum.

# %%
import sys
import tempfile
from pathlib import Path

import numpy as np

import probgen as pg
from probgen.catalog import model
from probgen.data.values import sounds
from probgen.evaluate.sounds import heard

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

# %% x_t = a x_{t-1} + b x_{t-2} + s e_t, in levels of s / 16; the last tenth is held out of learning.
fit = pg.fit("wavenet", inference="mle", num_steps=700, learning_rate=0.01, progress=False)

# %% Fresh samples, each window given the samples before it.
settings = {"law": "linear", "num_blocks": 1, "num_layers": 4, "length": 128}
fresh = model("wavenet").rows(sounds.resonance(30_000, seed=1), 8000, sounds.LEVELS, **settings)
found = fit.log_prob(x=fresh["x"], context=fresh["context"])
bits = -found.value.sum() / fresh["x"].size / np.log(2)
assert abs(bits - sounds.ENTROPY) < 0.03
print(f"{bits:.3f} bits a sample ({found.kind}); the entropy rate is {sounds.ENTROPY:.3f}")

# %% Draws, a window after the other.
waveform, rate = heard(fit, num_windows=125)
assert abs(waveform.std() / sounds.resonance().std() - 1) < 0.1
sounds.write(folder / "drawn.wav", waveform, rate)
fit.plot().savefig(folder / "sound.png")
print(f"{len(waveform) / rate:.0f} s of sound and its spectrum in {folder}")
