"""A picture of a recipe's views: the first images of the run, with the views that its first step makes of them.

One row per image, with the outline of each view's crop; one column per view, with the augmentation that was drawn for it. A method that
hides patches has columns for what it sees and what it predicts (`preview_columns`).

Shapes: n images, V views, C channels, H, W pixels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from encoders.augment.picture import describe_augmentation, draw_crop_outline, draw_image, split_params
from encoders.loading.views import RawBatch, make_views, read_raw_batch, shows_partner
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.threads import single_torch_thread
from pretrain.display.preview_columns import Box, build_columns
from pretrain.loop.complete_recipe import inherit_settings
from pretrain.loop.corpus import open_corpus
from pretrain.loop.setup import Setup, build_setup
from pretrain.recipe.config import Recipe, augmentation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_INCHES = 2.1  # width of a column, inches
BOX_INSET = 0.4  # pixels


def write_preview(recipe: Recipe, out: str | Path, n: int = 6, checkpoint: Mapping[str, Any] | None = None) -> Path:
    """Writes the PNG and returns its path.  checkpoint: of a run of this recipe, whose weights make the reconstructions.

    Raises InputError when the recipe names no store, or `out` does not end in .png."""
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise InputError(f"a preview is a PNG picture; use a name like {out.stem or 'preview'}.png instead of {str(out)!r}")
    setup = build_setup(recipe if checkpoint else preview_recipe(recipe), "cpu", checkpoint["card"] if checkpoint else None)
    if checkpoint is not None:
        setup.method.load_state_dict(checkpoint["method"], strict=True)
    figure = draw_preview(setup, n, None if checkpoint is None else int(checkpoint["step"]))
    with atomic_write(out) as part:
        figure.savefig(part, format="png", dpi=100, metadata={"Software": None})  # without a version equal pictures have equal bytes
    return out


def preview_recipe(recipe: Recipe) -> Recipe:
    """The recipe without what its views do not depend on: it starts from random weights, and its batch is at most the corpus."""
    if recipe.init is not None:
        from encoders.zoo import zoo

        recipe = inherit_settings(recipe, zoo.find_encoder(recipe.init).card).model_copy(update={"init": None})
    return recipe.model_copy(update={"batch": min(recipe.batch, len(open_corpus(recipe).index)), "accumulate": 1})


def draw_preview(setup: Setup, n: int, step: int | None) -> "Figure":
    """The figure: one row for each of the first `n` images of the run.  step: of the weights, or None if they are untrained."""
    from matplotlib.figure import Figure

    raw, views = make_first_views(setup, n)
    columns = build_columns(setup, raw, views, step)
    width = 1 + len(columns)
    drawn = [[] if c.view is None else split_params(raw.params[c.view], len(raw.images)) for c in columns]  # by column and image
    figure = Figure(figsize=(CELL_INCHES * width, (CELL_INCHES + 0.3) * len(raw.images) + 0.4), layout="constrained")
    grid = figure.subplots(len(raw.images), width, squeeze=False)
    sources = raw.images.numpy() / raw.scale
    for row, axes in enumerate(grid):
        draw_image(axes[0], sources[row], f"image {int(raw.index[row])}")
        for view, params in enumerate(raw.params):
            if outlined(raw, view):
                draw_crop_outline(axes[0], split_params(params, len(raw.images))[row], f"C{view}")
        for ax, column, values in zip(axes[1:], columns, drawn, strict=True):
            note = column.notes[row] if column.notes else ""
            draw_image(ax, column.pictures[row], describe_augmentation(values[row]) if values else note)
            for i, box in enumerate(column.boxes[row] if column.boxes else ()):
                draw_box(ax, box, f"C{i}")
    grid[0][0].set_title(f"stored image\n{grid[0][0].get_title()}", fontsize=7, color="black")
    for ax, column in zip(grid[0][1:], columns, strict=True):
        colour = f"C{column.view}" if column.view is not None and outlined(raw, column.view) else "black"  # that of the outline
        ax.set_title(f"{column.title}\n{ax.get_title()}".rstrip(), fontsize=7, color=colour)
    return figure


def outlined(raw: RawBatch, view: int) -> bool:
    """Whether the stored image shows the outline of a view's crop: not if the view is of the image's partner."""
    return raw.partners is None or not shows_partner(view)


def make_first_views(setup: Setup, n: int) -> tuple[RawBatch, list[Tensor]]:
    """What step 0 of the run reads and draws for its first `n` images, and the normalised views (n, C, H, W)."""
    rows, positions = setup.batches.order.micro_batch_rows(0)
    specs, prep = setup.method.views(augmentation(setup.recipe)), setup.card.preprocess
    with single_torch_thread():
        store, seed = setup.corpus.store, setup.recipe.seed
        mask, partners = setup.method.mask_spec(), setup.batches.partners
        raw = read_raw_batch(store, rows[:n], positions[:n], specs, mask, seed, partners, setup.corpus.index)
        return raw, make_views(raw.images, raw, specs, prep)


def draw_box(ax: "Axes", box: Box, colour: str) -> None:
    """Draws the border of a rectangle of a picture, just inside it, so that blocks at a border are drawn whole."""
    left, top = box.left - 0.5 + BOX_INSET, box.top - 0.5 + BOX_INSET
    right, bottom = left + box.width - 2 * BOX_INSET, top + box.height - 2 * BOX_INSET
    ax.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=1.5)
