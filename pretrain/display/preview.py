"""A picture of what a recipe shows its network: the first images of the run, with the views that the first step makes of them.

A row is an image, with the outline of each view's crop; a column is a view, un-normalised, and what was done to it. A method that hides
patches shows what is left, what it makes of it, and what it should have been.

Shapes: n images, V views, C channels, H, W pixels.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from encoders.augment.masks import Masks
from encoders.loading.views import RawBatch, make_views, read_raw_batch
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.threads import single_torch_thread
from encoders.zoo.card import Preprocess
from pretrain.loop.setup import Setup, build_setup, inherit_settings, open_corpus
from pretrain.recipe.config import Recipe, augmentation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_INCHES = 2.1  # inches a picture


def write_preview(recipe: Recipe, out: str | Path, n: int = 6, checkpoint: dict[str, Any] | None = None) -> Path:
    """Writes the PNG and returns its path.  checkpoint: of a run of this recipe, whose weights then make the reconstructions.

    Raises InputError when the recipe names no store, or `out` is no .png."""
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise InputError(f"a preview is a PNG picture; choose a name like {out.stem or 'preview'}.png instead of {str(out)!r}")
    made = build_setup(recipe if checkpoint else preview_recipe(recipe), "cpu", checkpoint and checkpoint["card"])
    if checkpoint is not None:
        made.method.load_state_dict(checkpoint["method"], strict=True)
    picture = draw_preview(made, n, None if checkpoint is None else int(checkpoint["step"]))
    with atomic_write(out) as part:
        picture.savefig(part, format="png", dpi=100, metadata={"Software": None})  # no version: the same picture, the same bytes
    return out


def preview_recipe(recipe: Recipe) -> Recipe:
    """The recipe with all that its views depend on, and without what they do not: weights to start from, and a batch of so many images."""
    if recipe.init is not None:
        from encoders.zoo import zoo

        recipe = inherit_settings(recipe, zoo.find_encoder(recipe.init).card).model_copy(update={"init": None})
    return recipe.model_copy(update={"batch": min(recipe.batch, len(open_corpus(recipe).index)), "accumulate": 1})


def draw_preview(made: Setup, n: int, step: int | None) -> "Figure":
    """The figure: a row for each of the first `n` images of the run."""
    from matplotlib.figure import Figure

    raw, views = make_first_views(made, n)
    columns, titles = build_columns(made, raw, views, step)
    figure = Figure(figsize=(CELL_INCHES * (1 + len(columns)), (CELL_INCHES + 0.3) * len(raw.images) + 0.4), layout="constrained")
    cells = figure.subplots(len(raw.images), 1 + len(columns), squeeze=False)
    sources = raw.images.numpy() / raw.scale
    for row, line in enumerate(cells):
        draw_image(line[0], sources[row], f"image {int(raw.index[row])}")
        for view, params in enumerate(raw.params):
            if raw.partners is not None and view % 2:
                continue  # this view is of another image
            draw_crop_outline(line[0], {name: value[row] for name, value in params.items()}, f"C{view}")
        for cell, column in zip(line[1:], columns, strict=True):
            draw_image(cell, column[row])
        if len(columns) == len(raw.params):  # plain views: say what was done
            for cell, params in zip(line[1:], raw.params, strict=True):
                cell.set_title(describe_augmentation({name: value[row] for name, value in params.items()}), fontsize=6, wrap=True)
    for place, (cell, title) in enumerate(zip(cells[0], ["stored image", *titles], strict=True)):
        framed = place and len(columns) == len(raw.params) and not (raw.partners is not None and place % 2 == 0)
        cell.set_title(f"{title}\n{cell.get_title()}", fontsize=7, color=f"C{place - 1}" if framed else "black")  # as its frame
    return figure


def make_first_views(made: Setup, n: int) -> tuple[RawBatch, list[Tensor]]:
    """What step 0 of the run reads and draws, for its first `n` images; and the normalised views (n, C, H, W)."""
    rows, positions = made.batches.order.of(0)
    specs, prep = made.method.views(augmentation(made.recipe)), made.card.preprocess
    with single_torch_thread():
        store, seed = made.corpus.store, made.recipe.seed
        mask, partners = made.method.mask_spec(), made.batches.partners
        raw = read_raw_batch(store, rows[:n], positions[:n], specs, mask, seed, partners, made.corpus.index)
        return raw, make_views(raw.images, raw, specs, prep)


def build_columns(made: Setup, raw: RawBatch, views: list[Tensor], step: int | None) -> tuple[list[np.ndarray], list[str]]:
    """The columns, (n, H, W, C) in [0, 1] each, and their titles."""
    prep = made.card.preprocess
    if raw.masks is None or not hasattr(made.method, "reconstruct"):
        return [denormalise_views(view, prep) for view in views], [f"view {v + 1}" for v in range(len(views))]
    made.method.eval()
    masked, rebuilt, target = made.method.reconstruct(views, raw.masks)
    hidden = hidden_pixel_mask(made, raw.masks[0], target)
    # Without this remark a reconstruction looks better than it is: its patches have the right brightness by construction.
    given = "\nmean and contrast of each patch given" if getattr(made.method.cfg, "norm_pix_loss", False) else ""
    names = ["masked input", f"reconstruction, {'untrained' if step is None else f'step {step}'}{given}", "target"]
    return [denormalise_views(masked, prep, hidden), denormalise_views(rebuilt, prep), denormalise_views(target, prep)], names


def hidden_pixel_mask(made: Setup, masks: Masks, like: Tensor) -> np.ndarray:
    """(n, H, W) true where a patch is hidden: of the pixels of `like` (n, C, H, W)."""
    method = made.method
    hidden = torch.zeros(len(like), 1, method.rows * method.columns).scatter_(2, masks.masked[:, None], 1.0)
    grid = hidden.view(len(like), 1, method.rows, method.columns)
    return torch.nn.functional.interpolate(grid, size=like.shape[2:], mode="nearest")[:, 0].bool().numpy()


def denormalise_views(views: Tensor, prep: Preprocess, hidden: np.ndarray | None = None) -> np.ndarray:
    """Normalised views as pictures (n, H, W, C) in [0, 1]; hidden pixels become a gray that is told from black."""
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (prep.mean, prep.std))
    pictures = (views.float() * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    if hidden is not None:
        pictures = np.where(hidden[..., None], 0.6, pictures)
    return pictures


def draw_image(cell: "Axes", image: np.ndarray, title: str = "") -> None:
    cell.imshow(image.squeeze(-1) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    cell.set_xticks([])
    cell.set_yticks([])
    cell.set_title(title, fontsize=6)


def draw_crop_outline(cell: "Axes", one: dict[str, Any], colour: str) -> None:
    """The border of a view's crop on the stored image, turned and magnified as the crop was."""
    top, left, high, wide = one["box"]
    angle, zoom = np.deg2rad(one.get("angle", 0.0)), one.get("zoom", 1.0)
    x, y = np.array([-1, 1, 1, -1, -1]) * wide / 2 / zoom, np.array([-1, -1, 1, 1, -1]) * high / 2 / zoom
    across, down = (
        left + wide / 2 - 0.5 + x * np.cos(angle) - y * np.sin(angle),
        top + high / 2 - 0.5 + x * np.sin(angle) + y * np.cos(angle),
    )
    limits = cell.get_xlim(), cell.get_ylim()
    cell.plot(across, down, color=colour, linewidth=1)
    cell.set_xlim(limits[0])
    cell.set_ylim(limits[1])


