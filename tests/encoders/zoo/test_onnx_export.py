"""ONNX files give the features of the encoder, for any batch size, and say what they are."""

import hashlib

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.runtime.errors import InputError
from encoders.zoo import onnx_export, zoo
from encoders.zoo.card import Preprocess
from encoders.zoo.onnx_export import OnnxCard
from tests.encoders.zoo.small import tiny_card, tiny_network
from tests.encoders.zoo.test_export_folder import publish

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(
    ("arch", "args", "p"),
    [
        ("resnet10t", {}, Preprocess(size=64, channels=1, mean=(0.3,), std=(0.2,))),
        ("vit_tiny_patch16_224", {"depth": 1, "global_pool": "cls+mean", "layer_norm_eps": 1e-3}, Preprocess(size=48)),
    ],
)
def test_the_file_gives_the_features_for_any_batch(tmp_path, arch, args, p):
    publish(arch, args, p, licence="cc-by-nc-4.0")
    done = CliRunner().invoke(app, ["export", "mine", str(tmp_path / "net.onnx")])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "does not permit commercial use" in done.stderr
    encoder, file = encoders.load("mine"), tmp_path / "net.onnx"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for n in (1, 2, 7):
        images = np.random.default_rng(n).random((n, p.size, p.size, p.channels), dtype=np.float32)
        x = encoder.prepare(images)
        assert isinstance(x, torch.Tensor)
        got = session.run(None, {"pixels": x.numpy()})[0]
        want = encoder.encode(images).numpy()
        assert np.abs(got - want).max() / np.abs(want).max() < 1e-5
    card = OnnxCard.model_validate(yaml.safe_load((tmp_path / "net.onnx.yaml").read_text()))
    assert card.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (card.preprocess, card.dim, card.licence, card.encoder_sha256) == (p, encoder.card.dim, "cc-by-nc-4.0", encoder.sha256)
    assert card.max_difference < 1e-5
    (opset,) = [item.version for item in onnx.load(file).opset_import if item.domain == ""]
    assert card.opset == opset >= 17


def test_a_file_that_gives_other_features_is_not_written(tmp_path, monkeypatch):
    zoo.publish_encoder("mine", tiny_network(), tiny_card())
    zoo.publish_encoder("other", tiny_network(5), tiny_card("other"))
    content = onnx_export._to_onnx(encoders.load("other"))
    monkeypatch.setattr(onnx_export, "_to_onnx", lambda encoder: content)
    with pytest.raises(InputError, match="gives other features for mine"):
        onnx_export.export_onnx("mine", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="not one network"):
        onnx_export.export_onnx("pixels", tmp_path / "a.onnx")
    monkeypatch.setattr(onnx_export, "LIBRARIES", ("onnx", "no_such_library"))
    with pytest.raises(InputError, match=r"needs no_such_library; install them with `pip install 'isograft\[onnx\]'`"):
        onnx_export.export_onnx("mine", tmp_path / "a.onnx")
