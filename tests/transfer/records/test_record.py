"""Records: atomic, verifiable, and found by their identity."""

import json

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from transfer.records import record
from transfer.records.record import Identity, Meta, Record


def identity(**fields):
    base = {name: name[:4] for name in Identity.model_fields if Identity.model_fields[name].is_required()}
    return Identity(**{**base, **fields})


def made(scores=None, **fields):
    draw = np.random.default_rng(0)
    arrays = {}
    for part, n in (("val", 5), ("test", 7)):
        arrays[f"{part}_key"] = np.array([f"{part}{i}" for i in range(n)], dtype=object)
        arrays[f"{part}_patient"] = np.array([f"p{i // 2}" for i in range(n)], dtype=object)
        arrays[f"{part}_y"] = np.array([[0.0, np.nan], [1.0, 1.0]] * n, dtype=np.float32)[:n]
        arrays[f"{part}_scores"] = draw.random((n, 2))
    return Record(Meta(identity=identity(**fields), kind="multilabel", classes=["a", "b"], selection={"k": 3}), arrays)


def test_a_record_comes_back_as_it_was_written():
    written = made()
    back = record.read_record(record.write_record(written))
    for name in record.ARRAY_NAMES:
        np.testing.assert_array_equal(back.arrays[name], written.arrays[name].astype(back.arrays[name].dtype))
    assert back.meta.selection == {"k": 3}
    assert back.identity == written.identity


def test_a_record_is_found_by_its_identity_and_no_other():
    record.write_record(made())
    assert record.find_finished_record(identity()) is not None
    elsewhere = record.ExternalSource(task="a", store="s", labels="l", split="p", label_map={"a": ["b"]})
    optional = {"patients": 20, "selected_on": elsewhere, "shift": "noise", "amount": 0.1, "shift_version": 1, "precision": "bf16"}
    for name in Identity.model_fields:
        value = getattr(identity(), name)
        other = value + 1 if isinstance(value, int) else value / 2 if isinstance(value, float) else f"{value}x"
        other = optional.get(name, other)
        assert record.find_finished_record(identity(**{name: other})) is None, name


def test_the_id_and_the_json_of_a_record_in_fp32_are_those_of_earlier_versions():
    """The id was computed by the version before precisions; a record that it wrote has no field for them."""
    assert identity().id == "a4aee19c7584f97e"
    path = record.write_record(made())
    assert "precision" not in json.loads(path.read_text())["identity"]
    assert record.read_record(path).identity.precision == "fp32"
    half = record.write_record(made(precision="bf16"))
    assert half != path
    assert json.loads(half.read_text())["identity"]["precision"] == "bf16"
    assert record.find_finished_record(identity()).identity.precision == "fp32"


def test_an_edited_json_is_refused():
    path = record.write_record(made())
    content = json.loads(path.read_text())
    content["selection"]["k"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="changed after it was written"):
        record.read_record(path)
    with pytest.raises(InputError, match="--again"):
        record.find_finished_record(identity())


def test_edited_scores_are_refused():
    path = record.write_record(made())
    with np.load(path.with_suffix(".npz")) as file:
        arrays = dict(file)
    arrays["test_scores"][0, 0] += 1e-9
    np.savez(path.with_suffix(".npz"), **arrays)
    with pytest.raises(InputError, match=r"npz was changed"):
        record.read_record(path)


def test_scores_that_are_missing_or_torn_are_told():
    path = record.write_record(made())
    beside = path.with_suffix(".npz")
    beside.write_bytes(beside.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        record.read_record(path)
    beside.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        record.read_record(path)


@pytest.mark.parametrize("text", ['{"format": "other"}', "[]", "not json"])
def test_a_foreign_file_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"not a record|not JSON"):
        record.read_record(tmp_path / "x.json")


def test_a_failed_record_keeps_its_traceback_and_is_not_reused():
    meta = Meta(identity=identity(), kind="binary", classes=["a"], status="failed", error="ValueError: no", traceback="Traceback ...")
    path = record.write_record(Record(meta, {}))
    assert record.read_record(path).meta.traceback == "Traceback ..."
    assert record.find_finished_record(identity()) is None


def test_writing_again_replaces_the_record():
    record.write_record(made())
    other = made()
    other.arrays["test_scores"][:] = 0.25
    path = record.write_record(other)
    assert (record.read_record(path).arrays["test_scores"] == 0.25).all()
    assert len(record.find_records()) == 1


def test_a_selection_with_numpy_numbers_and_nan_is_json():
    assert record.to_plain_json({"C": np.float64(2), "table": ({"score": float("nan")}, np.int64(3))}) == {
        "C": 2.0,
        "table": [{"score": None}, 3],
    }


def test_records_are_found_below_folders_and_an_empty_folder_is_told(tmp_path):
    path = record.write_record(made())
    assert record.find_records([path]) == record.find_records([path.parent]) == record.find_records() == [path]
    with pytest.raises(InputError, match="no record"):
        record.find_records([tmp_path])
