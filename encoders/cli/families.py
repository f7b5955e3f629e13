"""`encoders families`."""

from typing import Annotated

import typer

EVIDENCE_WORDS = {"V": "tested", "R": "read"}


def families(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """List the sources of weight files that `encoders import` recognises.

    For each: its licence and access, the pooled feature that is imported, how it is recognised, and what is known about its files.

    Recognised by tensors: the names of the tensors tell it. By --family: other sources have the same names, so it must be named.

    Evidence: tested, the features equal those of the source's own module in the tests; read, the mapping follows the source's code.
    """
    import json

    from encoders.importing.family_data import family_book
    from encoders.runtime.cli import make_console

    book = family_book()
    if as_json:
        known = {name: family.model_dump(mode="json") for name, family in book.families.items()}
        print(json.dumps({"families": known, "refused": {n: r.model_dump(mode="json") for n, r in book.refused.items()}}, indent=1))
        return
    from rich.table import Table

    table = Table("family", "files of", "licence", "access", "feature", "recognised by", "evidence", box=None, pad_edge=False)
    for name, family in sorted(book.families.items()):
        by = f"--family {name}" if family.by_name else "tensors"
        table.add_row(name, family.title, family.licence, family.access, family.feature or "own", by, EVIDENCE_WORDS[family.evidence])
    make_console().print(table)
    print("\nRefused, because timm has no such network:")
    for refused in book.refused.values():
        print(f"  {refused.title}: {refused.reason}")
