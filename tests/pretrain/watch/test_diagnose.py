"""Diagnoses: each fault has its name and advice, and a healthy run has none."""

import math

import pytest

from pretrain.watch.diagnose import diagnose


def record(n, **columns):
    """n lines; a column is a number or a function of the line."""
    return [{"step": i + 1, "skipped": 0} | {k: v(i) if callable(v) else v for k, v in columns.items()} for i in range(n)]


def names(lines, progress=0.5, baseline=None):
    return [f.name for f in diagnose(lines, baseline or {}, progress)]


HEALTHY = {
    "loss": lambda i: 5 - 0.01 * i + 0.05 * math.sin(7 * i),
    "grad_norm": lambda i: 1 + 0.3 * math.sin(3 * i),
    "watch/std": 0.5, "watch/rank": 30.0, "watch/cosine": 0.4, "watch/alpha": 1.0,
}  # fmt: skip


def test_a_healthy_run_has_no_finding():
    assert names(record(100, **HEALTHY)) == []
    assert diagnose([], {}, 0.0) == []


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("complete collapse", {"watch/cosine": lambda i: 0.4 if i < 90 else 0.9995}),
        ("complete collapse", {"watch/head_cosine": lambda i: 0.4 if i < 90 else 0.9995}),
        ("dimensional collapse", {"watch/rank": lambda i: 30.0 if i < 90 else 8.0}),
        ("uniform teacher", {"watch/teacher_entropy": 0.997, "watch/teacher_marginal": 0.998}),
        ("one-prototype teacher", {"watch/teacher_entropy": 0.0, "watch/teacher_marginal": 0.002}),
        ("diverging gradient", {"grad_norm": lambda i: 1.0 if i < 95 else 30.0}),
        ("plateau", {"loss": lambda i: 5 + 0.05 * math.sin(7 * i)}),
        ("loader-bound", {"time/data_wait": 0.5}),
        ("skipped steps", {"skipped": lambda i: i // 3}),
    ],
)
def test_each_fault_is_diagnosed_with_advice(name, fault):
    findings = diagnose(record(100, **(HEALTHY | fault)), {}, 0.5)
    assert [f.name for f in findings] == [name]
    assert "optim." in findings[0].text or "method." in findings[0].text or "data." in findings[0].text


def test_one_bad_measurement_an_untrained_network_and_a_saturated_end_raise_no_alarm():
    assert names(record(100, **(HEALTHY | {"watch/cosine": lambda i: 0.9999 if i == 99 else 0.4}))) == []
    assert names(record(100, **(HEALTHY | {"watch/cosine": 0.9995})), baseline={"watch/cosine": 0.9996}) == []
    assert names(record(100, **(HEALTHY | {"loss": lambda i: 5 + 0.05 * math.sin(7 * i)})), progress=0.9) == []


def test_rank_that_mae_loses_from_the_untrained_network_is_no_alarm_and_rank_that_a_head_loses_is():
    """MAE on phantoms: an effective rank of 10 before the first step, 2.4 in the first measurements, 10 again at the end."""
    rises = HEALTHY | {"watch/rank": lambda i: 2.4 + i / 50}
    assert names(record(100, **rises), baseline={"watch/rank": 10.2}) == []
    assert names(record(100, **(rises | {"watch/head_rank": 20.0})), baseline={"watch/rank": 60.0}) == ["dimensional collapse"]


def test_the_text_for_a_method_without_a_head_mentions_none():
    lines = record(100, **(HEALTHY | {"watch/rank": lambda i: 20.0 if i < 90 else 2.0}))
    (text,) = [f.text for f in diagnose(lines, {}, 0.5) if f.name == "dimensional collapse"]
    assert "head" not in text.partition(";")[0]
    assert "nan" not in text
