"""Every recipe on a small synthetic copy of its data set's documented folder layout: ingest, task, check, and a small benchmark."""

import shlex

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app as encoders_app
from encoders.runtime.errors import InputError
from tests.store_edits import edit_store
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, run
from tests.transfer.tasks.published import printed_commands
from transfer.cli.main import app
from transfer.tasks import load, task
from transfer.tasks.check import check_task
from transfer.tasks.recipes import RECIPES, RecipeFiles, load_recipe

NIH = RECIPES["nih_chestxray14"].labels


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_and_says_where_its_data_come_from(name):
    recipe = RECIPES[name]
    assert recipe.title
    assert recipe.licence
    assert recipe.citation
    assert all(command.startswith("encoders ingest ") for command in recipe.ingest)
    assert recipe.add_command(name).startswith("transfer tasks add ")
    assert f"--recipe {name}" in recipe.add_command(name)


@pytest.mark.parametrize("name", RECIPES)
def test_the_printed_commands_parse_and_have_no_placeholder_but_the_folder(name):
    import typer

    commands = printed_commands(name)
    assert commands == [*RECIPES[name].ingest, RECIPES[name].add_command(name)]
    for command in commands:
        tool, *words = shlex.split(command)
        assert not {"STORE", "NAME", "SRC", "OUT", "FILE"} & {*words}
        parsed = typer.main.get_command({"encoders": encoders_app, "transfer": app}[tool])
        context = parsed.make_context(tool, words, resilient_parsing=False)
        while words and hasattr(parsed, "commands"):
            parsed = parsed.commands[words[0]]
            words = words[1:]
        parsed.make_context(tool, list(words), parent=context)  # raises for an unknown option


def test_an_unknown_recipe_names_the_nearest_and_a_path_is_read_as_a_file(tmp_path):
    with pytest.raises(InputError, match="did you mean kermany"):
        load_recipe("kermani")
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPES.files["kermany"].read_text())
    assert load_recipe(str(path)) == RECIPES["kermany"]


