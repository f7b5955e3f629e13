"""From an encoder's name to its card and weights, and from a trained network to an entry of the zoo.

A name is one of: an entry of the zoo (`zoo/NAME/{card.yaml, model.safetensors, manifest.npz}`), the path of a card, `runs/X` or
`runs/X@step`, or a built-in one (encoders/builtin.py), which an entry of the same name replaces. Built-in ones have variants
(encoders/names.py); an encoder of yours has none, because its preprocessing is part of it.
"""

from pathlib import Path
from typing import Any, NamedTuple

from encoders import backbone, builtin, gray, hub, listing, names, runs, weights
from encoders.card import Card, Preprocess
from encoders.encoder import Encoder
from encoders.hub import Unavailable
from encoders.publish import publish
from encoders.runtime.config import validated
from encoders.runtime.errors import InputError, unknown
from encoders.runtime.files import sha256_file
from encoders.runtime.home import zoo_dir

__all__ = ["Found", "Unavailable", "baseline", "find", "load", "manifest_path", "publish", "whereabouts"]


class Found(NamedTuple):
    """Where an encoder is. `card` is what it will be; `made` what its weights were made as (a variant differs in size or channels)."""

    card: Card
    made: Card
    where: str  # zoo, card, run, file, hub, drawn
    file: Path | None = None
    state: weights.State | None = None  # of a run's checkpoint
    hub: builtin.Weights | None = None
    folder: Path | None = None


def load(name: str, device: str = "cpu") -> Encoder:
    """The encoder of that name, every tensor of its network matched.

    Raises InputError for an unknown name (nearest ones given), a torn or changed file, and Unavailable for weights that cannot be had."""
    found = find(name)
    card, made = found.card, found.made
    model = backbone.build(made.arch, card.model_args, made.preprocess.channels, card.preprocess.size, seed=names.parse(name).seed)
    report = None
    if found.where != "drawn":
        report = weights.fit(model, _state(found), str(found.file or name))
    if card.preprocess.channels != made.preprocess.channels:
        model = _folded(model, card, made)
    encoder = Encoder(card, model, device)
    encoder.report = report
    return encoder


def find(name: str) -> Found:
    """Card and whereabouts of the encoder of that name; reads no weights, except of a run's checkpoint, and uses no network."""
    if name.startswith("runs/"):
        card, file, state = runs.newest(name)
        return Found(card, card, "run", file, state, folder=file if file.is_dir() else file.parent)
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or (path / "card.yaml").is_file():
        return _entry(path if path.suffix else path / "card.yaml", "card")
    parsed = names.parse(name)
    mine = zoo_dir() / parsed.base / "card.yaml"
    if mine.is_file():
        return _varied(_entry(mine, "zoo"), parsed)
    if not parsed.base.startswith(names.FAMILIES):
        raise unknown("encoder", parsed.base, listing.names(), "`encoders list` shows all.")
    if parsed.base.startswith("random_"):
        card, _ = builtin.card(parsed)
        return Found(card, card, "drawn")
    card, where = builtin.card(parsed)
    placed = mine.with_name("model.safetensors")
    found = Found(card, card, "file" if placed.is_file() else "hub", placed if placed.is_file() else None, None, where)
    return _varied(found, parsed)


def baseline(kind: str, card: Card) -> str:
    """The name of the `random` or `imagenet` encoder to compare the encoder of `card` with.

    `random`: same network, model_args and preprocessing, weights of seed 0. `imagenet`: the ImageNet weights of the same network with the
    mean, std and interpolation they were trained with, at the encoder's size, resize rule and crop: what differs shall be the weights,
    not the resolution. A one-channel encoder meets three-channel ImageNet weights on replicated gray, which is what they know.
    Raises Unavailable where no ImageNet weights can exist (a network cut down by model_args)."""
    p = card.preprocess
    if kind == "random":
        given = {} if p.channels == 3 else {"channels": p.channels}
        like = builtin.random_card(names.Name(f"random_{card.arch}", preprocess=given), card.arch).preprocess
        return names.variant(f"random_{card.arch}", {**given, **_unlike(p, like, names.OF_PREPROCESS)}, _plain_args(card))
    if kind != "imagenet":
        raise unknown("kind of baseline", kind, ["random", "imagenet"])
    cut = sorted(set(card.model_args) - set(listing.HARMLESS))
    if cut:
        raise Unavailable(f"no ImageNet weights exist of {card.arch} with {', '.join(f'{k}={card.model_args[k]}' for k in cut)}")
    base = find(f"imagenet_{card.arch}").card
    return names.variant(f"imagenet_{card.arch}", _unlike(p, base.preprocess, ("size", "resize", "crop_pct")), {})


