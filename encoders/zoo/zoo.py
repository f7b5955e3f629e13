"""Finding and loading encoders by name.

A name is one of: an entry of the zoo (`zoo/NAME/{card.yaml, model.safetensors, manifest.npz}`), the path of a card, `runs/X` or
`runs/X@step`, a built-in encoder (encoders/zoo/builtin.py, `pixels`), which an entry of the same name replaces, or `features:FOLDER`, the
features of other tools (encoders/zoo/stored_features.py). Built-in encoders have variants (encoders/zoo/names.py). Encoders trained here
have variants of size, crop and stages only: other preprocessing is part of them.
Names are joined by `+` to an encoder made of parts (encoders/zoo/parts.py), and by `~` to a recombination (encoders/zoo/recombine.py).
"""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import sha256_file
from encoders.runtime.json_types import Json
from encoders.runtime.paths import home_dir, zoo_dir
from encoders.zoo import backbone, builtin, grayscale_stem, hub, listing, names, parts, pixels, recombine, run_exports, stages, weights
from encoders.zoo.card import NOT_OF_VARIANTS, Card, Preprocess, Stage
from encoders.zoo.encoder import Encoder
from encoders.zoo.hub import WeightsUnavailable
from encoders.zoo.location import EncoderLocation, Origin, find_manifest, part_file, weight_stem
from encoders.zoo.publish import publish_encoder
from encoders.zoo.stored_features import FEATURES_PREFIX, StoredFeatures, stored_features_card

__all__ = [
    "EncoderLocation",
    "WeightsUnavailable",
    "baseline_name",
    "describe_location",
    "find_encoder",
    "load_encoder",
    "load_location",
    "manifest_path",
    "publish_encoder",
]


# What a name may change of an encoder that was trained here: FixRes, Touvron et al. 2019 (arXiv:1906.06423), tests at another size.
TEST_TIME_FIELDS = ("size", "crop_pct")


def load_encoder(name: str, device: str = "cpu") -> Encoder:
    """The encoder of that name, every tensor of its network matched.

    Raises InputError for an unknown name (with the nearest names) and for a damaged or changed file, and WeightsUnavailable for weights
    that are neither available locally nor on the hub."""
    return load_location(find_encoder(name), device)


def load_location(location: EncoderLocation, device: str = "cpu") -> Encoder:
    """The encoder at this place; errors as those of `load_encoder`."""
    card, stored = location.card, location.weights_card
    if location.origin == "parts":
        return parts.JoinedEncoder(card, [load_location(part, device) for part in location.parts], device)
    if location.origin == "computed":
        return StoredFeatures(card, location.folder, device) if location.folder else pixels.PixelsEncoder(device)
    seed = card.lineage.get("seed", 0) if location.origin == "drawn" else 0
    model = backbone.build_backbone(stored.arch, card.model_args, stored.preprocess.channels, card.preprocess.size, seed=seed)
    report = None
    if location.origin == "recombined":
        first, second = (load_location(part).model for part in location.parts)
        model.load_state_dict(recombine.recombine_states(card.name, first, second))
    elif location.origin != "drawn":
        state, origin = _read_weights(location), str(location.file or card.name)
        report = weights.load_weights(model, state, origin, positions=card.position_resampling)
    if card.preprocess.channels != stored.preprocess.channels:
        model = _fold_model(model, card, stored)
    encoder = Encoder(card, stages.select_stages(model, card.stages), device)
    encoder.report = report
    return encoder


def find_encoder(name: str) -> EncoderLocation:
    """The card and location of the encoder of that name. Uses no network, and reads weights only from a run's checkpoint.

    Raises InputError for an unknown name, with the nearest names."""
    names.require_readable(name)
    try:
        return _find_location(name)
    except InputError:
        raise
    except OSError as error:  # a part of a path that is too long, a folder that may not be entered
        raise InputError(f"{name!r:.200} cannot be looked up: {error.strerror}; `encoders list` shows all names") from error


def _find_location(name: str) -> EncoderLocation:
    if name.startswith(FEATURES_PREFIX):
        card = stored_features_card(name)
        return EncoderLocation(card, card, "computed", folder=Path(name.removeprefix(FEATURES_PREFIX)))
    several = names.split_parts(name, _is_one_name)
    if len(several) > 1:
        return parts.join_locations([find_encoder(part) for part in several])
    if (swap := names.split_swap(name)) is not None:
        own, what, other = swap
        return recombine.recombine_locations(find_encoder(own), what, find_encoder(other))
    bare, chosen = names.split_stages(name)
    location = _find_one(bare)
    return location if chosen is None else _choose_stages(location, chosen)


def _is_one_name(name: str) -> bool:
    """Whether a name that contains `+` is that of a card or of a run."""
    folder = home_dir() / name.partition("@")[0] if name.startswith("runs/") else Path(name)
    return folder.is_dir() or (folder.suffix in (".yaml", ".yml") and folder.is_file())


