"""Runs `encoders ingest wsi` in this process."""

import typer.testing

from encoders.cli.main import app


def run(*arguments, code=0):
    """The output of the command; its errors are raised, and `code` is its exit status."""
    done = typer.testing.CliRunner().invoke(app, ["ingest", "wsi", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output
