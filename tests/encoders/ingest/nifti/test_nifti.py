"""NIfTI volumes: orientation, scaling, slices, channels, labels from segmentations and tables, and the counts of what is left out."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.ingest.nifti.scaling import VoxelScaling, parse_percentiles, scale_to_gray
from encoders.ingest.nifti.segments import SegmentLabel, pair_segmentations, parse_segment, parse_substitution
from encoders.ingest.nifti.source import NiftiSource, parse_channels
from encoders.ingest.nifti.volume import read_geometry, read_voxels, take_slice
from encoders.ingest.source import Unreadable
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.nifti.volume_files import head, ras_affine, save_volume


def run(*words):
    done = CliRunner().invoke(app, ["ingest", "nifti", *map(str, words), "--workers", "1"])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def values_at(path, mm):
    """The voxel at a point in RAS mm, by nibabel and NumPy alone."""
    image = nib.load(path)
    return np.asarray(image.dataobj)[tuple(np.rint(np.linalg.inv(image.affine) @ [*mm, 1])[:3].astype(int))]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "SAR", "PIR", "ASL"])
def test_slices_show_the_same_side_whatever_the_order_of_axes_in_the_file(tmp_path, codes):
    lps = head()
    to_own = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(codes))
    own = nib.orientations.apply_orientation(lps, to_own)
    path = save_volume(tmp_path / "v.nii.gz", own, ras_affine(codes=codes, shape=own.shape))
    assert nib.aff2axcodes(nib.load(path).affine) == tuple(codes)
    voxels = read_voxels(path)
    np.testing.assert_array_equal(voxels[..., 0], lps)
    axial, coronal, sagittal = (take_slice(voxels, axis, 5)[..., 0] for axis in ("axial", "coronal", "sagittal"))
    assert axial[2, 8] == lps[8, 2, 5]  # row: towards the back; column: towards the patient's left
    assert coronal[-1 - 3, 8] == lps[8, 5, 3]  # the last row is the lowest slice
    assert sagittal[-1 - 3, 8] == lps[5, 8, 3]  # columns: towards the back
    assert read_geometry(path).orientation == codes


def test_an_oblique_and_anisotropic_volume_keeps_the_place_of_its_voxels(tmp_path):
    angle = np.deg2rad(15)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = save_volume(tmp_path / "v.nii", head(), turn @ np.diag([0.5, 0.5, 3.0, 1]))
    geometry, voxels = read_geometry(path), read_voxels(path)
    assert geometry.spacing == pytest.approx((0.5, 0.5, 3.0))
    assert geometry.pixel_spacing("coronal") == pytest.approx((3.0, 0.5))
    for ijk in [(3, 4, 5), (8, 2, 7)]:
        assert voxels[*ijk, 0] == values_at(path, (geometry.affine @ [*ijk, 1])[:3])


def test_the_scaling_of_the_header_and_big_endian_and_compressed_files_under_either_name_are_read(tmp_path):
    values = np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6)
    image = nib.Nifti1Image(values, np.diag([-1, -1, 1, 1]), nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(2.0, -1000)
    nib.save(image, tmp_path / "v.nii")
    want = np.asarray(nib.load(tmp_path / "v.nii").dataobj)
    (tmp_path / "packed.nii").write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()))
    (tmp_path / "plain.nii.gz").write_bytes((tmp_path / "v.nii").read_bytes())
    nib.save(nib.Nifti2Image(want.astype(np.float32), np.diag([-1, -1, 1, 1])), tmp_path / "two.nii.gz")
    for name in ("v.nii", "packed.nii", "plain.nii.gz", "two.nii.gz"):
        np.testing.assert_allclose(read_voxels(tmp_path / name)[..., 0], want)


def test_a_window_and_percentiles_are_those_of_their_definition():
    voxels = np.random.default_rng(0).normal(40, 200, (9, 8, 7, 1))
    voxels[:3] = voxels.min() - 1  # background
    window = VoxelScaling(window=None, percentiles=(5, 90)).limits(voxels)[:, 0]
    above = np.sort(voxels[3:].ravel())
    rank = np.array([5, 90]) / 100 * (len(above) - 1)
    low = above[np.floor(rank).astype(int)]
    np.testing.assert_allclose(window, low + (rank % 1) * (above[np.ceil(rank).astype(int)] - low))
    image = np.array([[-200.0, -160.0, 40.0, 240.0, 900.0, np.nan]])[..., None]
    gray = scale_to_gray(image, np.array([[-160.0], [240.0]]))[0, :, 0]
    assert gray.tolist() == [0, 0, 32768, 65535, 65535, 0]


def test_stored_pixels_are_those_of_numpy_and_counts_add_up(tmp_path):
    values = head()
    path = save_volume(tmp_path / "in" / "p1" / "v.nii.gz", values, np.diag([-1, -1, 1, 1]))
    save_volume(tmp_path / "in" / "p2" / "v.nii.gz", head(seed=1), np.diag([-1, -1, 1, 1]))
    (tmp_path / "in" / "p3").mkdir()
    (tmp_path / "in" / "p3" / "v.nii.gz").write_bytes(path.read_bytes()[:-300])
    (tmp_path / "in" / "p4.nii").write_bytes(b"")
    (tmp_path / "in" / "readme.txt").write_text("text")
    done = run(tmp_path / "in", tmp_path / "a.h5", "--size", 0, "--pattern", "(?P<patient>p[0-9])", "--min-foreground", 0.2)
    assert done.exit_code == 1
    store = Store.open(tmp_path / "a.h5")
    brain = values[values > 0]
    low, high = np.percentile(brain, [0.5, 99.5])
    kept = [k for k in range(10) if (np.clip((values[..., k] - low) / (high - low), 0, 1) * 65535 >= 0.5).mean() >= 0.2]
    first = [key for key in store.column("key") if key.startswith("p1/")]
    assert first == [f"p1/v.nii.gz/axial_{k:04d}" for k in kept]
    k = kept[1]
    want = np.rint(np.clip((values[..., k].T.astype(float) - low) / (high - low), 0, 1) * 65535)
    np.testing.assert_allclose(store.image(1)[..., 0], want, atol=1)
    assert set(store.column("patient")) == {"p1", "p2"}
    assert set(store.column("volume")) == {"p1/v.nii.gz", "p2/v.nii.gz"}
    assert store.column("slice")[:2].tolist() == kept[:2]
    assert "1 files skipped: .txt" in done.output
    assert f"30 slices: {2 * len(kept)} stored, {20 - 2 * len(kept)} left out" in done.output
    assert "10 in quarantine" in done.output
    assert "truncated" in (tmp_path / "a.h5.quarantine.csv").read_text()
    assert "is empty (0 bytes)" in (tmp_path / "a.h5.quarantine.csv").read_text()


@pytest.mark.parametrize(("every", "numbers"), [(1, list(range(10))), (3, [1, 4, 7]), (4, [1, 5, 9])])
def test_every_kth_slice_is_taken_and_the_middle_is_covered(tmp_path, every, numbers):
    save_volume(tmp_path / "in" / "v.nii", np.random.default_rng(0).random((12, 14, 10)), np.diag([-1, -1, 1, 1]))
    source = NiftiSource(tmp_path / "in", every=every, min_foreground=0, size=0)
    assert [row.meta["slice"] for row in source.read("v.nii")] == numbers
    assert source.planned_slices("v.nii") == len(numbers)


def test_pixels_that_are_not_square_are_resampled_and_their_side_is_recorded(tmp_path):
    save_volume(tmp_path / "in" / "ct.nii.gz", head((20, 16, 8)), np.diag([-0.5, -0.5, 2.0, 1]))
    rows = list(NiftiSource(tmp_path / "in", axis="coronal", size=0).read("ct.nii.gz"))
    assert rows[0].image.shape == (32, 20, 1)  # 8 slices of 2 mm are 32 rows of 0.5 mm
    assert rows[0].meta["pixel_mm"] == 0.5
    assert rows[0].meta["slice_mm"] == 0.5
    small = list(NiftiSource(tmp_path / "in", axis="coronal", size=16).read("ct.nii.gz"))
    assert small[0].image.shape == (16, 16, 1)
    assert small[0].meta["pixel_mm"] == 1.0


def test_channels_of_a_4d_file_are_chosen_one_or_three(tmp_path):
    parts = [head(seed=s) * (s + 1) for s in range(4)]
    save_volume(tmp_path / "in" / "v.nii.gz", np.stack(parts, -1), np.diag([-1, -1, 1, 1]))
    with pytest.raises(InputError, match="the volumes have 4 channels; choose one with --channel 0"):
        NiftiSource(tmp_path / "in")
    voxels = read_voxels(tmp_path / "in" / "v.nii.gz", [3, 0, 2])
    np.testing.assert_array_equal(voxels, np.stack([parts[3], parts[0], parts[2]], -1))
    rows = list(NiftiSource(tmp_path / "in", channel=[0, 2, 3], size=0).read("v.nii.gz"))
    assert rows[0].image.shape[2] == 3
    with pytest.raises(Unreadable, match="there is no channel 4"):
        list(NiftiSource(tmp_path / "in", channel=[4]).read("v.nii.gz"))
    save_volume(tmp_path / "in" / "w.nii.gz", parts[0], np.diag([-1, -1, 1, 1]))  # a mixed folder: one file is left out, and named
    source = NiftiSource(tmp_path / "in")
    assert len(list(source.read("w.nii.gz"))) > 0
    with pytest.raises(Unreadable, match="has 4 channels"):
        list(source.read("v.nii.gz"))


@pytest.mark.parametrize("bad", ["0,1", "x", "-1", "1,2,3,4", ""])
def test_channels_that_are_not_one_or_three_numbers_are_refused(bad):
    with pytest.raises(InputError, match="--channel"):
        parse_channels(bad)


def brats(root, n=3, suffix=".nii.gz"):
    """Volumes with a tumour in slices 4 and 5; the last patient has no segmentation."""
    for i in range(1, n + 1):
        who = f"BraTS20_Training_{i:03d}"
        mask = np.zeros((12, 14, 10), np.uint8)
        mask[4:6, 5:7, 4:6] = [[[1, 4], [2, 4]], [[2, 2], [1, 2]]]
        for kind in ("flair", "t1", "t1ce", "t2"):
            save_volume(root / who / f"{who}_{kind}{suffix}", head(seed=i), np.diag([-1, -1, 1, 1]))
        if i < n:
            flip = mask[::-1, :, ::-1]  # stored in another orientation than the image
            affine = ras_affine(codes="RPI", shape=flip.shape)
            affine[:3, 3] += np.diag([-1, -1, 1, 1])[:3, 3] - (affine @ [11, 0, 9, 1])[:3]
            save_volume(root / who / f"{who}_seg{suffix}", flip, affine)


def test_slices_are_labeled_by_the_segmentation_in_any_orientation(tmp_path):
    brats(tmp_path / "in")
    words = ["--segmentation", "_flair=_seg", "--segment", "tumour", "--segment", "enhancing=4", "--files", "*_flair.nii*"]
    done = run(tmp_path / "in", tmp_path / "a.h5", *words, "--pattern", "(?P<patient>BraTS20_Training_[0-9]+)", "--size", 0)
    assert done.exit_code == 0, done.output
    store = Store.open(tmp_path / "a.h5")
    patients = store.column("patient")
    with_mask = np.isin(patients, ["BraTS20_Training_001", "BraTS20_Training_002"])
    inside = np.isin(store.column("slice"), [4, 5])
    np.testing.assert_array_equal(store.labels("tumour")[with_mask], inside[with_mask])
    np.testing.assert_array_equal(store.labels("enhancing")[with_mask], (store.column("slice") == 5)[with_mask])
    assert np.isnan(store.labels("tumour")[~with_mask]).all()
    assert (
        "1 volumes have no segmentation and no labels from it (first: BraTS20_Training_003/BraTS20_Training_003_flair.nii.gz)"
        in done.output
    )
    assert "9 volumes are left out by --files" in done.output
    assert set(store.column("patient")) == {f"BraTS20_Training_00{i}" for i in (1, 2, 3)}


def test_a_segmentation_on_another_grid_quarantines_its_volume(tmp_path):
    for name, shape, shift in (("a", (12, 14, 10), 0.0), ("b", (12, 14, 9), 0.0), ("c", (12, 14, 10), 1.5)):
        affine = np.diag([-1.0, -1, 1, 1])
        save_volume(tmp_path / "img" / f"{name}.nii", head(), affine)
        affine[0, 3] = shift
        save_volume(tmp_path / "seg" / f"{name}.nii.gz", np.ones(shape, np.uint8), affine)
    source = NiftiSource(tmp_path, segmentation=("img", "seg"), segments=[SegmentLabel("lesion")])
    assert source.items() == ["img/a.nii", "img/b.nii", "img/c.nii"]
    assert all(row.labels == {"lesion": 1} for row in source.read("img/a.nii"))
    with pytest.raises(Unreadable, match=r"\(12, 14, 9\) voxels"):
        list(source.read("img/b.nii"))
    with pytest.raises(Unreadable, match="lies 1.50 mm beside it"):
        list(source.read("img/c.nii"))
    strict = NiftiSource(tmp_path, segmentation=("img", "seg"), segments=[SegmentLabel("lesion")], min_segment=12 * 14 + 1)
    assert all(row.labels == {"lesion": 0} for row in strict.read("img/a.nii"))


def test_pairs_and_words_of_the_options():
    names = ["imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTr/BRATS_002.nii.gz"]
    assert pair_segmentations(names, ("imagesTr", "labelsTr")) == {names[0]: names[1]}
    assert pair_segmentations(["volume-1.nii", "segmentation-1.nii"], ("volume", "segmentation")) == {"volume-1.nii": "segmentation-1.nii"}
    with pytest.raises(InputError, match="none of the 3 volumes"):
        pair_segmentations(names, ("flair", "seg"))
    assert parse_segment("core=1,4") == SegmentLabel("core", (1, 4))
    for text, parse in (("a=x", parse_segment), ("=1", parse_segment), ("flair", parse_substitution), ("a=a", parse_substitution)):
        with pytest.raises(InputError, match="--segment"):
            parse(text)
    for text in ("1", "5,5", "-1,50", "a,b", "50,101"):
        with pytest.raises(InputError, match="--percentiles"):
            parse_percentiles(text)


@pytest.mark.parametrize("cells", ["name", "file", "windows", "patient"])
def test_a_table_names_volumes_by_folder_file_path_or_patient(tmp_path, cells):
    brats(tmp_path / "in")
    say = {
        "name": lambda who: who,
        "file": lambda who: f"{who}_flair",
        "windows": lambda who: rf"D:\data\in\{who}\{who}_flair.nii.gz",
        "patient": lambda who: who.removeprefix("BraTS20_"),
    }[cells]
    lines = ["Grade,BraTS_2020_subject_ID", *(f"{'HGG' if i < 2 else 'LGG'},{say(f'BraTS20_Training_{i:03d}')}" for i in (1, 2, 9))]
    (tmp_path / "map.csv").write_text("\n".join(lines) + "\n")
    words = ["--labels", tmp_path / "map.csv", "--file-column", "BraTS_2020_subject_ID", "--label-column", "Grade", "--patient-column", ""]
    done = run(tmp_path / "in", tmp_path / "a.h5", *words, "--files", "*_flair*", "--pattern", "BraTS20_(?P<patient>Training_[0-9]+)")
    assert done.exit_code == 0, done.output
    store = Store.open(tmp_path / "a.h5")
    classes = np.array([*store.classes("Grade"), ""], dtype=object)
    grade = classes[np.nan_to_num(store.labels("Grade"), nan=-1).astype(int)]
    assert dict(zip(store.column("patient"), grade, strict=True)) == {"Training_001": "HGG", "Training_002": "LGG", "Training_003": ""}
    assert "2 of 3 rows name a volume, 2 of 3 volumes have a row" in done.output
    assert "1 rows name no volume" in done.output


def test_rows_that_disagree_and_tables_that_match_nothing_are_errors(tmp_path):
    brats(tmp_path / "in", 2)
    (tmp_path / "t.csv").write_text("file,label\nBraTS20_Training_001,a\nBraTS20_Training_001,b\n")
    with pytest.raises(InputError, match="rows of volume BraTS20_Training_001/.* disagree on column 'label': 'a' and 'b'"):
        run(tmp_path / "in", tmp_path / "a.h5", "--labels", tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("file,label\nother,a\n")
    with pytest.raises(InputError, match="the table has e.g. 'other', the images have e.g. file 'BraTS20_Training_001/"):
        run(tmp_path / "in", tmp_path / "a.h5", "--labels", tmp_path / "t.csv")


def grades(path, name="grade"):
    """Patient -> label of its volumes; "" is unknown."""
    store = Store.open(path)
    names = store.classes(name)
    codes = store.labels(name)
    texts = ["" if np.isnan(code) else names[int(code)] if names else f"{code:g}" for code in codes.tolist()]
    return dict(zip(store.column("patient").tolist(), texts, strict=True))


@pytest.mark.parametrize(
    ("rule", "want"),
    [
        (["--combine", "max"], {"1": "3", "2": "1", "3": "2"}),
        (["--combine", "majority"], {"1": "3", "2": "1", "3": ""}),  # two readers of patient 3 are a tie
        (["--combine", "majority", "--reader-column", ""], {"1": "3", "2": "1", "3": "2"}),  # of three rows
    ],
)
def test_repeated_rows_of_a_volume_are_merged_as_in_the_other_ingests(tmp_path, rule, want):
    brats(tmp_path / "in")
    rows = [(1, "A", 2), (1, "B", 3), (1, "C", 3), (2, "A", 1), (2, "B", 1), (3, "A", 2), (3, "A", 2), (3, "B", 1)]
    (tmp_path / "t.csv").write_text("folder,reader,grade\n" + "".join(f"BraTS20_Training_00{i},{who},{y}\n" for i, who, y in rows))
    words = ["--labels", tmp_path / "t.csv", "--file-column", "folder", "--label-column", "grade", "--files", "*_flair*"]
    words += ["--pattern", "Training_00(?P<patient>[0-9])"]
    with pytest.raises(InputError, match="rows of volume BraTS20_Training_001/.* disagree on column 'grade': '2' and '3' .2 volumes have"):
        run(tmp_path / "in", tmp_path / "a.h5", *words)
    done = run(tmp_path / "in", tmp_path / "a.h5", *words, *rule)
    assert done.exit_code == 0, done.output
    assert grades(tmp_path / "a.h5") == want
    assert "8 rows for 3 volumes: repeated rows merged (3 volumes have several)" in done.output
    if rule[1] == "majority":
        agreement = dict(
            zip(Store.open(tmp_path / "a.h5").column("patient"), Store.open(tmp_path / "a.h5").column("grade_agreement"), strict=True)
        )
        shares = [2 / 3, 1, 1 / 2] if len(rule) == 2 else [2 / 3, 1, 2 / 3]
        np.testing.assert_allclose([float(agreement[k]) for k in "123"], shares, atol=1e-4)


def test_several_tables_lists_and_only_select_volumes_and_are_counted(tmp_path):
    brats(tmp_path / "in", 4)
    names = [f"BraTS20_Training_{i:03d}" for i in range(1, 5)]
    (tmp_path / "a.csv").write_text("case_id,age\n" + "".join(f"{name},{30 + 10 * i}\n" for i, name in enumerate(names)) + "other,99\n")
    (tmp_path / "b.csv").write_text("case_id,findings\n" + "".join(f"{name},{'a|b' if i % 2 else 'b'}\n" for i, name in enumerate(names)))
    words = ["--labels", tmp_path / "a.csv", "--labels", tmp_path / "b.csv", "--on", "case_id"]
    words += ["--list-column", "findings", "--finding", "a"]
    words += ["--pattern", "Training_00(?P<patient>[0-9])", "--patient-column", "", "--segmentation", "_flair=_seg", "--files", "*_flair*"]
    (tmp_path / "in" / names[0] / "gone.nii").symlink_to("nowhere")
    (tmp_path / "in" / "notes.txt").touch()
    done = run(tmp_path / "in", tmp_path / "a.h5", *words, "--only", "age<60")
    flat = " ".join(done.output.split())
    assert done.exit_code == 1, done.output
    assert grades(tmp_path / "a.h5", "a") == {"1": "0", "2": "1", "3": "0"}
    assert "2 rows are left out by --only age<60" in flat
    assert "1 volumes have no row and are left out" in flat
    every = [path for path in (tmp_path / "in").rglob("*") if not path.is_dir()]
    found = re.search(r"(\d+) inputs: (\d+) stored, (\d+) quarantined, (\d+) left out", flat)
    assert [int(n) for n in found.groups()] == [len(every), 3, 1, len(every) - 4]
    assert "no row in the table 1" in flat
    assert "segmentation 3" in flat


def test_volumes_without_orientation_with_colour_or_singular_are_named(tmp_path):
    save_volume(tmp_path / "in" / "a.nii", head(), None)
    image = nib.Nifti1Image(head(), None)
    nib.save(image, tmp_path / "in" / "b.nii")
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "in" / "c.nii")
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 7.0), np.eye(4)), tmp_path / "in" / "d.nii")
    source = NiftiSource(tmp_path / "in")
    assert any("1 volumes state no orientation (first: b.nii)" in note for note in source.notes)
    for name, why in (("c.nii", "one number per voxel"), ("d.nii", "constant volume: every voxel is 7")):
        with pytest.raises(Unreadable, match=why):
            list(source.read(name))


def test_nan_is_black_and_counted(tmp_path):
    values = head() + 5
    values[6, 6, 5] = np.nan
    save_volume(tmp_path / "in" / "v.nii", values, np.diag([-1, -1, 1, 1]))
    rows = {row.meta["slice"]: row for row in NiftiSource(tmp_path / "in", size=0).read("v.nii")}
    assert rows[5].image[6, 6, 0] == 0
    assert (rows[5].meta["not_finite"], rows[4].meta["not_finite"]) == (1, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modality", "ct"], "needs --window"),
        (["--window", "lung", "--percentiles", "1,99"], "pass one of them"),
        (["--segment", "tumour"], "needs --segmentation"),
        (["--files", "*.mgz"], "selects none of the 1 volumes"),
        (["--label-column", "x"], "--labels FILE.csv too"),
        (["--pattern", "nothing(?P<patient>x)"], "matches none"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, words, said):
    save_volume(tmp_path / "in" / "v.nii", head())
    with pytest.raises(InputError, match=said):
        run(tmp_path / "in", tmp_path / "a.h5", *words)


def test_a_ct_window_makes_the_same_pixels_as_its_arithmetic(tmp_path):
    hounsfield = np.random.default_rng(0).integers(-1000, 1000, (9, 9, 4)).astype(np.int16)
    save_volume(tmp_path / "in" / "v.nii.gz", hounsfield, np.diag([-1, -1, 1, 1]))
    run(tmp_path / "in", tmp_path / "a.h5", "--modality", "ct", "--window=40,400", "--size", 0)
    store = Store.open(tmp_path / "a.h5")
    want = np.rint(np.clip((hounsfield[..., 2].T + 160) / 400, 0, 1) * 65535)
    np.testing.assert_array_equal(store.image(2)[..., 0], want)
    assert store.modality == "ct"
