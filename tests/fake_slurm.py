"""Commands of SLURM that answer from files, in the format of SLURM 22.05. Tests with a real queue are in tests/cluster."""

import os
import stat

LINE = (
    "JobId={id} {array}JobName=bad UserId=root(0) Priority=1 Account=(null) QOS=(null) JobState={state} Reason={reason} Dependency=(null) "
    "Requeue=1 Restarts={restarts} BatchFlag=1 Reboot=0 ExitCode={code}:0 RunTime=00:00:01 TimeLimit=00:10:00 NodeList=n1 CPUs/Task=1 "
    "ReqB:S:C:T=0:0:*:* TRES=cpu=1,node=1,billing=1 Command=/work/a b/job.sbatch WorkDir=/work/a b "
    "StdErr={log} StdIn=/dev/null StdOut={log} Power= "
)


def job_line(id=2, state="RUNNING", reason="None", restarts=0, code=0, log="/work/a b/slurm-2.out", array=""):
    """A line of `scontrol show job --oneliner`. The path has a space."""
    return LINE.format(**locals())


class FakeSlurm:
    """`scontrol`, `sacct` and `scancel` in a folder that comes first in PATH."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        folder.mkdir()
        self._write("scontrol", f'cat "{folder}/job-$3" 2>/dev/null || {{ echo "slurm_load_jobs error: Invalid job id" >&2; exit 1; }}')
        self._write("sacct", f'for word; do case $word in --jobs=*) cat "{folder}/ended-${{word#--jobs=}}" 2>/dev/null; esac; done')
        self._write(
            "scancel", f'if [ -e "{folder}/job-$1" ]; then echo "$1" >> "{folder}/cancelled"; else echo "no such job" >&2; exit 1; fi'
        )
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def show(self, job, *lines):
        """What `scontrol show job JOB` prints; nothing if the controller has forgotten the job."""
        path = self.folder / f"job-{job}"
        path.write_text("\n".join(lines)) if lines else path.unlink(missing_ok=True)

    def end(self, job, line):
        """What `sacct` knows of the job, e.g. `FAILED|1:0`."""
        (self.folder / f"ended-{job}").write_text(line + "\n")

    def cancelled(self):
        """The jobs that were cancelled."""
        path = self.folder / "cancelled"
        return path.read_text().split() if path.exists() else []

    def _write(self, name, body):
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
