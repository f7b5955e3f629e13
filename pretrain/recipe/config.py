"""A recipe: what is pretrained, on what, how long. Field descriptions are the help text (`pretrain run --help`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, model_validator

from encoders.runtime.config import Config, json_digest, merge_settings, parse_override, read_yaml, to_yaml, validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.optim import Optim

if TYPE_CHECKING:
    from encoders.augment.config import Augment


class DataConfig(Config):
    """The images."""

    store: str | list[str] | None = Field(None, description="store(s) of unlabeled images: a file, a list, or a pattern like 'tiles/*.h5'")
    weights: list[float] | None = Field(None, description="how often to draw from each store; in proportion to its images when left out")
    balance: str | None = Field(
        None, description="column, e.g. slide or patient, whose values are drawn equally often; of many tiles of one, each is drawn seldom"
    )
    keys: str | None = Field(None, description="file with one image key a line: train on these only")
    split: str | None = Field(None, description="train only on rows whose `split` column holds this, e.g. train")
    positives: Literal["image", "study", "patient", "neighbour"] = Field(
        "image",
        description="what the second view is of: the same image, another of its study or patient, or a tile that touches it; an image that "
        "has no other stands for itself",
    )
    workers: int = Field(0, ge=0, description="loader processes a rank; 0 loads in the training process, with the same batches")
    context: Literal["fork", "spawn"] = Field("fork", description="how loader processes are started")


class PreprocessConfig(Config):
    """What becomes the card's preprocessing; mean and std stand on the [0, 1] scale of the store."""

    resize: Literal["crop", "pad", "squash"] = Field("crop", description="how an image that is not square becomes so, at transfer")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="resampling at transfer")
    mean: tuple[float, ...] | None = Field(None, description="per channel; measured on the corpus, or taken from `init`, when left out")
    std: tuple[float, ...] | None = Field(None, description="per channel; measured on the corpus, or taken from `init`, when left out")


class WatchConfig(Config):
    """The watchdog: a look at a fixed set of images at intervals, and what follows from it. Looking does not change the run."""

    images: int = Field(256, ge=0, description="images of the corpus that each look is taken on; 0: no looks")
    every: int = Field(100, ge=1, description="steps between looks; at least twenty looks a run")
    policy: Literal["warn", "stop", "rollback"] = Field(
        "warn", description="on an alarm: tell; or save and stop; or go back to the last good checkpoint with a lower learning rate"
    )
    lr_factor: float = Field(0.5, gt=0, lt=1, description="the learning rate's factor at each rollback")
    max_rollbacks: int = Field(3, ge=0, description="rollbacks before a run gives up; also after steps without a number; 0: none")
    labeled: str | None = Field(None, description="a labeled store for an online k-NN probe; of images no test will use")
    label: str | None = Field(None, description="the label of `watch.labeled` to probe by")
    k: int = Field(20, ge=1, description="neighbours of the online probe")

    @model_validator(mode="after")
    def _both(self) -> "WatchConfig":
        if (self.labeled is None) != (self.label is None):
            raise ValueError("give watch.labeled and watch.label together")
        return self


class Recipe(Config):
    """One pretraining run, resolved from defaults, a YAML file and `key=value`."""

    method: dict[str, Any] = Field(description="name: one of `pretrain methods`; its own settings beside it")
    arch: str | None = Field("resnet50", description="timm name of the backbone; null: that of `init`")
    model_args: dict[str, Any] = Field({}, description="arguments of the backbone that are part of the network, e.g. {pad_type: same}")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth during pretraining")
    channels: Literal[1, 3] | None = Field(None, description="input channels; null: those of `init`, or else of the store")
    size: int = Field(224, ge=16, description="side of a view in pixels")
    init: str | None = Field(None, description="encoder to start from, e.g. imagenet_resnet50; null: random weights from `seed`")
    modality: str | None = Field(None, description="cxr, histology, ...; null: the store's")
    preprocess: PreprocessConfig = PreprocessConfig()
    data: DataConfig = DataConfig()
    augment: dict[str, Any] = Field({"preset": "none"}, description="preset: a named augmentation; single settings of it beside it")
    optim: Optim = Optim()
    watch: WatchConfig = WatchConfig()
    batch: int = Field(256, ge=1, description="images an optimizer step, over all ranks and micro-batches")
    accumulate: int = Field(1, ge=1, description="micro-batches a step: less memory, the same step but for BatchNorm and negatives")
    steps: int | None = Field(None, ge=1, description="optimizer steps; give this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the images; give this or steps")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up; wins over warmup_epochs when above 0")
    warmup_epochs: float = Field(0, ge=0, description="the same in passes over the images")
    clip: float | None = Field(None, gt=0, description="limit of the gradient's L2 norm; null: none")
    seed: int = Field(0, ge=0, description="of everything drawn: weights, order, augmentation, masks")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="autocast of the backbone, losses stay in float32; auto: bf16 where the processor has it, else fp32"
    )
    channels_last: bool = Field(True, description="memory layout that is faster for convolutions")
    sync_batchnorm: bool | None = Field(
        None, description="BatchNorm over the images of all processes; null: as the method is meant, which is yes but for moco"
    )
    compile: bool = Field(False, description="torch.compile: a minute at the start, faster steps; needs a C++ compiler on a CPU")
    checkpointing: bool = Field(False, description="compute activations again in the backward pass: less memory, a third more time")
    threads: int | None = Field(None, ge=1, description="CPU threads; null: as many as allowed. A resumed run keeps its own number")
    max_skipped: int = Field(10, ge=1, description="roll back after this many steps in a row with a loss or gradient that is no number")
    log_every: int = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    save_every: int = Field(500, ge=1, description="steps between checkpoints; the last two are kept")
    keep_every: int = Field(0, ge=0, description="steps between checkpoints kept for good; 0: none")
    pictures: Literal["none", "local", "wandb"] = Field(
        "local",
        description="views of the first images at the end of the run: views.png in its folder; wandb: sent to W&B too, patients' images!",
    )
    licence: str = Field("unknown", description="licence of the exported weights; that of the images usually decides it")

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, one of them (null the other: steps=null epochs=10)")
        if "name" not in self.method:
            raise ValueError("method.name is required: one of `pretrain methods`")
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} cannot be split into accumulate={self.accumulate} equal micro-batches")
        if self.keep_every % self.save_every:
            raise ValueError(f"keep_every={self.keep_every} must be a multiple of save_every={self.save_every}")
        if self.arch is None and self.init is None:
            raise ValueError("arch is null and there is no init to take it from: give arch=resnet50, say")
        return self


