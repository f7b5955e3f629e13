"""From an encoder's name to its card and weights, and from a trained network to an entry of the zoo.

A name is one of: an entry of the zoo (`zoo/NAME/{card.yaml, model.safetensors, manifest.npz}`), the path of a card, `runs/X` or
`runs/X@step`, or a built-in one (encoders/builtin.py), which an entry of the same name replaces. Built-in ones have variants
(encoders/names.py); an encoder of yours has none, because its preprocessing is part of it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import sha256_file
from encoders.runtime.paths import zoo_dir
from encoders.zoo import backbone, builtin, grayscale_stem, hub, listing, names, run_exports, weights
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder
from encoders.zoo.hub import WeightsUnavailable
from encoders.zoo.publish import publish_encoder

__all__ = [
    "EncoderLocation",
    "WeightsUnavailable",
    "baseline_name",
    "describe_location",
    "find_encoder",
    "load_encoder",
    "manifest_path",
    "publish_encoder",
]


class EncoderLocation(NamedTuple):
    """Where an encoder is. `card` is what it will be; `made` what its weights were made as (a variant differs in size or channels)."""

    card: Card
    made: Card
    where: str  # zoo, card, run, file, hub, drawn
    file: Path | None = None
    state: weights.StateDict | None = None  # of a run's checkpoint
    hub: builtin.HubWeights | None = None
    folder: Path | None = None


def load_encoder(name: str, device: str = "cpu") -> Encoder:
    """The encoder of that name, every tensor of its network matched.

    Raises InputError for an unknown name (nearest ones given), a torn or changed file, and Unavailable for weights that cannot be had."""
    found = find_encoder(name)
    card, made = found.card, found.made
    model = backbone.build_backbone(
        made.arch, card.model_args, made.preprocess.channels, card.preprocess.size, seed=names.parse_name(name).seed
    )
    report = None
    if found.where != "drawn":
        report = weights.load_weights(model, _read_weights(found), str(found.file or name))
    if card.preprocess.channels != made.preprocess.channels:
        model = _fold_model(model, card, made)
    encoder = Encoder(card, model, device)
    encoder.report = report
    return encoder


def find_encoder(name: str) -> EncoderLocation:
    """Card and whereabouts of the encoder of that name; reads no weights, except of a run's checkpoint, and uses no network."""
    if name.startswith("runs/"):
        card, file, state = run_exports.find_run_encoder(name)
        return EncoderLocation(card, card, "run", file, state, folder=file if file.is_dir() else file.parent)
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or (path / "card.yaml").is_file():
        return _read_entry(path if path.suffix else path / "card.yaml", "card")
    parsed = names.parse_name(name)
    mine = zoo_dir() / parsed.base / "card.yaml"
    if mine.is_file():
        return _apply_variant(_read_entry(mine, "zoo"), parsed)
    if not parsed.base.startswith(names.BUILTIN_PREFIXES):
        raise unknown_name_error("encoder", parsed.base, listing.list_encoder_names(), "`encoders list` shows all.")
    if parsed.base.startswith("random_"):
        card, _ = builtin.builtin_card(parsed)
        return EncoderLocation(card, card, "drawn")
    card, where = builtin.builtin_card(parsed)
    placed = mine.with_name("model.safetensors")
    found = EncoderLocation(card, card, "file" if placed.is_file() else "hub", placed if placed.is_file() else None, None, where)
    return _apply_variant(found, parsed)


def baseline_name(kind: str, card: Card) -> str:
    """The name of the `random` or `imagenet` encoder to compare the encoder of `card` with.

    `random`: same network, model_args and preprocessing, weights of seed 0. `imagenet`: the ImageNet weights of the same network with the
    mean, std and interpolation they were trained with, at the encoder's size, resize rule and crop: what differs shall be the weights,
    not the resolution. A one-channel encoder meets three-channel ImageNet weights on replicated gray, which is what they know.
    Raises Unavailable where no ImageNet weights can exist (a network cut down by model_args)."""
    p = card.preprocess
    if kind == "random":
        given = {} if p.channels == 3 else {"channels": p.channels}
        like = builtin.random_card(names.EncoderName(f"random_{card.arch}", preprocess=given), card.arch).preprocess
        return names.variant_name(
            f"random_{card.arch}", {**given, **_differing_fields(p, like, names.PREPROCESS_FIELDS)}, _nameable_args(card)
        )
    if kind != "imagenet":
        raise unknown_name_error("kind of baseline", kind, ["random", "imagenet"])
    cut = sorted(set(card.model_args) - set(listing.TENSOR_NEUTRAL_ARGS))
    if cut:
        raise WeightsUnavailable(f"no ImageNet weights exist of {card.arch} with {', '.join(f'{k}={card.model_args[k]}' for k in cut)}")
    base = find_encoder(f"imagenet_{card.arch}").card
    return names.variant_name(f"imagenet_{card.arch}", _differing_fields(p, base.preprocess, ("size", "resize", "crop_pct")), {})


