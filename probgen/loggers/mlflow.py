"""MLflow: a run of its own for each fit, at the user's tracking address."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module, util
from pathlib import Path
from typing import Any

from probgen.loggers.logger import About, Ending, Logger

NAME = "mlflow.json"  # in the run's directory: which run of MLflow it is, and where
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MOST = 1000  # numbers at once
PARAMETERS = 100  # at once
LONGEST = 5000  # characters of a value


@dataclass(kw_only=True)
class MLflow(Logger):
    """Loss, held-out loss, seconds a step as metrics, settings as parameters, the verdict as tags: `mlflow ui`.

    tracking_uri: by default MLflow's own: what MLFLOW_TRACKING_URI or `mlflow.set_tracking_uri` says, else a file, ./mlflow.db.
    experiment: is made where it is not there. run_name: by default the model and the algorithm.
    Raises ImportError without the package.
    """

    tracking_uri: str | None = None
    experiment: str = "probgen"
    run_name: str | None = None
    _client: Any = field(default=None, init=False, repr=False, compare=False)
    _id: str = field(default="", init=False, repr=False, compare=False)
    _last: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _waiting: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def check(self, out: Path | None, new: bool) -> None:
        if util.find_spec("mlflow") is None:
            raise ImportError(
                "loggers='mlflow' needs the package mlflow, or mlflow-skinny, which is not here.\n"
                "pip install 'probgen[mlflow]', or pass loggers='none'."
            )

    def begin(self, about: About) -> int:
        mlflow = import_module("mlflow")
        kept = _kept(about.folder)
        address = kept.get("tracking_uri") or self.tracking_uri or mlflow.get_tracking_uri()
        self._client, self._waiting, self._last = mlflow.MlflowClient(tracking_uri=address), [], {}
        if kept:
            self._id = kept["run_id"]
            self._client.update_run(self._id, "RUNNING")
            names = self._client.get_run(self._id).data.metrics
            self._last = {k: max(m.step for m in self._client.get_metric_history(self._id, k)) for k in names}
            return min(self._last.values(), default=0)
        name = self.run_name or f"{about.facts['model']} {about.facts['algorithm']}"
        self._id = self._client.create_run(self._experiment(), run_name=name).info.run_id
        if about.folder is not None:
            (about.folder / NAME).write_text(json.dumps({"run_id": self._id, "tracking_uri": address}))
        entities = import_module("mlflow.entities")
        said = [entities.Param(k, str(v)[:LONGEST]) for k, v in {**about.facts, **about.settings}.items()]
        for i in range(0, len(said), PARAMETERS):
            self._client.log_batch(self._id, params=said[i : i + PARAMETERS])
        return 0

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return found.experiment_id if found else self._client.create_experiment(self.experiment)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        metric, now = import_module("mlflow.entities").Metric, int(time.time() * 1000)
        new = {_named(k): v for k, v in values.items() if step > self._last.get(_named(k), 0)}
        self._waiting += [metric(k, v, now, step) for k, v in new.items()]
        self._last |= dict.fromkeys(new, step)

    def flush(self) -> None:
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:MOST])
            del self._waiting[:MOST]

    def end(self, ending: Ending) -> None:
        if self._client is None:
            return
        self.flush()
        tag = import_module("mlflow.entities").RunTag
        tags = {"probgen.verdict": ending.status or "not judged", "probgen.state": ending.state}
        tags |= {f"probgen.check.{_named(k)}": v for k, v in (ending.findings or {}).items()}
        tags |= {"mlflow.note.content": f"```\n{ending.text[:LONGEST]}\n```"} if ending.text else {}
        self._client.log_batch(self._id, tags=[tag(k, v) for k, v in tags.items()])
        self._client.set_terminated(self._id, STATUS[ending.state])
        self._client = None


def _kept(folder: Path | None) -> dict[str, str]:
    """What a session before this one wrote down; nothing where there was none, or it came to no end."""
    try:
        found = json.loads((folder / NAME).read_text()) if folder is not None else {}
        return found if isinstance(found, dict) and isinstance(found.get("run_id"), str) else {}
    except (OSError, ValueError):
        return {}


def _named(word: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", word, flags=re.ASCII)
