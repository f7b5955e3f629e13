"""Phantoms: reproducible from a seed, marked as synthetic, and with labels that only structure reveals."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import typer.testing
from scipy.ndimage import binary_dilation

from encoders.cli.ingest import ingest_app
from encoders.ingest.phantom.cxr import CXR_PHANTOM, draw_lung_texture
from encoders.ingest.phantom.cxr_nodule import CXR_NODULE_PHANTOM
from encoders.ingest.phantom.fields import gaussianise, shuffle_phases, smooth_noise
from encoders.ingest.phantom.source import PHANTOM_KINDS, PhantomSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator
from encoders.store.masks import has_masks, read_masks
from encoders.store.store import Store


@pytest.mark.parametrize("kind", PHANTOM_KINDS)
def test_the_store_is_reproducible_and_marked_as_synthetic(tmp_path, kind):
    result = typer.testing.CliRunner().invoke(
        ingest_app, ["phantom", str(tmp_path / "a.h5"), "--kind", kind, "--patients", "6", "--size", "32", "--workers", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "synthetic" in result.output
    ingest(PhantomSource(kind, 6, 32), tmp_path / "b.h5", workers=1)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    store = Store.open(tmp_path / "a.h5")
    assert store.attrs["synthetic"]
    assert store.dataset == f"phantom-{kind}"
    assert store.modality == (PHANTOM_KINDS[kind].modality or kind)
    assert store.shape == (32, 32, PHANTOM_KINDS[kind].channels)
    assert {"sex", "age", "site"} <= set(store.columns())


def test_a_patient_has_one_to_four_different_images_with_the_same_label_and_metadata():
    source = PhantomSource("cxr", 40, 32, seed=1)
    rows = [source.read(item) for item in source.items()]
    of: dict[str, list] = {}
    for row in rows:
        of.setdefault(row.index["patient"], []).append(row)
    assert len(of) == 40
    assert {len(images) for images in of.values()} == {1, 2, 3, 4}
    for images in of.values():
        assert len({(r.labels["opacity"], r.meta["sex"], r.meta["age"], r.meta["site"]) for r in images}) == 1
        assert len({r.image.tobytes() for r in images}) == len(images)


def test_another_seed_gives_other_people_and_more_patients_do_not_change_the_first_ones():
    a, b, more = (PhantomSource("cxr", n, 32, seed=s) for n, s in ((5, 0), (5, 1), (9, 0)))
    assert {a.patient(0)} != {b.patient(0)}
    assert not np.array_equal(a.read((0, 0)).image, b.read((0, 0)).image)
    np.testing.assert_array_equal(a.read((4, 0)).image, more.read((4, 0)).image)
    assert more.items()[: len(a.items())] == a.items()


def test_a_share_of_the_patients_has_unknown_labels():
    source = PhantomSource("histology", 60, 32, labeled=0.25)
    known = {p: source.read((p, 0)).labels["malignant"] is not None for p in range(60)}
    assert 6 <= sum(known.values()) <= 25
    assert all(PhantomSource("histology", 60, 32).read((p, 0)).labels["malignant"] is not None for p in range(5))


def test_the_lung_patterns_of_both_classes_share_histogram_and_spectrum_but_not_structure():
    rng = np.random.default_rng(0)
    field = gaussianise(-np.abs(smooth_noise(rng, 96, 3.0)))
    other = gaussianise(shuffle_phases(rng, field))
    np.testing.assert_allclose(np.sort(field, axis=None), np.sort(other, axis=None))
    spectrum = [np.abs(np.fft.rfft2(f)) for f in (field, shuffle_phases(rng, field))]
    np.testing.assert_allclose(spectrum[0][1:, 1:-1], spectrum[1][1:, 1:-1], rtol=1e-6)
    assert abs(np.corrcoef(field.ravel(), other.ravel())[0, 1]) < 0.2


def test_inside_the_lungs_the_pattern_has_the_same_mean_and_spread_for_both_labels():
    lungs = np.zeros((64, 64))
    lungs[10:50, 8:28] = lungs[10:50, 36:56] = 1
    for seed in range(6):
        person = CXR_PHANTOM.draw_person(np.random.default_rng(seed))
        pattern = draw_lung_texture(person, np.random.default_rng(seed), 64, lungs)[lungs > 0]
        assert pattern.mean() == pytest.approx(0, abs=1e-9)
        assert pattern.std() == pytest.approx(1, abs=1e-9)


def auroc(y, s):
    return float((s[y == 1][:, None] > s[y == 0][None]).mean())


def statistics(images):
    """(N, 33 C) mean and histogram of each channel."""
    x = images.reshape(len(images), -1, images.shape[-1])
    histogram = [[np.histogram(each[:, c], 32, (0, 256))[0] for c in range(x.shape[-1])] for each in x]
    return np.concatenate([x.mean(axis=1), np.reshape(histogram, (len(x), -1))], axis=1)


def random_features(images):
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False, num_classes=0, in_chans=images.shape[-1]).eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return torch.cat([model((b - x.mean()) / x.std()) for b in x.split(64)]).numpy()


@pytest.fixture(scope="module", params=["cxr", "histology"])
def population(request):
    """One image of each of 300 patients at 64 pixels, and the labels."""
    source = PhantomSource(request.param, 300, 64, seed=5)
    rows = [source.read((p, 0)) for p in range(300)]
    return np.stack([row.image for row in rows]), np.array([row.labels[PHANTOM_KINDS[request.param].label] for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize("features", [statistics, random_features])
def test_neither_pixel_statistics_nor_random_features_solve_the_task(population, features):
    """With 150 patients to fit and 150 to score, chance has a standard error of 0.05."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, y = population
    x = features(images)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(x[:150], y[:150])
    limit = 0.65 if features is statistics else 0.75
    assert auroc(y[150:], model.decision_function(x[150:])) < limit


