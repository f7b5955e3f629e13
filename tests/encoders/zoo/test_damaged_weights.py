"""Weight files whose header or bytes were changed: refused with the path and what is wrong, or by the hash that the zoo stores."""

import json
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from encoders.importing.checkpoint import read_checkpoint
from encoders.runtime.checkpoint import DamagedCheckpoint, load_checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.known_hash import sha256_of_state
from encoders.runtime.safetensors_header import read_safetensors_header
from encoders.zoo import hub
from encoders.zoo.listing import count_parameters
from encoders.zoo.weights import read_state_dict

STATE = {"a": torch.arange(4.0), "b": torch.arange(6.0).reshape(2, 3), "c": torch.arange(3)}


@pytest.fixture
def file(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def write_header(file, change, tail=b""):
    """Writes the file again with a changed header: a function of the header's dict, or of its text."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    text = data[8 : 8 + length].decode()
    new = change(json.loads(text))
    new = (json.dumps(new) if isinstance(new, dict) else new).encode()
    file.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :] + tail)


def moved(name, **fields):
    return lambda header: header | {name: header[name] | fields}


def offsets(header, name):
    return header[name]["data_offsets"]


WRONG_HEADERS = {
    "overlapping": (lambda h: moved("b", data_offsets=[o - 4 for o in offsets(h, "b")])(h), r"'b' overlaps|before 'b'|belong to no"),
    "beyond the end": (lambda h: moved("b", data_offsets=[o + 4000 for o in offsets(h, "b")])(h), "'b' ends at byte"),
    "a hole": (lambda h: {k: v for k, v in h.items() if k != "a"}, "belong to no tensor|belong to none"),
    "backwards": (lambda h: moved("a", data_offsets=offsets(h, "a")[::-1])(h), "'a' is F32 of shape"),
    "negative": (moved("a", data_offsets=[-16, 0]), "no whole numbers"),
    "of another size": (moved("a", shape=[5]), "takes 20 bytes, and has 16"),
    "of a type of another size": (moved("a", dtype="F64"), "takes 32 bytes, and has 16"),
    "of an unknown type": (moved("a", dtype="F12"), "the dtype of 'a' is 'F12'"),
    "a shape of text": (moved("a", shape="4"), "no whole numbers"),
    "a huge shape": (moved("a", shape=[2**61, 8]), "which takes"),
    "without offsets": (lambda h: h | {"a": {"dtype": "F32", "shape": [4]}}, "without dtype, shape and data_offsets"),
    "a name twice": (lambda h: json.dumps(h)[:-1] + ', "a": ' + json.dumps(h["a"]) + "}", "names 'a' twice"),
    "a list": (lambda h: "[1]", "is a list"),
    "not JSON": (lambda h: json.dumps(h)[:-3], "is not JSON"),
    "deep": (lambda h: "[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize("wrong", WRONG_HEADERS)
@pytest.mark.parametrize("read", [read_state_dict, read_checkpoint])
def test_a_wrong_header_is_refused_in_one_sentence_that_says_what_is_wrong(file, wrong, read):
    change, reason = WRONG_HEADERS[wrong]
    write_header(file, change)
    with pytest.raises(InputError, match=reason) as error:
        read(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert count_parameters(file) is None


@pytest.mark.parametrize("length", [0, 2, 2**32, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused_and_not_allocated(file, length):
    data = file.read_bytes()
    file.write_bytes(struct.pack("<Q", length) + data[8:])
    with pytest.raises(InputError, match="claims|not JSON"):
        read_state_dict(file)


def test_bytes_after_the_last_tensor_and_a_file_that_is_cut_off_are_refused(file):
    data = file.read_bytes()
    file.write_bytes(data + b"\0" * 8)
    with pytest.raises(InputError, match="8 bytes after the last tensor belong to none"):
        read_state_dict(file)
    file.write_bytes(data[:-8])
    with pytest.raises(InputError, match="cut off"):
        read_state_dict(file)


def test_the_header_that_the_library_writes_is_read(file):
    stored = {t.name: (t.dtype, t.shape) for t in read_safetensors_header(file)}
    assert stored == {"a": ("F32", (4,)), "b": ("F32", (2, 3)), "c": ("I64", (3,))}
    assert all(torch.equal(value, STATE[name]) for name, value in read_state_dict(file).items())


def test_a_record_of_a_zip_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(STATE, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(archive.namelist()[0], b"other")
    with pytest.raises(InputError, match="two of its records are called"):
        read_state_dict(path)


def test_a_file_of_the_hubs_cache_is_compared_with_the_hash_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))
    save_file(STATE, tmp_path / "x")
    blob = tmp_path / "blobs" / sha256_of_state(tmp_path / "x")
    blob.parent.mkdir()
    (tmp_path / "x").rename(blob)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert hub.require_intact_file(link) == link
    monkeypatch.setattr("encoders.runtime.known_hash.sha256_file", None)  # the second time it is not read
    assert hub.require_intact_file(link) == link
    monkeypatch.undo()
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(InputError, match="was damaged or changed; remove"):
        hub.require_intact_file(link)


def test_a_record_that_is_marked_as_a_folder_is_refused_where_pytorch_reads_memory_that_it_never_wrote(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(STATE, path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"/data/0") - len("model") - 46  # of the central directory; the external attributes are its bytes 38 to 41
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 38] |= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match="is marked as a folder"):
        read_state_dict(path)
    path.rename(tmp_path / "step-00000004.pt")
    with pytest.raises(DamagedCheckpoint, match="is marked as a folder"):
        load_checkpoint(tmp_path / "step-00000004.pt")


def test_a_storage_that_the_old_format_does_not_list_is_not_read_from_memory(tmp_path):
    state = {f"w{i}": torch.arange(6.0) + i for i in range(3)}
    path = tmp_path / "model.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert read_state_dict(path).keys() == state.keys()
    whole = path.read_bytes()
    keys = pickle.dumps(sorted(str(value.untyped_storage()._cdata) for value in state.values()), 2)
    assert keys in whole
    path.write_bytes(whole.replace(keys, pickle.dumps([], 2)))
    with pytest.raises(InputError, match=r"model\.pth is damaged: its tensors need 3 storages, and it has 0"):
        read_state_dict(path)