def recipe_dirs() -> list[Path]:
    """Where recipes are: in a checkout beside the packages, when installed inside this one."""
    here = Path(__file__).resolve().parents[1]
    return [d for d in (here.parent / "configs" / "pretrain", here / "configs") if d.is_dir()]


def list_recipes() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for folder in reversed(recipe_dirs()) for path in sorted(folder.glob("*.yaml"))}


def read_claim(path: Path) -> str:
    """The first comment line of a recipe: what it claims."""
    first = path.read_text().partition("\n")[0]
    return first.lstrip("# ").strip()


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path. Raises InputError naming the nearest one."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        if Path(name).is_file():
            return Path(name)
        raise InputError(f"no recipe file {name}; shipped recipes are given by name: {', '.join(list_recipes())}")
    known = list_recipes()
    if name not in known:
        raise unknown_name_error("recipe", name, known, "`pretrain recipes` lists them; a file of your own is given by its path.")
    return known[name]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with its method's and its augmentation's settings filled in, so that it says everything about the run.

    Raises InputError for an unknown recipe, method, preset or key."""
    path = find_recipe(name)
    given = [parse_override(one) for one in overrides]
    raw = read_yaml(path)
    for one in given:
        for this, other in (("steps", "epochs"), ("epochs", "steps")):  # the command line's `steps` replaces the file's `epochs`
            if one.get(this) is not None:
                raw.pop(other, None)
        if "name" in one.get("method", {}) and one["method"]["name"] != raw.get("method", {}).get("name"):
            raw["method"] = {}  # another method's settings would be unknown keys
        if "preset" in one.get("augment", {}):
            raw["augment"] = {}
    return resolve_recipe(
        validate_config(Recipe, merge_settings(raw, *given), describe_source(path, overrides)), describe_source(path, overrides)
    )


def describe_source(path: Path, overrides: Sequence[str]) -> str:
    """Where a setting came from, for messages."""
    return f"{path.name} with {' '.join(overrides)}" if overrides else str(path)


def resolve_recipe(recipe: Recipe, where: str) -> Recipe:
    """`recipe` with every setting of its method and augmentation written out."""
    method = {"name": recipe.method["name"]} | method_config(recipe, where).model_dump(mode="json")
    augment = {"preset": recipe.augment.get("preset", "none")} | augmentation(recipe, where).model_dump(mode="json")
    return recipe.model_copy(update={"method": method, "augment": augment})


def method_config(recipe: Recipe, where: str = "the recipe") -> Any:
    """The settings of the recipe's method, typed."""
    from pretrain.methods import METHODS

    name, own = recipe.method["name"], {k: v for k, v in recipe.method.items() if k != "name"}
    if name not in METHODS:
        raise unknown_name_error("method", name, METHODS, "`pretrain methods` lists them.")
    return validate_config(METHODS[name].Config, own, where, "method")


def augmentation(recipe: Recipe, where: str = "the recipe") -> "Augment":
    """The recipe's augmentation, typed: a preset with single settings changed."""
    from encoders.augment.presets import resolve_augment as augment

    return augment(recipe.augment, where)


def recipe_identity(recipe: Recipe) -> str:
    """A digest of what decides the weights: two runs of equal identity on the same store are the same run.

    Precision, torch.compile and the like are in it: they decide the last bits. Looking is not, unless a policy acts on what is seen."""
    told = recipe.model_dump(mode="json", exclude={"log_every", "save_every", "keep_every", "threads", "licence", "pictures"})
    told["data"] = {k: v for k, v in told["data"].items() if k not in ("workers", "context")}  # these change speed, not what is learnt
    acting = ("lr_factor", "max_rollbacks") if recipe.watch.policy == "warn" else tuple(told["watch"])
    told["watch"] = {k: told["watch"][k] for k in acting}
    return json_digest(told)


def read_recipe(path: Path) -> Recipe:
    """The resolved recipe of a run directory."""
    return validate_config(Recipe, read_yaml(path), str(path))


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The resolved recipe as YAML, one key a line."""
    from encoders.runtime.files import atomic_write

    with atomic_write(path) as part:
        part.write_text(to_yaml(recipe))


def describe_settings(kind: type[BaseModel] = Recipe, prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, description) of every setting, nested ones with their path: the help text."""
    rows: list[tuple[str, str, str]] = []
    for key, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += describe_settings(field.annotation, f"{prefix}{key}.")
        else:
            default = "required" if field.is_required() else str(field.default)
            rows.append((prefix + key, default, field.description or ""))
    return rows
