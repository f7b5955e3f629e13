"""Fine-tuning: what is learned, what is kept, and the effect of every setting."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from encoders.augment.presets import PRESETS
from encoders.runtime.errors import InputError
from encoders.runtime.optim import build_optimizer, set_lr
from encoders.runtime.optim_config import Optim
from encoders.similarity.perceptual_hash import pixel_sha256
from encoders.store.store import Store
from encoders.store.write import pixel_fingerprint, write_store
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder
from transfer.bench.bench import load_protocols
from transfer.losses.supervised import class_weights, logit_shift, supervised_loss
from transfer.metrics import auroc
from transfer.protocols import finetune, layers
from transfer.protocols.common import ImageSet
from transfer.protocols.finetune_network import update_ema

FAST = {"min_steps": 8, "max_steps": 8, "evaluations": 4, "batch": 16, "augment": {"preset": "none"}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """160 gray 32-pixel images: horizontal (0) or vertical (1) stripes of random phase, with noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 160)
    wave = 60 * np.sin(np.arange(32)[None] * 1.2 + rng.uniform(0, 6.28, (160, 1)))  # (160, 32)
    pictures = np.where(y[:, None, None] == 1, wave[:, None, :], wave[:, :, None]) + 128 + 20 * rng.normal(size=(160, 32, 32))
    pixels = np.clip(pictures, 0, 255).astype(np.uint8)[..., None]
    path = tmp_path_factory.mktemp("stripes") / "stripes.h5"
    attrs = {
        "modality": "cxr",
        "codec": "raw",
        "channels": 1,
        "unit": {"scale": 255.0, "offset": 0.0, "meaning": "made"},
        "dataset": "stripes",
    }
    names = [f"{i:03d}" for i in range(160)]
    index = {
        "key": names,
        "patient": names,
        "sha256": [pixel_sha256(image) for image in pixels],
        "phash": np.zeros((160, 32), np.uint8),
    }
    write_store(
        path,
        pixels,
        (32, 32, 1),
        np.uint8,
        attrs | {"geometry": {}, "recipe": {}, "fingerprint": pixel_fingerprint(index["sha256"])},
        index,
        labels={"y": y},
    )
    return Store.open(path), y.astype(np.float32)[:, None]


def part(images, rows, y=None, kind="binary", encoder=None):
    store, own = images
    rows, names = np.asarray(rows), np.asarray(rows).astype(str)
    return ImageSet(store, encoder, rows, (own if y is None else y)[rows], names, names, kind)


def fit(cfg, encoder, train, val, *more):
    """`finetune.fit` on rows that the encoder reads."""
    return finetune.fit(cfg, replace(train, encoder=encoder), replace(val, encoder=encoder), *more)


