"""The watchdog: its metrics, that measuring does not change a run, and that it stops methods that collapse."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo.backbone import feature_dim, pooled_features
from encoders.zoo.card import Preprocess
from pretrain.methods import METHODS as METHODS_BY_NAME
from pretrain.methods import byol, dino, simsiam, vicreg
from pretrain.methods.networks import frozen_copy, mlp
from pretrain.methods.precision import l2_normalize
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.watch import spectrum
from pretrain.watch.knn import knn_balanced_accuracy
from pretrain.watch.probe import Probe
from tests.pretrain import tiny
from tests.pretrain.run.test_resume import equal_runs
from tests.pretrain.runs import METHODS, run, store

PIXELS = Preprocess(size=32, channels=1, mean=(0.5,), std=(0.25,), resize="crop", interpolation="bilinear")


def test_the_online_knn_finds_separable_classes_and_guesses_others():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    apart = (np.eye(3)[y] * 5 + rng.normal(size=(300, 3))).astype(np.float32)
    assert knn_balanced_accuracy(apart[:200], y[:200], apart[200:], y[200:], 20) > 0.97
    noise = rng.normal(size=(300, 16)).astype(np.float32)
    assert abs(knn_balanced_accuracy(noise[:200], y[:200], noise[200:], y[200:], 20) - 1 / 3) < 0.15


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


HEADS = {"simclr": "head", "moco": "head", "byol": "projector", "vicreg": "expander", "dino": "head"}


def probed(m, images):
    """A probe of 80 images, and its metrics for the method."""
    probe = Probe(Store.open(images), np.arange(80), 80, PIXELS, torch.device("cpu"))
    return probe, probe.measure(m, 0.5)


@pytest.mark.parametrize(("name", "head"), HEADS.items())
def test_a_measurement_runs_the_encoder_once_and_includes_the_outputs_of_the_head(name, head, images):
    m, passes = tiny.method(name, n_images=80), []
    handle = m.encoder().register_forward_hook(lambda *_: passes.append(1))
    probe, metrics = probed(m, images)
    handle.remove()
    assert len(passes) == 2, "80 images in passes of 64"
    m.eval()
    with torch.no_grad():
        x = pooled_features(m.encoder(), probe.images)
        z = m.get_submodule(head)(m.backbone(probe.images))
    want = {"watch/rank": spectrum.rankme(x), "watch/head_rank": spectrum.rankme(z), "watch/head_cosine": spectrum.mean_cosine(z)}
    assert {key: metrics[key] for key in want} == pytest.approx(want, rel=1e-4)


def test_a_measurement_includes_the_entropies_of_the_teacher(images):
    m = tiny.method("dino", n_images=80)
    probe, metrics = probed(m, images)
    m.eval()
    with torch.no_grad():
        p = F.softmax((m.teacher(probe.images) - m.centre) / dino.teacher_temperature(m.cfg, 0.5), dim=-1)
    assert (metrics["watch/teacher_entropy"], metrics["watch/teacher_marginal"]) == pytest.approx(spectrum.teacher_entropies(p), rel=1e-4)


@pytest.mark.parametrize("name", sorted(METHODS_BY_NAME))
def test_metrics_of_a_head_and_of_a_teacher_exist_where_the_method_has_them(name, images):
    m = tiny.small_method(name)
    _, metrics = probed(m, images)
    assert ("watch/head_rank" in metrics) == (m.loss_head is not None)
    assert ("watch/teacher_entropy" in metrics) == (m.teacher_probs(torch.zeros(2, feature_dim(m.encoder())), 0.5) is not None)


@pytest.mark.parametrize("method", METHODS)
def test_measuring_does_not_change_a_run(method, images):
    labeled = save_store(images.parent / "l.h5", np.random.default_rng(0).integers(0, 256, (30, 40, 40, 1)).astype(np.uint8),
                   patient=list(range(30)), labels={"ill": [0, 1] * 15})  # fmt: skip
    watched = run(images, METHODS[method], "watched", f"watch.labeled={labeled}", "watch.label=ill")
    unwatched = run(images, METHODS[method], "unwatched", "watch.images=0")
    assert "watch/rank" in watched.read()["untrained"]
    assert equal_runs(watched, unwatched, but="watch/")


def test_a_labeled_store_without_the_label_is_refused(images):
    with pytest.raises(InputError, match="no label called 'ill'"):
        run(images, METHODS["mae"], "no", f"watch.labeled={images}", "watch.label=ill")
    with pytest.raises(InputError, match=r"give watch\.labeled and watch\.label together"):
        config.load_recipe("cxr_moco_tiny", ["watch.label=ill"])


TINY = [
    "arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8, embed_dim: 48, num_heads: 3}", "size=16", "batch=16", "steps=60",
    "epochs=null", "warmup_steps=3", "log_every=3", "save_every=12", "threads=1", "precision=fp32", "watch.policy=stop",
    "optim={kind: adamw, lr: 2.0e-3, lr_rule: none, weight_decay: 0}",
]  # fmt: skip
BYOL = ["cxr_byol_tiny", *TINY, "method.dim=32", "method.hidden=64"]
SIMSIAM = ["cxr_simsiam_tiny", *TINY, "method.dim=32", "method.bottleneck=8"]
VICREG = ["cxr_vicreg_tiny", *TINY, "method.dim=32"]
DINO = ["cxr_dino_tiny", *TINY, "method.prototypes=64", "method.hidden=64", "method.bottleneck=32", "method.n_local=0", "method.freeze=0"]
DINO += ["optim.lr=3.0e-4", "method.centre_momentum=0.5"]  # in sixty steps a slower centre comes too late even for the intact method


def attempt(images, words, name):
    """(exit status, run) of a run that the watchdog may stop."""
    where = rundir.run_dir_for(name)
    return runs.start_run(config.load_recipe(words[0], [*words[1:], f"data.store={images}"]), where, "cpu"), where


class BrokenBYOL(byol.BYOL):
    """No predictor, no slow target, and no BatchNorm, which alone keeps images apart."""

    def __init__(self, cfg, backbone, data):
        super().__init__(cfg, backbone, data)
        self.predictor = torch.nn.Identity()
        self.projector = mlp([feature_dim(backbone), cfg.hidden, cfg.dim], norm=False)
        self.target = frozen_copy(torch.nn.Sequential(backbone, self.projector))

    def momentum(self, progress):
        return 0.0


class BrokenDINO(dino.DINO):
    """The centre never moves."""

    def after_step(self, progress):
        super().after_step(progress)
        self.centre.zero_()


class BrokenSimSiam(simsiam.SimSiam):
    """The gradient goes both ways (see `no_stop`), without BatchNorm."""

    def __init__(self, cfg, backbone, data):
        super().__init__(cfg, backbone, data)
        self.projector = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], norm=False)


class BrokenVICReg(vicreg.VICReg):
    """Nothing but the distance between views, and no BatchNorm: the expander collapses before the encoder does."""

    def __init__(self, cfg, backbone, data):
        super().__init__(cfg.model_copy(update={"variance": 0.0, "covariance": 0.0}), backbone, data)
        self.expander = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], norm=False)


def no_stop(prediction, projection):
    return -(l2_normalize(prediction) * l2_normalize(projection)).sum(dim=-1).mean()


@pytest.mark.parametrize(
    ("words", "break_method", "finding"),
    [
        (BYOL, lambda patch: patch.setitem(METHODS_BY_NAME, "byol", BrokenBYOL), "complete collapse"),
        (
            SIMSIAM,
            lambda patch: (
                patch.setitem(METHODS_BY_NAME, "simsiam", BrokenSimSiam),
                patch.setattr(simsiam, "negative_cosine_similarity", no_stop),
            ),
            "dimensional collapse",  # on the way to a complete one
        ),
        (
            VICREG,
            lambda patch: patch.setitem(METHODS_BY_NAME, "vicreg", BrokenVICReg),
            "the head's outputs of different images are almost identical",
        ),
        (DINO, lambda patch: patch.setitem(METHODS_BY_NAME, "dino", BrokenDINO), "dimensional collapse"),
    ],
)
def test_a_broken_method_is_diagnosed_and_stopped_and_the_intact_one_is_not(words, break_method, finding, images, monkeypatch, capsys):
    assert attempt(images, words, "intact")[0] == 0
    assert "collapse" not in capsys.readouterr().err
    break_method(monkeypatch)
    code, where = attempt(images, words, "broken")
    assert code == 3
    printed = capsys.readouterr().err
    assert finding in printed
    assert "stopped by the watchdog" in printed
    assert where.read()["status"] == "stopped"