def test_a_recipe_is_found_by_its_file_name_alone_and_the_first_folder_counts(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, title in ((first, "from a"), (second, "from b")):
        folder.mkdir()
        text = RECIPES.files["kermany"].read_text()
        (folder / "new.yaml").write_text(text.replace("title: Kermany, paediatric pneumonia", f"title: {title}"))
    (second / "other.yaml").write_text("labels: [")  # a recipe is read when it is looked up
    found = RecipeFiles(first, second, tmp_path / "missing")
    assert list(found) == ["new", "other"]
    assert found["new"].title == "from a"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(cli, *words):
    alone = ["--workers", "1"] if cli is encoders_app else []  # no pool to start for a few images
    done = CliRunner().invoke(cli, [str(w) for w in (*words, *alone)])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def shipped(recipe):
    """Runs the commands of a recipe as they are printed, with `data` for FOLDER."""
    for command in [*RECIPES[recipe].ingest, RECIPES[recipe].add_command(recipe)]:
        words = shlex.split(command.replace("FOLDER", "data"))
        small = ["--size", "32"] if words[:2] == ["encoders", "ingest"] and words[2] == "folder" and "--size" not in words else []
        done = call({"encoders": encoders_app, "transfer": app}[words[0]], *words[1:], *small)
        assert done.exit_code == 0, done.output
    return done.output


def picture(path, label=0, seed=0, size=32, colour=False):
    """An image whose stripes show the label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = toys.pictures(np.array([float(label > 0)]), np.array([20.0 * label]), size, seed)[0, :, :, 0]
    Image.fromarray(np.stack([pixels, pixels // 2, 255 - pixels], -1) if colour else pixels).save(path)


def wrong(name):
    return [(f.question, f.found) for f in check_task(task.read_task(name)) if f.verdict == "wrong"]


def benched(name):
    outcome = run(NET, tasks=[name], overrides=["linear.steps=3"])
    assert [r.meta.error for r in outcome.failed] == []
    return outcome.records


# -- CheXpert -----------------------------------------------------------------------------------------------------------------------------


def chexpert(root):
    """-1 is uncertain, blank is not mentioned; the columns are in another order than in the recipe, and a patient has two studies."""
    findings = ["Pleural Effusion", "No Finding", "Edema", "Cardiomegaly", "Atelectasis", "Consolidation"]
    for folder, n in (("train", 24), ("valid", 8)):
        lines = ["Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(findings)]
        for i in range(n):
            who = f"patient{i // 2 + (90000 if folder == 'valid' else 0):05d}"
            at = f"CheXpert-v1.0-small/{folder}/{who}/study{1 + i % 2}/view1_frontal.jpg"
            sick = i // 2 % 2
            picture(root / at, sick, seed=i + n)
            other = "1.0" if sick else ("" if i % 4 else "0.0")
            first = "-1.0" if folder == "train" and i in (0, 1, 6, 7) else other
            lines.append(f"{at},Female,{40 + i},Frontal,AP,{first},{'' if sick else '1.0'}," + ",".join([other] * 4))
        (root / "CheXpert-v1.0-small" / f"{folder}.csv").write_text("\n".join(lines) + "\n")


def test_chexpert_reads_columns_by_name_patients_from_the_path_and_tests_on_the_valid_folder(here):
    chexpert(here / "data")
    shipped("chexpert")
    loaded = load.load_task(task.read_task("chexpert"))
    assert loaded.task.classes == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    assert loaded.counts()["test"] == {"images": 8, "patients": 4}
    assert sum(c["patients"] for c in loaded.counts().values()) == 16
    assert set(np.unique(loaded.y)) == {0.0, 1.0}  # blank is absent, uncertain is present
    effusion = loaded.y[[str(k).startswith("CheXpert-v1.0-small/train/patient00000/") for k in loaded.key], 4]
    assert effusion.tolist() == [1.0, 1.0]
    assert wrong("chexpert") == []
    benched("chexpert")


@pytest.mark.parametrize(("policy", "first"), [("ones", 1.0), ("zeros", 0.0), ("ignore", np.nan)])
def test_uncertain_labels_count_as_the_policy_says(here, policy, first):
    chexpert(here / "data")
    shipped("chexpert")
    stores = ["chexpert_train.h5", "chexpert_valid.h5"]
    call(app, "tasks", "add", "p", *stores, "--recipe", "chexpert", "--uncertain", policy, "--blank", "ignore")
    y = load.load_task(task.read_task("p")).y
    np.testing.assert_array_equal(y[:2, 4], [first, first])
    assert np.isnan(y[2:]).any() or policy != "ignore"
    assert np.isnan(y[:, 0]).any()  # a blank is unknown now
    benched("p")


def test_uncertain_as_a_class_of_its_own_is_a_task_of_one_label(here):
    chexpert(here / "data")
    shipped("chexpert")
    words = ["chexpert_train.h5", "chexpert_valid.h5", "--recipe", "chexpert", "--uncertain", "multiclass"]
    with pytest.raises(InputError, match="one --label"):
        call(app, "tasks", "add", "p", *words)
    call(app, "tasks", "add", "p", *words, "--label", "Pleural Effusion", "--kind", "multiclass")
    loaded = load.load_task(task.read_task("p"))
    assert loaded.task.classes == ["negative", "positive", "uncertain"]
    assert loaded.y[:2].tolist() == [[0, 0, 1]] * 2
    benched("p")


def test_smoothed_targets_are_for_train_rows_only_and_do_not_depend_on_the_order_of_rows(here):
    chexpert(here / "data")
    shipped("chexpert")
    call(app, "tasks", "add", "p", "chexpert_train.h5", "chexpert_valid.h5", "--recipe", "chexpert", "--uncertain", "smoothed")
    call(app, "tasks", "add", "q", "chexpert_valid.h5", "chexpert_train.h5", "--recipe", "chexpert", "--uncertain", "smoothed")
    loaded, other = load.load_task(task.read_task("p")), load.load_task(task.read_task("q"))
    soft = (loaded.y[:, 4] > 0) & (loaded.y[:, 4] < 1)
    assert soft.any()
    assert set(loaded.split.part[soft]) == {"train"}
    assert ((loaded.y[soft, 4] >= 0.55) & (loaded.y[soft, 4] <= 0.85)).all()
    assert len(set(loaded.y[soft, 4])) == soft.sum()
    uncertain = np.isin(
        loaded.key, [f"CheXpert-v1.0-small/train/patient0000{p}/study{s}/view1_frontal.jpg" for p in (0, 3) for s in (1, 2)]
    )
    held_out = uncertain & (loaded.split.part != "train")
    assert np.isnan(loaded.y[held_out, 4]).all()
    assert loaded.labels_hash == other.labels_hash
    for r in benched("p"):
        assert set(np.unique(r.arrays["test_y"][np.isfinite(r.arrays["test_y"])])) <= {0.0, 1.0}


# -- NIH ChestX-ray14 ---------------------------------------------------------------------------------------------------------------------


def nih(root):
    """Findings joined by |, images in several folders, two official lists."""
    lists = {}
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    for i in range(60):
        who, name = i // 2, f"{i // 2:08d}_{i % 2:03d}.png"
        mine = [NIH[i % 14], *(["Mass"] if i % 5 == 0 and NIH[i % 14] != "Mass" else [])] if i % 3 else ["No Finding"]
        lines.append(f"{name},{'|'.join(mine)},{i % 2},{who},50,M,PA")
        picture(root / f"images_{1 + i // 30:03d}" / "images" / name, i % 3 > 0, seed=i)
        lists.setdefault("test" if who >= 20 else "train_val", []).append(name)
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    for name, names in lists.items():
        (root / f"{name}_list.txt").write_text("\n".join(names) + "\n")


def test_nih_parses_joined_findings_and_reads_the_official_lists(here):
    nih(here / "data")
    out = shipped("nih_chestxray14")
    assert "official, its lists" in out
    assert task.read_task("nih").split.val == 0.1  # the recipe's share, although the command names the lists
    loaded = load.load_task(task.read_task("nih"))
    at = {str(k).rsplit("/", 1)[-1]: i for i, k in enumerate(loaded.key)}
    assert loaded.task.classes == NIH
    assert loaded.y[at["00000002_001.png"], [NIH.index("Effusion"), NIH.index("Emphysema"), NIH.index("Mass")]].tolist() == [0, 1, 1]
    assert loaded.y[at["00000000_000.png"]].sum() == 0  # No Finding
    assert loaded.split.part[at["00000020_000.png"]] == "test"
    assert {*loaded.split.part[: at["00000019_001.png"] + 1]} == {"train", "val"}
    assert wrong("nih") == [("test images", "20")]  # of 25,596: an incomplete copy
    listed = (here / "data" / "test_list.txt").read_text().split()
    (here / "data" / "test_list.txt").write_text("\n".join(f"/mnt/nih/images/{name}" for name in listed) + "\n")
    assert wrong("nih") == [("test images", "20")]  # the check reads a list as the split does, with paths of another machine
    benched("nih")


def test_the_check_finds_what_is_missing_of_the_official_lists_and_patients_in_two(here):
    nih(here / "data")
    with open(here / "data" / "test_list.txt", "a") as file:
        file.write("00099999_000.png\n")
    names = (here / "data" / "train_val_list.txt").read_text().split()
    (here / "data" / "train_val_list.txt").write_text("\n".join(names[:-1]) + "\n")
    with open(here / "data" / "test_list.txt", "a") as file:
        file.write(names[-1] + "\n")
    with pytest.raises(InputError, match="1 patients"):
        shipped("nih_chestxray14")
    call(app, "tasks", "add", "own", "nih.h5", "--recipe", "nih_chestxray14", "--split-column", "none")
    lists = {"train": str(here / "data" / "train_val_list.txt"), "test": str(here / "data" / "test_list.txt")}
    task.save_task(task.read_task("own").model_copy(update={"name": "t", "split": task.SplitRule(lists=lists)}))
    found = dict(wrong("t"))
    assert found["test list"] == "1 of 22 names have none, e.g. 00099999_000.png"
    assert found["patients in two parts"] == "1"
    assert "1 patients" in found["task"]
    assert call(app, "tasks", "check", "t").exit_code == 1


# -- pathology ----------------------------------------------------------------------------------------------------------------------------


def test_nct_crc_is_read_from_its_two_trees_and_tested_on_the_external_one(here):
    kinds = RECIPES["nct_crc"].classes
    for folder, n in (("NCT-CRC-HE-100K", 10), ("CRC-VAL-HE-7K", 3)):
        for k, kind in enumerate(kinds):
            for i in range(n):
                picture(here / "data" / folder / kind / f"{kind}-{i:04d}.tif", k % 3, seed=100 * k + i + n, colour=True)
    shipped("nct_crc")
    loaded = load.load_task(task.read_task("nct_crc"))
    assert loaded.task.classes == sorted(kinds)
    assert loaded.counts()["test"]["images"] == 27
    assert loaded.counts()["val"]["images"] == 18
    assert all(str(k).startswith("CRC-VAL") for k in loaded.key[loaded.split.rows("test")])
    assert {w for w, _ in wrong("nct_crc")} == {"train images", "test images"}
    benched("nct_crc")


def test_pcam_takes_its_parts_from_the_names_of_its_files(here):
    for part, n in (("train", 30), ("valid", 10), ("test", 12)):
        y = np.arange(n) % 2
        x = np.repeat(toys.pictures(y.astype(float), np.zeros(n), 96, seed=n), 3, axis=3)
        for what, value in (("x", x), ("y", y.reshape(n, 1, 1, 1).astype(np.uint8))):
            (here / "data").mkdir(exist_ok=True)
            with h5py.File(here / "data" / f"camelyonpatch_level_2_split_{part}_{what}.h5", "w") as file:
                file[what] = value
    shipped("pcam")
    counts = load.load_task(task.read_task("pcam")).counts()
    assert {part: c["images"] for part, c in counts.items()} == {"train": 30, "val": 10, "test": 12}
    assert wrong("pcam") == []
    assert any(f.question == "patients" and f.verdict == "warning" for f in check_task(task.read_task("pcam")))
    benched("pcam")


@pytest.mark.parametrize(("name", "labels"), [("breastmnist", 1), ("chestmnist", 14), ("pathmnist", 9)])
def test_medmnist_serves_any_set_with_all_of_its_labels(here, name, labels):
    arrays = {}
    for part, n in (("train", 60), ("val", 24), ("test", 27)):
        code = np.arange(n) % (labels if labels == 9 else 2)
        y = (np.arange(n)[:, None] + np.arange(14)) % 3 == 0 if labels == 14 else code[:, None]
        x = toys.pictures((np.arange(n) % 2).astype(float), np.zeros(n), 28, seed=n)[..., 0]
        arrays |= {f"{part}_images": np.repeat(x[..., None], 3, -1) if labels == 9 else x, f"{part}_labels": y.astype(np.uint8)}
    np.savez(f"{name}.npz", **arrays)
    call(encoders_app, "ingest", "medmnist", f"{name}.npz", f"{name}.h5")
    call(app, "tasks", "add", name, f"{name}.h5", "--recipe", "medmnist")
    loaded = load.load_task(task.read_task(name))
    assert loaded.y.shape[1] == labels
    assert {part: c["images"] for part, c in loaded.counts().items()} == {"train": 60, "val": 24, "test": 27}
    assert {w for w, _ in wrong(name)} == {"train images", "val images", "test images"}  # the documented sizes
    benched(name)


def test_lc25000_keeps_the_copies_of_a_source_tile_together(here):
    lines = ["stem,filename,label,tissue,local_cluster_label,group_id"]
    for i in range(60):
        kind = ["lung_aca", "lung_n", "lung_scc", "colon_aca", "colon_n"][i // 4 % 5]
        tissue, short = kind.split("_")
        stem = (tissue + short).replace("colonaca", "colonca") + str(i)
        picture(here / "data/lung_colon_image_set" / f"{tissue}_image_sets" / kind / f"{stem}.jpeg", i // 4 % 5, seed=i, colour=True)
        lines.append(f"{stem},{stem}.jpeg,{kind},{tissue},{i // 20},{i // 4}")
    (here / "data" / "lc25000_image_groups.csv").write_text("\n".join(lines) + "\n")
    shipped("lc25000")
    loaded = load.load_task(task.read_task("lc25000"))
    assert loaded.task.classes == ["colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"]
    where = {}
    for source, part in zip(loaded.patient, loaded.split.part, strict=True):
        where.setdefault(source, set()).add(part)
    assert len(where) == 15
    assert all(len(parts) == 1 for parts in where.values())
    assert wrong("lc25000") == []


def test_kermany_reads_classes_parts_and_patients_from_folders_and_names(here):
    names = [f"PNEUMONIA/person{k // 2}_{'bacteria' if k % 3 else 'virus'}_{k}.jpeg" for k in range(24)]
    names += [f"NORMAL/IM-{100 + k // 2:04d}-{k % 2 + 1:04d}.jpeg" for k in range(12)]
    names += [f"NORMAL/NORMAL2-IM-{100 + k:04d}-0001-0002.jpeg" for k in range(12)]
    for k, name in enumerate(names):
        picture(here / "data/chest_xray" / ("train" if k % 4 else "test") / name, name.startswith("P"), seed=k)
    output = shipped("kermany")
    loaded = load.load_task(task.read_task("kermany"))
    assert loaded.task.classes == ["label=PNEUMONIA"]
    assert (len(loaded.key), loaded.y.sum()) == (48, 24)
    people = set(map(str, loaded.patient))
    numbered = {f"IM-{100 + k:04d}" for k in range(6)} | {f"NORMAL2-IM-{100 + k:04d}" for k in range(12)}
    assert people == {f"person{k}" for k in range(12)} | numbered
    assert "random, by patient" in output
    words = ["--split-column", "split", "--patients-by-split"]
    assert call(app, "tasks", "add", "official", "kermany.h5", "--recipe", "kermany", *words).exit_code == 0
    assert load.load_task(task.read_task("official")).counts()["test"]["images"] == 12


def test_hannover_reads_the_table_of_its_repository(here):
    head = "patient_id,image_id,sex,age,size,weight,admission_offset,modality,projection"
    lines = [head, *(f"{k // 3:08x},{k + 4096:08x},m,,,,{-k},{'CR' if k % 2 else 'DX'},{'ap' if k // 3 % 2 else 'pa'}" for k in range(45))]
    for k in range(45):
        picture(here / "data/png" / f"{k + 4096:08x}.png", k // 3 % 2, seed=k)
    (here / "data" / "data.csv").write_text("\n".join(lines) + "\n")
    (here / "data" / "nii").mkdir()
    (here / "data" / "nii" / "readme.md").write_text("text")
    shipped("hannover")
    loaded = load.load_task(task.read_task("hannover"))
    assert loaded.task.classes == ["projection=pa"]
    assert len(set(map(str, loaded.patient))) == 15
    assert loaded.y.sum() == 24
    assert wrong("hannover") == []


def test_monuseg_leaves_organs_of_two_or_three_patients_out(here):
    lines = ["file,label,patient_id,split,slide_id"]
    organs = ["bladder", "breast", "kidney", "lung", "prostate"] * 5 + ["stomach", "stomach", "colon"]
    for i, organ in enumerate(organs):
        for tile in range(2):
            picture(here / "data" / f"TCGA-{i:02d}_{tile}.jpg", i % 5, seed=2 * i + tile, colour=True)
            lines.append(f"TCGA-{i:02d}_{tile}.jpg,{organ},TCGA-{i:02d},train,TCGA-{i:02d}-DX1")
    (here / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    shipped("monuseg_organ")
    loaded = load.load_task(task.read_task("monuseg_organ"))
    assert loaded.task.classes == ["bladder", "breast", "kidney", "lung", "prostate"]
    assert sum(c["patients"] for c in loaded.counts().values()) == 25
    assert (loaded.split.part == "").sum() == 6
    assert wrong("monuseg_organ") == []


# -- a user's own data set --------------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_csv_needs_one_yaml_file_and_no_code(here):
    (here / "mine.yaml").write_text(
        "title: ours\nlabels: [fracture]\nkind: binary\npolicy: {uncertain: ignore, mark: 9}\n"
        "split: {column: site, names: {north: train, south: test}}\ncounts: {'*': {test: 16}}\n"
        "licence: internal\ncitation: none\nget: ask\ningest: [encoders ingest folder data mine.h5]\n"
    )
    lines = ["image,subject,fracture,site"]
    for i in range(48):
        picture(here / "data" / f"{i}.png", i // 2 % 2, seed=i)
        lines.append(f"{i}.png,s{i // 2},{9 if i == 5 else i // 2 % 2},{'south' if i >= 32 else 'north'}")
    (here / "labels.csv").write_text("\n".join(lines) + "\n")
    words = ["--labels", "labels.csv", "--patient-column", "subject", "--label-column", "fracture", "--meta-column", "site", "--size", "0"]
    call(encoders_app, "ingest", "folder", "data", "mine.h5", *words)
    call(app, "tasks", "add", "ours", "mine.h5", "--recipe", "mine.yaml")
    loaded = load.load_task(task.read_task("ours"))
    assert loaded.counts()["test"] == {"images": 16, "patients": 8}
    assert (loaded.split.part == "").sum() == 1
    assert wrong("ours") == []
    assert call(app, "tasks", "check", "ours").exit_code == 0
    benched("ours")


# -- the check ----------------------------------------------------------------------------------------------------------------------------


def test_the_check_finds_unreadable_files_odd_values_changed_pixels_and_gone_columns(here):
    lines = ["file,patient,sick"]
    for i in range(30):
        picture(here / "data" / f"{i}.png", i % 2, seed=i)
        lines.append(f"{i}.png,p{i},{-1 if i < 3 else i % 2}")
    (here / "data" / "29.png").write_bytes(b"torn")
    (here / "labels.csv").write_text("\n".join(lines) + "\n")
    call(encoders_app, "ingest", "folder", "data", "a.h5", "--labels", "labels.csv", "--label-column", "sick", "--size", "0")
    call(app, "tasks", "add", "t", "a.h5", "--label", "sick", "--uncertain", "ignore")
    found = dict(wrong("t"))
    assert list(found) == ["unreadable files"]
    assert found["unreadable files"].endswith("a.h5.quarantine.csv")
    task.save_task(task.read_task("t").model_copy(update={"policy": task.LabelPolicy()}), replace=True)
    found = dict(wrong("t"))
    assert found["label sick"] == "29 of 29 known; 3 x -1; if -1 marks uncertain labels, choose a policy with --uncertain"
    with edit_store("a.h5") as file:
        file["images"][4] = 255 - file["images"][4]
    assert dict(wrong("t"))["pixels"].startswith("1 of 29 checked images differ")
    task.save_task(task.read_task("t").model_copy(update={"labels": ["sik"]}), replace=True)
    assert "did you mean sick" in dict(wrong("t"))["label columns"]
    (here / "a.h5").unlink()
    assert [f.question for f in check_task(task.read_task("t"))] == ["store"]


def test_a_store_without_labels_says_so_and_offers_no_index_column(here):
    for i in range(4):
        picture(here / "data" / f"{i}.png", i % 2, seed=i)
    call(encoders_app, "ingest", "folder", "data", "a.h5", "--size", "0")
    with pytest.raises(InputError, match="was ingested without labels") as told:
        call(app, "tasks", "add", "t", "a.h5", "--label", "sick")
    assert "phash" not in str(told.value)
    assert "--labels FILE.csv" in str(told.value)


def test_a_recipe_is_shown_with_commands_that_can_be_pasted():
    shown = call(app, "tasks", "recipes", "pcam").output
    assert "kermany" not in shown
    for command in RECIPES["pcam"].ingest:
        assert f"ingest: {command}\n" in shown
    with pytest.raises(InputError, match="did you mean pcam"):
        call(app, "tasks", "recipes", "pcm")
