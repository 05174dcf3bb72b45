"""How many of the libraries' own example models run here as they are? Examples and notebooks of both, by kind of failure.

    python benchmarks/library_models.py --numpyro ~/numpyro --pyro ~/pyro      # checkouts of the two libraries
    python benchmarks/library_models.py --numpyro ~/numpyro --files gmm baseball

Each file is executed in a process of its own, its own inference cut down to a few steps. What it hands to the library's MCMC or
SVI (program, guide, arguments) is handed to `pg.fit` as well. Of continuous posteriors the log density is compared with the
library's own at a point. Data sets that a file would download are replaced by made ones of the same form.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import harness
import pyro_hook
import pyro_stand_ins
import stand_ins
from harness import say

STEPS = 4  # of the library's own runs
FEW = {"num_steps": 10, "num_draws": 10, "num_particles": 2}
SHORT = {"num_warmup": 4, "num_samples": 4, "num_chains": 1}
# Code that LLVM leaves as it is compiles in a third of the time.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
LIMIT = 240  # seconds for a file
IDLE = 45  # seconds without a model, after which a cell or a file of Pyro's is left
FOLDERS = {"numpyro": ("examples", "notebooks/source"), "pyro": ("examples", "tutorial/source")}
BARS = {"numpyro": 0.95, "pyro": 0.85}
VARIANTS = {  # of files that choose between models: what is said to each of them on the command line
    "annotation.py": [["--model", m] for m in ("mn", "ds", "mace", "hds", "id", "lre")],
    "capture_recapture.py": [*(["--model", m] for m in "12345"), ["--model", "1", "--dataset", "vole"]],
    "gaussian_shells.py": [[], ["--enum"]],
    "gp.py": [[], ["--no-cholesky"]],
    "hmm_enum.py": [["--model", m, "--num-sequences", "2", "--truncate", "8", "--hidden-dim", "4"] for m in "12346"],
}
CLOSE = 1e-5  # of log densities, relative; constants of single precision round to 1e-7
NOT_MODELS = (
    "conf.py",
    "cleannb.py",
    "search_inference.py",
    "__init__.py",
    "minipyro.py",
    "svi_horovod.py",
    "svi_lightning.py",
    # parts of cvae-flax/main.py, and a page about it
    "cvae.py",
    "data.py",
    "models.py",
    "train_baseline.py",
    "train_cvae.py",
)


def files(library: str, root: Path, words: list[str] | None) -> list[Path]:
    found = [
        f for folder in FOLDERS[library] for f in sorted((root / folder).rglob("*")) if f.suffix in (".py", ".ipynb")
    ]
    found = [f for f in found if f.name not in NOT_MODELS and "utils" not in f.parts]
    return [f for f in found if not words or any(w in f.stem for w in words)]


def typed(library: str, file: Path) -> list[list[str]]:
    """What is typed behind a file's name, one list a run."""
    return pyro_stand_ins.variants(file) if library == "pyro" else VARIANTS.get(file.name, [[]])


# ---- in a process of one file ------------------------------------------------------------------------------------------


