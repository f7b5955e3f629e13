"""Canary, verification, and weight files that are damaged."""

import numpy as np
import pytest
import timm
import torch

from encoders.runtime.errors import InputError
from encoders.zoo import backbone, canary, register, weights, zoo
from encoders.zoo.card import Card
from tests.encoders.zoo.small import COLOUR, tiny_card, tiny_network


def test_verify_detects_a_changed_network_although_every_tensor_matches():
    args = {"pad_type": "same"}
    model = backbone.build_backbone("mobilenetv2_050", args, 3, 64, seed=0)
    own = Card(name="m", arch="mobilenetv2_050", model_args=args, dim=1, preprocess=COLOUR)
    folder = zoo.publish_encoder("m", model, own)
    assert all(check.passed for check in register.verify_encoder("m"))
    good = Card.read(folder / "card.yaml")
    for wrong in ({"model_args": {}}, {"preprocess": COLOUR.model_copy(update={"mean": (0.4, 0.5, 0.5)})}):
        good.model_copy(update=wrong).write(folder / "card.yaml")
        assert [check.passed for check in register.verify_encoder("m")][:2] == [True, False]


def test_canary_images_equal_their_stored_means_and_are_not_flat():
    gray, colour = canary.canary_images(1), canary.canary_images(3)
    assert gray.shape == (3, 112, 136, 1)
    assert gray.min() >= 0
    assert gray.max() <= 1
    assert gray.std(axis=(1, 2, 3)).min() > 0.05
    assert np.allclose(colour[..., :1], gray)
    assert [float(image.mean(dtype="float64")) for image in gray] == pytest.approx(GOLDEN, abs=1e-5)


GOLDEN = [0.40285, 0.5, 0.33476]  # stored canaries depend on these images: never change them


def test_truncated_changed_and_missing_files_are_rejected():
    folder = zoo.publish_encoder("mine", tiny_network(), tiny_card())
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated or not a weight file; copy it again"):
        zoo.load_encoder("mine")
    changed = bytearray(whole)
    changed[-1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(InputError, match=r"has sha256 .* its card has"):
        zoo.load_encoder("mine")
    file.unlink()
    with pytest.raises(InputError, match="there is no weight file"):
        zoo.load_encoder("mine")
    assert [check.passed for check in register.verify_encoder("mine")] == [False]


def save_state(tmp_path, state, name="w.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_a_file_that_could_run_code_is_not_read(tmp_path):
    torch.save(timm.create_model("resnet10t"), tmp_path / "w.pth")
    with pytest.raises(InputError, match="could run code, so it is not read"):
        weights.read_state_dict(tmp_path / "w.pth")


def test_truncated_and_damaged_checkpoints_are_rejected(tmp_path):
    file = save_state(tmp_path, tiny_network().state_dict())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        weights.read_state_dict(file)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    file.write_bytes(changed)
    with pytest.raises(InputError, match="damaged"):
        weights.read_state_dict(file)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x80\x02h\x05.", b"\x80\x02]K\x01R.", b"\x80\x02K\x01K\x02R.", b"cos\nsystem\n(S'true'\ntR."]
)
def test_a_malformed_weight_file_is_an_input_error_without_advice_to_load_it(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError) as caught:
        weights.read_state_dict(tmp_path / "w.pth")
    assert not {"trust", "weights_only"} & set(str(caught.value).replace("`", " ").split())
