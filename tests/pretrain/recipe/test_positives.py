"""Images of the same patient: paired as positives, and masked out of the negatives."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.store.write import save_store
from pretrain.loop.setup import build_setup, describe_adjustments
from pretrain.methods.moco import info_nce
from pretrain.methods.mocov3 import contrastive_loss
from pretrain.methods.simclr import nt_xent
from tests.pretrain.runs import MAE, MOCO, recipe, run, store
from tests.pretrain.tiny import SMALL, method, rows, step
from tests.pretrain.tiny import images as noise

WHO = torch.tensor([0, 1, 0, 2, 1, 0])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("positives"))


def cross_entropy(row, positive, allowed, t):
    """Minus the logarithm of the softmax over the allowed columns, at the positive one."""
    weights = {j: np.exp(row[j] / t) for j in allowed}
    return -np.log(weights[positive] / sum(weights.values()))


def test_simclr_masks_out_other_images_of_the_patient():
    a, b = rows(6, 8, 1), rows(6, 8, 2)
    z, who = torch.cat([a, b]).numpy(), WHO.repeat(2).numpy()
    want = [cross_entropy(z @ z[i], (i + 6) % 12, [j for j in range(12) if who[j] != who[i] or j == (i + 6) % 12], 0.3) for i in range(12)]
    assert nt_xent(a, b, 0.3, WHO).item() == pytest.approx(np.mean(want), rel=1e-10)
    assert nt_xent(a, b, 0.3, torch.arange(6)).item() == pytest.approx(nt_xent(a, b, 0.3).item(), rel=1e-12)


def test_moco_v3_masks_out_other_images_of_the_patient():
    q, k = rows(6, 8, 1), rows(6, 8, 2)
    want = [cross_entropy((k @ q[i]).numpy(), i, [j for j in range(6) if WHO[j] != WHO[i] or j == i], 0.3) for i in range(6)]
    assert contrastive_loss(q, k, 0.3, WHO).item() == pytest.approx(2 * 0.3 * np.mean(want), rel=1e-10)


def test_moco_masks_out_keys_of_the_same_patient_in_the_queue():
    q, k, queue = rows(6, 8, 1), rows(6, 8, 2), rows(4, 8, 3)
    queue_patients = torch.tensor([1, -1, 0, 2])  # -1: not filled yet
    want = []
    for i in range(6):
        columns = np.concatenate([(k[i] @ q[i]).numpy()[None], (queue @ q[i]).numpy()])  # own key, then the queue
        allowed = [0, *(1 + j for j in range(4) if queue_patients[j] != WHO[i])]
        want.append(cross_entropy(columns, 0, allowed, 0.3))
    loss, _ = info_nce(q, k, queue, 0.3, WHO, queue_patients)
    assert loss.item() == pytest.approx(np.mean(want), rel=1e-10)
    everything, _ = info_nce(q, k, queue, 0.3)
    assert loss < everything


def test_the_patient_ids_of_the_queue_move_with_its_keys_and_change_the_loss():
    m = method("moco", exclude_same_patient=True, queue=32, n_images=64, **SMALL["moco"])
    other = method("moco", exclude_same_patient=True, queue=32, n_images=64, **SMALL["moco"])
    views = [noise(16, seed=1), noise(16, seed=2)]
    patients, other_patients = torch.arange(16) // 4, torch.arange(16) + 100
    for moco in (m, other):
        torch.manual_seed(0)
        moco(views, None, 0.0, patients)["loss"].backward()
        moco.after_backward(0.0)
        moco.after_step(0.0)
        assert moco.patient_ids.tolist() == [*patients.tolist(), *[-1] * 16]
    torch.manual_seed(1)
    masked = m(views, None, 0.0, patients)["loss"]
    torch.manual_seed(1)
    assert masked < other(views, None, 0.0, other_patients)["loss"]
    assert "patient_ids" in m.state_dict()
    assert "patient_ids" not in method("moco", **SMALL["moco"]).state_dict()
    assert np.isfinite(step(method("moco", **SMALL["moco"]), views))


def test_moco_loads_a_checkpoint_of_an_earlier_version():
    m = method("moco", exclude_same_patient=True, queue=32, n_images=64, **SMALL["moco"])
    state = m.state_dict()
    expected = torch.arange(32)
    state["whose"] = expected.clone()  # what the buffer was called
    del state["patient_ids"]
    m.load_state_dict(state, strict=True)
    assert torch.equal(m.patient_ids, expected)


def test_a_run_with_both_options_fills_the_queue_of_patient_ids(images, tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    words = ["data.positives=patient", "method.exclude_same_patient=true", "steps=4", "pictures=none"]
    from encoders.runtime import checkpoint

    where = run(images, MOCO, "both", *words)
    saved, _ = checkpoint.load_newest(where.checkpoints)
    assert set(saved["method"]["patient_ids"].tolist()) <= set(range(-1, 40))
    assert (saved["method"]["patient_ids"] >= 0).all()  # 4 x 16 keys have been through a queue of 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*MOCO, "data.positives=study"], "data.positives=study: .* has no column 'study' .*ingest it with that column"),
        ([*MOCO, "data.positives=neighbour"], "data.positives=neighbour: .* has no column 'slide'"),
        ([*MAE, "data.positives=patient"], "data.positives=patient: this method takes one view"),
    ],
)
def test_positives_that_do_not_exist_are_an_error(images, words, message):
    with pytest.raises(InputError, match=message):
        build_setup(recipe(images, words), "cpu")


def test_a_store_with_one_image_per_patient_has_no_patient_positives(tmp_path):
    once = save_store(tmp_path / "once.h5", np.arange(80 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(80, 32, 32, 1))
    with pytest.raises(InputError, match="no training image of .* has another image of its patient; use data.positives=image"):
        build_setup(recipe(once, MOCO, "data.positives=patient"), "cpu")


def test_the_notes_state_the_share_of_paired_images_and_that_the_same_patient_is_a_negative(images):
    notes = describe_adjustments(build_setup(recipe(images, MOCO, "data.positives=patient"), "cpu"))
    assert any("another image of its patient for 100 % of the images" in line for line in notes)
    assert any("method.exclude_same_patient=true masks them out" in line for line in notes)
    excluded = describe_adjustments(build_setup(recipe(images, MOCO, "data.positives=patient", "method.exclude_same_patient=true"), "cpu"))
    assert not any("masks them out" in line for line in excluded)
