"""In a real Jupyter kernel: the bar, Ctrl-C, going on with a program typed in a cell, rich display, the examples as notebooks."""

import importlib.util
import os
import time
from pathlib import Path

import pytest

NEEDED = ("jupyter_client", "ipykernel", "nbclient", "jupytext")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)}: notebooks are not tried; pip install 'probgen[docs]'"
    ),
    pytest.mark.filterwarnings("default"),  # of Jupyter itself
]
ROOT = Path(__file__).parent.parent
EXAMPLES = ("swap_algorithms", "hopfield_recall", "bring_your_numpyro_program", "ising_denoising")
PROGRAM = """
import numpy as np, numpyro, numpyro.distributions as dist, probgen as pg
def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)
data = {"x": np.arange(3.0), "y": 2 * np.arange(3.0)}
settings = {"num_samples": 60_000, "num_warmup": 100, "num_chains": 2, "seed": 3}
"""


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Run a cell, interrupted once a file is there or after so many seconds: what it printed, what it showed, its error."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("notebook")), env={**os.environ, "PYTHONPATH": str(ROOT)})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def run(code, until=None):
        asked, begun, stopped = client.execute(code), time.monotonic(), until is None
        printed, shown, error = "", {}, ""
        while time.monotonic() - begun < 240:
            if not stopped and (until.exists() if isinstance(until, Path) else time.monotonic() - begun > until):
                time.sleep(0.3)
                manager.interrupt_kernel()
                stopped = True
            try:
                message = client.get_iopub_msg(timeout=0.1)
            except Exception:  # nothing was said
                continue
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            printed += content["text"] if kind == "stream" else ""
            shown |= content["data"] if kind in ("execute_result", "display_data") else {}
            error = f"{content['ename']}: {content['evalue']}" if kind == "error" else error
            if kind == "status" and content["execution_state"] == "idle":
                return printed, shown, error
        raise TimeoutError(code)

    run.folder = Path(run("import os; print(os.getcwd())")[0].strip())
    assert run(PROGRAM)[2] == ""
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_bar_is_seen_without_asking(cell):
    printed, _, error = cell("fit = pg.fit(line, data, num_samples=300, num_warmup=100, num_chains=2)")
    assert error == ""
    assert "nuts" in printed
    assert "400/400" in printed
    assert cell("fit = pg.fit(line, data, num_samples=300, num_warmup=100, num_chains=2, progress=False)")[0] == ""


def test_fits_verdicts_and_trees_are_shown(cell):
    _, shown, error = cell("fit")
    assert error == ""
    assert "not judged yet" in shown["text/html"]
    assert "data:image/png;base64," in shown["text/html"]
    assert shown["text/plain"].startswith("Fit(line")
    verdict = cell("fit.diagnose()")[1]["text/html"]
    assert "finite" in verdict
    assert verdict in cell("fit")[1]["text/html"]
    assert "slope" in cell("fit.tree")[1]["text/html"]
    assert "slope" in cell("fit.summary()")[1]["text/html"]
    assert cell("fit.plot()")[1]["image/png"]


def test_an_interrupted_run_of_a_typed_program_goes_on_bit_for_bit(cell):
    state = cell.folder / "run" / "state.safetensors"
    printed, _, error = cell(
        "cut = pg.fit(line, data, out='run', **settings)\nprint(cut.complete, cut.num_steps)", until=state
    )
    assert error == ""
    assert "False" in printed, "it was done before the interrupt came"
    assert "the run was stopped" in cell("cut")[1]["text/html"]
    error = cell("pg.load('run')")[2]
    assert "typed into a notebook" in error
    assert "Pass it" in error
    code = "whole = pg.fit(line, data, progress=False, **settings)\nresumed = pg.resume('run', line)\n"
    printed, _, error = cell(f"{code}print(resumed.complete, np.array_equal(resumed.z, whole.z))")
    assert error == ""
    assert "True True" in printed


def test_an_interrupt_before_there_are_draws_leaves_the_kernel_alive(cell):
    slow = PROGRAM.replace("slope * x", "sum((slope * x) ** k for k in range(60))").replace("line", "long")
    _, _, error = cell(f"{slow}\nlost = pg.fit(long, data, **settings)", until=0.5)
    assert error.startswith("KeyboardInterrupt")
    assert cell("1 + 1")[1]["text/plain"] == "2"
    printed, _, error = cell("print(pg.fit(line, data, num_samples=50, num_chains=1, progress=False).complete)")
    assert (printed.strip(), error) == ("True", "")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_notebooks(name, tmp_path, monkeypatch):
    import jupytext
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = jupytext.read(ROOT / "examples" / f"{name}.py")
    NotebookClient(book, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for part in book.cells for output in part.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert outputs
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert bool(drawn) == ("subplots" in (ROOT / "examples" / f"{name}.py").read_text())
