"""What a run shows of itself when a process leaves it: its verdict in run.json, its page, and the overview of the working folder."""

from encoders.gallery.refresh import refresh_gallery
from encoders.runtime.errors import InputError
from pretrain.run.process import PrintLine
from pretrain.run.report import PAGE_NAME, write_report
from pretrain.run.rundir import RunDir
from pretrain.run.verdict import judge_run, record_verdict


def publish_state(run: RunDir, say: PrintLine) -> None:
    """Writes verdict, page and overview; prints a verdict that is not good, and where the page is. Never raises: the run itself is done."""
    try:
        verdict = judge_run(run)
        record_verdict(run, verdict)
        page = write_report(run, run.path / PAGE_NAME)
        if verdict.grade in ("warned", "bad"):
            say(f"run {run.name}: {verdict.sentence}")
        say(f"run {run.name}: its page is {page}")
    except (OSError, InputError) as error:
        say(f"run {run.name}: its page was not written: {error}")
    except Exception as error:  # noqa: BLE001 (a fault in the page must not turn a finished run into a failed one)
        say(f"run {run.name}: its page was not written: {type(error).__name__}: {error}")
    refresh_gallery()
