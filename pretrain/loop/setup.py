"""From a recipe to everything the loop needs: images, backbone, method, optimizer, and the card that the weights will carry."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.loading.batches import Batches
from encoders.runtime import dist, optim
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.store import staging
from encoders.store.store import Store
from encoders.store.write import pixel_fingerprint
from encoders.zoo import backbone as networks
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.preprocess import prepare_input
from pretrain.loop.batchnorm import convert_sync_batchnorm
from pretrain.methods import METHODS
from pretrain.methods.common import DataShape
from pretrain.recipe import positives as kin
from pretrain.recipe.config import Recipe, augmentation, method_config

PLAIN_VIT_MODULES = ("timm.models.vision_transformer", "timm.models.deit")  # where timm defines plain ViTs
SIZE_CHECK_IMAGES = 32  # images whose size is compared before a run begins
STATISTICS_IMAGES = 1024  # images that mean and std are measured on: their standard error is then below 1 % of the spread between images


@dataclass
class Corpus:
    """The images of a run: a store and the rows of it that are used."""

    store: Store
    index: NDArray[np.int64]

    def manifest(self) -> dict[str, NDArray[Any]]:
        """What is trained on, as hashes: pseudonymous, not anonymous (whoever holds the images can recompute them)."""
        from hashlib import sha256

        def digests(texts: list[str]) -> NDArray[np.uint8]:
            return np.array([list(sha256(t.encode()).digest()) for t in texts], dtype=np.uint8).reshape(-1, 32)

        pixels = [list(bytes.fromhex(str(h))) for h in self.store.column("sha256")[self.index]]
        patients = [f"{d}:{p}" for d, p in zip(self.datasets(), self.store.column("patient")[self.index], strict=True)]
        return {
            "store_fingerprint": np.array([part.fingerprint for part in self.store.parts]),
            "sha256": np.array(pixels, dtype=np.uint8).reshape(-1, 32),
            "phash": np.asarray(self.store.column("phash")[self.index], dtype=np.uint8),
            "patient_hash": digests(patients),
        }

    def datasets(self) -> list[str]:
        """The data set's name of each row."""
        return [str(name) for name in self.store.datasets[self.index]]


@dataclass
class Setup:
    """All that a run is made of, at step 0."""

    recipe: Recipe  # pinned: nothing in it is left to be found out
    corpus: Corpus
    method: Any
    batches: Batches
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    card: Card
    steps: int
    warmup: int
    device: torch.device


def open_corpus(recipe: Recipe) -> Corpus:
    """Opens the store(s) and picks the rows. Raises InputError when there is none, or a key or split is unknown."""
    data = recipe.data
    if data.store is None:
        raise InputError("no images to train on: give data.store=FILE.h5, made with `encoders ingest`")
    store = Store.open(staging.resolve_staged(data.store))
    use = np.ones(len(store), dtype=bool)
    if data.split is not None:
        splits = store.column("split")
        if data.split not in set(splits):
            raise unknown_name_error("split", data.split, sorted({str(s) for s in splits}), f"({store.paths[0]})")
        use &= splits == data.split
    if data.keys is not None:
        use &= np.isin(store.column("key"), read_wanted_keys(data.keys, store))
    rows = np.flatnonzero(use)
    require_one_size(store, rows)
    return Corpus(store, rows)


def require_one_size(store: Store, rows: NDArray[np.int64]) -> None:
    """Raises InputError when images of unlike size would meet in a batch: found in the first used of each file, and in some others."""
    if not len(rows):
        return
    first = rows[np.unique(np.searchsorted(store.starts, rows, side="right"), return_index=True)[1]]
    some = rows[np.linspace(0, len(rows) - 1, min(SIZE_CHECK_IMAGES, len(rows))).astype(int)]
    seen = {store.image(int(i)).shape[:2]: store.place(int(i))[0].path for i in [*some, *first]}
    if len(seen) > 1:
        told = ", ".join(f"{height} x {width} in {path.name}" for (height, width), path in sorted(seen.items()))
        raise InputError(f"the images differ in size ({told}); ingest them with one --size")


