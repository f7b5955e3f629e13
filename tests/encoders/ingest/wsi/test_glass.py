"""Tissue is judged against the glass of its slide: pale cores, tinted glass, and networks for tissue."""

import warnings

import numpy as np
import pytest
import torch

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.cohort import describe_doubt
from encoders.ingest.wsi.glass import find_glass, non_glass_mask, relative_saturation
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.source import SlideSource, ingest_slide_source
from encoders.ingest.wsi.tissue_model import MODEL_BLOCK, TissueModel, open_tissue_model, output_mask
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import write_slide
from tests.encoders.ingest.wsi.stained_cores import DAB, EOSIN, H_AND_E, HEMATOXYLIN, draw_cores

GLASSES = [(255, 255, 255), (243, 243, 243), (215, 215, 215), (245, 240, 230), (250, 245, 225), (235, 240, 245), (240, 228, 240)]


def overview(image, factor=32):
    """Means of factor x factor pixels."""
    h, w = image.shape[0] // factor, image.shape[1] // factor
    return np.rint(image[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean((1, 3))).astype(np.uint8)


@pytest.mark.parametrize("glass", GLASSES)
@pytest.mark.parametrize("fill", [False, True])
def test_the_glass_is_found_under_any_tint_and_beside_areas_that_were_never_scanned(glass, fill):
    view = overview(draw_cores(1536, 1536, [(0, 0, 512, DAB, 1.0), (512, 512, 1024, HEMATOXYLIN, 0.2)], glass))
    view = np.concatenate([view, np.full((20, 48, 3), 255, np.uint8)]) if fill else view
    found = find_glass(view)
    assert np.abs(np.array(found.colour) - glass).max() <= 2
    stained = relative_saturation(view, found.colour) > found.threshold
    assert stained[17:48, 17:48].mean() > 0.97
    assert stained[:16, 17:].mean() < 0.01
    assert not stained[48:].any()


@pytest.mark.parametrize("stain", [HEMATOXYLIN, EOSIN, H_AND_E])
@pytest.mark.parametrize("strength", [0.1, 0.2, 0.4])
def test_a_slide_of_tissue_without_glass_is_all_tissue(stain, strength):
    view = overview(draw_cores(1024, 1024, [(0, 0, 1024, stain, strength)], (250, 250, 250)))
    found = find_glass(view)
    assert (relative_saturation(view, found.colour) > found.threshold).mean() > (0.5 if strength == 0.1 else 0.9)


def two_cores(path, stain, strength, glass, strong=(DAB, 1.0)):
    """16 tiles of 256 px of a pale core, and 16 of a strong one."""
    cores = [(0, 0, 1024, stain, strength), *([(0, 2048, 1024, *strong)] if strong else [])]
    return write_slide(path, [draw_cores(1280, 3072, cores, glass)], mpp=0.5)


@pytest.mark.parametrize(
    ("stain", "strength", "glass"),
    [(HEMATOXYLIN, 0.1, GLASSES[1]), (HEMATOXYLIN, 0.25, GLASSES[0]), (H_AND_E, 0.1, GLASSES[3]), (EOSIN, 0.1, GLASSES[4]),
     (HEMATOXYLIN, 0.1, GLASSES[5])],
)  # fmt: skip
def test_a_pale_core_beside_a_dark_one_keeps_the_tiles_that_it_has_alone(tmp_path, stain, strength, glass):
    for name, strong in (("alone", None), ("together", (DAB, 1.0))):
        two_cores(tmp_path / "in" / f"{name}.tiff", stain, strength, glass, strong)
    result = ingest_slide_source(SlideSource(tmp_path / "in"), tmp_path / "out")
    for name in ("alone", "together"):
        store = Store.open(tmp_path / "out" / f"{name}.h5")
        assert (store.column("x") < 1024).sum() == 16
        assert store.attrs["slide"]["glass"] == pytest.approx(list(glass), abs=2)
        assert store.attrs["slide"]["tissue_threshold"] == 8
    assert [describe_doubt(record) for record in result.records] == ["", ""]


def test_the_threshold_is_an_option_and_a_slide_that_lost_a_core_is_flagged(tmp_path, capsys):
    from encoders.ingest.wsi.summary import print_summary

    two_cores(tmp_path / "in" / "a.tiff", HEMATOXYLIN, 0.15, GLASSES[1])
    result = ingest_slide_source(SlideSource(tmp_path / "in", TilingSettings(tissue_threshold=60)), tmp_path / "out")
    assert (Store.open(tmp_path / "out" / "a.h5").column("x") >= 2048).all()
    doubt = describe_doubt(result.records[0])
    assert doubt.endswith("of its area that is not glass was rejected")
    assert 40 <= int(doubt.split("%")[0]) <= 60, "one of two cores"
    assert doubt in (tmp_path / "out" / "overview.html").read_text()
    assert doubt in (tmp_path / "out" / "slides.csv").read_text()
    print_summary(result.cohort, result.records)
    assert f"inspect 1 slides (first: a: {doubt})" in capsys.readouterr().out
    for wrong in (0, 255):
        with pytest.raises(InputError, match=f"--tissue-threshold is {wrong}"):
            TilingSettings(tissue_threshold=wrong)


def test_dark_and_stained_areas_are_not_glass_and_single_pixels_are():
    view = np.full((40, 40, 3), (245, 240, 230), np.uint8)
    view[5:10, 5:10], view[20:25, 5:10], view[30, 30] = (120, 118, 113), (240, 200, 215), 0  # gray ink, eosin, dust
    found = non_glass_mask(view, find_glass(view))
    assert found.sum() == 50
    assert found[5:10, 5:10].all()
    assert found[20:25, 5:10].all()


class Redness(torch.nn.Module):
    """Tissue where red is below 0.5; a convolution of width 9 sees across the borders of blocks."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        red = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x[:, :1], (4, 4, 4, 4), mode="reflect"), 9, 1)
        p = torch.sigmoid(100.0 * (0.5 - red))
        return p if self.classes == 1 else torch.cat([1.0 - p, p], 1)


def save_torchscript(network, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but what the field's networks are published in
        torch.jit.script(network).save(str(path))


@pytest.mark.parametrize("classes", [1, 2])
def test_a_torchscript_network_gives_the_mask_also_across_blocks(tmp_path, classes):
    from scipy import ndimage

    save_torchscript(Redness(classes), tmp_path / "net.pt")
    image = np.kron(np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8), np.ones((30, 30, 1), np.uint8))
    assert image.shape[1] > 2 * MODEL_BLOCK
    want = ndimage.uniform_filter(image[..., 0] / 255.0, 9, mode="reflect") < 0.5
    got = open_tissue_model(tmp_path / "net.pt")(image)
    assert got.shape == want.shape
    assert (got[8:-8, 8:-8] != want[8:-8, 8:-8]).mean() < 1e-4  # apart from rounding at 0.5; the edges are padded in other ways


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, value):
    """A field of a protocol buffer: an integer, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_onnx(path, side):
    """An ONNX file by hand: output = sigmoid(mean of the channels - 0.5), with a fixed or free side of the input."""
    dim = field(1, side) if side else field(2, "s")
    shape = b"".join(field(1, each) for each in (field(1, 1), field(1, 3), dim, dim))
    value = lambda name, tensor: field(1, name) + field(2, field(1, tensor))  # noqa: E731
    half = field(2, 1) + field(8, "half") + field(9, np.float32(0.5).tobytes())
    axes = field(1, 1) + field(2, 7) + field(8, "axes") + field(7, b"\x01")
    nodes = [
        field(1, "x") + field(1, "axes") + field(2, "gray") + field(4, "ReduceMean"),
        field(1, "gray") + field(1, "half") + field(2, "centred") + field(4, "Sub"),
        field(1, "centred") + field(2, "y") + field(4, "Sigmoid"),
    ]
    graph = b"".join(field(1, node) for node in nodes) + field(2, "g") + field(5, half) + field(5, axes)
    graph += field(11, value("x", field(1, 1) + field(2, shape))) + field(12, value("y", field(1, 1)))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 18)))
    return path


