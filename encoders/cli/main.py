"""Ingest images into stores, check stores, compute features, and manage the zoo of encoders."""

import typer

from encoders import __version__
from encoders.cli import import_encoder, ingest_formats, ingest_nifti, ingest_wsi, zoo
from encoders.cli.doctor import doctor
from encoders.cli.families import families
from encoders.cli.heatmap import heatmap
from encoders.cli.ingest import ingest_app
from encoders.cli.verify import verify
from encoders.cli.zoo_export import export
from encoders.cli.zoo_manage import compare, remove
from encoders.cli.zoo_probe import probe
from encoders.cli.zoo_share import pull, push
from encoders.gallery.refresh import refreshes_gallery
from encoders.runtime.cli import add_version_option, run_cli
from encoders.runtime.command_line import use_tool_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)
add_version_option(app, __version__)

app.command("list")(zoo.list_)
app.command()(zoo.show)
app.command()(refreshes_gallery(verify))
app.command("import")(refreshes_gallery(import_encoder.import_))
app.command()(families)
app.command()(refreshes_gallery(zoo.combine))
app.command()(probe)
app.command()(export)
app.command()(push)
app.command()(refreshes_gallery(pull))
app.command()(refreshes_gallery(remove))
app.command()(compare)
app.command()(zoo.embed)
ingest_formats.add_format_commands(ingest_app)
ingest_app.command("nifti", help=ingest_nifti.NIFTI_HELP)(ingest_nifti.ingest_nifti)
ingest_app.command("wsi", help=ingest_wsi.WSI_HELP)(ingest_wsi.ingest_whole_slides)
app.add_typer(ingest_app, name="ingest")
app.command()(doctor)
app.command()(heatmap)
use_tool_commands(app)


def main() -> None:
    """The console command."""
    run_cli(app)


if __name__ == "__main__":
    main()
