"""Tensors whose type a copy would change, quantised and complex ones, are refused by every way in; halves and doubles are taken."""

import pytest
import timm
import torch

from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.zoo.weights import load_weights, read_state_dict

ARCH = "test_resnet"
WEIGHT = "layer1.0.conv1.weight"


def network():
    torch.manual_seed(0)
    return timm.create_model(ARCH, num_classes=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("name", [WEIGHT, "bn1.running_var"])
def test_tensors_of_another_type_are_refused(name, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    state = network().state_dict()
    state[name] = state[name].to(dtype)
    words = rf"1 are of another type, first: {name} is {str(dtype).removeprefix('torch.')}, expected float32"
    with pytest.raises(InputError, match=words):
        load_weights(network(), state, "the file")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=words):
        load_weights(network(), read_state_dict(tmp_path / "weights.pth"), "the file")
    with pytest.raises(InputError, match=f"weights.pth.*{words}"):
        import_encoder(tmp_path / "weights.pth", ImportSettings(arch=ARCH, mean=(0.5,), std=(0.25,)))
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_are_taken(dtype):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in network().state_dict().items()}
    model = network()
    load_weights(model, state, "the file")
    assert torch.equal(model.state_dict()[WEIGHT], state[WEIGHT].float())


def test_a_counter_of_another_type_is_taken():
    state = network().state_dict() | {"bn1.num_batches_tracked": torch.tensor(3.0)}
    assert load_weights(network(), state, "the file").matched == len(state)
