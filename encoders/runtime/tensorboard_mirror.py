"""TensorBoard as a mirror of the record: event files in `run_dir/tensorboard`, for `tensorboard --logdir runs`. Nothing leaves the machine.

The files are written with the package tensorboard alone. torch's SummaryWriter would put the host into the name of the file, and start a
thread for each run. A resumed run writes a file of its own that begins with a mark of its first step: TensorBoard then drops what earlier
files have from there on.
"""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from encoders.runtime.redact import redact_private
from encoders.runtime.tracker import AlertLevel, GuardedTracker, Outcome, Picture, TrackedRun, load_picture

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

FOLDER = "tensorboard"
FILE_VERSION = "brain.Event:2"  # first entry of every event file
SUBJECT = "run"  # texts are called run/<what>


class RecordFile(Protocol):
    """An open event file."""

    def write(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class TensorboardMirror(GuardedTracker):
    """The event file of one session of a run."""

    label, file_label = "TensorBoard", "tensorboard"

    def __init__(self, run_dir: Path, described: TrackedRun, step: int | None = None):
        """step: the one that the run continues from; None or 0 for a new run."""
        super().__init__(run_dir)
        self.step = step or 0
        self.records: RecordFile | None = None
        with self.record_failure("start"):
            self.records = self._open(described)
            self._text("settings", _to_markdown({"name": described.name, "tags": described.tags, **described.config}))

    def _open(self, described: TrackedRun) -> RecordFile:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = self.run_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / _next_file_name(folder, described.id), "wb")  # noqa: SIM115 (as long as the run)
        records: RecordFile = RecordWriter(file)
        records.write(Event(wall_time=time.time(), file_version=FILE_VERSION).SerializeToString())
        if self.step:
            mark = SessionLog(status=SessionLog.START)
            records.write(Event(wall_time=time.time(), step=self.step + 1, session_log=mark).SerializeToString())
        return records

    def _write(self, step: int, *values: "Summary.Value") -> None:
        """Adds an event and flushes it."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self.records is not None and not self.given_up:
            self.step = max(step, self.step)
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
            self.records.write(event.SerializeToString())
            self.records.flush()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        with self.record_failure("log"):
            from tensorboard.compat.proto.summary_pb2 import Summary

            self._write(step, *(Summary.Value(tag=name, simple_value=value) for name, value in values.items()))

    def image(self, step: int, name: str, picture: Picture) -> None:
        with self.record_failure("image"):
            from PIL import Image
            from tensorboard.compat.proto.summary_pb2 import Summary

            pixels, encoded = load_picture(picture), io.BytesIO()
            Image.fromarray(pixels).save(encoded, format="PNG")
            channels = 1 if pixels.ndim == 2 else pixels.shape[2]
            shown = Summary.Image(
                height=pixels.shape[0], width=pixels.shape[1], colorspace=channels, encoded_image_string=encoded.getvalue()
            )
            self._write(step, Summary.Value(tag=name, image=shown))

    def html(self, name: str, text: str) -> None:
        """Not shown: TensorBoard removes markup from texts. The page's numbers are in the tables."""

    def alert(self, step: int, title: str, text: str, level: AlertLevel) -> None:
        with self.record_failure("alert"):
            self._text(f"alert/{title}", f"**{level}** at step {step}: {redact_private(text)}", step)

    def summary(self, values: Mapping[str, object]) -> None:
        with self.record_failure("summary"):
            from tensorboard.compat.proto.summary_pb2 import Summary

            clean = redact_private(values)
            numbers = {name: value for name, value in clean.items() if isinstance(value, int | float)}
            self._write(self.step, *(Summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()))
            if texts := {name: value for name, value in clean.items() if name not in numbers}:
                self._text("summary", _to_markdown(texts))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        with self.record_failure("table"):
            lines: list[list[object]] = [list(columns), ["---"] * len(columns)]
            lines += [[redact_private(value) for value in row] for row in rows]
            self._text(name, "\n".join("| " + " | ".join("" if v is None else str(v) for v in line) + " |" for line in lines))

    def close(self, outcome: Outcome) -> None:
        with self.record_failure("finish"):
            if self.records is not None:
                self._text("outcome", outcome)
                self.records.close()
        self.records = None

    def _text(self, name: str, text: str, step: int | None = None) -> None:
        """Adds Markdown, which TensorBoard's page of texts shows."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        shown = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        self._write(self.step if step is None else step, Summary.Value(tag=f"{SUBJECT}/{name}", metadata=shown, tensor=tensor))


def _to_markdown(settings: Mapping[str, object]) -> str:
    """The settings without paths, host, user and patients, as a block of code."""
    return "```\n" + json.dumps(redact_private(settings), indent=1, default=str) + "\n```"


def _next_file_name(folder: Path, run_id: str) -> str:
    """The name of the next file of events. TensorBoard reads them in the order of their names, also if the clock was set back."""
    names = [path.name.split(".") for path in folder.glob("events.out.tfevents.*")]
    stamps = [int(words[3]) for words in names if len(words) > 3 and words[3].isdecimal()]
    return f"events.out.tfevents.{max([int(time.time()), *(stamp + 1 for stamp in stamps)])}.{run_id}.{len(names)}"
