"""`transfer sync`: uploads offline W&B runs."""

from typing import Annotated

import typer

from encoders.runtime.cli import make_console


def sync(dry_run: Annotated[bool, typer.Option("--dry-run", help="list the runs without uploading them")] = False) -> None:
    """Upload the offline W&B runs of the working folder, oldest first. Exit status 1 when an upload failed.

    A run that was requeued consists of several parts; uploaded in order, they become one run. Uploaded runs are not uploaded again.
    """
    import subprocess
    import sys

    from encoders.runtime.paths import home_dir
    from transfer.tables.wandb_report import find_offline_runs

    runs, failed = find_offline_runs(home_dir()), 0
    for i, path in enumerate(runs, 1):
        print(f"{i} of {len(runs)}: {path.relative_to(home_dir())}", flush=True)
        if not dry_run:
            failed += subprocess.run([sys.executable, "-m", "wandb", "sync", str(path)], cwd=path.parent.parent).returncode != 0
    if not runs:
        print("nothing to upload")
    if failed:
        message = f"{failed} of {len(runs)} uploads failed; run `wandb login`, or run this command again later"
        make_console(stderr=True).print(message, markup=False)
        raise typer.Exit(1)