def encoder(arch="resnet10t", size=32, channels=1, **args):
    model = backbone.build_backbone(arch, args, channels, size, seed=0)
    preprocess = Preprocess(size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    return Encoder(Card(name="tiny", arch=arch, model_args=args, dim=backbone.feature_dim(model), preprocess=preprocess), model)


def tiny_vit():
    return encoder("vit_tiny_patch16_224", depth=3, embed_dim=48, num_heads=3)


def test_it_learns_and_does_not_change_the_encoder(images):
    e = encoder()
    before = {k: v.clone() for k, v in e.model.state_dict().items()}
    cfg = finetune.Config(**{**FAST, "min_steps": 40, "max_steps": 40})
    fitted = fit(cfg, e, part(images, range(100)), part(images, range(100, 130)))
    test = part(images, range(130, 160))
    scores = fitted.scores(test)
    assert scores.shape == (30, 1)
    assert scores.dtype == np.float64
    assert auroc(test.y, scores)[0] > 0.9
    assert all(torch.equal(v, before[k]) for k, v in e.model.state_dict().items())


def test_two_runs_are_bit_identical_and_do_not_change_the_random_state(images):
    cfg = finetune.Config(**{**FAST, "augment": {"preset": "auto"}, "drop_path": 0.2})
    torch.manual_seed(5)
    want = torch.rand(3)
    got = []
    for _ in range(2):
        torch.manual_seed(5)
        fitted = fit(cfg, tiny_vit(), part(images, range(60)), part(images, range(60, 90)))
        assert torch.equal(torch.rand(3), want)
        got.append(fitted.scores(part(images, range(90, 160))))
    assert np.array_equal(*got)
    other = fit(cfg.model_copy(update={"seed": 1}), tiny_vit(), part(images, range(60)), part(images, range(60, 90)))
    assert not np.array_equal(got[0], other.scores(part(images, range(90, 160))))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_weights_of_the_best_validation_are_kept(images, ema):
    verdicts, seen = iter([0.2, 0.9, 0.5, 0.9]), []
    val = part(images, range(60, 90))

    def select(y, scores):
        seen.append(scores)
        return next(verdicts)

    fitted = fit(finetune.Config(**FAST, ema=ema), encoder(), part(images, range(60)), val, select)
    assert fitted.selection["step"] == 4
    assert np.array_equal(fitted.scores(val), seen[1])
    assert not np.array_equal(seen[1], seen[3])


def test_training_stops_when_validation_does_not_improve(images):
    verdicts = iter([0.5, 0.4, 0.4, 1.0])
    logged = []
    cfg = finetune.Config(**FAST, patience=2)
    fitted = fit(
        cfg,
        encoder(),
        part(images, range(60)),
        part(images, range(60, 90)),
        lambda *_: next(verdicts),
        lambda step, **n: logged.append((step, n)),
    )
    assert (fitted.selection["step"], fitted.selection["stopped"], fitted.selection["steps"]) == (2, 6, 8)
    assert [step for step, _ in logged] == [2, 4, 6]
    assert set(logged[0][1]) == {"loss", "val"}


def test_several_classes_and_several_labels(images):
    rng = np.random.default_rng(1)
    code = rng.integers(0, 3, 160)
    classes = np.eye(3, dtype=np.float32)[code]
    fitted = fit(
        finetune.Config(**FAST),
        encoder(),
        part(images, range(60), classes, "multiclass"),
        part(images, range(60, 120), classes, "multiclass"),
    )
    assert fitted.scores(part(images, range(9), classes, "multiclass")).sum(axis=1) == pytest.approx(np.ones(9))
    labels = (rng.random((160, 2)) < 0.5).astype(np.float32)
    labels[rng.random((160, 2)) < 0.4] = np.nan
    fitted = fit(
        finetune.Config(**FAST),
        encoder(),
        part(images, range(60), labels, "multilabel"),
        part(images, range(60, 120), labels, "multilabel"),
    )
    assert np.isfinite(fitted.scores(part(images, range(9), labels, "multilabel"))).all()


def test_bf16_scores_are_close_to_fp32_and_not_equal(images):
    half, full = (
        fit(
            finetune.Config(**{**FAST, "min_steps": 4, "max_steps": 4}, precision=p),
            tiny_vit(),
            part(images, range(60)),
            part(images, range(60, 90)),
        )
        for p in ("bf16", "fp32")
    )
    a, b = (f.scores(part(images, range(90, 120))) for f in (half, full))
    assert a == pytest.approx(b, abs=0.05)
    assert not np.array_equal(a, b)


def test_bf16_is_refused_where_a_cpu_computes_its_gradients_wrongly(images):
    cfg, narrow = finetune.Config(**{**FAST, "min_steps": 1, "max_steps": 1}, precision="bf16"), encoder("test_resnet", size=16)
    with pytest.raises(InputError, match="bf16 gradients of tiny wrongly for images of 16 pixels.*use precision=fp32"):
        fit(cfg, narrow, part(images, range(60)), part(images, range(60, 90)))
    for allowed, precision in ((narrow, "fp32"), (encoder("test_resnet", size=32), "bf16")):
        fitted = fit(cfg.model_copy(update={"precision": precision}), allowed, part(images, range(60)), part(images, range(60, 90)))
        assert np.isfinite(fitted.scores(part(images, range(90, 120)))).all()


def test_rows_without_a_label_are_not_trained_on(images):
    y = images[1].copy()
    y[:58] = np.nan
    with pytest.raises(InputError, match="labeled train images"):
        fit(finetune.Config(**FAST), encoder(), part(images, range(59), y), part(images, range(60, 90)))
    few = fit(finetune.Config(**FAST), encoder(), part(images, range(70), y), part(images, range(70, 100)))
    alone = fit(finetune.Config(**FAST), encoder(), part(images, range(58, 70)), part(images, range(70, 100)))
    assert np.array_equal(few.scores(part(images, range(100, 110))), alone.scores(part(images, range(100, 110))))


def test_layer_decay_of_a_vit_equals_that_of_mae():
    model = tiny_vit().model
    scales = {}
    head = nn.Linear(48, 2)
    for group in layers.parameter_groups(model, head, 0.5, 0.05, 3.0):
        scales |= {id(p): (group["lr_scale"], group["weight_decay"]) for p in group["params"]}
    of = {name: scales[id(p)] for name, p in model.named_parameters()}
    # 3 blocks under the head: block b has decay ** (3 - b), the embedding decay ** 4.
    assert [of[f"blocks.{b}.attn.qkv.weight"] for b in range(3)] == [(0.125, 0.05), (0.25, 0.05), (0.5, 0.05)]
    assert of["patch_embed.proj.weight"] == (0.0625, 0.05)
    assert of["norm.weight"] == (0.5, 0.0)
    assert of["pos_embed"] == of["cls_token"] == (0.0625, 0.0)
    assert of["blocks.1.mlp.fc1.bias"] == (0.25, 0.0)
    assert (scales[id(head.weight)], scales[id(head.bias)]) == ((3.0, 0.05), (3.0, 0.0))
    assert len(scales) == len(list(model.parameters())) + 2


@pytest.mark.parametrize("arch", ["resnet10t", "mobilenetv2_050"])
def test_layer_decay_of_a_cnn_falls_from_the_last_block_to_the_stem(arch):
    model = backbone.build_backbone(arch)
    where = layers.layer_depths(model)
    stem = "conv_stem.weight" if "conv_stem.weight" in where else "conv1.0.weight"
    assert where[stem] == 0
    assert len(set(where.values())) >= 4
    deepest = max(where.values())
    scale = {id(p): g["lr_scale"] for g in layers.parameter_groups(model, nn.Linear(2, 1), 0.9, 0.0, 1.0) for p in g["params"]}
    for name, p in model.named_parameters():
        assert scale[id(p)] == pytest.approx(0.9 ** (deepest + 1 - where[name]))


def test_the_schedule_multiplies_by_the_layers_scale():
    model, head = tiny_vit().model, nn.Linear(48, 1)
    cfg = Optim(lr=1e-3, lr_rule="none")
    optimizer = build_optimizer(layers.parameter_groups(model, head, 0.5, 0.05, 2.0), cfg, 16)
    set_lr(optimizer, 5, 20, 0, cfg)
    now = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert now["layer0"] == pytest.approx(now["layer3_plain"] / 8)
    assert now["head"] == pytest.approx(4 * now["layer3_plain"])
    assert 0 < now["head"] < 2e-3


def test_drop_path_is_set_on_a_copy_with_the_encoders_weights():
    e = tiny_vit()
    model = finetune.build_trainable_backbone(e, 0.4)
    rates = [getattr(m, "drop_prob", 0.0) for m in model.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.4)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), e.model.state_dict().values(), strict=True))
    assert not any(type(m).__name__ == "DropPath" for m in e.model.modules())


