"""Monte Carlo dropout: several predictions of an image by the network with the dropout and drop path that it was trained with.

The random numbers of an image are seeded by the hash of its pixels, and its predictions are one batch of copies of it, so that they depend
neither on other images nor on the number of images that are read together.

Source: Gal and Ghahramani 2016, arXiv:1506.02142. Drop path in the place of dropout is the same approximation with another distribution.

Shapes: B images, T predictions of each, C classes.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.card import Card
from encoders.zoo.encoder import Encoder, EncoderInput
from encoders.zoo.tta_settings import TtaSettings
from transfer.protocols.finetune import build_trainable_backbone
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.layers import is_transformer
from transfer.protocols.tta import average_views

DROPS = (nn.Dropout, DropPath)
HEAD_ALONE = ("linear", "last")  # strategies in which the network, or most of it, was trained without drop path
DROPOUT_ADVICE = "train it with dropout before the head, e.g. `transfer train ... finetune.dropout=0.2`, or with finetune.drop_path=0.1"


def build_dropout_network(encoder: Encoder, network: FinetuneNetwork) -> FinetuneNetwork:
    """The network with the dropout and drop path of its training, in evaluation mode but for these.

    Raises InputError for a network that was trained without any."""
    card = encoder.card
    rate, path = training_dropout(card, is_transformer(encoder.model))
    own = build_trainable_backbone(encoder, path).to(encoder.device) if path else network.backbone
    noisy = FinetuneNetwork(own, network.head.in_features, network.head.out_features, dropout=rate)
    noisy.head = network.head
    noisy.eval()
    for module in own.modules() if path else ():
        if isinstance(module, DROPS):
            module.train()
    return noisy


def training_dropout(card: Card, transformer: bool) -> tuple[float, float]:
    """Rates of the dropout before the head and of drop path, of the training of a card's network. Raises InputError without any."""
    settings = card.config or {}
    strategy = re.split(r"[=+]", card.head.strategy)[0] if card.head is not None else ""
    given = settings.get("drop_path")
    path = (0.1 if transformer else 0.0) if given is None else float(given)
    rate, path = float(settings.get("dropout") or 0.0), 0.0 if strategy in HEAD_ALONE else path
    if not rate and not path:
        raise InputError(
            f"{card.name} was trained without dropout and without drop path, so --mc-dropout has nothing to draw; {DROPOUT_ADVICE}"
        )
    return rate, path


def sample_logits(noisy: FinetuneNetwork, x: EncoderInput, sha256: Sequence[str], count: int, tta: TtaSettings | None) -> Tensor:
    """(T, B, C) logits, float64, of T = `count` draws for each of B images.  sha256: of the pixels of each image."""
    assert isinstance(x, Tensor), "a trained encoder has one network"
    gpus = [x.device] if x.device.type == "cuda" else []
    forward = average_views(lambda views: _forward(noisy, views), tta)
    samples = []
    with torch.random.fork_rng(devices=gpus):
        for image, digest in zip(x, sha256, strict=True):
            torch.manual_seed(int(digest[:15], 16))  # 60 bits: manual_seed takes less than 64
            samples.append(forward(image.expand(count, *image.shape)).double())  # (T, C)
    return torch.stack(samples, dim=1)


def _forward(noisy: FinetuneNetwork, x: EncoderInput) -> Tensor:
    assert isinstance(x, Tensor)
    features = backbone.pooled_features(noisy.backbone, x)
    logits: Tensor = noisy.head(F.dropout(features, noisy.dropout, training=True) if noisy.dropout else features)
    return logits