@pytest.mark.parametrize("side", [0, 64])
def test_an_onnx_network_gives_the_mask(tmp_path, side):
    pytest.importorskip("onnxruntime")
    image = np.random.default_rng(1).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    got = open_tissue_model(write_onnx(tmp_path / "net.onnx", side))(image)
    assert np.array_equal(got, image.astype(np.float32).mean(axis=2) > 127.5)


def test_tiles_follow_the_network_and_the_store_records_its_checksum(tmp_path):
    import hashlib

    two_cores(tmp_path / "in" / "a.tiff", HEMATOXYLIN, 0.15, GLASSES[1])
    save_torchscript(Redness(1), tmp_path / "net.pt")
    settings = TilingSettings(tissue_model=open_tissue_model(tmp_path / "net.pt"))
    ingest_slide_source(SlideSource(tmp_path / "in", settings), tmp_path / "out")
    store = Store.open(tmp_path / "out" / "a.h5")
    assert (store.column("x") >= 2048).all(), "the pale core has no red below half"
    digest = hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest()
    assert store.attrs["recipe"]["tissue_model"] == {"name": "net.pt", "sha256": digest}
    assert str(tmp_path) not in str(store.attrs)


def test_networks_that_cannot_be_used_are_refused_with_the_reason(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"no network")
    (tmp_path / "net.onnx").write_bytes(b"no network")
    for name, why in (("none.pt", "does not exist"), ("net.pt", "is not TorchScript"), ("test.py", "expected ONNX")):
        (tmp_path / "test.py").touch()
        with pytest.raises(InputError, match=why):
            open_tissue_model(tmp_path / name)
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match="is not a network that onnxruntime loads"):
        open_tissue_model(tmp_path / "net.onnx")
    with pytest.raises(Unreadable, match="end it with a sigmoid"):
        output_mask(np.full((1, 1, 4, 4), 3.0, np.float32), 8, "n")
    with pytest.raises(Unreadable, match=r"shape \(3,\)"):
        output_mask(np.zeros(3, np.float32), 8, "n")
    with pytest.raises(Unreadable, match="NaN"):
        output_mask(np.full((4, 4), np.nan, np.float32), 8, "n")
    assert output_mask(np.eye(2, dtype=np.float32)[None], 4, "n").sum() == 8, "an output of a quarter of the pixels is resized"
    with pytest.raises(InputError, match="pass one of them"):
        TilingSettings(tissue_threshold=8, tissue_model=TissueModel(tmp_path / "net.pt", ""))