class Seen:
    """What was handed to the library so far; each program once for each form of its arguments."""

    def __init__(self) -> None:
        self.done: set[Any] = set()
        self.busy = False  # with a fit of ours, which calls the library too
        self.idle = 0  # seconds that a file may take to the next model; 0: any number

    def take(self, kind: str, program: Any, guide: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        import probgen as pg

        own, kwargs = inner(program), named(program, kwargs)
        name = getattr(own, "__name__", type(own).__name__)
        code = getattr(own, "__code__", type(own))  # a name is used again in notebooks
        drawn_by = getattr(guide, "__name__", type(guide).__name__)
        key = (kind, name, code, drawn_by, str([type(a) for a in args]), str(sorted(kwargs)))
        if self.busy or key in self.done:
            return
        self.done.add(key)
        self.busy = True
        signal.alarm(0)
        record = {"model": name, "kind": kind, "seconds": time.perf_counter(), "difference": None}
        print("\nBEGIN " + json.dumps({"model": name, "kind": kind}), flush=True)
        inference, settings = ("nuts", SHORT) if kind == "mcmc" else ("svi", {**FEW, "guide": guide})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = fitted(pg.fit, program, inference, settings, args=args, kwargs=kwargs, progress=False)
                record["difference"] = difference(fit, program, args, kwargs) if kind == "mcmc" else None
            record["outcome"] = "runs"
            if record["difference"] is not None and not record["difference"] < CLOSE:
                record["outcome"] = "another density"
        except Exception as error:
            record |= {"outcome": type(error).__name__, "why": str(error)[:600]}
            if os.environ.get("TRACE"):
                traceback.print_exc()
        finally:
            self.busy = False
            signal.alarm(self.idle)
        record["seconds"] = round(time.perf_counter() - record["seconds"], 1)
        print("\nRECORD " + json.dumps(record), flush=True)


def inner(program: Any) -> Any:
    """The function inside of handlers and partials."""
    while (held := getattr(program, "fn", None) or getattr(program, "func", None)) is not None:
        program = held
    return getattr(program, "__func__", program)


def named(program: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keywords that a program takes: a loss of the example's own may be given more."""
    try:
        known = inspect.signature(program).parameters.values()
    except (TypeError, ValueError):
        return kwargs
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return kwargs
    return {k: v for k, v in kwargs.items() if k in {p.name for p in known}}


def fitted(fit: Any, program: Any, inference: str, settings: dict[str, Any], **given: Any) -> Any:
    """The fit; without what only learners on the whole data have, where this is none."""
    try:
        return fit(program, None, inference, **given, **settings)
    except TypeError as error:
        if "Unknown setting 'num_" not in str(error):
            raise
    return fit(program, None, inference, **given, **{k: v for k, v in settings.items() if k in ("num_steps", "guide")})


def difference(fit: Any, program: Any, args: tuple, kwargs: dict[str, Any]) -> float | None:
    """Relative difference of our log density at the last draw from the library's; None where it cannot be compared."""
    from probgen import runtime
    from probgen.target import Continuous

    target = fit.target
    if not isinstance(target, Continuous) or target.points or (target.engine == "numpyro" and target.summed):
        return None
    z = fit.z[0, -1]
    with contextlib.suppress(Exception):
        if target.engine == "pyro":
            return pyro_hook.difference(target, z, program, args, kwargs)
        from numpyro.infer.util import potential_energy

        with runtime.jax_scope(fit.precision):
            ours = float(target.log_density(z))
            theirs = -float(potential_energy(program, args, kwargs, target.structure.unravel(z)))
        return abs(ours - theirs) / max(1.0, abs(theirs))
    return None


def hook(library: str, seen: Seen) -> None:
    """MCMC and SVI of a library show what they are given, and run a few steps only."""
    if library == "numpyro":
        import jax
        from numpyro.infer import MCMC, SVI

        run, init, update = MCMC.run, SVI.init, SVI.run

        def mcmc(
            self: Any, rng_key: Any, *args: Any, extra_fields: Any = (), init_params: Any = None, **kwargs: Any
        ) -> Any:
            model = getattr(self.sampler, "model", None) or getattr(
                getattr(self.sampler, "inner_kernel", None), "model", None
            )
            self.num_warmup, self.num_samples, self.progress_bar = STEPS, STEPS, False
            result = run(self, rng_key, *args, extra_fields=extra_fields, init_params=init_params, **kwargs)
            jax.block_until_ready(self._last_state)  # its chains would run on beside ours
            if model is not None:  # what the library itself does not run is no model of ours to run
                seen.take("mcmc", model, None, args, kwargs)
            return result

        def svi_init(self: Any, rng_key: Any, *args: Any, **kwargs: Any) -> Any:
            given = {**self.static_kwargs, **{k: v for k, v in kwargs.items() if k != "init_params"}}
            state = init(self, rng_key, *args, **kwargs)
            seen.take("svi", self.model, self.guide, args, given)
            return state

        def svi_run(self: Any, rng_key: Any, num_steps: int, *args: Any, **kwargs: Any) -> Any:
            return update(self, rng_key, STEPS, *args, **{**kwargs, "progress_bar": False})

        MCMC.run, SVI.init, SVI.run = mcmc, svi_init, svi_run
        stein(seen)
        potential(seen)
    else:
        from probgen.engine.pyro import graph

        graph._LARGEST = 0  # graphs are captured, compared and run as they are: compiling takes longer than a few steps
        pyro_stand_ins.put()
        pyro_hook.hook(seen, STEPS)
        seen.idle = IDLE


def stein(seen: Seen) -> None:
    """Stein variational inference is not ours: `svi` takes its program and guide."""
    from numpyro.contrib.einstein import SteinVI

    run = SteinVI.run

    def stein_run(self: Any, rng_key: Any, num_steps: int, *args: Any, **kwargs: Any) -> Any:
        given = {k: v for k, v in kwargs.items() if k not in ("progress_bar", "init_state")}
        result = run(self, rng_key, STEPS, *args, **{**kwargs, "progress_bar": False})
        seen.take("svi", self.model, self.guide, args, {**self.static_kwargs, **given})
        return result

    SteinVI.run = stein_run


def potential(seen: Seen) -> None:
    """Programs whose potential alone an example asks for, to drive a kernel by itself."""
    from numpyro.infer import util

    begin = util.initialize_model

    def initialize_model(rng_key: Any, model: Any, **given: Any) -> Any:
        found = begin(rng_key, model, **given)
        seen.take("mcmc", model, None, given.get("model_args", ()), given.get("model_kwargs") or {})
        return found

    util.initialize_model = initialize_model


def runnable(code: str, notebook: bool = False) -> str:
    """Code without the check of the library's version, and without a notebook's commands."""
    left_out = ("assert numpyro.__version__", "assert pyro.__version__", *(("%", "!") if notebook else ()))
    return "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(left_out))


def _left(*_: Any) -> None:
    raise SystemExit(f"no model in {IDLE} s")


def child(library: str, file: Path, said: list[str]) -> None:
    """One file, to its end or its first error."""
    os.environ["CI"] = "1"  # notebooks take fewer steps
    os.environ.setdefault("MPLBACKEND", "agg")
    sys.path.insert(0, str(file.parent))
    if library == "numpyro":
        sys.path.insert(0, str(file.parents[2]))
    sys.argv = [str(file), *said]
    import probgen  # noqa: F401  # before anything starts JAX

    stand_ins.install(library)
    signal.signal(signal.SIGALRM, _left)
    seen = Seen()
    hook(library, seen)
    signal.alarm(seen.idle)
    module = types.ModuleType("__main__")
    module.__file__ = str(file)
    sys.modules["__main__"] = module
    if file.suffix == ".ipynb":
        library_cells(file, vars(module), seen.idle)
    else:
        try:
            exec(compile(runnable(file.read_text()), str(file), "exec"), vars(module))
        except (Exception, SystemExit) as error:
            print("\nENDS " + json.dumps(f"{type(error).__name__}: {str(error)[:200]}"), flush=True)


def library_cells(file: Path, space: dict[str, Any], idle: int) -> None:
    """A notebook cell by cell: one that fails for want of data or a package leaves the others. Loops of many steps take few."""
    space["range"] = lambda *ends: range(*ends) if len(ends) > 1 or ends[0] < 5000 else range(STEPS)
    for cell in json.loads(file.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        signal.alarm(idle)
        try:
            exec(compile(runnable("".join(cell["source"]), True), str(file), "exec"), space)
        except (Exception, SystemExit) as error:
            print("\nENDS " + json.dumps(f"{type(error).__name__}: {str(error)[:200]}"), flush=True)


# ---- all files -----------------------------------------------------------------------------------------------------------


def measured(library: str, root: Path, file: Path, said: list[str], limit: int) -> list[dict[str, Any]]:
    """The records of one file; one without models says why. said: its command line; limit: seconds."""
    words = [sys.executable, str(Path(__file__).resolve()), "--child", library, str(file), *said]
    try:
        quick = os.environ | {"XLA_FLAGS": f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()}
        with tempfile.TemporaryDirectory() as folder:  # what a file writes: pictures, parameters
            done = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=quick, cwd=folder)
        out, end = done.stdout, "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-300:]}"
    except subprocess.TimeoutExpired as late:
        out, end = (late.stdout or b"").decode(), f"longer than {limit} s"
    lines = out.splitlines()
    found = [json.loads(line[7:]) for line in lines if line.startswith("RECORD ")]
    ends = [json.loads(line[5:]) for line in lines if line.startswith("ENDS ")]
    begun = [json.loads(line[6:]) for line in lines if line.startswith("BEGIN ")]
    base = {"library": library, "file": " ".join([str(file.relative_to(root)), *said])}
    if end and len(begun) > len(found):  # ended while it was ours to run
        found.append(begun[-1] | {"outcome": "no end" if end.startswith("longer") else "crash", "why": end})
    return [base | r for r in found] or [
        base | {"model": "-", "outcome": "no model", "why": (ends or [end or "none is run"])[0]}
    ]


def report(records: list[dict[str, Any]]) -> str:
    lines = []
    for library, bar in BARS.items():
        own = [r for r in records if r["library"] == library and r["outcome"] != "no model"]
        if own:
            kinds = Counter(r["outcome"] for r in own)
            share = kinds["runs"] / len(own)
            lines.append(
                f"{library}: {kinds['runs']} of {len(own)} models run ({share:.0%}; the bar {bar:.0%}); {dict(kinds)}"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numpyro", type=Path, help="a checkout of NumPyro")
    parser.add_argument("--pyro", type=Path, help="a checkout of Pyro")
    parser.add_argument(
        "--files", nargs="+", metavar="WORD", help="files with any of these words in their names (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, default=harness.HERE / "library_models.jsonl", help="results (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds for a file (default: %(default)s)")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]).resolve(), given.child[2:])
        return 0
    roots = {k: v.resolve() for k, v in (("numpyro", given.numpyro), ("pyro", given.pyro)) if v}
    if not roots:
        parser.error("say where a checkout is: --numpyro PATH or --pyro PATH")
    records: list[dict[str, Any]] = []
    chosen = [(library, root, f) for library, root in roots.items() for f in files(library, root, given.files)]
    todo = [(*one, said) for one in chosen for said in typed(one[0], one[-1])]
    for i, (library, root, file, said) in enumerate(todo):
        for record in measured(library, root, file, said, given.limit):
            records.append(record)
            with given.out.open("a") as out:
                out.write(json.dumps(record) + "\n")
            why = record.get("why", "").replace("\n", " ")[:110]
            say(
                f"[{i + 1}/{len(todo)}] {record['file']}  {record['model']} {record.get('kind', '')}: {record['outcome']} {why}"
            )
    print(report(records))
    shares = {
        k: [r["outcome"] == "runs" for r in records if r["library"] == k and r["outcome"] != "no model"] for k in roots
    }
    return int(any(sum(v) < BARS[k] * len(v) for k, v in shares.items()))


if __name__ == "__main__":
    sys.exit(main())
