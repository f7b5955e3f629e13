"""A recipe: the typed settings of a pretraining run. Field descriptions are the help text of `pretrain settings`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, Field, field_validator, model_validator

from encoders.runtime.config import Config, json_digest, merge_settings, parse_override, read_yaml, shorten_text, to_yaml, validate_config
from encoders.runtime.errors import unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.optim_config import Optim
from encoders.runtime.tracker import DEFAULT_TRACKERS, RECORD, TrackerName
from pretrain.recipe.anchor_config import AnchorConfig
from pretrain.recipe.auxiliary_config import AuxiliaryTarget
from pretrain.recipe.ddp_config import DDPConfig
from pretrain.recipe.identity_marks import OutsideIdentity, list_defaulted_fields, list_marked_fields, merge_fields
from pretrain.recipe.method_names import known_methods
from pretrain.recipe.recipes import find_recipe
from pretrain.recipe.watch_config import WatchConfig

if TYPE_CHECKING:
    from encoders.augment.config import Augment

BatchNormMode: TypeAlias = Literal["frozen", "train", "sync"]


class DataConfig(Config):
    """The images."""

    store: str | list[str] | None = Field(None, description="store(s) of unlabeled images: a file, a list, or a pattern like 'tiles/*.h5'")
    weights: list[float] | None = Field(None, description="sampling weight of each store; null: proportional to its number of images")
    balance: str | None = Field(
        None, description="column, e.g. slide or patient, whose values are sampled equally often, however many images each has"
    )
    keys: str | None = Field(None, description="text file with one image key per line: train on these images only")
    split: str | None = Field(None, description="train only on rows with this value in the `split` column, e.g. train")
    positives: Literal["image", "study", "patient", "neighbour"] = Field(
        "image",
        description="image that the second view shows: the same image, another one of its study or patient, or an adjacent tile; an image "
        "without such a partner is paired with itself",
    )
    label_keys: Annotated[str | None, OutsideIdentity.AT_DEFAULT] = Field(
        None,
        description="text file with one image key per line: `auxiliary` and method.label use the labels of these images only; null: of all "
        "images but those of a test part",
    )
    workers: Annotated[int | None, OutsideIdentity.ALWAYS] = Field(
        None,
        ge=0,
        description="loader processes per rank; null: on a GPU one per CPU of the rank but one, on a CPU 0; 0 loads in the training "
        "process (1 on a GPU if the store holds JPEG). The batches do not depend on it",
    )
    prefetch: Annotated[int, OutsideIdentity.ALWAYS, OutsideIdentity.AT_DEFAULT] = Field(
        2, ge=1, description="micro-batches that each loader process prepares ahead; more evens out slow reads, and takes memory"
    )
    context: Annotated[Literal["fork", "spawn"], OutsideIdentity.ALWAYS] = Field("fork", description="start method of the loader processes")


class PreprocessConfig(Config):
    """What becomes the card's preprocessing, with `size`. A setting that is null is that of `init`.

    mean and std refer to `value_range`, by default the [0, 1] scale of the store."""

    resize: Literal["crop", "pad", "squash"] | None = Field(
        None, description="how a non-square image is made square at transfer; null: as `init`, otherwise crop"
    )
    interpolation: Literal["bilinear", "bicubic"] | None = Field(
        None, description="resampling at transfer; null: that of `init`, otherwise bilinear"
    )
    crop_pct: float | None = Field(
        None, gt=0.5, le=1, description="with resize=crop, the fraction of the shorter side that is kept; null: as `init`, otherwise 1.0"
    )
    value_range: tuple[float, float] | None = Field(
        None, description="values of black and white before mean and std; null: those of `init`, otherwise [0, 1]"
    )
    mean: tuple[float, ...] | None = Field(None, description="per channel; null: that of `init`, otherwise measured on the corpus")
    std: tuple[float, ...] | None = Field(None, description="per channel; null: that of `init`, otherwise measured on the corpus")


class Recipe(Config):
    """One pretraining run, resolved from defaults, a YAML file and `key=value` overrides."""

    method: dict[str, Any] = Field(description="method.name: one of `pretrain methods`; method.KEY: the settings of that method")
    arch: str | None = Field("resnet50", description="timm name of the backbone; null: that of `init`")
    model_args: dict[str, Any] = Field({}, description="arguments of the timm model that are part of the network, e.g. {pad_type: same}")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth rate during pretraining")
    channels: Literal[1, 3] | None = Field(None, description="input channels; null: those of `init`, otherwise those of the store")
    size: int = Field(224, ge=16, description="side length of a view in pixels")
    init: str | None = Field(None, description="encoder to start from, e.g. imagenet_resnet50; null: random weights from `seed`")
    modality: str | None = Field(None, description="cxr, histology, ...; null: that of the store")
    preprocess: PreprocessConfig = PreprocessConfig()
    data: DataConfig = DataConfig()
    augment: dict[str, Any] = Field(
        {"preset": "none"}, description="augment.preset: a named augmentation; augment.KEY: single settings that differ from it"
    )
    optim: Optim = Optim()
    watch: WatchConfig = WatchConfig()
    ddp: Annotated[DDPConfig, OutsideIdentity.ALWAYS, OutsideIdentity.AT_DEFAULT] = DDPConfig()
    batch: int = Field(256, ge=1, description="images per optimizer step, over all ranks and micro-batches")
    accumulate: int = Field(
        1, ge=1, description="micro-batches per step: less memory, the same step except for BatchNorm statistics and in-batch negatives"
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; give either this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the images; give either this or steps")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up; overrides warmup_epochs when above 0")
    warmup_epochs: float = Field(0, ge=0, description="linear warm-up in passes over the images")
    clip: float | None = Field(None, gt=0, description="maximum L2 norm of the gradient; null: no clipping")
    seed: int = Field(0, ge=0, description="seed of all random draws: weights, order, augmentation, masks")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="autocast dtype of the network; losses stay in float32. auto: bf16 if the device supports it natively, else fp32",
    )
    channels_last: bool = Field(True, description="channels-last memory format, which is faster for convolutions")
    batchnorm: BatchNormMode | None = Field(
        None,
        description="statistics of the backbone's BatchNorm. frozen: the running statistics of `init` are used and kept, scale and shift "
        "are trained; train: those of each micro-batch, per process; sync: those of each micro-batch, over all processes; null: frozen if "
        "`init` has such statistics, otherwise as the method requires (sync for all but moco). BatchNorm in heads is never frozen",
    )
    anchor: AnchorConfig = AnchorConfig()
    auxiliary: Annotated[dict[str, AuxiliaryTarget], OutsideIdentity.AT_DEFAULT] = Field(
        {},
        description="supervised losses beside that of the method, e.g. auxiliary.view.weight=0.1 for the column `view`; settings of each: "
        f"{', '.join(AuxiliaryTarget.model_fields)}. The heads are not exported",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the backbone's learning rate per layer, from the heads down to the stem; layers are timm's. 1: equal rates",
    )
    head_warmup_steps: int = Field(
        0, ge=0, description="steps in which only the heads are trained; the backbone then has its own warm-up of the usual length"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay per step of averaged weights, exported as NAME_ema beside the last weights; 0: no average"
    )
    compile: bool = Field(
        False, description="torch.compile: about a minute at the start, then faster steps; on a CPU it needs a C++ compiler"
    )
    checkpointing: bool = Field(False, description="gradient checkpointing: less memory, about a third more time")
    threads: Annotated[int | None, OutsideIdentity.ALWAYS] = Field(
        None, ge=1, description="CPU threads; null: as many as CPUs that no other process uses at the start. A resumed run keeps its number"
    )
    max_skipped: int = Field(10, ge=1, description="roll back after this many consecutive steps with a NaN or inf loss or gradient")
    log_every: Annotated[int, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(10, ge=1, description="steps between lines of metrics.jsonl")
    save_every: Annotated[int, OutsideIdentity.ALWAYS] = Field(500, ge=1, description="steps between checkpoints; the last two are kept")
    keep_every: Annotated[int, OutsideIdentity.ALWAYS] = Field(
        0, ge=0, description="steps between checkpoints that are never deleted; 0: none"
    )
    pictures: Annotated[Literal["none", "local", "wandb"], OutsideIdentity.ALWAYS] = Field(
        "local",
        description="picture of the first images' views at the end of the run: local writes views.png; wandb also uploads it, and it shows "
        "images of patients",
    )
    track: Annotated[list[TrackerName], OutsideIdentity.ALWAYS, OutsideIdentity.AT_DEFAULT] = Field(
        list(DEFAULT_TRACKERS),
        description="trackers that mirror the run: wandb, tensorboard, mlflow, e.g. track=[jsonl,tensorboard]; jsonl, the record, is "
        "always written. The last two need the packages of that name",
    )
    system_metrics: Annotated[bool, OutsideIdentity.ALWAYS, OutsideIdentity.AT_DEFAULT] = Field(
        False, description="W&B also records the use of processor, memory, network and GPU; host, user and paths are not sent"
    )
    licence: Annotated[str, OutsideIdentity.ALWAYS] = Field(
        "unknown", description="licence of the exported weights; usually that of the images"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_keys(cls, raw: object) -> object:
        if isinstance(raw, Mapping) and "sync_batchnorm" in raw:
            raise ValueError(
                f"sync_batchnorm={format_setting(raw['sync_batchnorm'])} is a setting of an earlier version: write batchnorm=sync for "
                "true, batchnorm=train for false, leave it out for null; resume a run of an earlier version with that version"
            )
        return raw

    @field_validator("track")
    @classmethod
    def _complete_trackers(cls, names: list[TrackerName]) -> list[TrackerName]:
        return list(dict.fromkeys([RECORD, *names]))

    @model_validator(mode="after")
    def _check_consistent(self) -> "Recipe":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give steps or epochs, not both (set the other to null: steps=null epochs=10)")
        if "name" not in self.method:
            raise ValueError("method.name is required: one of `pretrain methods`")
        if not isinstance(self.method["name"], str):
            raise ValueError(f"method.name must be a text, one of `pretrain methods` (given: {self.method['name']!r})")
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} cannot be split into accumulate={self.accumulate} equal micro-batches")
        if self.keep_every % self.save_every:
            raise ValueError(f"keep_every={self.keep_every} must be a multiple of save_every={self.save_every}")
        if self.arch is None and self.init is None:
            raise ValueError("arch is null and there is no init to take it from; set one of them, e.g. arch=resnet50")
        if self.anchor.active and self.init is None:
            raise ValueError("anchor.relational and anchor.l2_sp hold the encoder to its start and need init=ENCODER; set them to 0")
        if self.compile and any(entry.weight for entry in self.auxiliary.values()):
            raise ValueError("auxiliary reads the backbone's features, which compile=true hides; leave out one of them")
        return self


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with every setting of its method and augmentation filled in.

    name: of a shipped recipe, or the path of a YAML file.  overrides: `key=value`, later ones win.
    Raises InputError for an unknown recipe, method, preset or key."""
    path = find_recipe(name)
    changes = [parse_override(text) for text in overrides]
    raw = read_yaml(path)
    for change in changes:
        for key, other in (("steps", "epochs"), ("epochs", "steps")):  # `steps` on the command line replaces `epochs` in the file
            if change.get(key) is not None:
                raw.pop(other, None)
        method, before = change.get("method"), raw.get("method")  # not yet validated: either may be anything
        if isinstance(method, Mapping) and "name" in method and not (isinstance(before, Mapping) and before.get("name") == method["name"]):
            raw["method"] = {}  # the settings of the file's method would be unknown keys
        if isinstance(augment := change.get("augment"), Mapping) and "preset" in augment:
            raw["augment"] = {}
    source = describe_source(path, overrides)
    return resolve_recipe(validate_config(Recipe, merge_settings(raw, *changes), source), source)


