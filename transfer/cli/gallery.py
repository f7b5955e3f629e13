"""`transfer gallery`: the overview of runs, encoders and benchmarks. It imports no torch."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.runtime.errors import InputError


def gallery(
    folder: Annotated[
        Path | None, typer.Argument(help="working folder, with runs/, zoo/, benches/, records/  [default: the current one]")
    ] = None,
) -> None:
    """Write the overview of a working folder: index.html, with its runs, encoders and benchmarks.

    Every entry has name, status, date and headline numbers, and links to its page, card or report and to the entries it belongs to: a run
    to its encoder, an encoder to the run and to the encoder that it started from, a task to the encoders benchmarked on it. The page opens
    from disk without a network; its rows can be filtered and sorted. It shows no image of a patient.

    Commands that change an entry write the overview again by themselves; this command is for folders that were copied, or changed by hand.
    An index.html of another program is never replaced. For example

    \b
        transfer gallery
        transfer gallery /projects/cxr
    """
    from encoders.gallery.refresh import INDEX_NAME, write_gallery
    from encoders.runtime.paths import home_dir

    home = folder.absolute() if folder is not None else home_dir()
    if not home.is_dir():
        raise InputError(f"{home} is not a folder")
    count = write_gallery(home)
    if not count:
        raise InputError(f"{home} has no run, encoder or benchmark: none of runs/, zoo/, benches/ and records/ holds one")
    print(f"{home / INDEX_NAME}: {count} entries")