@pytest.mark.parametrize("arch", ["resnet10t", "mobilenetv2_050"])
def test_frozen_batchnorm_keeps_its_statistics(images, arch):
    e = encoder(arch)  # BatchNorm2d in the one, BatchNormAct2d in the other
    for freeze in (True, False):
        fitted = fit(finetune.Config(**FAST, freeze_bn=freeze), e, part(images, range(60)), part(images, range(60, 90)))
        same = [torch.equal(v, fitted.network.backbone.state_dict()[k]) for k, v in e.model.state_dict().items() if "running" in k]
        assert all(same) if freeze else not any(same)


def test_the_averaged_weights_are_the_weighted_sum_of_all_steps():
    mean, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    values = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])]
    start = mean.weight.detach().clone()
    for value in values:
        model.weight.data.copy_(value)
        model.num_batches_tracked += 1
        update_ema(mean, model, 0.9)
    assert torch.allclose(mean.weight, 0.81 * start + 0.09 * values[0] + 0.1 * values[1])
    assert mean.num_batches_tracked == 2


def test_the_loss_is_the_mean_over_known_labels():
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(np.random.default_rng(0).integers(0, 2, (6, 3)), dtype=torch.float64)
    y[0, 0] = y[3, 2] = y[3, 0] = float("nan")
    weight = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float32)
    loss = supervised_loss(z, y.float(), weight, "multilabel")
    want = [
        (weight[c] if y[i, c] == 1 else 1) * F.softplus(-z[i, c] if y[i, c] == 1 else z[i, c]).item()
        for i in range(6)
        for c in range(3)
        if not torch.isnan(y[i, c])
    ]
    assert loss.item() == pytest.approx(np.mean(want), rel=1e-6)
    loss.backward()
    assert (z.grad[torch.isnan(y)] == 0).all()
    assert (z.grad[~torch.isnan(y)] != 0).all()


