"""Scorings are counted per test image, over ledger and records, and sets that overlap count for the images that they share."""

import hashlib
import json
import time
from itertools import product

import numpy as np
import pytest

from transfer.records import scored_images
from transfer.records.ledger import append_to_ledger, ledger_path
from transfer.records.looks import gather_looks
from transfer.records.record import Identity, Meta, Record, read_record, write_record
from transfer.records.scored_images import identify_images, read_scored_images, scored_images_path, write_scored_images
from transfer.records.test_usage import count_split_usage, describe_usage, lower_median

HASHES = ("store", "labels", "encoder_sha256", "card", "protocol_hash")


def sha(i):
    return hashlib.sha256(f"image {i}".encode()).hexdigest()


def images(numbers, task="t", prefix="k"):
    return identify_images(task, [f"{prefix}{i}" for i in numbers], [sha(i) for i in numbers])


def identity(split="s", encoder="e", protocol="knn", **more):
    given = {"task": "t", "split": split, "partition": split, "encoder": encoder, "protocol": protocol, **more}
    return Identity(**{**dict.fromkeys(HASHES, "x"), "encoder_sha256": f"sha of {encoder}", **given})


def scored(numbers, test_set=None, **about):
    """A record whose test images have these numbers; `test_set` None: as this version writes it, "": as an earlier one did."""
    m = len(numbers)
    y = np.zeros((m, 1), np.float32)
    key = np.array([f"k{i}" for i in numbers])
    arrays = {f"{part}_{name}": v for part in ("val", "test") for name, v in (("key", key), ("patient", key), ("y", y), ("scores", y))}
    digest = images(numbers).digest if test_set is None else test_set
    return Record(Meta(identity=identity(**about), kind="binary", classes=["sick"], test_set=digest), arrays)


def look(numbers, when=1.0, log=True, **about):
    """The scoring of these images, in the ledger, and its record."""
    one = scored(numbers, **about)
    write_scored_images(images(numbers), ledger_path().parent)
    if log:
        append_to_ledger({**one.identity.model_dump(), "test_set": one.meta.test_set, "time": when}, ledger_path())
    return one


def usage(records):
    return count_split_usage(records, gather_looks(records))


def test_a_split_of_another_seed_counts_for_the_images_that_it_shares():
    first = look(range(10), split="seed0")
    look(range(6, 16), split="seed1", encoder="f")
    look(range(8, 18), split="seed2", protocol="linear")
    counted = usage([first])["seed0"]
    numbers = {row.tobytes(): n for n in range(10) for row in images([n]).ids}
    by_image = dict(zip((numbers[row.tobytes()] for row in images(range(10)).ids), counted.times.tolist(), strict=True))
    assert [by_image[n] for n in range(10)] == [1, 1, 1, 1, 1, 1, 2, 2, 3, 3]
    assert (counted.typical, counted.most, len(counted.own), len(counted.others)) == (1, 3, 1, 2)
    (text,) = describe_usage({"seed0": counted}, ["seed0"])
    assert text == (
        "the median test image was scored at least 1 time; most: 3 (2 of 3 scorings used another test set that shares images with this one)"
    )


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (images(range(1, 10)), 9),  # one image dropped
        (images(range(10), prefix="renamed/"), 10),  # equal pixels
        (images(range(10), task="another"), 10),  # equal pixels in another task
        (identify_images("t", [f"k{i}" for i in range(10)], [sha(100 + i) for i in range(10)]), 10),  # ingested at another size
        (identify_images("t", [f"k{i}" for i in range(10)], [""] * 10), 10),  # a store without hashes
        (identify_images("another", [f"k{i}" for i in range(10)], [sha(100 + i) for i in range(10)]), 0),  # equal keys of another task
        (images(range(10, 20)), 0),
    ],
)
def test_a_change_that_keeps_the_images_does_not_reset_their_count(other, shared):
    mine = look(range(10), split="mine")
    write_scored_images(other, ledger_path().parent)
    append_to_ledger({**identity(split="other", encoder="f").model_dump(), "test_set": other.digest, "time": 2.0}, ledger_path())
    counted = usage([mine])["mine"]
    assert counted.times.sum() == 10 + shared
    assert len(counted.others) == (shared > 0)


def test_records_without_a_ledger_are_counted():
    records = [look(range(10), encoder=f"e{i}", log=False) for i in range(11)]
    counted = usage(records)["s"]
    assert counted.times.tolist() == [11] * 10
    (text,) = describe_usage({"s": counted}, ["s"])
    assert (
        text == "every test image was scored at least 11 times, by 11 encoders and 1 protocol (counted from records, as there is no ledger)"
    )


def test_a_record_and_its_line_are_one_scoring_and_a_repeat_is_two():
    records = [look(range(10), encoder="a"), look(range(10), encoder="b"), look(range(10), encoder="c", log=False)]
    look(range(10), encoder="a", when=2.0)  # `--again`
    for r in records:
        write_record(r)
    assert usage(records)["s"].times.tolist() == [4] * 10
    assert usage(records[:1])["s"].times.tolist() == [4] * 10  # records of the folder that the table does not show count too


def test_a_copied_ledger_counts_once_and_another_one_beside_the_records_counts_as_well(tmp_path):
    first = look(range(10))
    copy = tmp_path / "copied" / "t"
    copy.mkdir(parents=True)
    (copy.parent / "ledger.jsonl").write_text(ledger_path().read_text() + json.dumps({**identity(encoder="there").model_dump(), "time": 9}))
    counted = count_split_usage([first], gather_looks([first], [copy / "record.json"]))["s"]
    assert counted.times.tolist() == [2] * 10


