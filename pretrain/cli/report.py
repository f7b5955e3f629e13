"""`pretrain report`: the page of a run. It imports no torch."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from encoders.runtime.errors import InputError
from pretrain.cli.arguments import RunArgument


def report(
    run: RunArgument,
    out: Annotated[str | None, typer.Option(help="HTML file to write  [default: report.html in the run's folder]")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="with the picture of the views, which shows patients")] = True,
) -> None:
    """Write a self-contained HTML page on a run.

    It begins with the verdict (finished, collapsed at a step, diverged, stopped) and the diagnoses; then curves, the values that settings
    became, views, sessions, rollbacks, lineage and environment. A run writes its page itself when it ends; this command writes it again,
    or of a run that is still running. For example

    \b
        pretrain report cxr_moco
        pretrain report cxr_moco --no-images --out page.html     # a page to share: without images of patients
    """
    from pretrain.run.report import PAGE_NAME, write_report
    from pretrain.run.rundir import find_run
    from pretrain.run.verdict import judge_run, record_verdict

    where = find_run(run)
    print(write_report(where, Path(out) if out else where.path / PAGE_NAME, images))
    with suppress(OSError, InputError):  # a run of somebody else
        record_verdict(where, judge_run(where))
