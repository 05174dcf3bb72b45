"""TensorBoard: event files beside the run, by the writer of the `tensorboard` package itself.

All numbers of a step are one event, which is in the file whole or not at all: what a run that was killed has logged is read off
its files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module, util
from pathlib import Path
from typing import Any

from probgen.loggers.logger import About, Ending, Logger

FILES = "events.out.tfevents.*"


@dataclass(kw_only=True)
class TensorBoard(Logger):
    """Loss, held-out loss, seconds a step, settings and verdict as TensorBoard shows them: `tensorboard --logdir runs`.

    folder: of the event files; by default `tensorboard` in the run's directory.
    Raises ImportError without the package, ValueError where neither it nor the run has a folder, FileExistsError for a folder that
    holds the events of another run.
    """

    folder: str | Path | None = None
    _writer: Any = field(default=None, init=False, repr=False, compare=False)

    def check(self, out: Path | None, new: bool) -> None:
        if util.find_spec("tensorboard") is None:
            raise ImportError(
                "loggers='tensorboard' needs the package tensorboard, which is not here.\n"
                "pip install 'probgen[tensorboard]', or pass loggers='none'."
            )
        if self.folder is None and out is None:
            raise ValueError(
                "loggers='tensorboard' writes into the run's directory, and this run has none.\n"
                "Pass out='runs/first', or pg.loggers.TensorBoard(folder='tb/first')."
            )
        if self.folder is None:
            return
        self.folder = Path(self.folder).absolute()
        if new and any(self.folder.glob(FILES)):
            raise FileExistsError(
                f"{self.folder} holds the events of a run already; choose another folder for this one."
            )

    def begin(self, about: About) -> int:
        folder = Path(self.folder) if self.folder is not None else Path(str(about.folder)) / "tensorboard"
        events = list(_events(folder))
        self._writer = import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter(str(folder))
        if not any(_holds(event, "settings") for event in events):
            self._tell(0, _text("settings", _table({**about.facts, **about.settings})))
            self.flush()
        return max((event.step for event in events if _holds(event, "seconds_per_step", "loss", "draws")), default=0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        self._tell(step, *(summary.Value(tag=k, simple_value=v) for k, v in values.items()))

    def flush(self) -> None:
        self._writer.flush()

    def end(self, ending: Ending) -> None:
        if self._writer is None:
            return
        head = f"**{ending.status or 'not judged'}**; the run {ending.state} at step {ending.step}"
        self._tell(ending.step, _text("verdict", f"{head}\n\n```\n{ending.text}\n```" if ending.text else head))
        self._writer.close()
        self._writer = None

    def _tell(self, step: int, *values: Any) -> None:
        summary = import_module("tensorboard.compat.proto.summary_pb2").Summary(value=values)
        event = import_module("tensorboard.compat.proto.event_pb2").Event
        self._writer.add_event(event(wall_time=time.time(), step=step, summary=summary))


def _events(folder: Path) -> Iterator[Any]:
    """What event files hold; a last event that is not whole is none."""
    loader = import_module("tensorboard.backend.event_processing.event_file_loader").EventFileLoader
    for file in sorted(folder.glob(FILES)):
        yield from loader(str(file)).Load()


def _holds(event: Any, *tags: str) -> bool:
    return any(value.tag in tags for value in event.summary.value)


def _text(tag: str, text: str) -> Any:
    """A text, in Markdown, as TensorBoard's page of texts reads it."""
    import numpy as np

    tensor = import_module("tensorboard.util.tensor_util").make_tensor_proto(np.array([text], dtype=object))
    metadata = import_module("tensorboard.plugins.text.metadata").create_summary_metadata(tag, "")
    value = import_module("tensorboard.compat.proto.summary_pb2").Summary.Value
    return value(tag=tag, metadata=metadata, tensor=tensor)


def _table(settings: Mapping[str, Any]) -> str:
    rows = (f"| {k} | {str(v).replace('|', chr(92) + '|')} |" for k, v in settings.items())
    return "\n".join(["| setting | value |", "|---|---|", *rows])