def read_wanted_keys(path: str, store: Store) -> NDArray[Any]:
    """The keys in a file, one a line. Raises InputError when it is missing, empty, or names images that the store does not have."""
    try:
        with open(path) as file:
            keys = np.array(sorted({line.strip() for line in file if line.strip()}))
    except OSError as wrong:
        raise InputError(f"cannot read data.keys={path}: {wrong.strerror}") from wrong
    missing = np.setdiff1d(keys, store.column("key"))
    if len(missing) or not len(keys):
        first = f", such as {str(missing[0])!r}," if len(missing) else ""
        raise InputError(f"data.keys={path}: {len(missing)} of its {len(keys)} keys{first} are not in {store.paths[0]}; one key a line")
    return keys


def complete_recipe(recipe: Recipe, images: Corpus) -> tuple[Recipe, Any]:
    """The recipe with all that was left open filled in from `init` and the corpus; and the encoder `init`, or None."""
    start = None
    if recipe.init is not None:
        from encoders.zoo import zoo

        try:
            start = zoo.load_encoder(recipe.init)
        except zoo.WeightsUnavailable as wrong:
            raise InputError(f"init={recipe.init}: {wrong}; or start from random weights with init=null") from wrong
        recipe = inherit_settings(recipe, start.card)
    channels = recipe.channels or images.store.channels
    modality = recipe.modality or images.store.modality
    recipe = recipe.model_copy(update={"channels": channels, "modality": modality})
    if recipe.preprocess.mean is None or recipe.preprocess.std is None:
        mean, std = measure_mean_std(images, build_preprocess(recipe, (0.0,) * channels, (1.0,) * channels))
        own = recipe.preprocess
        pixels = own.model_copy(update={"mean": own.mean or mean, "std": own.std or std})
        recipe = recipe.model_copy(update={"preprocess": pixels})
    return recipe, start


def inherit_settings(recipe: Recipe, card: Card) -> Recipe:
    """The recipe with what weights bring along: network, channels, mean and std. Raises InputError where the recipe says otherwise."""
    if recipe.arch not in (None, card.arch):
        raise InputError(
            f"init={recipe.init} is a {card.arch}, but arch={recipe.arch}: say arch={card.arch}, or start from another encoder"
        )
    if recipe.model_args not in ({}, card.model_args):
        raise InputError(f"init={recipe.init} was built with model_args={card.model_args}, not {recipe.model_args}: leave them out")
    if recipe.channels not in (None, card.preprocess.channels):
        raise InputError(f"init={recipe.init} takes {card.preprocess.channels} channels, not {recipe.channels}: leave channels=null")
    pixels = recipe.preprocess
    kept = {"mean": pixels.mean or card.preprocess.mean, "std": pixels.std or card.preprocess.std}
    network = {"arch": card.arch, "model_args": card.model_args, "channels": card.preprocess.channels}
    return recipe.model_copy(update=network | {"preprocess": pixels.model_copy(update=kept)})


