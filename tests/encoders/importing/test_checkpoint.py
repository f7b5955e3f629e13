"""Reading checkpoints: honest files equal torch.load bit for bit, hostile ones run nothing, and limits are stated."""

import argparse
import collections
import functools
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from encoders.importing.checkpoint import read_checkpoint
from encoders.importing.inert_record import InertRecord
from encoders.runtime.errors import InputError


def honest_tensors():
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    state = {
        "plain": base,
        "row": base[2],
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": base[:, :1].expand(6, 5),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "complex": torch.complex(base, -base).conj(),
        "negative": torch.complex(base, -base).conj().imag,
        "parameter": nn.Parameter(base + 1),
        "bf16": base.bfloat16(),
    }
    kinds = (torch.float16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.uint16, torch.float8_e4m3fn)
    return state | {str(kind): base.abs().to(kind) for kind in kinds}


def same(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.stride() == b.stride()
    a, b = (x.detach().resolve_neg().resolve_conj().contiguous().reshape(-1).view(torch.uint8).tolist() for x in (a, b))
    return a == b


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_tensors_equal_those_of_torch_bit_for_bit(tmp_path, options):
    tensors = honest_tensors()
    if "_use_new_zipfile_serialization" in options:  # torch reads these types of the old format with no version
        tensors = {name: x for name, x in tensors.items() if name not in ("torch.uint16", "torch.float8_e4m3fn")}
    torch.save({"state_dict": tensors, "epoch": 3, "names": ["a", "b"]}, tmp_path / "w.pth", **options)
    want = torch.load(tmp_path / "w.pth", weights_only=False)["state_dict"]
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    got = checkpoint.tensors(("state_dict",))
    assert checkpoint.places() == [("state_dict",)]
    assert list(got) == list(want)
    assert [name for name in want if not same(got[name], want[name])] == []
    assert got["plain"].untyped_storage().data_ptr() == got["row"].untyped_storage().data_ptr()
    assert checkpoint.tree["epoch"] == 3


def test_safetensors_and_npz(tmp_path):
    x = {"w": torch.randn(3, 4), "h": torch.randn(2).half()}
    save_file(x, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", w=x["w"].numpy(), big=np.arange(4, dtype=">i4"), f=np.asfortranarray(x["w"].numpy()))
    assert all(same(v, x[k]) for k, v in read_checkpoint(tmp_path / "w.safetensors").tensors().items())
    arrays = read_checkpoint(tmp_path / "w.npz").tensors()
    assert same(arrays["w"], x["w"])
    assert arrays["big"].tolist() == [0, 1, 2, 3]
    assert torch.equal(arrays["f"], x["w"])


class Settings(dict):
    """Stands for yacs.config.CfgNode: a dict with attributes."""


class LightningCallback:
    def __init__(self):
        self.best, self.owner = 0.5, self  # a circle

    def __setstate__(self, state):
        raise AssertionError("code of the file ran")


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("protocol", [1, 2, 4, 5])  # torch cannot read its own files of protocol 0
def test_objects_of_other_projects_become_records(tmp_path, new, protocol):
    args, config = argparse.Namespace(lr=0.1, arch="vit"), Settings(depth=12)
    config.frozen = True
    content = {
        "teacher": {"w": torch.ones(2)},
        "args": args,
        "config": config,
        "callbacks": [LightningCallback()],
        "mean": np.float64(0.25),
        "array": np.arange(6.0).reshape(2, 3),
        "text": np.array(["a"]),
        "objects": np.array([{}], dtype=object),
        "path": Path("x"),
        "set": {1, 2},
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=2),
    }
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    tree = checkpoint.tree
    assert checkpoint.places() == [(), ("teacher",)]  # the array at the top is a tensor, too
    assert tree["args"].name == "argparse.Namespace"
    assert tree["args"].fields() == {"lr": 0.1, "arch": "vit"}
    assert tree["config"].fields() == {"depth": 12, "frozen": True}
    assert tree["callbacks"][0].fields()["owner"] is tree["callbacks"][0]
    assert tree["mean"] == 0.25
    assert torch.equal(tree["array"], torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
    assert isinstance(tree["objects"], InertRecord)
    assert isinstance(tree["text"], InertRecord)
    assert sorted(tree["set"]) == [1, 2]
    assert (tree["ordered"], tree["default"]) == ({"a": 1}, {"b": 2})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
        self.register_buffer("hidden", torch.ones(1), persistent=False)
        self.head = nn.Linear(2, 1)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_module_gives_its_state_dict(tmp_path, new):
    net = Net()
    torch.save({"model": nn.DataParallel(net), "epoch": 1}, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    got, want = checkpoint.tensors(("model",)), {f"module.{k}": v for k, v in net.state_dict().items()}
    assert checkpoint.places() == [("model",)]
    assert set(got) == set(want)
    assert all(same(got[k], v) for k, v in want.items())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_and_sparse_tensors_are_refused_by_name(tmp_path):
    for kind, x in (
        ("quantised", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)),
        ("sparse", torch.eye(2).to_sparse()),
        ("meta", torch.empty(2, device="meta")),
    ):
        torch.save({"conv.weight": x, "ok": torch.ones(1)}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=rf"conv\.weight is a {kind}"):
            read_checkpoint(tmp_path / "w.pth").tensors()


def test_the_tar_archive_of_old_versions(tmp_path):
    stored = np.arange(6, dtype="<f4")
    storages = pickle.dumps(1, 2) + pickle.dumps((5, "cpu", torch.FloatStorage), 2) + struct.pack("<q", 6) + stored.tobytes()
    tensors = pickle.dumps(1, 2) + pickle.dumps((9, 5, torch.FloatTensor), 2) + struct.pack("<ii", 2, 0) + struct.pack("<5q", 2, 2, 2, 1, 1)

    class Writer(pickle.Pickler):
        def persistent_id(self, x):
            return "9" if isinstance(x, torch.Tensor) else None

    body = io.BytesIO()
    Writer(body, 2).dump({"w": torch.ones(1)})
    files = {"sys_info": pickle.dumps({"little_endian": True}, 2), "storages": storages + pickle.dumps([], 2), "tensors": tensors}
    with tarfile.open(tmp_path / "w.pth", "w:") as tar:
        for name, content in {**files, "pickle": body.getvalue()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    want = torch.load(tmp_path / "w.pth", weights_only=False)["w"]
    got = read_checkpoint(tmp_path / "w.pth").tensors()["w"]
    assert same(got, want)
    assert got.tolist() == [[1, 2], [3, 4]]


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def attacks(marker):
    touch = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    yield "os.system", Call(os.system, touch)
    yield "subprocess", Call(subprocess.Popen, ["touch", str(marker)])
    yield "eval", Call(eval, code)
    yield "exec", Call(exec, code)
    yield "import", Call(eval, f"__import__('os').system({touch!r})")
    yield "partial", Call(functools.partial, os.system, touch)
    yield "torch.load", Call(torch.load, str(marker), None)
    yield "map", Call(list, Call(map, os.system, [touch]))
    yield "in arguments", Call(torch._utils._rebuild_parameter, Call(os.system, touch), True, {})
    yield "in the state", Call(argparse.Namespace, state={"x": Call(os.system, touch)})
    yield "numpy objects", np.array([Call(os.system, touch)], dtype=object)
    yield "ordered dict", Call(collections.OrderedDict, [("a", Call(os.system, touch))])
    yield "typed tensor", Call(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch,), {})


def raw_attacks(marker):
    text = f"S'touch {marker}'\n".encode()
    yield "INST", b"(" + text + b"ios\nsystem\n."
    yield "OBJ", b"(cos\nsystem\n" + text + b"o."
    yield "NEWOBJ", b"\x80\x02cos\nsystem\n(" + text + b"t\x81."
    yield "NEWOBJ_EX", b"\x80\x04cos\nsystem\n(" + text + b"t}\x92."
    yield "GETATTR", b"c__builtin__\ngetattr\n(cos\n__dict__\nS'system'\ntR(" + text + b"tR."
    yield "STACK_GLOBAL", b"\x80\x04\x8c\x02os\x8c\x06system\x93(" + text + b"tR."
    yield "BUILD", b"cbuiltins\nobject\n)R}S'__setstate__'\ncos\nsystem\nsb" + text + b"b."
    yield "CodeType", b"ctypes\nFunctionType\n(ctypes\nCodeType\n(I0\nI0\nI0\ntR}tR)R."
    yield "EXT1", b"\x80\x02\x82\x05(" + text + b"tR."
    yield "copyreg", b"ccopyreg\nadd_extension\n(S'os'\nS'system'\nI5\ntR."


def hostile_files(tmp_path, marker):
    for name, value in attacks(marker):
        for new in (True, False):
            path = tmp_path / f"{name}-{new}.pth"
            torch.save({"w": torch.ones(1), "x": value}, path, _use_new_zipfile_serialization=new)
            yield path
    for name, raw in raw_attacks(marker):
        (tmp_path / f"{name}.pkl").write_bytes(raw)
        yield tmp_path / f"{name}.pkl"
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("archive/data.pkl", raw)
        yield tmp_path / f"{name}.zip"


def test_hostile_pickles_run_nothing(tmp_path):
    marker, read, messages = tmp_path / "marker", 0, []
    for path in hostile_files(tmp_path, marker):
        try:
            checkpoint = read_checkpoint(path)
            checkpoint.places()
            read += 1
        except InputError as error:
            messages.append(str(error))
        assert not marker.exists(), path.name
    assert read > 30
    assert not [message for message in messages if "trust" in message]


def test_the_attacks_would_run_if_they_were_unpickled(tmp_path):
    marker = tmp_path / "marker"
    for _, raw in list(raw_attacks(marker))[:3]:
        try:
            pickle.loads(raw)
        except (TypeError, pickle.UnpicklingError):
            continue  # NEWOBJ of a function
        assert marker.exists()
        marker.unlink()


def zip_with(path, pickled, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"a/data/{name}", content)
    return path


def tensor_pickle(offset, size, stride, claimed=4, call="ctorch._utils\n_rebuild_tensor_v2\n"):
    def ints(values):
        return b"(" + b"".join(f"I{v}\n".encode() for v in values) + b"t"

    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI" + str(claimed).encode() + b"\ntQ"
    return call.encode() + b"(" + storage + f"I{offset}\n".encode() + ints(size) + ints(stride) + b"I00\nNtR."


@pytest.mark.parametrize(
    ("offset", "size", "stride", "claimed", "says"),
    [
        (0, [5], [1], 4, "ends at byte 20, and its storage has 16"),
        (4, [1], [1], 4, "ends at byte"),
        (0, [2, 2], [10**9, 1], 4, "ends at byte"),
        (-1, [1], [1], 4, "offset -1"),
        (0, [2], [-1], 4, "stride"),
        (0, [2, 2], [1], 4, "stride"),
        (0, [1], [1], 10**12, "storages claim"),
        (0, [1], [1], -4, "claims -4 elements"),
        (0, [1], [1], 64, "expects 256"),
        (0, [10**9], [0], 4, "limit of the reader is"),
        (0, [1] * 65, [1] * 65, 4, "65 dimensions"),
    ],
)
def test_tensors_that_leave_their_storage_are_refused(tmp_path, offset, size, stride, claimed, says):
    file = zip_with(
        tmp_path / "w.pth", tensor_pickle(offset, size, stride, claimed), **{"0": np.arange(4, dtype="f4").tobytes(), "1": bytes(999)}
    )
    with pytest.raises(InputError, match=says):
        read_checkpoint(file)


def test_an_honest_raw_pickle_is_read(tmp_path):
    file = zip_with(tmp_path / "w.pth", tensor_pickle(0, [2, 2], [2, 1]), **{"0": np.arange(4, dtype="f4").tobytes()})
    assert read_checkpoint(file).tree.tolist() == [[0, 1], [2, 3]]


BOMB = b"]" + b"".join(b"q%c" % i + b"](" + b"h%c" % i * 10 + b"e" for i in range(30)) + b"."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB, "limit of the reader is 10,000,000"),
        (b"(" * 1000 + b"t" * 1000 + b".", "nested 201 levels deep, and the limit of the reader is 200"),
        (b"]q\x00h\x00a.", "contains itself"),
        (b"\x80\x02\x8b" + struct.pack("<i", 5000) + b"\x01" * 5000 + b".", "limit of the reader is 1,024"),
        (b"\x80\x02X" + struct.pack("<I", 2**31) + b"abc.", "limit of the reader is 1,073,741,824"),
        (b"\x80\x02X" + struct.pack("<I", 2**20) + b"abc.", "malformed"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.", "limit of the reader"),
        (b"}((t" + b"\x85" * 1000 + b"Ns.", "malformed"),
        (b"Nr\xff\xff\xff\x7f.", None),
        (b"h\x09.", "malformed"),
        (b"0.", "malformed"),
        (b"I1\nI2\nR.", "malformed"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"I" + b"9" * 6000 + b"\n.", "malformed|limit"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\ntRC\x01atR.", "do not describe|malformed"),
        (b"", "empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04 not a zip", "not a weight file"),
        (bytes(600), "cannot be read"),
    ],
)
def test_limits_and_damage_are_input_errors(tmp_path, content, says):
    (tmp_path / "w.pth").write_bytes(content)
    if says is None:
        assert read_checkpoint(tmp_path / "w.pth").tree is None  # a far index of the memo costs nothing
        return
    with pytest.raises(InputError, match=says):
        read_checkpoint(tmp_path / "w.pth")


def test_zip_bombs_and_truncated_and_changed_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(70 * 2**20))
    with pytest.raises(InputError, match="limit of the reader is 100"):
        read_checkpoint(tmp_path / "bomb.pth")
    for new in (True, False):
        path = tmp_path / f"{new}.pth"
        torch.save({"w": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=new)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError):
            read_checkpoint(path)
        if new:
            at = whole.index(struct.pack("<f", 500.0))
            path.write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
            with pytest.raises(InputError, match="CRC"):
                read_checkpoint(path)
        else:
            at = whole.index(struct.pack("<H", 1001))
            path.write_bytes(whole[:at] + struct.pack("<H", 1002) + whole[at + 2 :])
            with pytest.raises(InputError, match="its version is '1002', expected 1001"):
                read_checkpoint(path)


def test_a_missing_place_is_named(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"has no 'teacher' at the top; it has 'model', 'args'"):
        checkpoint.tensors(("teacher",))
    with pytest.raises(InputError, match=r"argparse\.Namespace.*state dicts at model"):
        checkpoint.tensors(("args",))