def test_lines_and_records_of_earlier_versions_count_for_their_split():
    append_to_ledger({**identity(encoder="old", split="s").model_dump(), "time": 1.0}, ledger_path())
    append_to_ledger({"split": "s", "encoder": "fragment"}, ledger_path())
    append_to_ledger({**identity(encoder="old", split="another").model_dump(), "time": 1.0}, ledger_path())
    new, old = look(range(10), encoder="new"), scored(range(10), test_set="", encoder="older")
    assert usage([new])["s"].times.tolist() == [3] * 10
    assert usage([new, old])["s"].times.tolist() == [4] * 10
    assert usage([old])["s"].times.tolist() == [4] * 10


def test_an_edited_record_proves_nothing():
    path = write_record(scored(range(10), encoder="edited"))
    assert usage([look(range(10))])["s"].times.tolist() == [2] * 10
    path.write_text(path.read_text().replace("edited", "another"))
    assert usage([look(range(10), log=False)])["s"].times.tolist() == [1] * 10


def test_a_failed_record_is_no_scoring():
    failed = scored(range(10), encoder="f")
    failed = Record(failed.meta.model_copy(update={"status": "failed"}), {})
    assert usage([look(range(10)), failed])["s"].times.tolist() == [1] * 10


def test_encoders_and_protocols_are_counted_per_image_and_equal_the_definition():
    draw = np.random.default_rng(0)
    looks = []
    for split, (encoder, protocol) in enumerate(product("abc", ("knn", "linear"))):
        numbers = np.sort(draw.choice(60, 40, replace=False)).tolist()
        looks.append((numbers, encoder, protocol, look(numbers, split=str(split), encoder=encoder, protocol=protocol)))
    found = usage([one for *_, one in looks])
    for split, (numbers, _, _, _) in enumerate(looks):
        who = {n: [(e, p) for other, e, p, _ in looks if n in other] for n in numbers}
        counted = found[str(split)]
        assert sorted(counted.times) == sorted(map(len, who.values()))
        assert sorted(counted.encoders) == sorted(len({e for e, _ in seen}) for seen in who.values())
        assert sorted(counted.protocols) == sorted(len({p for _, p in seen}) for seen in who.values())
        assert counted.typical == sorted(map(len, who.values()))[19]


def test_folds_are_one_set_in_the_caption():
    records = [look(range(10 * f, 10 * f + 10), split=f"fold{f}", encoder=e) for f in range(3) for e in "ab"]
    counted = usage(records)
    (text,) = describe_usage(counted, [f"fold{f}" for f in range(3)])
    assert text == "3 folds: every test image was scored at least 2 times, by 2 encoders and 1 protocol"
    assert describe_usage(counted, ["unknown"]) == []


def test_a_test_set_is_stored_once_and_a_damaged_file_is_not_believed_but_written_again():
    folder = ledger_path().parent
    some = images(range(10))
    write_scored_images(some, folder)
    path = scored_images_path(some.digest, folder)
    before = path.stat().st_mtime_ns
    write_scored_images(images(range(9, -1, -1)), folder)
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:-8])
    assert read_scored_images(some.digest, [folder]) is None
    first = look(range(10))
    assert usage([first])["s"].times.tolist() == [1] * 10
    np.save(path, images(range(11)).ids)
    assert read_scored_images(some.digest, [folder]) is None


def test_without_the_stored_set_scorings_of_the_split_still_count():
    first = look(range(10), encoder="a")
    look(range(10), encoder="b")
    scored_images_path(first.meta.test_set, ledger_path().parent).unlink()
    assert usage([first])["s"].times.tolist() == [2] * 10


def test_an_unreadable_line_is_stated():
    first = look(range(10))
    with open(ledger_path(), "a") as file:
        file.write('{"split": "s", "enc')
    (text,) = describe_usage(usage([first]), ["s"])
    assert text.endswith("(1 line of the ledger cannot be read)")


def test_the_digest_of_the_test_images_survives_the_record_file():
    assert read_record(write_record(scored(range(5)))).meta.test_set == images(range(5)).digest


def test_lower_median():
    assert [lower_median(np.array(v)) for v in ([3], [1, 2], [5, 1, 3], [4, 1, 2, 3], [])] == [3, 1, 3, 2, 0]


def test_a_thousand_scorings_of_25600_images_are_counted_in_two_seconds_and_each_set_is_read_once(monkeypatch):
    keys, digests = [f"k{i}" for i in range(28_000)], [sha(i) for i in range(28_000)]
    sets = [identify_images("t", keys[o : o + 25_600], digests[o : o + 25_600]) for o in range(0, 2000, 100)]
    entries = []
    for i in range(1000):
        tested = sets[i % 20]
        write_scored_images(tested, ledger_path().parent) if i < 20 else None
        entries.append({**identity(split=str(i % 20), encoder=f"e{i % 40}").model_dump(), "test_set": tested.digest, "time": i})
    ledger_path().write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    record = scored(range(25_600), split="0", test_set=sets[0].digest)
    opened = []
    monkeypatch.setattr(scored_images.np, "load", lambda path, load=np.load, **more: opened.append(path) or load(path, **more))
    start = time.process_time()
    counted = usage([record])["0"]
    spent = time.process_time() - start
    assert len(counted.times) == 25_600
    assert (counted.most, counted.times.min(), len(opened)) == (1001, 51, 20)  # the record has no line of its own
    assert spent < 2
