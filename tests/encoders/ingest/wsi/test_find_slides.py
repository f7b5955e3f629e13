"""Fields of the slides of a cohort: unknown values and numbers are decided over all slides."""

from encoders.ingest.wsi.find_slides import align_columns
from encoders.ingest.wsi.slide_table import SlideFields
from encoders.store.write import TextValues, encode_labels


def test_unknown_fields_are_decided_over_the_whole_cohort_and_counted():
    fields = {
        "a": SlideFields(index={"patient": "p1", "split": "train"}, meta={"age": "45"}, labels={"finding": "none", "grade": "none"}),
        "b": SlideFields(index={"patient": "ANONYMOUS", "split": "NA"}, meta={"age": "unknown"}, labels={"finding": "tumor", "grade": "1"}),
        "c": SlideFields(index={"patient": "NA"}, meta={}, labels={"finding": "N/A", "grade": "2"}),
    }
    notes: list[str] = []
    aligned, numbers = align_columns(fields, notes)
    assert numbers == {"age", "grade"}
    assert dict(aligned["a"].index) == {"patient": "p1", "split": "train"}
    assert dict(aligned["b"].index) == dict(aligned["c"].index) == {"split": ""}, "the name of the slide stands for the patient"
    assert [aligned[s].labels["finding"] for s in "abc"] == ["none", "tumor", ""]
    assert [aligned[s].labels["grade"] for s in "abc"] == ["", "1", "2"]
    assert "column 'patient': 2 unknown: 'ANONYMOUS' 1, 'NA' 1 (of 3 slides)" in notes
    assert "column 'finding': 1 unknown: 'N/A' 1 (of 3 slides)" in notes
    assert "column 'grade': 1 unknown: 'none' 1 (of 3 slides)" in notes


def test_the_store_of_one_slide_keeps_a_class_named_none_of_a_cohort_with_other_classes():
    assert encode_labels(TextValues(["none"] * 3))[1] == ["none"]
    assert encode_labels(TextValues([""] * 3))[1] is None
    assert encode_labels(["none"] * 3)[1] is None