def test_cross_entropy_ignores_unknown_rows_and_weights_classes():
    z, code = torch.randn(5, 3), torch.tensor([0, 2, 1, 2, 0])
    y = F.one_hot(code, 3).float()
    y[4] = float("nan")
    weight = torch.tensor([1.0, 2.0, 0.5])
    assert supervised_loss(z, y, weight, "multiclass").item() == pytest.approx(
        F.cross_entropy(z[:4], code[:4], weight=weight).item(), rel=1e-6
    )


def test_a_batch_without_a_known_label_has_no_loss_and_no_gradient():
    for kind in ("multilabel", "multiclass"):
        z = torch.randn(4, 3, requires_grad=True)
        loss = supervised_loss(z, torch.full((4, 3), float("nan")), torch.ones(3), kind)
        loss.backward()
        assert loss.item() == 0
        assert (z.grad == 0).all()


def test_class_weights_balance_the_classes():
    y = np.array([[1.0], [0], [0], [0], [np.nan]])
    assert class_weights(y, "binary", True).tolist() == [3.0]
    assert class_weights(y, "binary", False).tolist() == [1.0]
    one_hot = np.eye(3)[[0, 0, 0, 1]]
    assert class_weights(one_hot, "multiclass", True) == pytest.approx([4 / 6, 2, 1])
    assert class_weights(np.zeros((4, 1)), "binary", True).tolist() == [1.0]


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_scores_are_probabilities_at_the_train_prevalence_despite_class_weights(kind):
    """With an intercept alone, the optimal weighted logits minus the shift must give the prevalence."""
    y = np.eye(3)[[0] * 12 + [1] * 6 + [2] * 2] if kind == "multiclass" else np.array([[1.0]] * 3 + [[0.0]] * 17)
    weight = class_weights(y, kind, True)
    b = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([b], max_iter=200, tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = supervised_loss(b.expand(len(y), -1), torch.tensor(y, dtype=torch.float32), torch.tensor(weight, dtype=torch.float32), kind)
        loss.backward()
        return loss

    optimizer.step(closure)
    logit = b.detach().numpy() - logit_shift(weight)
    p = np.exp(logit) / np.exp(logit).sum() if kind == "multiclass" else 1 / (1 + np.exp(-logit))
    assert p == pytest.approx(y.mean(axis=0), abs=1e-3)


def test_the_augmentation_is_that_of_the_modality_and_can_be_changed():
    assert finetune.resolve_augmentation({"preset": "auto"}, "cxr").rotate == 10
    assert finetune.resolve_augmentation({"preset": "auto", "flip": 0}, "cxr").flip == 0
    for modality in ("cxr", "histology", "dermoscopy", "ct", "mr"):
        assert finetune.resolve_augmentation({"preset": "auto"}, modality) == PRESETS[f"finetune_{modality}"]
    assert finetune.resolve_augmentation({}, "ultrasound").crop is None
    with pytest.raises(InputError, match="finetune_cxr"):
        finetune.resolve_augmentation({"preset": "finetune_cx"}, "cxr")


def test_a_learning_rate_that_is_given_changes_nothing_else_of_the_optimizer():
    (cfg,) = [cfg for _, cfg in load_protocols(["finetune"], 0, ["finetune.optim.lr=1e-4"]).values()]
    assert cfg.optim == finetune.Config().optim.model_copy(update={"lr": 1e-4})
    assert (cfg.optim.lr_rule, cfg.optim.lr_end, cfg.optim.betas) == ("none", 0.01, (0.9, 0.999))
