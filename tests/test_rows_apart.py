"""Rows of a NumPyro learner's batches over processes: the parameters of one, work that is really shared, a kill."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from test_peers import free_port, kill_one, started

import probgen as pg
from probgen import engine, runtime
from probgen.engine.numpyro.running import together
from probgen.inference.denoising.flow_matching import FlowMatching
from probgen.inference.likelihood.mle import MLE


def curve(x, y=None):
    a: Any = numpyro.param("a", 0.3 * jnp.ones(2))
    b: Any = numpyro.param("b", jnp.array(0.5))
    numpyro.sample("y", dist.Normal(b * jnp.tanh(x @ a), 0.5), obs=y)


X = np.random.default_rng(0).normal(size=(101, 2))
DATA = {"x": X, "y": np.sin(X[:, 0])}
SETTINGS = {"num_steps": 3000, "batch_size": 25, "validation": 0.2, "patience": 100}
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_rows_apart import DATA, SETTINGS, curve
import probgen as pg
from probgen.engine.numpyro.running import compiling

made, sums = compiling.Code.__init__, []


def counted(code, executable, *rest):
    made(code, executable, *rest)
    sums.append(0 if executable is None else executable.as_text().count("all-reduce("))


compiling.Code.__init__ = counted
words = json.loads(sys.argv[2])
out = words.pop("out")
pg.fit(curve, DATA, "mle", progress=False, out=out + "/short", **{**SETTINGS, "num_steps": 60}, **words)
with open(f"{out}/sums-{words['process_id']}", "w") as file:
    file.write(str(max(sums)))
pg.fit(curve, DATA, "mle", progress=False, out=out + "/long", **SETTINGS, **words)
"""


def test_a_step_marks_its_batch_where_it_is_cut_and_nowhere_else():
    target = engine.load("numpyro").prepare(curve, DATA, "float32", True)
    learner = MLE(batch_size=25)
    with runtime.tracing("float32"):
        key = jax.random.key(0)
        state = jax.eval_shape(lambda: learner.init(key, target))
        marks = []
        for asked in (True, False):
            with together.cutting(asked):
                text = jax.jit(lambda key, state: learner.step(key, state, target)).lower(key, state).as_text()
            marks.append([line for line in text.splitlines() if "sharding" in line.lower() and '"row"' in line])
    assert len(marks[0]) >= 2  # of x and of y
    assert not marks[1]


def test_what_pairs_a_whole_batch_is_not_shared():
    told = FlowMatching(coupling="optimal_transport").unshared(None)
    assert "coupling pairs a whole batch" in told
    assert not FlowMatching().unshared(None)


def test_two_processes_learn_what_one_does_and_a_kill_loses_nothing(tmp_path):
    """A short run to its end; then one that a kill ends, which one process goes on with."""
    both = started(free_port(), child=CHILD, out=str(tmp_path))
    kill_one(both, tmp_path / "long")
    assert [int((tmp_path / f"sums-{i}").read_text()) > 0 for i in range(2)] == [True, True], "nothing was shared"
    assert 0 < pg.load(tmp_path / "long", curve).num_steps < SETTINGS["num_steps"]
    fits = (
        (
            pg.load(tmp_path / "short", curve),
            pg.fit(curve, DATA, "mle", progress=False, **{**SETTINGS, "num_steps": 60}),
        ),
        (pg.resume(tmp_path / "long", curve, progress=False), pg.fit(curve, DATA, "mle", progress=False, **SETTINGS)),
    )
    for there, here in fits:
        assert there.complete
        np.testing.assert_allclose(there.records["loss"], here.records["loss"], rtol=1e-4)
        for name, value in here.answer.items():
            np.testing.assert_allclose(there.answer[name], value, rtol=1e-4)
