import pytest
import yaml

from encoders.runtime.errors import InputError
from encoders.zoo.card import Card, Preprocess

GRAY = Preprocess(size=64, channels=1, mean=(0.51,), std=(0.25,))


def test_a_card_read_from_a_file_equals_the_card_written(tmp_path):
    card = Card(
        name="cxr_moco", arch="resnet18", model_args={"pad_type": "same"}, dim=512, preprocess=GRAY, steps=40,
        config={"optim": {"lr": 1e-4}}, lineage={"init": None}, canary=[0.1, -2e-7], probe_history=[{"step": 3, "knn": 0.5}],
    )  # fmt: skip
    card.write(tmp_path / "card.yaml")
    assert Card.read(tmp_path / "card.yaml") == card


def test_mean_and_std_must_have_one_number_per_channel():
    with pytest.raises(ValueError, match="mean has 3 and std 3 numbers, expected 1"):
        Preprocess(channels=1)
    with pytest.raises(ValueError, match="above 0"):
        Preprocess(std=(0.5, 0.5, 0.0))


def test_the_error_for_a_wrong_card_names_file_key_and_nearest_key(tmp_path):
    (tmp_path / "card.yaml").write_text("name: a\narch: resnet18\ndim: 512\npreproces: {size: 64}\n")
    with pytest.raises(InputError, match=r"card\.yaml.*preproces: unknown key; did you mean preprocess"):
        Card.read(tmp_path / "card.yaml")
    with pytest.raises(InputError, match="cannot read"):
        Card.read(tmp_path / "none.yaml")


def test_timms_spelling_of_license_is_read_and_licence_is_written(tmp_path):
    card = Card(name="a", arch="resnet18", dim=512, preprocess=GRAY, licence="mit")
    (tmp_path / "timm.yaml").write_text(card.to_yaml().replace("licence: mit", "license: mit"))
    assert Card.read(tmp_path / "timm.yaml") == card
    assert "licence: mit" in card.to_yaml()
    (tmp_path / "both.yaml").write_text(card.to_yaml() + "license: mit\n")
    with pytest.raises(InputError, match="license: unknown key; did you mean licence"):
        Card.read(tmp_path / "both.yaml")


def test_a_replaced_card_is_validated():
    card = Card(name="a", arch="resnet18", dim=512, preprocess=GRAY)
    assert card.replace(name="b").name == "b"
    with pytest.raises(InputError, match="card a: dim"):
        card.replace(dim=0)


FULL = Card(
    name="a",
    arch="resnet18",
    dim=512,
    preprocess=GRAY,
    steps=40_000,
    config={"optim": {"lr": 1e-06, "betas": [0.9, 0.999]}, "data": {"store": "x.h5"}, "seed": 0, "size": None},
    lineage={"init": "random:0", "labels": {"columns": []}, "note": "2026-01-02", "text": "é: 'x' \"y\"\n- z"},
    corpus={"images": 112_120, "unit": "0-255 to 0-1"},
    sha256="0" * 64,
    canary=[0.1, -1e-07, 3.0, 1e22, -0.0],
)


def test_a_card_is_read_as_it_was_written_and_any_layout_of_its_lines_will_do(tmp_path):
    FULL.write(tmp_path / "card.yaml")
    assert Card.read(tmp_path / "card.yaml") == FULL
    content = yaml.safe_load((tmp_path / "card.yaml").read_text())
    (tmp_path / "card.yaml").write_text("# a comment\n" + yaml.safe_dump(content, sort_keys=True, default_flow_style=False))
    assert Card.read(tmp_path / "card.yaml") == FULL


CHANGES = {
    "dim: 512": "dim: 511", "steps: 40000": "steps: 4000", "images: 112120": "images: 112121", "[0.1,": "[0.2,",
    "lr: 1.0e-06": "lr: 1.0e-05",
    "arch: resnet18": "arch: resnet34", "sha256: '00": "sha256: '10", "random:0": "random:1", "digest: ": "digest: a",
    "licence: unknown": "licence: mit",
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), CHANGES.items())
def test_a_card_whose_values_changed_is_refused_with_its_path(tmp_path, before, after):
    FULL.write(tmp_path / "card.yaml")
    text = (tmp_path / "card.yaml").read_text()
    assert before in text
    (tmp_path / "card.yaml").write_text(text.replace(before, after, 1))
    with pytest.raises(InputError, match=r"card\.yaml was changed after it was written .* remove the line `digest`"):
        Card.read(tmp_path / "card.yaml")
    without = "".join(line for line in text.replace(before, after, 1).splitlines(keepends=True) if not line.startswith("digest"))
    (tmp_path / "card.yaml").write_text(without)
    assert Card.read(tmp_path / "card.yaml").name == "a"


@pytest.mark.parametrize("digest", ["null", "~", "''", "", "0", "false", "[]", "'" + "0" * 32 + "'"])
def test_a_digest_that_is_none_is_not_taken_for_a_card_of_an_earlier_version(tmp_path, digest):
    FULL.write(tmp_path / "card.yaml")
    lines = (tmp_path / "card.yaml").read_text().splitlines(keepends=True)
    assert lines[0].startswith("digest: ")
    (tmp_path / "card.yaml").write_text("".join([f"digest: {digest}\n", *lines[1:]]))
    with pytest.raises(InputError, match=r"card\.yaml was changed after it was written"):
        Card.read(tmp_path / "card.yaml")


def test_a_card_that_was_cut_off_is_refused_wherever_it_was(tmp_path):
    whole = FULL.to_yaml()
    for end in range(len(whole) - 1):
        (tmp_path / "card.yaml").write_text(whole[:end])
        with pytest.raises(InputError, match=r"card\.yaml"):
            Card.read(tmp_path / "card.yaml")


def test_a_card_without_a_piece_of_its_beginning_is_refused_or_the_same(tmp_path):
    whole = FULL.to_yaml()
    for start in range(0, 60, 3):
        for end in range(start + 1, 120, 2):
            (tmp_path / "card.yaml").write_text(whole[:start] + whole[end:])
            try:
                assert Card.read(tmp_path / "card.yaml") == FULL
            except InputError:
                continue
