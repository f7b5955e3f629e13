"""Weights & Biases as a mirror of the record. It never prompts, never hangs, and never stops a run.

If a start fails (no network, wrong key), the run continues offline; see `wandb_start` for the mode.

Sent: settings, scalars, pictures and the exported encoder (card and weights, not the manifest). Not sent: console, code, git state,
requirements, machine information, host, user, paths (see `redact`). The use of processor, memory and GPU is sent only on request.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.redact import redact_private
from encoders.runtime.tracker import (
    OUTCOME_EXIT_STATUS,
    AlertLevel,
    GuardedTracker,
    Outcome,
    Picture,
    TrackedRun,
    load_picture,
    print_tracker_message,
)
from encoders.runtime.wandb_artifact import build_model_artifact, make_neutral_folder
from encoders.runtime.wandb_start import WandbMode, clean_tags, decide_mode, init_wandb_run, teardown_wandb
from encoders.runtime.wandb_views import ComparisonView, save_views

if TYPE_CHECKING:
    import wandb


class WandbMirror(GuardedTracker):
    """One W&B run, or none: every method may be called in either case."""

    label, file_label = "W&B", "wandb"

    def __init__(self, run_dir: Path, mode: WandbMode | None = None, described: TrackedRun | None = None):
        super().__init__(run_dir)
        self.open_run: wandb.Run | None = None
        self.described = described or TrackedRun()
        self.scratch: Path | None = None
        self.offline = True
        chosen, reason = decide_mode(mode)
        attempts: dict[WandbMode, list[WandbMode]] = {"disabled": [], "offline": ["offline"], "online": ["online", "offline"]}
        for attempt in attempts[chosen]:
            if self.open_run is not None:
                break
            with self.record_failure(f"start ({attempt})"):
                if self.failures:
                    teardown_wandb()
                self.open_run, self.offline = init_wandb_run(self.run_dir, attempt, self.described), attempt == "offline"
                if attempt == "offline":
                    print_wandb_message_once(
                        "offline", f"{reason and ': '}{reason}; send it later with `wandb sync {self.run_dir}/wandb/offline-run-*`"
                    )
        with self.record_failure("start"):
            self._define_metrics()

    def _define_metrics(self) -> None:
        """Declares the axes of charts, and the extremes that a table of runs shows beside the last value."""
        run, described = self.open_run, self.described
        if run is None:
            return
        run.summary["outcome"] = "running"  # of a run that is resumed, the earlier outcome no longer holds
        for axis in described.axes:
            run.define_metric(axis)
        for curve, kind in described.curves.items():
            extremes = None if kind == "last" or "*" in curve else f"{kind},last"
            run.define_metric(curve, step_metric=described.axes[0] if described.axes else None, summary=extremes)

    @property
    def run(self) -> "wandb.Run | None":
        """The W&B run; None if there is none, or it was given up."""
        return None if self.given_up else self.open_run

    @property
    def online_run(self) -> "wandb.Run | None":
        """The W&B run if it is online."""
        return None if self.run is None or self.run.offline else self.run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        with self.record_failure("log"):
            if self.run is not None:
                self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, picture: Picture) -> None:
        with self.record_failure("image"):
            if self.run is not None:
                import wandb

                self.run.log({name: wandb.Image(load_picture(picture))}, step=step)

    def html(self, name: str, text: str) -> None:
        with self.record_failure("page"):
            if self.run is not None:
                import wandb

                self.run.log({name: wandb.Html(text, inject=False)})

    def alert(self, step: int, title: str, text: str, level: AlertLevel) -> None:
        with self.record_failure("alert"):
            if self.run is not None:
                named = f"{title} at step {step}" + (f" of {self.described.name}" if self.described.name else "")
                level_name = {"info": "INFO", "warning": "WARN"}[level]  # the values of `wandb.AlertLevel`
                self.run.alert(title=str(redact_private(named)), text=str(redact_private(text)), level=level_name)

    def summary(self, values: Mapping[str, object]) -> None:
        with self.record_failure("summary"):
            if self.run is not None:
                self.run.summary.update(redact_private(values))

    def artifact(self, name: str, folder: Path, metadata: Mapping[str, object]) -> None:
        """Online only: a later `wandb sync` would also upload the local path."""
        with self.record_failure("artifact"):
            if self.online_run is not None:
                self.scratch = self.scratch or Path(make_neutral_folder())
                self.online_run.log_artifact(build_model_artifact(name, folder, metadata, self.scratch))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        with self.record_failure("table"):
            if self.run is not None:
                import wandb

                self.run.log({name: wandb.Table(columns=list(columns), data=[[redact_private(v) for v in row] for row in rows])})

    def use_artifact(self, artifact: str, sha256: Sequence[str]) -> None:
        """Marks the artifact with weights of one of these hashes as an input of the run. Online only: W&B does not support it offline."""
        with self.record_failure("lineage"):
            if self.online_run is not None:
                import wandb

                try:
                    latest = self.online_run.use_artifact(f"{artifact}:latest", type="model")
                except wandb.errors.CommError:
                    return  # pretrained offline, or under another account: the config identifies the weights
                if latest.metadata.get("sha256") not in sha256:
                    print_tracker_message(
                        "W&B",
                        f"the artifact {artifact}:latest has other weights than this benchmark; rerun the benchmark, or compare sha256",
                    )

    def save_views(self, view: ComparisonView) -> str | None:
        """Saves the workspace and the report; the URL of the report. None offline or without wandb-workspaces."""
        with self.record_failure("workspace"):
            if self.online_run is not None:
                return save_views(self.online_run, view)
        return None

    def close(self, outcome: Outcome) -> None:
        """Ends the run. A run that its job resumes is `preempted` in W&B too; all others that did not finish are `failed`.

        A signal that SLURM sends to all processes of a job also ends W&B's service. It is then started again, to say how the run ended."""
        earlier = self.failures
        if self.run is not None:
            self._finish(outcome)
            if self.failures:
                with self.record_failure("end of the service"):
                    teardown_wandb()  # now, and not at the exit of the process, where W&B would print a traceback
            if self.failures > earlier and outcome != "finished" and not self.given_up:
                with self.record_failure("restart"):
                    self.open_run = init_wandb_run(self.run_dir, "offline" if self.offline else "online", self.described)
                self._finish(outcome)
        self.open_run = None
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _finish(self, outcome: Outcome) -> None:
        with self.record_failure("finish"):
            if self.run is not None:
                self.run.summary["outcome"] = outcome
                if outcome != "finished":
                    self.run.tags = tuple(clean_tags([*(self.run.tags or ()), outcome]))
                if outcome == "preempted":
                    self.run.mark_preempting()
                self.run.finish(exit_code=OUTCOME_EXIT_STATUS[outcome])


_printed_once: set[str] = set()


def print_wandb_message_once(event: str, details: str) -> None:
    """Prints a line for the first `event` of this kind in this process: a benchmark opens a run for every encoder."""
    if event not in _printed_once:
        _printed_once.add(event)
        print_tracker_message("W&B", event + details)