def describe_source(path: Path, overrides: Sequence[str]) -> str:
    """Where the settings come from, for error messages."""
    return f"{path.name} with {' '.join(map(shorten_text, overrides))}" if overrides else str(path)


def resolve_recipe(recipe: Recipe, source: str) -> Recipe:
    """`recipe` with every setting of its method and augmentation filled in."""
    method = {"name": recipe.method["name"]} | method_config(recipe, source).model_dump(mode="json")
    augment = {"preset": recipe.augment.get("preset", "none")} | augmentation(recipe, source).model_dump(mode="json")
    return recipe.model_copy(update={"method": method, "augment": augment})


def method_config(recipe: Recipe, source: str = "the recipe") -> BaseModel:
    """The settings of the recipe's method as its `Config`. Raises InputError for an unknown method or key."""
    name, settings = recipe.method["name"], {k: v for k, v in recipe.method.items() if k != "name"}
    if name not in known_methods():
        raise unknown_name_error("method", name, known_methods(), f"({source}); `pretrain methods` lists them.")
    from pretrain.methods import METHODS  # imports torch

    return validate_config(METHODS[name].Config, settings, source, "method")


def augmentation(recipe: Recipe, source: str = "the recipe") -> "Augment":
    """The recipe's augmentation: a preset with single settings changed. Raises InputError for an unknown preset or key."""
    from encoders.augment.presets import resolve_augment

    return resolve_augment(recipe.augment, source)