def build_preprocess(recipe: Recipe, mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    """The card's preprocessing."""
    own = recipe.preprocess
    raw = {"size": recipe.size, "resize": own.resize, "interpolation": own.interpolation, "channels": recipe.channels}
    return validate_config(Preprocess, raw | {"mean": mean, "std": std}, "the recipe's preprocess")


def measure_mean_std(images: Corpus, raw: Preprocess) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel of the corpus as the model will see it: the same numbers whenever they are measured again."""
    rows = images.index[np.linspace(0, len(images.index) - 1, min(STATISTICS_IMAGES, len(images.index))).round().astype(int)]
    total = square = torch.zeros(raw.channels, dtype=torch.float64)
    count = 0
    for row in rows:  # one at a time: sizes may vary
        x = prepare_input(images.store.unit_images([row]), raw)[0].double()  # (C, H, W)
        total, square, count = total + x.sum((1, 2)), square + (x**2).sum((1, 2)), count + x[0].numel()
    mean = total / count
    std = (square / count - mean**2).clamp(min=1e-6).sqrt()  # 1e-6: a corpus of one gray value still gives finite inputs
    return tuple(round(float(v), 4) for v in mean), tuple(max(round(float(v), 4), 1e-3) for v in std)


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself. One that does not emulates it: ResNet-18 took ten times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # torch has no public name for it yet


def build_setup(recipe: Recipe, device: str, card: dict[str, Any] | None = None) -> Setup:
    """Everything for a run; the same objects, number for number, whenever it is called for the same recipe and store.

    card: of the checkpoint that is about to be restored; then nothing is fetched or measured, for its weights come from there."""
    images = open_corpus(recipe)
    if len(images.index) < recipe.batch:
        raise InputError(f"batch={recipe.batch} is more than the {len(images.index)} images to train on; lower batch or add images")
    recipe, start = complete_recipe(recipe, images) if card is None else (recipe, None)
    if recipe.precision == "auto":
        recipe = recipe.model_copy(update={"precision": "bf16" if has_bf16(torch.device(device)) else "fp32"})
    shape = DataShape(len(images.index), recipe.size, recipe.channels or 1, recipe.batch, recipe.init is not None, recipe.accumulate)
    if METHODS[recipe.method["name"]].traits.takes == "ViT" and not is_plain_vit(networks.validate_arch(str(recipe.arch))):
        raise InputError(f"{recipe.method['name']} hides patches, so it takes ViTs; arch={recipe.arch} is none: try vit_tiny_patch16_224")
    network = networks.build_backbone(str(recipe.arch), recipe.model_args, shape.channels, recipe.size, recipe.drop_path, recipe.seed)
    if start is not None:
        load_initial_weights(network, start)
    if recipe.checkpointing:
        enable_grad_checkpointing(network, str(recipe.arch))
    torch.manual_seed(recipe.seed)  # heads, decoder and queue are drawn next
    method = METHODS[recipe.method["name"]](method_config(recipe), network, shape).to(device)
    if dist.world_size() > 1 and (method.sync_batchnorm if recipe.sync_batchnorm is None else recipe.sync_batchnorm):
        convert_sync_batchnorm(method)
    if recipe.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if recipe.compile:
        method.compile()  # in place: names in `state_dict` stay as they are
    pixels = recipe.preprocess
    views = method.views(augmentation(recipe))
    prep = build_preprocess(recipe, tuple(pixels.mean or ()), tuple(pixels.std or ()))
    batches = Batches(
        images.store,
        views,
        prep,
        seed=recipe.seed,
        batch=recipe.batch,
        index=images.index,
        rank=dist.rank(),
        world=dist.world_size(),
        accumulate=recipe.accumulate,
        workers=recipe.data.workers,
        device=device,
        mask=method.mask_spec(),
        context=recipe.data.context,
        weights=row_weights(images, recipe.data.weights, recipe.data.balance),
        partners=kin.find_partners(recipe.data.positives, images.store, images.index, len(views)),
        patients=kin.patient_codes(images.store) if method.asks_patients() else None,
    )
    optimizer = optim.build_optimizer(method.param_groups(), recipe.optim, recipe.batch)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=recipe.precision == "fp16")
    steps = recipe.steps or max(1, round((recipe.epochs or 1) * batches.steps_per_epoch))
    warmup = recipe.warmup_steps or round(recipe.warmup_epochs * batches.steps_per_epoch)
    if warmup >= steps:
        raise InputError(f"the warm-up ({warmup} steps) is not shorter than the run ({steps} steps); lower warmup_steps or warmup_epochs")
    told = (
        validate_config(Card, card, "the checkpoint's card")
        if card
        else build_first_card(recipe, prep, images, start, networks.feature_dim(network))
    )
    return Setup(recipe, images, method, batches, optimizer, scaler, told, steps, warmup, torch.device(device))


def is_plain_vit(arch: str) -> bool:
    """Whether timm defines the network where its plain ViTs are; asked before it is built, as a ViT's arguments fit no other."""
    import timm

    return timm.model_entrypoint(arch).__module__ in PLAIN_VIT_MODULES


def enable_grad_checkpointing(network: torch.nn.Module, arch: str) -> None:
    """Activations are computed again in the backward pass instead of being kept. Raises InputError for a network that cannot do that."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as wrong:
        raise InputError(f"checkpointing=true: {arch} has no gradient checkpointing in timm; leave it out and raise accumulate") from wrong


def describe_adjustments(made: Setup) -> list[str]:
    """What is adjusted to the data, in sentences."""
    excluded = made.method.asks_patients() if hasattr(made.method.cfg, "exclude_same_patient") else None
    return list(made.method.notes(made.method.data)) + kin.describe_positives(made.recipe.data.positives, made.batches.partners, excluded)


def recipe_without_folders(recipe: Recipe) -> dict[str, Any]:
    """The recipe as others may read it: files by their names alone, without the folders of this machine."""
    told = recipe.model_dump(mode="json")
    stores = [recipe.data.store] if isinstance(recipe.data.store, str) else recipe.data.store or []
    told["data"] |= {"store": [Path(s).name for s in stores], "keys": recipe.data.keys and Path(recipe.data.keys).name}
    return told


def row_weights(images: Corpus, weights: list[float] | None, balance: str | None = None) -> NDArray[np.float64] | None:
    """How often each row is drawn, from one weight a store: a store of weight 2 gives twice the images of one of weight 1.

    balance: column whose values share what their store is given equally; without weights, all of them are equal over all stores.
    Raises InputError when there is not one positive weight for each store, or no such column."""
    if weights is None and balance is None:
        return None
    parts = images.store.parts
    of = np.searchsorted(images.store.starts, images.index, side="right") - 1  # (N,) the store of each row
    within = np.ones(len(of)) if balance is None else balance_weights(images, balance, of if weights is not None else None)
    if weights is None:
        return within
    if len(weights) != len(parts) or min(weights) <= 0:
        raise InputError(f"data.weights has {len(weights)} numbers for {len(parts)} stores; give one above 0 for each")
    used = np.bincount(of, within, minlength=len(parts))
    return np.asarray(weights)[of] * within / used[of]


def balance_weights(images: Corpus, column: str, of: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """(N,) one over the rows that share a value of `column` in one data set; with `of`, (N,), in one store."""
    names = [str(value) for value in images.store.column(column)[images.index]]
    whole = list(zip(images.datasets() if of is None else of.tolist(), names, strict=True))
    count = Counter(whole)
    return np.array([1 / count[each] for each in whole])


def load_initial_weights(network: torch.nn.Module, start: Any) -> None:
    """Every weight of the encoder `start` into `network`, a position table resampled to its size. Raises InputError if one has no place."""
    from timm.layers import resample_abs_pos_embed

    state = dict(start.model.state_dict())
    own = network.state_dict()
    if "pos_embed" in own and own["pos_embed"].shape != state["pos_embed"].shape:
        grid = [int(n) for n in network.patch_embed.grid_size]  # type: ignore[union-attr]
        prefix = int(getattr(network, "num_prefix_tokens", 1))
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=prefix)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as wrong:
        raise InputError(f"the weights of {start.card.name} do not fit {start.card.arch}: {wrong}") from wrong


def build_first_card(recipe: Recipe, prep: Preprocess, images: Corpus, start: Any, dim: int) -> Card:
    """The card at step 0: all but the weights' own numbers."""
    attrs = images.store.attrs
    return Card(
        name="unnamed",
        arch=str(recipe.arch),
        model_args=recipe.model_args,
        dim=dim,
        preprocess=prep,
        modality=recipe.modality,
        method=recipe.method["name"],
        steps=0,
        config=recipe_without_folders(recipe),
        lineage={
            "init": recipe.init or f"random:{recipe.seed}",
            "init_sha256": start.sha256 if start else None,
            "method": recipe.method["name"],
        },
        corpus={
            "geometry": attrs.get("geometry"),
            "unit": attrs.get("unit"),
            "dataset": images.store.dataset,
            "fingerprint": images.store.fingerprint,
            "images": len(images.index),
            "used": pixel_fingerprint(images.store.column("sha256")[images.index].tolist()),
        },
        licence=recipe.licence,
    )
