"""MLflow as a mirror of the record: its tracking server if MLFLOW_TRACKING_URI names one, else the folder `mlruns` of the working folder.

The client of the service is used, not MLflow's fluent interface, which would add user, host, program and git commit to every run.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.paths import home_dir
from encoders.runtime.redact import redact_private
from encoders.runtime.tracker import (
    OUTCOME_EXIT_STATUS,
    AlertLevel,
    GuardedTracker,
    Outcome,
    Picture,
    TrackedRun,
    flatten_settings,
    load_picture,
)

if TYPE_CHECKING:
    from mlflow.tracking.client import MlflowClient

ID_FILE = "mlflow.id"
LONGEST_PARAMETER = 6000  # characters, of MLflow
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000  # in one request, of MLflow
STATUS_OF: dict[Outcome, str] = {"finished": "FINISHED", "preempted": "SCHEDULED", "cancelled": "KILLED"}  # all others: FAILED
# Nothing is sent to MLflow's makers, and a server that does not answer is given up after seconds. MLFLOW_ALLOW_FILE_STORE: from 3.7 on
# MLflow refuses a folder otherwise. What the user set wins.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}


class MlflowMirror(GuardedTracker):
    """One MLflow run, continued when the run is resumed. Its id is in `run_dir/mlflow.id`."""

    label, file_label = "MLflow", "mlflow"
    client: "MlflowClient | None"

    def __init__(self, run_dir: Path, described: TrackedRun):
        super().__init__(run_dir)
        self.client, self.id = None, ""
        with self.record_failure("start"):
            for name, value in ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking.client import MlflowClient

            client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or (home_dir().absolute() / "mlruns").as_uri())
            self.id = self._find_or_create(client, described)
            self.client = client

    def _find_or_create(self, client: "MlflowClient", described: TrackedRun) -> str:
        id_file = self.run_dir / ID_FILE
        if id_file.is_file():
            earlier = id_file.read_text().strip()
            client.update_run(earlier, status="RUNNING")
            client.set_tag(earlier, "outcome", "running")
            return earlier
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or described.project
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        facts = {"group": described.group, "job_type": described.job_type, "isograft_id": described.id, "outcome": "running"}
        tags = {key: value for key, value in facts.items() if value} | dict.fromkeys(described.tags, "true")
        created = str(client.create_run(experiment, tags=tags, run_name=described.name).info.run_id)
        id_file.write_text(created + "\n")
        self._add_parameters(client, created, described.config)
        return created

    @staticmethod
    def _add_parameters(client: "MlflowClient", run: str, config: Mapping[str, object]) -> None:
        """The settings, without paths, host, user and patients."""
        from mlflow.entities import Param

        flat = flatten_settings(redact_private(config))
        parameters = [Param(_safe_name(key), str(value)[:LONGEST_PARAMETER]) for key, value in flat.items()]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            client.log_batch(run, params=parameters[start : start + PARAMETERS_AT_ONCE])

    @property
    def service(self) -> "MlflowClient | None":
        """The client; None if there is none, or it was given up."""
        return None if self.given_up else self.client

    def log(self, step: int, values: Mapping[str, float]) -> None:
        with self.record_failure("log"):
            if self.service is not None:
                from mlflow.entities import Metric

                now = int(1000 * time.time())  # milliseconds
                metrics = [Metric(_safe_name(name), value, now, step) for name, value in values.items()]
                for start in range(0, len(metrics), METRICS_AT_ONCE):
                    self.service.log_batch(self.id, metrics=metrics[start : start + METRICS_AT_ONCE])

    def image(self, step: int, name: str, picture: Picture) -> None:
        with self.record_failure("image"):
            if self.service is not None:
                from PIL import Image

                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / f"{_safe_name(name).replace('/', '_')}-{step}.png"
                    Image.fromarray(load_picture(picture)).save(file)
                    self.service.log_artifact(self.id, str(file))

    def html(self, name: str, text: str) -> None:
        with self.record_failure("page"):
            if self.service is not None:
                self.service.log_text(self.id, text, f"{name}.html")

    def alert(self, step: int, title: str, text: str, level: AlertLevel) -> None:
        with self.record_failure("alert"):
            if self.service is not None:
                self.service.set_tag(self.id, _safe_name(f"alert/{title}"), f"{level} at step {step}: {redact_private(text)}")

    def summary(self, values: Mapping[str, object]) -> None:
        with self.record_failure("summary"):
            clean = redact_private(values)
            numbers = {name: float(value) for name, value in clean.items() if isinstance(value, int | float)}
            self.log(0, {name: value for name, value in numbers.items() if math.isfinite(value)})
            for name, value in clean.items():
                if name not in numbers and self.service is not None:
                    self.service.set_tag(self.id, _safe_name(name), str(value))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        with self.record_failure("table"):
            if self.service is not None:
                content = {"columns": list(columns), "data": [[redact_private(value) for value in row] for row in rows]}
                self.service.log_text(self.id, json.dumps(content), f"{name}.json")

    def close(self, outcome: Outcome) -> None:
        """Ends the run; one that its job resumes is SCHEDULED, a cancelled one KILLED, and a failed or diverged one FAILED."""
        with self.record_failure("finish"):
            if self.service is not None:
                self.service.set_tag(self.id, "outcome", outcome)
                self.service.set_tag(self.id, "exit_status", str(OUTCOME_EXIT_STATUS[outcome]))
                self.service.set_terminated(self.id, STATUS_OF.get(outcome, "FAILED"))
        self.client = None


def _safe_name(name: str) -> str:
    """The name with the characters that MLflow accepts."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)