def recipe_identity(recipe: Recipe) -> str:
    """A digest of the settings that decide the weights: two runs with equal digests on the same store are the same run.

    Precision, torch.compile and the like are in it because they decide the last bits. A watchdog that only warns is not."""
    marks = {OutsideIdentity.ALWAYS} | (set() if recipe.watch.acts else {OutsideIdentity.UNLESS_POLICY_ACTS})
    left_out = merge_fields(list_marked_fields(Recipe, marks), list_defaulted_fields(recipe))
    return json_digest(recipe.model_dump(mode="json", exclude=left_out))


def read_recipe(path: Path) -> Recipe:
    """The resolved recipe of a run, from its config.yaml."""
    return validate_config(Recipe, read_yaml(path), str(path))


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Writes the resolved recipe as YAML, one key per line, atomically."""
    from encoders.runtime.files import atomic_write

    with atomic_write(path) as part:
        part.write_text(to_yaml(recipe))


def describe_settings(kind: type[BaseModel] = Recipe, prefix: str = "") -> list[tuple[str, str, str]]:
    """(key, default, description) of every setting; the keys of nested settings are dotted paths."""
    rows: list[tuple[str, str, str]] = []
    for key, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += describe_settings(field.annotation, f"{prefix}{key}.")
        else:
            default = "required" if field.is_required() else format_setting(field.default)
            rows.append((prefix + key, default, field.description or ""))
    return rows


def format_setting(value: Json) -> str:
    """A value as the user writes it in `key=value`: null, true, 0.9, [0.9, 0.95], crop."""
    return value if isinstance(value, str) else json.dumps(value)
