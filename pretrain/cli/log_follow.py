"""The logs of runs as they are written, for `pretrain logs -f`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pretrain.run.run_jobs import find_log, newest_job
from pretrain.run.rundir import RunDir

POLL_S = 1.0  # between two looks at a log that is followed
POLLS_PER_QUESTION = 15  # looks at a log between two questions to SLURM


class FollowedLog:
    """The log of a run's newest job, from byte `place` on; None for a log that does not exist yet."""

    def __init__(self, run: RunDir, log: Path | None, place: int):
        self.run, self.log, self.place = run, log, place
        self.shown, self.ended = "", False
        self.quiet = 0  # looks since something was written

    def read_new(self) -> str | None:
        """What was written since the last look; None once the job has ended and the log is read."""
        self.log = self.log or find_log(self.run, None)
        size = self.log.stat().st_size if self.log else 0
        if self.log and size > self.place:
            with self.log.open("rb") as file:
                file.seek(self.place)
                text = file.read().decode(errors="replace")
            self.place, self.quiet = size, 0
            return text
        if self.ended:
            return None
        if self.quiet % POLLS_PER_QUESTION == 0:
            self._ask_slurm()
        self.quiet += 1
        return self.read_new() if self.ended else ""  # one more look: the job may have written between the look and the question

    def _ask_slurm(self) -> None:
        job = newest_job(self.run)
        text = job.describe() if job else ""
        if text != self.shown and job:
            print(f"[job {job.job}: {text or 'unknown to SLURM'}]", file=sys.stderr)
            self.shown = text
        self.ended = job is None or not job.is_active


def follow_logs(logs: Sequence[FollowedLog], header: str | None = None) -> None:
    """Prints what the logs get until their jobs have ended, or Ctrl-C.  header: name of the run whose lines were printed last."""
    left = list(logs)
    try:
        while left:
            for log in list(left):
                text = log.read_new()
                if text is None:
                    left.remove(log)
                elif text:
                    if len(logs) > 1 and log.run.name != header:
                        header = log.run.name
                        sys.stdout.write(f"==> {header} <==\n")
                    sys.stdout.write(text)
                    sys.stdout.flush()
            if left:
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        return
