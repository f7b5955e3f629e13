"""Operations and blocking copies with which a GPU augments the images of a step, for every recipe. Needs no GPU: a few seconds a recipe.

    python -m tests.perf.device_operations [RECIPE ...] [--batch N] [--source PIXELS]

The images of a micro-batch are augmented by `make_views` under fake CUDA tensors (tests/device_counts.py). Operations are those that
compute; views and memory alone are not counted. Memory is that of the views of a micro-batch, and of the resampling's matrices and
intermediate images of the largest view.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch

from encoders.augment.config import Augment
from encoders.loading.views import make_views, read_raw_batch
from encoders.zoo import backbone
from encoders.zoo.card import Preprocess
from pretrain.methods import METHODS, DataShape
from pretrain.recipe.config import augmentation, load_recipe, method_config
from tests.device_counts import OperationCount, fake_device


class Gray:
    """Uniform images of `side` pixels: the count does not depend on what they show."""

    def __init__(self, n: int, side: int, channels: int):
        self.shape = (n, side, side, channels)

    def __len__(self) -> int:
        return self.shape[0]

    def unit_images(self, index):
        return np.full((len(np.asarray(index)), *self.shape[1:]), 0.5, np.float32)


def recipe_views(name: str) -> tuple[list[Augment], int, int, int, int]:
    """The augmentations of a recipe's views, its size, channels, images of a micro-batch, and micro-batches a step."""
    recipe = load_recipe(name, ["data.store=none.h5"])
    channels = 3 if name.startswith("path") else 1
    shape = DataShape(1 << 20, recipe.size, channels, recipe.batch, recipe.init is not None, recipe.accumulate)
    with torch.device("meta"):
        network = backbone.build_backbone(str(recipe.arch or "resnet18"), recipe.model_args, channels, recipe.size, 0.0, 0)
        method = METHODS[recipe.method["name"]](method_config(recipe), network, shape)
    return method.views(augmentation(recipe)), recipe.size, channels, recipe.batch // recipe.accumulate, recipe.accumulate


def count_step(name: str, batch: int | None, source: int) -> str:
    """A line with the counts of one step of a recipe on one GPU."""
    specs, size, channels, micro, accumulate = recipe_views(name)
    micro = batch or micro
    preprocess = Preprocess(size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    raw = read_raw_batch(Gray(micro, source, channels), np.arange(micro), np.arange(micro), specs, None, 0)
    with fake_device() as device:
        images = torch.empty(raw.images.shape, device=device)
        make_views(images, raw, specs, preprocess)  # the constants, once a process
        with OperationCount() as count:
            views = make_views(images, raw, specs, preprocess)
    total = sum(view.numel() for view in views) * 4 / 2**20
    return (
        f"{name:24}{len(specs):3} views x {micro * accumulate:4} images: {count.launches * accumulate:7,} operations a step, "
        f"{count.launches / len(specs):7.1f} a view; {count.blocking.total() * accumulate:6,} blocking copies; views {total:6.0f} MiB"
    )


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in Path("configs/pretrain").glob("*.yaml"))
    ask.add_argument("recipes", nargs="*", default=[name for name in known if not name.endswith("_tiny")])
    ask.add_argument("--batch", type=int, help="images of a micro-batch; the recipe's by default")
    ask.add_argument("--source", type=int, default=256, help="side of the stored images in pixels")
    args = ask.parse_args()
    warnings.simplefilter("ignore")
    for name in args.recipes:
        print(count_step(name, args.batch, args.source), flush=True)


if __name__ == "__main__":
    main()