def manifest_path(name: str) -> Path | None:
    """The file that says what the encoder was trained on; None for one that has none."""
    found = find(name)
    if found.folder is None:
        return None
    folders = [found.folder, found.folder.parent] if found.where == "run" else [found.folder]  # a run keeps it beside its checkpoints
    return next((folder / "manifest.npz" for folder in folders if (folder / "manifest.npz").is_file()), None)


def whereabouts(found: Found) -> str:
    """Where the weights are, or what to do so that they are here."""
    if found.where == "drawn":
        return "drawn from the seed"
    if found.hub is None or found.file is not None:
        return str(found.file)
    cached = hub.cached(found.hub.repo, found.hub.filename)
    return str(cached) if cached else f"not here; loading tries the hub, or {_advice(found)}"


def at_hand(name: str) -> bool:
    """Whether the encoder's weights can be had without asking the hub."""
    found = find(name)
    if found.hub is None or found.file is not None:
        return True
    return hub.cached(found.hub.repo, found.hub.filename) is not None


def _advice(found: Found) -> str:
    assert found.hub is not None, "only what is on the hub needs advice"
    place = zoo_dir() / names.short(found.card.name) / "model.safetensors"
    return f"put {found.hub.filename} of https://huggingface.co/{found.hub.repo} at {place}"


def _entry(card_file: Path, where: str) -> Found:
    card = Card.read(card_file)
    return Found(card, card, where, card_file.with_name("model.safetensors"), folder=card_file.parent)


def _varied(found: Found, name: names.Name) -> Found:
    """`found` as the variant that the name asks for: another size, resize rule or crop, or folded to one channel."""
    asked = dict(name.preprocess)
    if not asked and not name.model_args and not name.seed:
        return found
    if not name.base.startswith(names.FAMILIES) or name.seed:
        kind = "seed belongs to random_ encoders" if name.seed else "preprocessing and network of an encoder are part of it"
        raise InputError(f"{name} cannot be had: the {kind}; write {name.base}")
    made = found.made.preprocess
    if asked.get("channels", made.channels) == made.channels and {"mean", "std"} & set(asked):
        raise InputError(f"{name}: mean and std belong to the weights; only with channels=1 may they be chosen, and are folded in exactly")
    if asked.get("channels", made.channels) < made.channels:
        asked = {"mean": (0.0,), "std": (1.0,), **asked}
    args = {**found.card.model_args, **name.model_args}
    preprocess = validated(Preprocess, {**made.model_dump(), **asked}, str(name))
    width = builtin.dim(found.card.arch, args) if name.model_args else found.card.dim
    same_answer = {} if preprocess == made and not name.model_args else {"canary": None}
    card = found.card.changed(name=str(name), preprocess=preprocess.model_dump(), model_args=args, dim=width, **same_answer)
    return found._replace(card=card)


def _state(found: Found) -> weights.State:
    if found.state is not None:
        return found.state
    file = found.file
    if file is None:
        assert found.hub is not None, "what has no file is on the hub"
        return weights.read(hub.fetch(found.hub.repo, found.hub.filename, _advice(found)))
    state = weights.read(file)
    told = found.made.sha256
    if told and (own := sha256_file(file)) != told:
        raise InputError(f"{file} has sha256 {own[:16]}..., its card says {told[:16]}...: it was changed or copied badly; copy it again")
    return state


def _folded(model: Any, card: Card, made: Card) -> Any:
    p = card.preprocess
    folded, now = gray.one_channel(model, made.preprocess, p.mean[0], p.std[0])
    if now.channels != p.channels:
        raise InputError(
            f"{card.name}: the stem of {card.arch} pads with zeros (or has no bias), so no one-channel network is the same function; "
            f"write {names.short(card.name)}, which replicates gray images to three channels itself"
        )
    return folded


def _unlike(p: Preprocess, base: Preprocess, fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: getattr(p, key) for key in fields if getattr(p, key) != getattr(base, key)}


def _plain_args(card: Card) -> dict[str, Any]:
    """model_args that a name can carry."""
    bad = [k for k, v in card.model_args.items() if not isinstance(v, str | int | float | bool)]
    if bad:
        raise Unavailable(f"no random baseline by name for {card.name}: its model_args {', '.join(bad)} are not plain values")
    return dict(card.model_args)
