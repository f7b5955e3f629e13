"""HAM10000 and ISIC 2018 to 2020 in their published layouts: the commands that are printed run, and lesions or patients stay together."""

import numpy as np

from tests.transfer.tasks.published import add_published, parts_of_people, people_of, picture, table

SEVEN = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]


def one_hot(names, chosen):
    return ["1.0" if name == chosen else "0.0" for name in names]


def test_ham10000_groups_images_by_lesion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    rows = []
    for lesion in range(42):
        for view in range(1 + lesion % 2):
            image = f"ISIC_{24306 + 2 * lesion + view:07d}"
            picture(tmp_path / "ham" / f"HAM10000_images_part_{1 + lesion % 2}" / f"{image}.jpg", 2 * lesion + view, colour=True)
            rows.append([f"HAM_{lesion:07d}", image, kinds[lesion % 7], "histo", "80.0" if lesion else "", "male", "scalp"])
    table(tmp_path / "ham" / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", rows)
    loaded, said = add_published("ham10000", tmp_path / "ham")
    assert loaded.task.classes == kinds
    assert len(loaded.key) == 63
    assert len(people_of(loaded)) == 42
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert loaded.task.modality == "dermoscopy"
    assert "column 'age'" in said or "'age': 1 unknown" in said


def test_isic2018_keeps_the_official_parts_and_joins_lesions_of_the_training_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, number = tmp_path / "isic", 24306
    for part, n in (("Training", 28), ("Validation", 7), ("Test", 14)):
        rows, lesions = [], []
        for i in range(n):
            image, number = f"ISIC_{number:07d}", number + 1
            picture(root / f"ISIC2018_Task3_{part}_Input" / f"{image}.jpg", number, colour=True)
            rows.append([image, *one_hot(SEVEN, SEVEN[i % 7])])
            lesions.append([image, f"HAM_{i // 2:07d}", "single image expert consensus"])
        (root / f"ISIC2018_Task3_{part}_Input" / "ATTRIBUTION.txt").write_text("text")
        table(root / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv", "image," + ",".join(SEVEN), rows)
        if part == "Training":
            table(root / "ISIC2018_Task3_Training_LesionGroupings.csv", "image,lesion_id,diagnosis_confirm_type", lesions)
    loaded, _ = add_published("isic2018", root)
    assert loaded.counts() == {
        "train": {"images": 28, "patients": 14},
        "val": {"images": 7, "patients": 7},
        "test": {"images": 14, "patients": 14},
    }
    assert loaded.task.classes == SEVEN
    np.testing.assert_array_equal(loaded.y.sum(axis=1), 1)
    assert loaded.y[loaded.split.rows("test")].sum(axis=0).tolist() == [2] * 7


def test_isic2019_joins_two_tables_and_leaves_images_without_a_lesion_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    truth, meta = [], []
    for i in range(80):
        image = f"ISIC_{i:07d}" + ("_downsampled" if i < 10 else "")
        picture(tmp_path / "isic" / "ISIC_2019_Training_Input" / f"{image}.jpg", i, colour=True)
        truth.append([image, *one_hot(names, names[i // 2 % 8])])
        meta.append([image, "55.0", "anterior torso", "" if i < 10 else f"MSK4_{i // 2:07d}", "female"])
    table(tmp_path / "isic" / "ISIC_2019_Training_GroundTruth.csv", "image," + ",".join(names), truth)
    table(tmp_path / "isic" / "ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", meta)
    loaded, said = add_published("isic2019", tmp_path / "isic")
    assert loaded.task.classes == names[:8]
    people = people_of(loaded)
    assert len(people) == 10 + 35
    assert sum(len(keys) == 2 for keys in people.values()) == 35
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert "10" in next(line for line in said.splitlines() if "column 'patient'" in line)


def test_isic2020_groups_images_by_patient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    for i in range(60):
        image = f"ISIC_{i + 15719:07d}"
        picture(tmp_path / "isic" / "train" / f"{image}.jpg", i, colour=True)
        sick = i // 3 % 4 == 0
        rows.append(
            [image, f"IP_{i // 3:07d}", f"IL_{i:07d}", "male", "45.0", "head/neck", "melanoma" if sick else "unknown"]
            + (["malignant", 1] if sick else ["benign", 0])
        )
    head = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    table(tmp_path / "isic" / "ISIC_2020_Training_GroundTruth_v2.csv", head, rows)
    loaded, _ = add_published("isic2020", tmp_path / "isic")
    assert loaded.task.classes == ["target"]
    assert loaded.y.sum() == 15
    assert len(people_of(loaded)) == 20
    assert sum(c["images"] for c in loaded.counts().values()) == 60
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
