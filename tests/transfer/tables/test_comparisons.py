"""Which encoders are compared, which labels are judged, and when a verdict is withheld."""

import csv
import io

import numpy as np
import pytest

from tests.transfer.records.test_record import identity
from transfer.metrics import auroc
from transfer.records.episodes import Episodes, episode_arrays
from transfer.records.record import Meta, Record
from transfer.stats.placement_components import placement_values
from transfer.tables import caveats, render, result_csv, wandb_report
from transfer.tables.build import build_sections
from transfer.tables.seed_rows import add_seed_rows

PATIENTS = 200


def record(encoder, skill, role="encoder", arch="resnet18", labels=("sick",), positives=None, kind=None, episodes=None, **fields):
    """One image a patient; the same patients for every encoder. positives: number of positive patients of each label."""
    truth, own = np.random.default_rng(0), np.random.default_rng(sum(map(ord, encoder)))
    y = np.zeros((PATIENTS, len(labels)), np.float32)
    for c, count in enumerate(positives or [PATIENTS // 2] * len(labels)):
        y[truth.permutation(PATIENTS)[:count], c] = 1
    s = 1 / (1 + np.exp(-(skill * (2 * y - 1) + truth.normal(size=y.shape) + 0.5 * own.normal(size=y.shape))))
    key = np.array([f"k{i:03}" for i in range(PATIENTS)])
    arrays = {}
    for part in ("val", "test"):
        arrays |= {f"{part}_key": key, f"{part}_patient": key, f"{part}_y": y, f"{part}_scores": s}
    supports = {}
    for shots, spread in (episodes or {}).items():
        noise = np.random.default_rng(shots)  # the same support sets for every encoder
        scores = np.stack([s[:, 0] + spread * noise.normal() * (y[:, 0] - 0.5) for _ in range(50)])
        placement = placement_values(y[:, 0] > 0.5, scores)
        areas = placement[:, y[:, 0] > 0.5].mean(axis=1)
        arrays |= episode_arrays({shots: Episodes(areas, areas[:, None], placement.mean(0)[:, None].astype(np.float32), "d")})
        supports[str(shots)] = "d"
    counts = {part: {"images": PATIENTS, "patients": PATIENTS} for part in ("train", "val", "test")}
    who = identity(**{"task": "lungs", "encoder": encoder, "encoder_sha256": encoder} | fields)
    kind = kind or ("binary" if len(labels) == 1 else "multilabel")
    meta = Meta(identity=who, kind=kind, classes=list(labels), role=role, arch=arch, counts=counts, episode_supports=supports)
    return Record(meta, arrays)


def rows_of(records, **more):
    (section,) = build_sections(records, **more)
    return section, {row.encoder: row for row in section.rows}


def mixed():
    """A pretrained ResNet, random weights of it, and the ImageNet weights of another architecture, which the user named."""
    return [
        record("mine", 1.0),
        record("random_resnet18", 0.2, "random"),
        record("imagenet_mobilenetv2_100", 1.6, "imagenet", arch="mobilenetv2_100"),
    ]


def test_imagenet_weights_of_another_architecture_are_compared_and_lead_the_headline():
    section, rows = rows_of(mixed())
    found = {c.reference: c.relation for c in rows["mine"].comparisons}
    assert found == {"imagenet_mobilenetv2_100": "other architecture", "random_resnet18": "same architecture"}
    assert rows["mine"].reference == "imagenet_mobilenetv2_100", "the strongest baseline, not random weights"
    assert rows["mine"].difference.reported_verdict == "worse"
    lines = [line for line in result_csv.comparisons_to_csv([section]).splitlines() if ",mine," in line]
    assert len(lines) == 2
    flat = wandb_report.wandb_summary([section], "mine")
    assert flat["bench/lungs/prot/versus"] == "imagenet_mobilenetv2_100"
    assert flat["bench/lungs/prot/verdict"] == "worse"
    assert flat["bench/lungs/prot/vs/random_resnet18/verdict"] == "better"
    text = render.results_to_markdown([section], {}, {})
    assert "imagenet_mobilenetv2_100 (other architecture)" in text


def test_pretrained_encoders_are_compared_with_each_other_once():
    _, rows = rows_of([record("a", 1.0), record("b", 1.2), *mixed()[1:]])
    pairs = [(row.encoder, c.reference) for row in rows.values() for c in row.comparisons]
    assert len(pairs) == len(set(map(frozenset, pairs)))
    assert frozenset({"a", "b"}) in set(map(frozenset, pairs))
    assert not any(c.primary for c in rows["a"].comparisons if c.reference == "b"), "a baseline leads"


def test_a_named_baseline_is_the_only_reference_and_several_are_each_compared():
    _, rows = rows_of(mixed(), baseline="random_resnet18")
    assert [c.reference for c in rows["mine"].comparisons] == ["random_resnet18"]
    assert rows["random_resnet18"].comparisons == []
    _, rows = rows_of(mixed(), baseline=["random_resnet18", "imagenet_mobilenetv2_100"])
    assert {c.reference for c in rows["mine"].comparisons} == {"random_resnet18", "imagenet_mobilenetv2_100"}
    assert [c.reference for c in rows["imagenet_mobilenetv2_100"].comparisons] == ["random_resnet18"]


def test_every_comparison_of_a_table_is_in_one_family():
    """Two protocols of one task are one table; another task is another."""
    records = [
        r for p in ("knn", "linear") for r in (record("mine", 1.0, protocol=p), record("imagenet_resnet18", 0.9, "imagenet", protocol=p))
    ]
    other = [record("mine", 1.0, task="other"), record("imagenet_resnet18", 0.9, "imagenet", task="other")]
    sections = build_sections([*records, *other])
    families = {s.task: {c.difference.family for row in s.rows for c in row.comparisons} for s in sections}
    assert families == {"lungs": {2}, "other": {1}}
    shown = render.shorten_names(sections)
    assert any(
        "verdicts are corrected for the 2 comparisons of this table (Holm, 5 %)" in line
        for line in render.describe_legend(sections[:2], shown)
    )


LABELS = ("mass", "hernia", "edema", "fibrosis")


def test_rare_labels_are_named_and_left_out_of_the_judged_mean():
    """One label with 1 positive patient and one with 19: the mean over the others is judged, the full mean stands beside it."""
    records = [
        record(n, k, role, labels=LABELS, positives=[80, 1, 60, 19])
        for n, k, role in (("mine", 1.5, "encoder"), ("imagenet_r", 0.5, "imagenet"))
    ]
    section, rows = rows_of(records)
    assert section.judged == (0, 2)
    assert [(c.name, c.positive) for c in section.rare] == [("hernia", 1), ("fibrosis", 19)]
    y, s, _ = records[0].part("test")
    each = auroc(y, s)
    assert rows["mine"].metrics["auroc"].value == pytest.approx(each[[0, 2]].mean())
    assert rows["mine"].all_labels["auroc"] == pytest.approx(each.mean())
    assert not np.isnan(rows["mine"].metrics["auroc"].low)
    assert rows["mine"].difference.reported_verdict == "better"
    (line,) = caveats.describe_rare_labels([section], render.shorten_names([section]))
    assert "2 of 4 labels" in line
    assert "hernia (1 with, 199 without), fibrosis (19 with, 181 without)" in line
    assert f"mine {each.mean():.3f}" in line
    assert "auroc_all_labels" in result_csv.results_to_csv([section], {}, {})


def test_without_any_label_with_enough_patients_nothing_is_judged_and_the_label_is_named_by_count():
    section, rows = rows_of([record("mine", 1.0, positives=[7]), record("imagenet_r", 0.1, "imagenet", positives=[7])])
    assert section.judged is None
    assert np.isnan(rows["mine"].metrics["auroc"].low)
    assert "7 in the smaller class" in rows["mine"].metrics["auroc"].note
    assert "permutation test" in rows["mine"].difference.method


def test_below_chance_there_is_no_verdict_and_inverted_scores_are_named():
    """Random weights at .5 are 'better' than inverted ImageNet scores by a wide interval: neither transfers."""
    _, rows = rows_of([record("random_resnet18", 0.0, "random"), record("imagenet_resnet18", -0.5, "imagenet")])
    difference = rows["random_resnet18"].difference
    assert difference.verdict == "better"
    assert difference.reported_verdict == "does not transfer"
    assert any("below chance" in note and "inverted" in note for note in rows["imagenet_resnet18"].notes)
    assert not rows["random_resnet18"].notes
    above, _ = rows_of([record("random_resnet18", 0.0, "random"), record("imagenet_resnet18", 1.5, "imagenet")])
    assert above.rows[1].difference.reported_verdict == "worse"


def test_few_shot_is_judged_at_every_number_of_shots_and_tells_what_the_mean_scores_hide():
    """Both encoders rank the test images alike by their mean scores; at 2 shots, single episodes of one vary more."""
    shots = [record("mine", 1.2, episodes={2: 0.2, 8: 0.1}), record("imagenet_resnet18", 0.6, "imagenet", episodes={2: 3.0, 8: 0.1})]
    section, _ = rows_of(shots)
    mine = {row.shots: row for row in section.rows if row.encoder == "mine"}
    assert set(mine) == {2, 8}
    for shot, row in mine.items():
        theirs = next(r for r in section.rows if r.encoder != "mine" and r.shots == shot)
        want = [r.arrays[f"test_episode_auroc_{shot}"].mean() for r in shots]
        assert row.metrics["auroc"].value == pytest.approx(want[0], abs=1e-6)
        assert row.difference.value == pytest.approx(row.metrics["auroc"].value - theirs.metrics["auroc"].value)
        assert "50 episodes" in row.difference.method
    table = render.format_rows([section], render.shorten_names([section]), {})
    assert [line[1] for line in table if line[0] == "mine"] == ["prot 2-shot", "prot 8-shot"]
    assert {line[-1] for line in table if line[0] == "mine"} == {
        render.format_verdict(row.difference, "imagenet_resnet18") for row in mine.values()
    }
    flat = wandb_report.wandb_summary([section], "mine")
    assert flat["bench/lungs/prot@8shot/verdict"] == mine[8].difference.reported_verdict


def test_seeds_of_a_recipe_are_not_compared_with_each_other():
    records = [record(f"s{k}", 1.0 + 0.1 * k) for k in range(3)] + [record("imagenet_resnet18", 0.5, "imagenet")]
    metas = [r.meta.model_copy(update={"recipe": "x", "pretraining_seed": k}) for k, r in enumerate(records[:3])]
    records = [Record(meta, r.arrays) for meta, r in zip(metas, records[:3], strict=True)] + records[3:]
    (section,) = add_seed_rows(build_sections(records))
    pairs = {(row.encoder, c.reference) for row in section.rows for c in row.comparisons}
    assert {reference for _, reference in pairs} == {"imagenet_resnet18"}
    assert len(pairs) == 4
    assert "3 pretraining seeds" in section.rows[0].difference.method


def test_margins_reach_the_table():
    section, rows = rows_of([record("mine", 1.0), record("imagenet_resnet18", 1.0, "imagenet")], margin=0.3)
    assert rows["mine"].difference.reported_verdict == "equivalent"
    line = next(line for line in render.format_rows([section], render.shorten_names([section]), {}) if line[0] == "mine")
    assert line[-1] == "equivalent to imagenet_resnet18 (margin 0.3)"
    assert "p_equivalence_holm" in result_csv.comparisons_to_csv([section])


def test_other_metrics_have_paired_differences_beside_the_family():
    _, rows = rows_of([record("mine", 1.5), record("imagenet_resnet18", 0.5, "imagenet")])
    (comparison,) = rows["mine"].comparisons
    for name, difference in comparison.others.items():
        assert difference.value == pytest.approx(rows["mine"].metrics[name].value - rows["imagenet_resnet18"].metrics[name].value)
        assert difference.low < difference.value < difference.high
    assert set(comparison.others) == {"ap", "balanced_accuracy"}
    assert comparison.difference.family == 1


def test_every_label_has_its_paired_difference_in_csv_latex_and_page(tmp_path):
    from transfer.report import latex, tables
    from transfer.stats import auroc_difference

    records = [
        record(n, k, role, labels=LABELS, positives=[80, 30, 60, 25])
        for n, k, role in (("mine", 1.5, "encoder"), ("imagenet_r", 0.5, "imagenet"))
    ]
    section, _ = rows_of(records)
    lines = list(csv.DictReader(io.StringIO(result_csv.labels_to_csv([section]))))
    assert len(lines) == 8
    mine = {line["label"]: line for line in lines if line["encoder"] == "mine"}
    ours, theirs = records[0].part("test"), records[1].part("test")
    for c, name in enumerate(LABELS):
        want = auroc_difference(ours[0][:, c], ours[1][:, c], theirs[1][:, c], ours[2])
        got = mine[name]
        assert [float(got[k]) for k in ("difference", "difference_low", "difference_high")] == pytest.approx(
            [want.value, want.low, want.high], abs=1e-6
        )
        assert float(got["p_delong"]) == pytest.approx(want.p, rel=1e-5)
        assert int(got["test_patients_with"]) == int(ours[0][:, c].sum())
    p = np.array([float(mine[name]["p_delong"]) for name in LABELS])
    assert float(mine[LABELS[p.argmin()]]["p_holm_labels"]) == pytest.approx(min(4 * p.min(), 1.0), rel=1e-5)
    assert "corrected for the number of labels" in latex.render_latex([section])
    assert "hernia" in str(tables.label_differences(section, render.shorten_names([section])))


@pytest.mark.parametrize(("skill", "headline"), [(0.1, "imagenet_resnet18"), (3.0, "pixels")])
def test_the_floor_is_compared_and_is_the_headline_only_where_it_is_strongest(skill, headline):
    records = [record("mine", 1.0), record("imagenet_resnet18", 0.8, "imagenet"), record("pixels", skill, "floor", arch="pixels")]
    _, rows = rows_of(records)
    assert {c.reference for c in rows["mine"].comparisons} == {"imagenet_resnet18", "pixels"}
    assert rows["mine"].reference == headline
    assert not rows["imagenet_resnet18"].comparisons
    assert not rows["pixels"].comparisons
    warned = any("may differ in how the images were acquired" in note for note in rows["pixels"].notes)
    assert warned == (skill == 3.0)
    assert not any("input size" in note for note in rows["mine"].notes)


def test_an_encoder_made_of_parts_is_compared_with_the_random_weights_of_each():
    records = [
        record("a+b", 1.0, arch="resnet18+resnet34"),
        record("random_resnet18", 0.1, "random"),
        record("random_resnet34", 0.2, "random", arch="resnet34"),
        record("random_resnet50", 0.3, "random", arch="resnet50"),
    ]
    _, rows = rows_of(records)
    assert {c.reference for c in rows["a+b"].comparisons} == {"random_resnet18", "random_resnet34"}