def _find_one(name: str) -> EncoderLocation:
    """The location of an encoder by a name without `+`, `~` and stages."""
    if name.startswith("runs/"):
        card, file, state = run_exports.find_run_encoder(name)
        return EncoderLocation(card, card, "run", file, state, folder=file if file.is_dir() else file.parent)
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or (path / "card.yaml").is_file():
        return _read_entry(path if path.suffix else path / "card.yaml", "card")
    parsed = names.parse_name(name)
    entry = zoo_dir() / parsed.base / "card.yaml"
    if entry.is_file():
        return _apply_variant(_read_entry(entry, "zoo"), parsed)
    if parsed.base == names.PIXELS:
        pixels.refuse_options(parsed)
        return EncoderLocation(pixels.pixels_card(), pixels.pixels_card(), "computed")
    if not parsed.base.startswith(names.BUILTIN_PREFIXES):
        if unfinished := run_exports.describe_unfinished(parsed.base):
            raise InputError(f"no encoder called {parsed.base!r} yet: {unfinished}")
        raise unknown_name_error("encoder", parsed.base, listing.list_encoder_names(), "`encoders list` shows all.")
    if parsed.base.startswith("random_"):
        card, _ = builtin.builtin_card(parsed)
        return EncoderLocation(card, card, "drawn")
    card, on_hub = builtin.builtin_card(parsed)
    placed = entry.with_name("model.safetensors")
    location = EncoderLocation(card, card, "file" if placed.is_file() else "hub", placed if placed.is_file() else None, None, on_hub)
    return _apply_variant(location, parsed)


def _choose_stages(location: EncoderLocation, chosen: tuple[Stage, ...]) -> EncoderLocation:
    """`location` with the features of these stages. Raises InputError for an encoder that has no such stages."""
    card = location.card
    if location.origin in ("parts", "computed") or card.stages is not None:
        reason = f"its features are those of the stages {list(card.stages)}" if card.stages else "it is not one network"
        raise InputError(f"{card.name} cannot have stages={'/'.join(map(str, chosen))}: {reason}; leave stages out")
    base, _, options = card.name.partition(":")
    name = f"{base}:{options + ',' if options else ''}stages={'/'.join(map(str, chosen))}"
    return location._replace(card=card.replace(name=name, stages=chosen, dim=stages.stage_width(card, chosen), **NOT_OF_VARIANTS))


def baseline_name(kind: str, card: Card) -> str:
    """The name of the `random` or `imagenet` encoder to compare the encoder of `card` with.

    `random`: same network, model_args and preprocessing, random weights of seed 0. `imagenet`: the ImageNet weights of the same network
    with the mean, std and interpolation they were trained with, at the encoder's size, resize rule and crop, so that the weights differ
    and not the resolution. A one-channel encoder is compared with three-channel ImageNet weights on replicated gray. Both use the stages of
    the encoder; for an encoder made of parts, pass the card of a part.
    Raises WeightsUnavailable if no ImageNet weights can exist (for a network reduced by model_args)."""
    p = card.preprocess
    if kind == "random":
        options: dict[str, Json] = {} if p.channels == 3 else {"channels": p.channels}
        default = builtin.random_card(names.EncoderName(f"random_{card.arch}", preprocess=options), card.arch).preprocess
        options |= _differing_fields(p, default, names.PREPROCESS_FIELDS)
        return names.variant_name(f"random_{card.arch}", options, _nameable_args(card), stages=card.stages)
    if kind != "imagenet":
        raise unknown_name_error("kind of baseline", kind, ["random", "imagenet"])
    changed = sorted(set(card.model_args) - set(listing.TENSOR_NEUTRAL_ARGS))
    if changed:
        raise WeightsUnavailable(f"no ImageNet weights exist of {card.arch} with {', '.join(f'{k}={card.model_args[k]}' for k in changed)}")
    base = find_encoder(f"imagenet_{card.arch}").card
    changes = _differing_fields(p, base.preprocess, ("size", "resize", "crop_pct"))
    return names.variant_name(f"imagenet_{card.arch}", changes, {}, stages=card.stages)


def manifest_path(name: str) -> Path | None:
    """The manifest of the images an encoder was trained on; None if it has none, or one for each of its parts."""
    return find_manifest(find_encoder(name))


def describe_location(location: EncoderLocation) -> str:
    """Where the weights are, or how to obtain them."""
    if location.parts:
        return "; ".join(f"{part.card.name}: {describe_location(part)}" for part in location.parts)
    if location.origin in ("drawn", "computed"):
        return "random, determined by the seed" if location.origin == "drawn" else "none: the features are computed from the image"
    if location.hub is None or location.file is not None:
        return str(location.file)
    cached = hub.find_cached_file(location.hub.repo, location.hub.filename)
    return str(cached) if cached else f"not available locally; loading downloads them from the hub, or {_download_advice(location)}"


def is_available_locally(name: str) -> bool:
    """Whether the encoder's weights are available without the hub."""
    return _is_available(find_encoder(name))


def _is_available(location: EncoderLocation) -> bool:
    if location.parts:
        return all(map(_is_available, location.parts))
    if location.hub is None or location.file is not None:
        return True
    return hub.find_cached_file(location.hub.repo, location.hub.filename) is not None