def manifest_path(name: str) -> Path | None:
    """The file that says what the encoder was trained on; None for one that has none."""
    found = find_encoder(name)
    if found.folder is None:
        return None
    folders = [found.folder, found.folder.parent] if found.where == "run" else [found.folder]  # a run keeps it beside its checkpoints
    return next((folder / "manifest.npz" for folder in folders if (folder / "manifest.npz").is_file()), None)


def describe_location(found: EncoderLocation) -> str:
    """Where the weights are, or what to do so that they are here."""
    if found.where == "drawn":
        return "drawn from the seed"
    if found.hub is None or found.file is not None:
        return str(found.file)
    cached = hub.find_cached_file(found.hub.repo, found.hub.filename)
    return str(cached) if cached else f"not here; loading tries the hub, or {_download_advice(found)}"


def is_available_locally(name: str) -> bool:
    """Whether the encoder's weights can be had without asking the hub."""
    found = find_encoder(name)
    if found.hub is None or found.file is not None:
        return True
    return hub.find_cached_file(found.hub.repo, found.hub.filename) is not None


def _download_advice(found: EncoderLocation) -> str:
    assert found.hub is not None, "only what is on the hub needs advice"
    place = zoo_dir() / names.short_name(found.card.name) / "model.safetensors"
    return f"put {found.hub.filename} of https://huggingface.co/{found.hub.repo} at {place}"


def _read_entry(card_file: Path, where: str) -> EncoderLocation:
    card = Card.read(card_file)
    return EncoderLocation(card, card, where, card_file.with_name("model.safetensors"), folder=card_file.parent)


def _apply_variant(found: EncoderLocation, name: names.EncoderName) -> EncoderLocation:
    """`found` as the variant that the name asks for: another size, resize rule or crop, or folded to one channel."""
    asked = dict(name.preprocess)
    if not asked and not name.model_args and not name.seed:
        return found
    if not name.base.startswith(names.BUILTIN_PREFIXES) or name.seed:
        kind = "seed belongs to random_ encoders" if name.seed else "preprocessing and network of an encoder are part of it"
        raise InputError(f"{name} cannot be had: the {kind}; write {name.base}")
    made = found.made.preprocess
    if asked.get("channels", made.channels) == made.channels and {"mean", "std"} & set(asked):
        raise InputError(f"{name}: mean and std belong to the weights; only with channels=1 may they be chosen, and are folded in exactly")
    if asked.get("channels", made.channels) < made.channels:
        asked = {"mean": (0.0,), "std": (1.0,), **asked}
    args = {**found.card.model_args, **name.model_args}
    preprocess = validate_config(Preprocess, {**made.model_dump(), **asked}, str(name))
    width = builtin.arch_feature_dim(found.card.arch, args) if name.model_args else found.card.dim
    same_answer = {} if preprocess == made and not name.model_args else {"canary": None}
    card = found.card.changed(name=str(name), preprocess=preprocess.model_dump(), model_args=args, dim=width, **same_answer)
    return found._replace(card=card)


def _read_weights(found: EncoderLocation) -> weights.StateDict:
    if found.state is not None:
        return found.state
    file = found.file
    if file is None:
        assert found.hub is not None, "what has no file is on the hub"
        return weights.read_state_dict(hub.fetch_file(found.hub.repo, found.hub.filename, _download_advice(found)))
    state = weights.read_state_dict(file)
    told = found.made.sha256
    if told and (own := sha256_file(file)) != told:
        raise InputError(f"{file} has sha256 {own[:16]}..., its card says {told[:16]}...: it was changed or copied badly; copy it again")
    return state


def _fold_model(model: Any, card: Card, made: Card) -> Any:
    p = card.preprocess
    folded, now = grayscale_stem.to_one_channel(model, made.preprocess, p.mean[0], p.std[0])
    if now.channels != p.channels:
        raise InputError(
            f"{card.name}: the stem of {card.arch} pads with zeros (or has no bias), so no one-channel network is the same function; "
            f"write {names.short_name(card.name)}, which replicates gray images to three channels itself"
        )
    return folded


def _differing_fields(p: Preprocess, base: Preprocess, fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: getattr(p, key) for key in fields if getattr(p, key) != getattr(base, key)}


def _nameable_args(card: Card) -> dict[str, Any]:
    """model_args that a name can carry."""
    bad = [k for k, v in card.model_args.items() if not isinstance(v, str | int | float | bool)]
    if bad:
        raise WeightsUnavailable(f"no random baseline by name for {card.name}: its model_args {', '.join(bad)} are not plain values")
    return dict(card.model_args)