def describe_augmentation(one: dict[str, Any]) -> str:
    """What was drawn for one view of one image, in a few words; nothing is said of what stays as it is."""
    words = []
    if one.get("flip", (False, False))[0]:
        words.append("flip")
    if one.get("flip", (False, False))[1]:
        words.append("upside down")
    if one.get("turn", 0):
        words.append(f"turn {90 * int(one['turn'])}")
    if one.get("angle", 0):
        words.append(f"{one['angle']:+.0f} deg")
    for name, idle, word in (
        ("zoom", 1, "zoom x{:.2f}"),
        ("brightness", 1, "brightness x{:.2f}"),
        ("contrast", 1, "contrast x{:.2f}"),
        ("saturation", 1, "saturation x{:.2f}"),
        ("hue", 0, "hue {:+.2f}"),
        ("gamma", 1, "gamma {:.2f}"),
        ("blur", 0, "blur {:.1f} px"),
        ("noise", 0, "noise {:.3f}"),
    ):
        if one.get(name, idle) != idle:
            words.append(word.format(one[name]))
    for name, on in (
        ("elastic", np.any(one.get("elastic", 0))),
        ("stain", np.any(one.get("stain_factor", 1) != 1)),
        ("stain mixed", np.any(one.get("stain_map", np.eye(3)) != np.eye(3))),
        ("window", "window" in one and tuple(one["window"]) != (0.0, 1.0)),
        ("grayscale", one.get("grayscale", False)),
        ("solarised", one.get("solarise", 2) <= 1),
        ("cutout", "cutout" in one and one["cutout"][2] > 0),
    ):
        if on:
            words.append(name)
    lines = [", ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    return "\n".join(lines) or "crop only"
