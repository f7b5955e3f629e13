"""CT and MR data sets in their published layouts: the commands that are printed run, and all slices of a patient stay together."""

import numpy as np
import pytest

from encoders.store.store import Store
from tests.encoders.ingest.nifti.volume_files import head, save_volume
from tests.transfer.tasks.published import add_published, parts_of_people, people_of, picture, table

LPS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def mask(value=1, z=(8, 12), shape=(12, 14, 20)):
    out = np.zeros(shape, np.uint8)
    out[5:7, 5:7, z[0] : z[1]] = value
    return out


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_brats2020_labels_slices_and_leaves_the_misnamed_segmentation_without_label(here, suffix):
    root = here / "MICCAI_BraTS2020_TrainingData"
    rows = []
    for i in range(1, 11):
        who = f"BraTS20_Training_{i:03d}"
        for kind in ("flair", "t1", "t1ce", "t2"):
            save_volume(root / who / f"{who}_{kind}{suffix}", head((12, 14, 20), seed=i), LPS)
        seg = "W39_1998.09.19_Segm" if i == 10 else f"{who}_seg"
        save_volume(root / who / f"{seg}{suffix}", mask([1, 2, 4][i % 3]), LPS)
        rows.append(["HGG" if i < 8 else "LGG", "NA", "NA", "NA", "NA", who])
    head_line = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,BraTS_2020_subject_ID"
    table(root / "name_mapping.csv", head_line, rows)
    table(root / "survival_info.csv", "Brats20ID,Age,Survival_days,Extent_of_Resection", [["BraTS20_Training_001", "60.4", "289", "GTR"]])
    loaded, said = add_published("brats2020", here)
    assert loaded.task.classes == ["tumour"]
    assert "1 volumes have no segmentation" in said
    assert "50 slices: 40 stored, 10 left out" in said
    known = np.isfinite(loaded.y[:, 0])
    assert (~known).sum() == 4
    assert loaded.y[known, 0].sum() == 9  # slice 9 of slices 1, 5, 9, 13, 17, of which the last has too little brain
    assert len(people_of(loaded)) == 10
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    store = Store.open("brats2020.h5")
    assert store.modality == "mr"
    assert dict(zip(store.column("patient"), store.column("Grade"), strict=True))["BraTS20_Training_008"] == "LGG"


def test_msd_brain_makes_colour_of_three_channels(here):
    root = here / "Task01_BrainTumour"
    for i in range(1, 13):
        volume = np.stack([head((12, 14, 20), seed=10 * i + c) * (c + 1) for c in range(4)], -1)
        save_volume(root / "imagesTr" / f"BRATS_{i:03d}.nii.gz", volume, LPS)
        save_volume(root / "labelsTr" / f"BRATS_{i:03d}.nii.gz", mask(i % 4 if i % 4 else 3), LPS)
        (root / "imagesTr" / f"._BRATS_{i:03d}.nii.gz").write_bytes(b"Mac OS X")  # as the archive has them
        save_volume(root / "imagesTs" / f"BRATS_{i + 500}.nii.gz", volume, LPS)
    loaded, said = add_published("msd_brain", here)
    assert "12 volumes are left out by --files" in said
    assert len(people_of(loaded)) == 12
    assert loaded.y[:, 0].sum() == 12
    assert Store.open("msd_brain.h5").channels == 3


def test_lits_uses_a_window_and_two_labels(here):
    for i in range(12):
        hounsfield = np.where(head((12, 14, 20), seed=i) > 0, 60.0, -1000.0) + np.random.default_rng(i).normal(0, 20, (12, 14, 20))
        folder = here / f"Training Batch {1 + i // 6}"
        save_volume(folder / f"volume-{i}.nii", hounsfield.astype(np.int16), LPS)
        seg = mask(1, (2, 18))
        seg[5, 5, 9] = 2 if i % 2 else 1
        save_volume(folder / f"segmentation-{i}.nii", seg, LPS)
    loaded, _ = add_published("lits", here)
    assert loaded.y[:, 0].sum() == 6
    assert len(people_of(loaded)) == 12
    store = Store.open("lits.h5")
    assert store.modality == "ct"
    assert store.label_names() == ["liver", "tumour"]
    assert np.nansum(store.labels("liver")) == 48  # slices 5, 9, 13 and 17 of each


def test_covid_ct_keeps_a_publication_together(here):
    names = [f"2020.0{1 + i % 9}.24.{919183 + i // 3}-p27-{130 + i}.png" for i in range(15)]
    names += [f"PIIS01406736203{i // 2:05d}%{i}.png" for i in range(6)]
    for k, name in enumerate(names):
        picture(here / "Images-processed" / "CT_COVID" / name, k)
    for k, name in enumerate([*(f"{i}%{j}.jpg" for i in range(5) for j in range(2)), "7.jpg", "18.png"]):
        picture(here / "Images-processed" / "CT_NonCOVID" / name, 100 + k)
    loaded, _ = add_published("covid_ct", here)
    people = {person: len(keys) for person, keys in people_of(loaded).items()}
    assert people["PIIS0140673620300000"] == 2
    assert {people[str(i)] for i in range(5)} == {2}
    assert people["7"] == people["18"] == 1
    assert sum(people.values()) == len(loaded.key) == 33
    assert all(len(parts) == 1 for parts in parts_of_people(loaded).values())
    assert loaded.y.sum() == 21
    assert Store.open("covid_ct.h5").modality == "ct"


def test_sarscov2_ct_reads_two_folders_of_png(here):
    for i in range(1, 16):
        picture(here / "COVID" / f"Covid ({i}).png", i, colour=True)
        picture(here / "non-COVID" / f"Non-Covid ({i}).png", 50 + i, colour=True)
    loaded, said = add_published("sarscov2_ct", here)
    assert loaded.y.sum() == 15
    assert len(people_of(loaded)) == 30
    assert "patients are unknown" in said
