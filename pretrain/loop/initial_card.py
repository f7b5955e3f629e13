"""The card of a run at step 0: everything but the numbers of the weights."""

from typing import Any

from torch import nn

from encoders.runtime.redact import hide_path
from encoders.store.write import pixel_fingerprint
from encoders.zoo import backbone
from encoders.zoo.batchnorm import list_statistics_layers
from encoders.zoo.card import Card, Preprocess, list_trained_labels
from encoders.zoo.encoder import Encoder
from pretrain.loop.corpus import Corpus
from pretrain.loop.label_use import LabelUse
from pretrain.recipe.config import Recipe


def build_first_card(
    recipe: Recipe, prep: Preprocess, images: Corpus, initial_encoder: Encoder | None, network: nn.Module, labels: LabelUse
) -> Card:
    """The card at step 0.  network: the backbone.  initial_encoder: where the weights start from, None for random ones."""
    attrs = images.store.attrs
    inherited = list_trained_labels(initial_encoder.card) if initial_encoder else []
    return Card(
        name="unnamed",
        arch=str(recipe.arch),
        model_args=recipe.model_args,
        dim=backbone.feature_dim(network),
        preprocess=prep,
        modality=recipe.modality,
        method=recipe.method["name"],
        steps=0,
        config=recipe_without_folders(recipe),
        lineage={
            "init": recipe.init or f"random:{recipe.seed}",
            "init_sha256": initial_encoder.sha256 if initial_encoder else None,
            "method": recipe.method["name"],
            "batchnorm": recipe.batchnorm if list_statistics_layers(network) else None,  # None: the network has no running statistics
            **labels.lineage(),
            **({"labels_of_init": inherited} if inherited else {}),
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


NOT_ON_CARD = {"track", "system_metrics"}  # where a run was shown says nothing about its weights


def recipe_without_folders(recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings for others to read: files by their kind only, since they may be named after patients (the run's config.yaml
    has their paths)."""
    settings = recipe.model_dump(mode="json", exclude=NOT_ON_CARD)
    stores = [recipe.data.store] if isinstance(recipe.data.store, str) else recipe.data.store or []
    settings["data"] |= {"store": [hide_path(str(s)) for s in stores]}
    settings["data"] |= {key: settings["data"][key] and hide_path(str(settings["data"][key])) for key in ("keys", "label_keys")}
    return settings
