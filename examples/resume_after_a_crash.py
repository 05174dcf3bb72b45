# %% [markdown]
# # Resume after a crash
# With `out=` a run appends its draws and then writes its state, atomically, chunk by chunk. `kill -9` at any moment
# loses at most a chunk's time: what `pg.resume` gives is bit for bit the result of a run that nobody killed.

# %%
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist

import probgen as pg

SETTINGS = {"num_warmup": 200, "num_samples": 4000, "num_chains": 2, "seed": 7}
x = np.random.default_rng(0).normal(size=(1000, 5))
data = {"x": x, "y": (x.sum(1) > 0).astype(float)}


def logistic(x, y=None):
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


# %% A child process fits; as soon as some draws are on disk, it is killed without warning.
if __name__ == "__main__" and "child" in sys.argv:
    pg.fit(logistic, data, out=sys.argv[-1], **SETTINGS)
elif __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        child = subprocess.Popen([sys.executable, __file__, "child", str(run)])
        while not (run / "state.safetensors").exists() and child.poll() is None:
            time.sleep(0.01)
        child.kill()
        child.wait()
        print("killed; on disk:", sorted(path.name for path in (run / "draws").iterdir()))

        # %% Resumed here, in another process, and compared with an uninterrupted run.
        resumed = pg.resume(run)
        whole = pg.fit(logistic, data, **SETTINGS)
        print("bit for bit the same:", np.array_equal(resumed.z, whole.z))
        assert np.array_equal(resumed.z, whole.z)
        print(resumed.diagnose().headline)