def _download_advice(location: EncoderLocation) -> str:
    assert location.hub is not None, "only weights on the hub need advice"
    place = zoo_dir() / names.short_name(location.card.name) / "model.safetensors"
    return f"put {location.hub.filename} of https://huggingface.co/{location.hub.repo} at {place}"


def _read_entry(card_file: Path, origin: Origin) -> EncoderLocation:
    card, folder, stem = Card.read(card_file), card_file.parent, weight_stem(card_file)
    if card.parts is None:
        return EncoderLocation(card, card, origin, folder / f"{stem}.safetensors", folder=folder)
    own = tuple(_stored_part(part, folder, stem, i, origin) for i, part in enumerate(card.parts))
    return EncoderLocation(card, card, "parts", folder=folder, parts=own)


def _stored_part(card: Card, folder: Path, stem: str, i: int, origin: Origin) -> EncoderLocation:
    """The place of part `i` of a stored encoder."""
    if card.source == names.PIXELS:
        return EncoderLocation(card, card, "computed")
    manifest = part_file(folder, stem, i, ".manifest.npz")
    file = part_file(folder, stem, i, ".safetensors")
    return EncoderLocation(card, card, origin, file, manifest=manifest if manifest.is_file() else None)


def _apply_variant(location: EncoderLocation, name: names.EncoderName) -> EncoderLocation:
    """`location` as the variant in the name: another size, resize rule or crop, or folded to one channel.

    Raises InputError for options that the encoder cannot have."""
    options = dict(name.preprocess)
    if not options and not name.model_args and not name.seed:
        return location
    trained = not name.base.startswith(names.BUILTIN_PREFIXES)
    if name.seed or (trained and (location.parts or name.model_args or not set(options) <= set(TEST_TIME_FIELDS))):
        reason = "seed belongs to random_ encoders" if name.seed else "preprocessing and network of an encoder are part of it"
        allowed = "" if location.parts or name.seed else f" ({' and '.join(TEST_TIME_FIELDS)} can be set)"
        raise InputError(f"{name} is not possible: the {reason}{allowed}; write {name.base}")
    stored = location.weights_card.preprocess
    channels = options.get("channels", stored.channels)
    if channels == stored.channels and {"mean", "std"} & set(options):
        raise InputError(
            f"{name}: mean and std belong to the weights; they can be set only with channels=1, and are then folded in exactly"
        )
    if isinstance(channels, int) and channels < stored.channels:
        options = {"mean": (0.0,), "std": (1.0,), **options}
    args: dict[str, Json] = {**location.card.model_args, **name.model_args}
    preprocess = validate_config(Preprocess, {**stored.model_dump(), **options}, str(name))
    width = builtin.arch_feature_dim(location.card.arch, args) if name.model_args else location.card.dim
    kept = {} if preprocess == stored and not name.model_args else NOT_OF_VARIANTS  # those of the weights as they were trained
    card = location.card.replace(name=str(name), preprocess=preprocess.model_dump(), model_args=args, dim=width, **kept)
    return location._replace(card=card)


def _read_weights(location: EncoderLocation) -> weights.StateDict:
    if location.state is not None:
        return location.state
    file = location.file
    if file is None:
        assert location.hub is not None, "weights without a file are on the hub"
        return weights.read_state_dict(hub.require_intact_file(hub.fetch_file(*location.hub, _download_advice(location))))
    state = weights.read_state_dict(file)
    expected = location.weights_card.sha256
    if expected and (actual := sha256_file(file)) != expected:
        raise InputError(
            f"{file} has sha256 {actual[:16]}..., its card has {expected[:16]:.16}...: the file was changed or damaged; copy it again"
        )
    return state


def _fold_model(model: nn.Module, card: Card, stored: Card) -> nn.Module:
    """The one-channel network with the preprocessing of `card`. Raises InputError if the stem cannot be folded."""
    p = card.preprocess
    folded, preprocess = grayscale_stem.to_one_channel(model, stored.preprocess, p.mean[0], p.std[0])
    if preprocess.channels != p.channels:
        raise InputError(
            f"{card.name}: the stem of {card.arch} pads with zeros (or has no bias), so no one-channel network is the same function; "
            f"write {names.short_name(card.name)}, which replicates gray images to three channels itself"
        )
    return folded


def _differing_fields(p: Preprocess, base: Preprocess, fields: tuple[str, ...]) -> Mapping[str, Json]:
    """The fields of `p` that differ from `base`."""
    own, other = p.model_dump(), base.model_dump()
    return {key: own[key] for key in fields if own.get(key) != other.get(key)}


def _nameable_args(card: Card) -> Mapping[str, Json]:
    """The model_args, if a name can hold them. Raises WeightsUnavailable otherwise."""
    bad = [k for k, v in card.model_args.items() if not isinstance(v, str | int | float | bool)]
    if bad:
        raise WeightsUnavailable(f"no random baseline by name for {card.name}: its model_args {', '.join(bad)} are lists or mappings")
    return dict(card.model_args)
