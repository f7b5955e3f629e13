"""`encoders`: images become stores, stores become features, and weights are kept with what must be known about them."""

import typer

from encoders import cli_ingest_more, cli_ingest_wsi, cli_zoo
from encoders.cli_doctor import doctor
from encoders.cli_heatmap import heatmap
from encoders.cli_ingest import ingest_app
from encoders.runtime.cli import run

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None, pretty_exceptions_enable=False)

app.command("list")(cli_zoo.list_)
app.command()(cli_zoo.show)
app.command()(cli_zoo.verify)
app.command("import")(cli_zoo.import_)
app.command()(cli_zoo.export)
app.command()(cli_zoo.embed)
cli_ingest_more.register(ingest_app)
ingest_app.command("wsi", help=cli_ingest_wsi.WSI)(cli_ingest_wsi.wsi)
app.add_typer(ingest_app, name="ingest")
app.command()(doctor)
app.command()(heatmap)


def main() -> None:
    """The console command."""
    run(app)


if __name__ == "__main__":
    main()