def test_the_finding_of_the_demo_is_the_strength_of_the_pattern_and_its_view_is_a_label():
    source = PhantomSource("cxr_edema", 60, 32, seed=3)
    people = [source.kind.draw_person(np.random.default_rng(p)) for p in range(60)]
    strength = [[p.texture_amplitude for p in people if p.label == label] for label in (0, 1)]
    assert max(strength[0]) < min(strength[1])
    rows = [source.read((p, 0)) for p in range(60)]
    assert {row.labels["edema"] for row in rows} == {0, 1}
    assert {row.labels["view"] for row in rows} == {"AP", "PA"}
    assert source.modality == "cxr"
    assert source.recipe() == PhantomSource("cxr", 60, 32, seed=3).recipe()  # the data set tells the kinds apart
    assert source.dataset != PhantomSource("cxr", 60, 32, seed=3).dataset


@pytest.mark.slow
def test_raw_pixels_do_not_find_the_finding_of_the_demo():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import scale

    source = PhantomSource("cxr_edema", 300, 64, seed=5)
    rows = [source.read((p, 0)) for p in range(300)]
    y = np.array([row.labels["edema"] for row in rows])
    x = scale(np.stack([row.image for row in rows]).reshape(300, 16, 4, 16, 4).mean((2, 4)).reshape(300, -1))
    model = LogisticRegression(C=0.01, max_iter=1000).fit(x[:150], y[:150])
    assert auroc(y[150:], model.decision_function(x[150:])) < 0.7


@pytest.mark.parametrize("kind", [name for name, kind in PHANTOM_KINDS.items() if kind.draw_mask])
def test_masks_are_stored_on_request_and_change_no_image(tmp_path, kind):
    ingest(PhantomSource(kind, 8, 32, seed=2), tmp_path / "plain.h5", workers=1)
    ingest(PhantomSource(kind, 8, 32, seed=2, masks=True), tmp_path / "masks.h5", workers=1)
    plain, store = Store.open(tmp_path / "plain.h5"), Store.open(tmp_path / "masks.h5")
    assert store.fingerprint == plain.fingerprint
    assert (has_masks(store), has_masks(plain)) == (True, False)
    masks, y = np.stack(read_masks(store, np.arange(len(store)))), store.labels(PHANTOM_KINDS[kind].label)
    assert masks.shape == (len(store), 32, 32)
    assert masks.dtype == bool
    assert (masks[y > 0].sum(axis=(1, 2)) > 0).all()
    assert masks[y == 0].any() if kind != "cxr_nodule" else not masks[y == 0].any()
    with pytest.raises(InputError, match=r"plain\.h5 has no masks"):
        read_masks(plain, [0])


def test_a_mask_is_where_the_nodule_was_added_and_nowhere_else():
    source = PhantomSource("cxr_nodule", 16, 64, seed=4, masks=True)
    found = 0
    for item in source.items():
        number, k = item
        person = CXR_NODULE_PHANTOM.draw_person(generator(4, Purpose.PHANTOM, CXR_NODULE_PHANTOM.stream, number))
        row = source.read(item)
        if not person.label:
            assert not row.mask.any()
            continue
        stream = generator(4, Purpose.PHANTOM, CXR_NODULE_PHANTOM.stream, number, k + 1)
        without, _ = CXR_NODULE_PHANTOM.draw_image(replace(person, label=0), stream, 64)
        changed = row.image[..., 0].astype(int) - without[..., 0]
        seen = row.mask & (without[..., 0] < 200)  # not where exposure, collimation or a marker hides it
        assert (changed[seen] >= 0).all()
        found += changed[row.mask].mean() > 10
        grown = binary_dilation(row.mask, iterations=6)
        assert np.abs(changed[~grown]).max() <= 3  # what is left of the soft edge
    assert found > 8


def test_a_changed_mask_is_noticed_and_a_phantom_without_a_place_has_none(tmp_path):
    ingest(PhantomSource("cxr_nodule", 6, 32, masks=True), tmp_path / "a.h5", workers=1)
    store = Store.open(tmp_path / "a.h5")
    assert store.parts[0].metadata_is_intact()
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["masks"][0, 0, 0] = 1
    assert Store.open(tmp_path / "a.h5").parts[0].metadata_is_intact() is False
    with pytest.raises(
        InputError, match="the finding of the phantom histology is all over the image, so it has no mask; phantoms with masks"
    ):
        PhantomSource("histology", 4, 32, masks=True)
