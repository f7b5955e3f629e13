"""Precision of a bench: what its records are called, what is compared, and what training a network resolves `auto` to."""

import numpy as np
import pytest

from encoders.loading import worker_count
from encoders.runtime import arithmetic
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, OTHER, add, run
from transfer.bench.bench import load_protocols
from transfer.bench.cell import hash_protocol
from transfer.bench.shifted_store import ShiftedStore
from transfer.protocols import finetune
from transfer.records.record import read_record, record_path
from transfer.report.latex import render_latex
from transfer.report.provenance import describe_partition
from transfer.tables import render, result_csv
from transfer.tables.build import build_sections
from transfer.tables.pilot_records import PilotChoice, find_pilot
from transfer.tables.rows import group_sections
from transfer.tables.shift_curves import build_shift_curves, build_shift_tables


@pytest.fixture
def cohort(tmp_path):
    store = toys.store(tmp_path / "toy.h5", patients=40)
    add(store)
    return store


def test_records_of_both_precisions_stand_side_by_side_and_are_reused(cohort):
    full = run(protocols=["knn"])
    half = run(protocols=["knn"], precision="bf16")
    assert (half.computed, half.reused) == (1, 0)
    a, b = (result.records[0] for result in (full, half))
    assert (a.identity.precision, b.identity.precision) == ("fp32", "bf16")
    assert a.identity.id != b.identity.id
    assert "precision" not in a.identity.model_dump()
    assert read_record(record_path(b.identity)).identity == b.identity
    assert run(protocols=["knn"], precision="bf16").reused == run(protocols=["knn"]).reused == 1


def test_a_table_never_mixes_precisions_and_its_captions_name_them(cohort):
    records = [r for p in ("fp32", "bf16") for r in run(NET, OTHER, "pixels", protocols=["knn", "linear"], precision=p).records]
    sections = build_sections(records)
    assert [(s.protocol, s.precision, len(s.rows)) for s in sections] == [
        (protocol, precision, 3) for protocol in ("knn", "linear") for precision in ("bf16", "fp32")
    ]
    for s in sections:
        assert {r.identity.precision for row in s.rows for r in row.records} == {s.precision}
        assert len({r.identity.encoder for row in s.rows for r in row.records}) == 3, "pixels is compared with both"
    half, full = group_sections(sections)
    assert any("knn, linear: features computed in bf16 and stored as float32" in line for line in render.build_captions(half, {}, {}))
    assert not any("bf16" in line for line in render.build_captions(full, {}, {}))
    assert render.mixed_hash_warnings(sections) == []
    assert render_latex(sections).count(" bf16") == 2
    assert {line.rpartition("bf16")[1] for line in result_csv.results_to_csv(sections, {}, {}).splitlines()[1:]} == {"", "bf16"}
    assert [describe_partition(r) for r in records[::6]] == ["all labels", "features in bf16, all labels".partition(",")[0]]
    with pytest.raises(InputError, match="2 different precisions of features"):
        find_pilot([r for r in records if r.identity.protocol == "knn"], PilotChoice(NET, OTHER))


def test_shift_curves_are_of_one_precision(cohort):
    records = [r for p in ("fp32", "bf16") for r in run(protocols=["knn"], shifts=[("gamma", 3)], precision=p).records]
    curves = build_shift_curves(records)
    assert sorted(c.precision for c in curves) == ["bf16", "fp32"]
    assert all(c.points[-1].loss is not None for c in curves)
    assert sum("features in bf16" in title for title, *_ in build_shift_tables(curves)) == 1


def test_loader_processes_of_features_are_chosen_for_the_device_and_each_store(cohort, monkeypatch):
    asked = []
    monkeypatch.setattr(
        worker_count, "choose_worker_count", lambda workers, device, store: asked.append((workers, device.type, len(store))) or 0
    )
    run(protocols=["knn"], shifts=[("gamma", 3)])
    run(protocols=["knn"], workers=2, recompute=True, precision="bf16")
    assert asked == [(None, "cpu", 80), (None, "cpu", 80), (2, "cpu", 80)]


def test_a_shifted_store_sends_shifted_values(cohort):
    store = Store.open(cohort)
    shifted = ShiftedStore(store, "gamma", 3)
    images, white = shifted.compact_images([0, 3])
    assert white == 1.0
    assert np.array_equal(images, shifted.unit_images([0, 3]))
    assert not np.allclose(images, store.unit_images([0, 3]), atol=0.01)


def test_a_protocol_that_trains_the_network_has_its_own_precision(cohort):
    short = ["finetune.min_steps=2", "finetune.max_steps=2", "finetune.evaluations=1", "finetune.batch=8"]
    first = run(protocols=["finetune"], overrides=short)
    (r,) = first.records
    assert r.meta.protocol_config["precision"] == "fp32", "what auto became"
    assert run(protocols=["finetune"], overrides=short, precision="bf16").reused == 1
    (other,) = run(protocols=["finetune"], overrides=[*short, "finetune.precision=bf16"]).records
    assert other.meta.protocol_config["precision"] == "bf16"
    assert len(build_sections([r, other])) == 2


def test_records_of_fine_tuning_on_a_cpu_keep_the_hash_of_earlier_versions(monkeypatch):
    """The hash was computed by the version whose default was fp32."""
    (_, cfg) = load_protocols(["finetune"], 0)["finetune"]
    assert hash_protocol("finetune", finetune.VERSION, cfg) == "232abb1c76f53f8c"
    for native, want in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(arithmetic, "has_bf16", lambda device, native=native: native)
        (_, cfg) = load_protocols(["finetune"], 0, device="cuda:0")["finetune"]
        assert cfg.model_dump()["precision"] == want


def test_frozen_images_of_a_linear_preset_are_computed_in_the_precision_of_the_bench(cohort):
    short = ["linear.preset=mae", "linear.batch=8", "linear.length=1"]
    a, b = (run(protocols=["linear"], overrides=short, precision=p).records[0] for p in ("fp32", "bf16"))
    assert b.identity.precision == "bf16"
    assert not np.array_equal(a.arrays["test_scores"], b.arrays["test_scores"])
    assert np.allclose(a.arrays["test_scores"], b.arrays["test_scores"], atol=0.05)
