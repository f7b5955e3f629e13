"""Images of one patient: as positives, and not as negatives."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.store.write import save_store
from pretrain.loop.setup import build_setup, describe_adjustments
from pretrain.methods.moco import mask_same_patient_keys
from pretrain.methods.mocov3 import contrastive_loss
from pretrain.methods.simclr import nt_xent
from tests.pretrain.methods.test_methods import SMALL
from tests.pretrain.runs import MAE, MOCO, recipe, run, store
from tests.pretrain.tiny import images as noise
from tests.pretrain.tiny import method, rows, step

WHO = torch.tensor([0, 1, 0, 2, 1, 0])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("kin"))


def picking(row, own, allowed, t):
    """Minus the logarithm of the softmax over the allowed columns, at the own one."""
    weights = {j: np.exp(row[j] / t) for j in allowed}
    return -np.log(weights[own] / sum(weights.values()))


def test_simclr_spares_other_images_of_the_patient():
    a, b = rows(6, 8, 1), rows(6, 8, 2)
    z, who = torch.cat([a, b]).numpy(), WHO.repeat(2).numpy()
    want = [picking(z @ z[i], (i + 6) % 12, [j for j in range(12) if who[j] != who[i] or j == (i + 6) % 12], 0.3) for i in range(12)]
    assert nt_xent(a, b, 0.3, WHO).item() == pytest.approx(np.mean(want), rel=1e-10)
    assert nt_xent(a, b, 0.3, torch.arange(6)).item() == pytest.approx(nt_xent(a, b, 0.3).item(), rel=1e-12)


def test_moco_v3_spares_other_images_of_the_patient():
    q, k = rows(6, 8, 1), rows(6, 8, 2)
    want = [picking((k @ q[i]).numpy(), i, [j for j in range(6) if WHO[j] != WHO[i] or j == i], 0.3) for i in range(6)]
    assert contrastive_loss(q, k, 0.3, WHO).item() == pytest.approx(2 * 0.3 * np.mean(want), rel=1e-10)


def test_mocos_queue_knows_whose_keys_it_holds_and_spares_them():
    similar, whose = torch.randn(6, 5), torch.tensor([1, -1, 0, 2])
    got = mask_same_patient_keys(similar, WHO, whose)
    for i in range(6):
        gone = [False, *(int(w) == int(WHO[i]) for w in whose)]
        assert torch.isinf(got[i]).tolist() == gone
        assert torch.equal(got[i][~torch.tensor(gone)], similar[i][~torch.tensor(gone)])


def test_mocos_queue_of_patients_moves_with_the_keys_and_changes_the_loss():
    m = method("moco", exclude_same_patient=True, queue=32, n_images=64, **SMALL["moco"])
    other = method("moco", exclude_same_patient=True, queue=32, n_images=64, **SMALL["moco"])
    views = [noise(16, seed=1), noise(16, seed=2)]
    mine, strangers = torch.arange(16) // 4, torch.arange(16) + 100
    for one in (m, other):
        torch.manual_seed(0)
        one(views, None, 0.0, patients=mine)["loss"].backward()
        one.after_backward(0.0)
        one.after_step(0.0)
        assert one.whose.tolist() == [*mine.tolist(), *[-1] * 16]
    torch.manual_seed(1)
    spared = m(views, None, 0.0, patients=mine)["loss"]
    torch.manual_seed(1)
    assert spared < other(views, None, 0.0, patients=strangers)["loss"]
    assert "whose" in m.state_dict()
    assert "whose" not in method("moco", **SMALL["moco"]).state_dict()
    assert np.isfinite(step(method("moco", **SMALL["moco"]), views))


def test_a_run_with_both_options_trains_and_goes_on_exactly(images, tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    words = ["data.positives=patient", "method.exclude_same_patient=true", "steps=4", "pictures=none"]
    from encoders.runtime import checkpoint

    where = run(images, MOCO, "both", *words)
    saved, _ = checkpoint.load_newest(where.checkpoints)
    assert set(saved["method"]["whose"].tolist()) <= set(range(-1, 40))
    assert (saved["method"]["whose"] >= 0).all()  # 4 x 16 keys have been through a queue of 32


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*MOCO, "data.positives=study"], "data.positives=study: .* has no column 'study' .*ingest it with that column"),
        ([*MOCO, "data.positives=neighbour"], "data.positives=neighbour: .* has no column 'slide'"),
        ([*MAE, "data.positives=patient"], "data.positives=patient: this method looks at one view"),
    ],
)
def test_what_cannot_be_paired_is_said(images, words, told):
    with pytest.raises(InputError, match=told):
        build_setup(recipe(images, words), "cpu")


def test_a_store_where_nobody_comes_twice_is_refused(tmp_path):
    once = save_store(tmp_path / "once.h5", np.arange(80 * 32 * 32, dtype=np.uint32).astype(np.uint8).reshape(80, 32, 32, 1))
    with pytest.raises(InputError, match="no image of .* has another image of its patient; use data.positives=image"):
        build_setup(recipe(once, MOCO, "data.positives=patient"), "cpu")


def test_the_plan_says_how_many_have_a_partner_and_that_kin_are_negatives(images):
    said = describe_adjustments(build_setup(recipe(images, MOCO, "data.positives=patient"), "cpu"))
    assert any("another image of its patient for 100 % of the images" in line for line in said)
    assert any("method.exclude_same_patient=true spares them" in line for line in said)
    spared = describe_adjustments(build_setup(recipe(images, MOCO, "data.positives=patient", "method.exclude_same_patient=true"), "cpu"))
    assert not any("spares them" in line for line in spared)
