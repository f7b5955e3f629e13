"""Fine-tuning of encoders made of parts and of stages: all networks are trained, and what cannot be trained is refused."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo import zoo
from encoders.zoo.parts import count_normalised
from encoders.zoo.preprocess import prepare_input
from tests.transfer import toys
from transfer.protocols import augmented_probe, finetune, layers, linear_config
from transfer.protocols.common import ImageSet

CNN = "random_resnet10t:size=32,channels=1"
VIT = "random_vit_tiny_patch16_224:size=48,model.depth=2,model.embed_dim=48,model.num_heads=3"
CFG = finetune.Config(batch=8, min_steps=12, epochs=0.1, evaluations=2, ema=0, warmup=0.0)


@pytest.fixture
def images(tmp_path):
    return Store.open(toys.store(tmp_path / "s.h5", patients=20))


def parts_of(store: Store, name: str) -> tuple[ImageSet, ImageSet]:
    """Train and validation images."""
    y, key, patient = store.labels("sick")[:, None], store.column("key"), store.column("patient")
    encoder = zoo.load_encoder(name)
    rows = np.arange(len(store))
    whole = ImageSet(store, encoder, rows, y, key, patient, "binary", store.column("sha256"))
    return whole.at(rows[:28]), whole.at(rows[28:])


def test_both_networks_are_trained_and_the_encoder_is_not(images):
    train, val = parts_of(images, f"{CNN}+{VIT}")
    before = {key: value.clone() for key, value in train.encoder.model.state_dict().items()}
    fitted = finetune.fit(CFG, train, val)
    after = fitted.network.backbone.state_dict()
    weights = [key for key, value in before.items() if value.is_floating_point() and "running_" not in key]
    for part in ("parts.0.", "parts.1."):
        moved = [not torch.equal(before[key], after[key]) for key in weights if key.startswith(part)]
        assert np.mean(moved) > 0.9
    assert all(torch.equal(value, before[key]) for key, value in train.encoder.model.state_dict().items())
    assert fitted.selection["layer_decay"] == [0.9, 0.75]
    scores = fitted.scores(val)
    assert scores.shape == val.y.shape
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, finetune.fit(CFG, train, val).scores(val))  # a function of the seed


def test_scores_use_the_preprocessing_of_each_part(images):
    train, val = parts_of(images, f"{CNN}+{VIT}")
    fitted = finetune.fit(CFG, train, val)
    pixels = val.store.unit_images(val.index)
    own = [prepare_input(pixels, part.card.preprocess) for part in train.encoder.parts]
    with torch.inference_mode():
        features = [network(x) for network, x in zip(fitted.network.backbone.parts, own, strict=True)]
        joined = torch.cat([f / f.norm(dim=1, keepdim=True) for f in features], dim=1)
        z = fitted.network.head(joined * np.sqrt(joined.shape[1] / 2)).double().numpy() - fitted.class_offset
    assert np.allclose(fitted.scores(val), 1 / (1 + np.exp(-z)), atol=1e-5)


@pytest.mark.parametrize("name", [f"{CNN},stages=1/2", f"{VIT},stages=0/pooled"])
def test_stages_are_trained_up_to_the_last_one(images, name):
    train, val = parts_of(images, name)
    assert count_normalised(train.encoder.card) == 2
    before = {key: value.clone() for key, value in train.encoder.model.state_dict().items()}
    fitted = finetune.fit(CFG, train, val)
    after = fitted.network.backbone.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("layer2" in key or "blocks.0" in key for key in moved)
    assert not any("layer3" in key or "layer4" in key for key in moved)
    assert np.isfinite(fitted.scores(val)).all()


def test_every_parameter_is_in_one_group_with_the_decay_of_its_own_network():
    encoder = zoo.load_encoder(f"{CNN}+{VIT}:stages=0/1".replace(":stages", ",stages"))
    head = torch.nn.Linear(encoder.card.dim, 1)
    groups = layers.parameter_groups(encoder.model, head, None, 0.05, 1.0)
    grouped = [id(p) for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in [*encoder.model.parameters(), *head.parameters()])
    top = {prefix: max(g["lr_scale"] for g in groups if g["name"].startswith(prefix)) for prefix in ("parts.0.", "parts.1.network.")}
    assert top == {"parts.0.": pytest.approx(0.9), "parts.1.network.": pytest.approx(0.75)}
    assert {g["weight_decay"] for g in groups if g["name"].endswith("plain")} == {0.0}


@pytest.mark.parametrize("name", ["pixels", f"{CNN}+pixels"])
def test_pixels_are_not_fine_tuned(images, name):
    with pytest.raises(InputError, match="pixels has no weights"):
        finetune.fit(CFG, *parts_of(images, name))


def test_published_linear_presets_work_with_parts_or_refuse(images):
    train, val = parts_of(images, f"{CNN}+{VIT}")
    fitted = augmented_probe.fit(linear_config.Config(preset="mae", length=1, batch=8), train, val)
    assert np.isfinite(fitted.scores(val)).all()
    for name, says in ((f"{CNN}+{VIT}", "several networks"), (f"{CNN},stages=2", "stages of its own"), ("pixels", "no network")):
        with pytest.raises(InputError, match=says):
            augmented_probe.fit(linear_config.Config(preset="dinov2", length=1, batch=8), *parts_of(images, name))
