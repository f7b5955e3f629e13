"""Tiny encoders of each kind, and fine-tuning of one under a strategy, for tests of strategies."""

import numpy as np
import torch

from encoders.store.store import Store
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder
from transfer.protocols import finetune
from transfer.protocols.common import ImageSet, validation_score

NETWORKS = {
    "resnet": ("resnet10t", {"channels": (8, 8, 16, 16), "stem_width": 8}),
    "bottleneck": ("resnet26", {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 8}),
    "mobilenet": ("mobilenetv2_050", {}),
    "densenet": ("densenet121", {"block_config": (1, 1, 1, 1), "growth_rate": 8}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    "vit": ("vit_tiny_patch16_224", {"depth": 3, "embed_dim": 48, "num_heads": 3}),
}
STEPS = 8


def encoder(kind, size=32):
    """An encoder with random weights; none is 0: behind a BatchNorm of scale 0 nothing has a gradient."""
    arch, args = NETWORKS[kind]
    model = backbone.build_backbone(arch, args, 1, size, seed=0)
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim <= 1:
            parameter.data += 0.1 + 0.1 * torch.rand(parameter.shape, generator=draw)
    preprocess = Preprocess(size=size, channels=1, mean=(0.5,), std=(0.25,))
    return Encoder(Card(name=kind, arch=arch, model_args=args, dim=backbone.feature_dim(model), preprocess=preprocess), model)


def image_set(path, own, rows=None):
    """The images of a store of `toys`, read by an encoder; rows: which."""
    store = Store.open(path)
    rows = np.arange(len(store)) if rows is None else np.asarray(rows)
    y, sha256 = store.labels("sick")[:, None], store.column("sha256")
    return ImageSet(store, own, rows, y[rows], store.column("key")[rows], store.column("patient")[rows], "binary", sha256[rows])


def config(strategy="full", **settings):
    """Settings with which a strategy takes 8 steps and 4 validations, each kept weight being one that was trained."""
    quick = {"batch": 4, "min_steps": STEPS, "max_steps": STEPS, "evaluations": 4, "patience": 4, "ema": 0, "warmup": 0.0, "drop_path": 0.0}
    return finetune.Config(**{**quick, "augment": {"preset": "none"}, "strategy": strategy, **settings})


def last_step_wins(y, scores):
    """A validation score that rises at every call, so that the last weights are kept."""
    last_step_wins.calls += 1
    return float(last_step_wins.calls)


last_step_wins.calls = 0


def fit(path, own, cfg, select=last_step_wins):
    """The encoder, fine-tuned on the first 12 images of the store and validated on 6 others."""
    return finetune.fit(cfg, image_set(path, own, range(12)), image_set(path, own, range(12, 18)), select or validation_score)


def changed(own, fitted):
    """The names of the tensors of the backbone that training changed, buffers included."""
    after = fitted.network.backbone.state_dict()
    before = own.model.state_dict()
    assert list(after) == list(before)
    return {name for name, value in before.items() if not value.equal(after[name])}
