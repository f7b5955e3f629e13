"""Comparing encoders: CKA, neighbours and parameters against their definitions, and invariances."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.features import compare
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo.backbone import build_backbone


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


def gram_cka(x, y, debiased):
    """CKA by its definition with (N, N) Gram matrices."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    if not debiased:
        h = np.eye(n) - 1 / n
        k, m = h @ k @ h, h @ m @ h
        return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)

    def hsic(a, b):  # Song et al. 2012, eq. 5
        return (np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)) / (n * (n - 3))

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("n", "d", "e"), [(4, 2, 3), (30, 5, 8), (20, 64, 48)])
def test_cka_equals_its_definition(n, d, e, debiased):
    x, y = draw(n, d) + 3, draw(n, e, 1) - 1
    y[:, : min(d, e)] += x[:, : min(d, e)]
    assert compare.linear_cka(x, y, debiased) == pytest.approx(gram_cka(x, y, debiased), rel=1e-9)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_ignores_rotation_scale_and_shift(debiased):
    x, y = draw(40, 6), draw(40, 9, 1)
    q, _ = np.linalg.qr(draw(6, 6, 2))
    assert compare.linear_cka(x, -3 * x @ q + 5, debiased) == pytest.approx(1, abs=1e-12)
    assert compare.linear_cka(x @ q * 0.1 + 2, y, debiased) == pytest.approx(compare.linear_cka(x, y, debiased), abs=1e-12)


def test_unrelated_features_of_few_images_have_a_large_biased_and_a_small_debiased_cka():
    x, y = draw(50, 400), draw(50, 400, 1)
    assert compare.linear_cka(x, y) > 0.8
    assert abs(compare.linear_cka(x, y, debiased=True)) < 0.1


def test_constant_features_have_no_similarity():
    with pytest.raises(InputError, match="same for all images"):
        compare.linear_cka(np.full((10, 3), 0.1), draw(10, 3))


def test_neighbour_overlap_equals_a_loop_and_its_closed_forms():
    x, y = draw(60, 5), draw(60, 7, 1)
    y[:, :5] += x
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y)]
    near = []
    for f in unit:
        s = f @ f.T
        np.fill_diagonal(s, -np.inf)
        near.append(np.argsort(-s, axis=1)[:, :4])
    want = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*near, strict=True)])
    assert compare.neighbour_overlap(x, y, 4) == pytest.approx(want)
    assert compare.neighbour_overlap(x, 7 * x, 4) == 1
    assert compare.neighbour_overlap(x, y, 59) == 1  # all others are neighbours


def test_an_image_is_not_its_own_neighbour_among_copies():
    x = np.repeat(draw(5, 4), 4, axis=0)  # four copies of each image
    assert all(i not in row and set(row) <= set(range(i // 4 * 4, i // 4 * 4 + 4)) for i, row in enumerate(compare._neighbours(x, 3)))


def test_parameter_distance_equals_numpy_and_leaves_statistics_out():
    a, b = (build_backbone("resnet10t", channels=1, size=32, seed=seed) for seed in (0, 1))
    b.layer1[0].bn1.running_mean += 3.0
    p, q = (torch.cat([v.flatten() for v in m.parameters()]).detach().double().numpy() for m in (a, b))
    found = compare.parameter_distance(a, b)
    assert found.relative_l2 == pytest.approx(np.linalg.norm(p - q) / np.linalg.norm(p), rel=1e-9)
    assert found.cosine == pytest.approx(p @ q / np.linalg.norm(p) / np.linalg.norm(q), rel=1e-9)
    n = sum(m.running_mean.numel() for m in a.modules() if hasattr(m, "running_mean"))
    assert found.statistics_l2 == pytest.approx(3 * np.sqrt(b.layer1[0].bn1.running_mean.numel()) / np.sqrt(n))  # means 0, variances 1
    same = compare.parameter_distance(a, a)
    assert (same.relative_l2, same.equal_tensors, same.statistics_l2) == (0, same.tensors, 0)
    assert same.cosine == pytest.approx(1)


@pytest.fixture
def store(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 1), dtype=np.uint8)
    return save_store(tmp_path / "a.h5", images, patient=[f"p{i}" for i in range(30)])


def test_comparing_an_encoder_with_itself_and_with_others(store):
    name = "random_resnet10t:size=32,channels=1"
    mine, other = encoders.load(name), encoders.load(f"{name},seed=1")
    same = compare.compare_encoders(mine, mine, Store.open(store), k=3)
    assert (same.images, same.overlap, same.card_differences) == (30, 1, {})
    assert same.cka == pytest.approx(1)
    assert same.cka_debiased == pytest.approx(1)
    seeds = compare.compare_encoders(mine, other, Store.open(store), images=20, k=3)
    assert seeds.images == 20
    assert seeds.overlap_chance == pytest.approx(3 / 19)
    assert seeds.card_differences == {"lineage.seed": (0, 1)}
    assert seeds.parameters is not None
    size = encoders.load("random_resnet10t:size=64,channels=1,crop_pct=0.9")
    assert set(compare.card_differences(mine.card, size.card)) == {"preprocess.size", "preprocess.crop_pct"}


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("random_resnet18:size=32,channels=1", "the networks differ"),
        ("random_resnet10t:size=32,channels=3", "the tensors differ, first conv1"),
        ("pixels", "the networks differ"),
        ("random_resnet10t:size=32,channels=1,seed=1+pixels", "made of parts"),
    ],
)
def test_the_command_says_why_parameters_are_not_compared(store, second, reason):
    command = ["compare", "random_resnet10t:size=32,channels=1", second, "--store", str(store), "-k", "3"]
    done = CliRunner().invoke(app, [word.replace("-k", "--k") if word == "-k" else word for word in command])
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert reason in done.output
    told = json.loads(CliRunner().invoke(app, [*command[:-2], "--k", "3", "--json"]).stdout)
    assert told["parameters"] is None
    assert reason in told["parameters_note"]


def test_too_few_images_are_refused(store):
    encoder = encoders.load("random_resnet10t:size=32,channels=1")
    with pytest.raises(InputError, match="given 5 images and k=10"):
        compare.compare_encoders(encoder, encoder, Store.open(store), images=5)
