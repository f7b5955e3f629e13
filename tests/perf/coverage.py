"""Coverage of the 95 % intervals and rate of false verdicts, on simulated test sets. Prints Markdown tables.

    OMP_NUM_THREADS=1 python -m tests.perf.coverage --repeats 1000
    OMP_NUM_THREADS=1 python -m tests.perf.coverage --repeats 300 --tables area,paired --positives 20,30

The score of an image is noise of the patient (80 % of the variance) plus noise of the image, plus a shift for positives; all images of a
patient have one label. Both noises are normal, so the true area is Phi(shift / sqrt(2)). Two encoders share a part `r` of their noise. An
interval covers if it contains the true value; a verdict on two encoders of equal true value is false if the interval excludes 0. With R
repeats, two standard errors of an entry near .95 are .44 / sqrt(R) (.014 for 1,000).

Tables: area, paired, average_precision, balanced_accuracy, macro, folds, groups, permutation. The cells with 200 positive patients at 3 %
prevalence have up to 70,000 images; all tables take hours on one core.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tests.perf.simulated_scores import (
    Array,
    Cell,
    TestSet,
    draw_noise,
    draw_pair,
    draw_test_set,
    missed_positives,
    shift_for,
    true_average_precision,
    true_balanced_accuracy,
)
from transfer.metrics import average_precision, balanced_accuracy
from transfer.stats import cluster_bootstrap, pooled_difference, pooled_interval
from transfer.stats.ap_components import average_precision_components
from transfer.stats.area_interval import area_interval
from transfer.stats.balanced_accuracy_components import measure_balanced_accuracies
from transfer.stats.delong import area_components, mean_components
from transfer.stats.difference_interval import paired_interval
from transfer.stats.mover_interval import mover_interval
from transfer.stats.permutation import permutation_p_value
from transfer.stats.placement_components import AreaComponents

AREAS = (0.70, 0.90, 0.98)
PAIRS = ((0.85, 0.80, 0.5), (0.99, 0.97, 0.5), (0.99, 0.97, 0.9))  # areas of two encoders, shared part of their noise
EQUAL = ((0.85, 0.85, 0.5), (0.85, 0.85, 0.9), (0.97, 0.97, 0.0), (0.97, 0.97, 0.5), (0.97, 0.97, 0.9))


Measure = Callable[[TestSet, Array, float], AreaComponents]  # test set, scores, shift -> components


def measure_area(t: TestSet, s: Array, shift: float) -> AreaComponents:
    return _defined(area_components(t.y, s, t.code, t.patients))


def measure_average_precision(t: TestSet, s: Array, shift: float) -> AreaComponents:
    return _defined(average_precision_components(t.y, s, t.code, t.patients))


def measure_balanced_accuracy(t: TestSet, s: Array, shift: float) -> AreaComponents:
    """At the threshold in the middle of both classes, where sensitivity and specificity are equal."""
    return _defined(measure_balanced_accuracies(t.y[:, None], s[:, None], t.code, t.patients, kind="binary", threshold=shift / 2)[0])


def _defined(p: AreaComponents | None) -> AreaComponents:
    assert p is not None
    return p


def area_table(cells: list[Cell], repeats: int) -> Iterator[list[object]]:
    """Coverage of the interval of one AUROC; in the last columns a share 1 - AUROC of the positive patients look like negatives."""
    yield ["", *(f"{a:.2f}" for a in AREAS), *(f"{a:.2f}, missed" for a in AREAS)]
    for cell, rng in _with_generators(cells, 1):
        inside = defaultdict(list)
        for _ in range(repeats):
            t = draw_test_set(cell, rng)
            noise = draw_noise(t, rng)
            for area, missed in product(AREAS, (False, True)):
                moved = missed_positives(t, area, rng) if missed else t.y * shift_for(area)
                low, high = area_interval(measure_area(t, noise + moved, 0.0))(0.95)
                inside[area, missed].append(low <= area <= high)
        yield [_name(cell), *(float(np.mean(inside[a, m])) for m in (False, True) for a in AREAS)]


def paired_table(cells: list[Cell], repeats: int) -> Iterator[list[object]]:
    """Coverage of the interval of a paired difference of AUROC; in the last columns the rate of false verdicts for equal encoders."""
    yield ["", *(f"{a:.2f} v {b:.2f}, r {r}" for a, b, r in PAIRS), *(f"false, {a:.2f}, r {r}" for a, _, r in EQUAL)]
    for cell, rng in _with_generators(cells, 2):
        inside = _paired_coverage(cell, rng, repeats, measure_area, PAIRS + EQUAL, lambda area: area)
        yield [_name(cell), *(inside[k] for k in PAIRS), *(1 - inside[k] for k in EQUAL)]


def metric_table(
    measure: Measure,
    truth: Callable[[float, float], float],
    resampled: Callable[[float], Callable[..., Array]],
    cells: list[Cell],
    repeats: int,
) -> Iterator[list[object]]:
    """Coverage of the interval at three AUROCs, of the percentile bootstrap in the same cells, and false verdicts for equal encoders.

    The bootstrap (300 resamples) has a fifth of the repeats and only the cells with 20 positive patients, because of its cost."""
    equal = EQUAL[:2] + EQUAL[3:]
    yield ["", *(f"{a:.2f}" for a in AREAS), *(f"{a:.2f}, bootstrap" for a in AREAS), *(f"false, {a:.2f}, r {r}" for a, _, r in equal)]
    for cell, rng in _with_generators(cells, 3):
        inside, boot = defaultdict(list), defaultdict(list)
        for i in range(repeats):
            t = draw_test_set(cell, rng)
            noise = draw_noise(t, rng)
            for area in AREAS:
                target, shift = truth(area, cell.prevalence), shift_for(area)
                s = noise + t.y * shift
                low, high = area_interval(measure(t, s, shift))(0.95)
                inside[area].append(low <= target <= high)
                if i % 5 == 0 and cell.positives <= 20:
                    got = cluster_bootstrap(resampled(shift), t.y, s, t.code, n=300)
                    boot[area].append(got.low <= target <= got.high)
        null = _paired_coverage(cell, rng, repeats, measure, equal, lambda area: 0.0)
        rates = [float(np.mean(boot[a])) if boot[a] else float("nan") for a in AREAS]
        yield [_name(cell), *(float(np.mean(inside[a])) for a in AREAS), *rates, *(1 - null[k] for k in equal)]


def macro_table(cells: list[Cell], repeats: int, labels: int = 14) -> Iterator[list[object]]:
    """Coverage of the interval of the mean AUROC over 14 labels, and false verdicts. The prevalences go from that of the cell to 30 %, the
    AUROCs from .70 to .98 (difference: all .85 or .97); half of the noise is common to the labels."""
    equal = EQUAL[:2] + EQUAL[3:]
    yield ["", "mean of .70 to .98", *(f"false, {a:.2f}, r {r}" for a, _, r in equal)]
    for cell, rng in _with_generators(cells, 4):
        inside, null = [], defaultdict(list)
        areas = np.linspace(0.70, 0.98, labels)
        for _ in range(repeats):
            t = draw_test_set(cell, rng)
            positives = np.geomspace(cell.positives, max(0.3 * t.patients, cell.positives), labels).round().astype(int)
            y = np.stack([np.isin(t.code, rng.permutation(t.patients)[:p]) for p in positives], axis=1).astype(float)
            common = draw_noise(t, rng)

            def mean_area(noises: list[Array], at: Array, y: Array = y, t: TestSet = t) -> AreaComponents:
                scores = [noise + shift_for(a) * y[:, c] for c, (noise, a) in enumerate(zip(noises, at, strict=True))]
                return mean_components([_defined(area_components(y[:, c], s, t.code, t.patients)) for c, s in enumerate(scores)])

            own = [np.sqrt(0.5) * (common + draw_noise(t, rng)) for _ in range(labels)]
            low, high = area_interval(mean_area(own, areas))(0.95)
            inside.append(low <= areas.mean() <= high)
            for a, b, r in equal:
                pairs = [draw_pair(t, r, rng) for _ in range(labels)]
                one, other = (mean_area([p[side] for p in pairs], np.full(labels, a)) for side in (0, 1))
                low, high = paired_interval(one, other)(0.95)
                null[a, b, r].append(low <= 0 <= high)
        yield [_name(cell), float(np.mean(inside)), *(float(1 - np.mean(null[k])) for k in equal)]


def folds_table(cells: list[Cell], repeats: int) -> Iterator[list[object]]:
    """Coverage of the interval of a mean AUROC over five folds, each with a fifth of the patients, and false verdicts."""
    equal = EQUAL[:2] + EQUAL[3:]
    yield ["", *(f"{a:.2f}" for a in AREAS), *(f"false, {a:.2f}, r {r}" for a, _, r in equal)]
    for cell, rng in _with_generators(cells, 5):
        inside, null = defaultdict(list), defaultdict(list)
        for _ in range(repeats):
            t = draw_test_set(cell, rng)
            fold = rng.permutation(t.patients) % 5 if cell.positives < 25 else np.arange(t.patients) % 5
            folds = [fold[t.code] == f for f in range(5)]
            folds = [kept for kept in folds if 0 < t.y[kept].sum() < kept.sum()]

            def scored(s: Array, t: TestSet = t, folds: list[NDArray[np.bool_]] = folds) -> list[list[tuple[Array, Array, Array]]]:
                return [[(t.y[kept], s[kept], t.code[kept].astype(str))] for kept in folds]

            noise = draw_noise(t, rng)
            for area in AREAS:
                got = pooled_interval(scored(noise + t.y * shift_for(area)))
                inside[area].append(got.low <= area <= got.high)
            for a, b, r in equal:
                one, other = (s + shift_for(a) * t.y for s in draw_pair(t, r, rng))
                null[a, b, r].append(pooled_difference(scored(one), scored(other)).verdict == "not distinguishable")
        yield [_name(cell), *(float(np.mean(inside[a])) for a in AREAS), *(float(1 - np.mean(null[k])) for k in equal)]


def groups_table(cells: list[Cell], repeats: int) -> Iterator[list[object]]:
    """Coverage of the interval of the difference of two groups without a common patient (MOVER), and false verdicts.

    The second group has 60 positive patients at 30 % prevalence."""
    pairs = ((0.90, 0.80), (0.98, 0.90), (0.90, 0.90), (0.97, 0.97))
    yield ["", "0.90 v 0.80", "0.98 v 0.90", "false, 0.90", "false, 0.97"]
    for cell, rng in _with_generators(cells, 7):
        inside = defaultdict(list)
        for _ in range(repeats):
            groups = draw_test_set(cell, rng), draw_test_set(Cell(60, 0.3, cell.several), rng)
            noises = [draw_noise(t, rng) for t in groups]
            for pair in pairs:
                one, other = (measure_area(t, noise + t.y * shift_for(a), 0.0) for t, noise, a in zip(groups, noises, pair, strict=True))
                low, high = mover_interval(one, other, 0.0)(0.95)
                inside[pair].append(low <= pair[0] - pair[1] <= high)
        rates = [float(np.mean(inside[pair])) for pair in pairs]
        yield [_name(cell), *rates[:2], *(1 - rate for rate in rates[2:])]


def permutation_table(repeats: int) -> Iterator[list[object]]:
    """Rate of p-values up to .05 of the permutation test for few patients, for equal encoders. Folds: five, of equal size."""
    equal = EQUAL[:2] + EQUAL[3:]
    yield ["", *(f"false, {a:.2f}, r {r}" for a, _, r in equal)]
    for positives, negatives, folds, several in product((3, 8, 15), (8, 40), (1, 5), (False, True)):
        if folds > positives or folds > negatives:
            continue
        rng = np.random.default_rng([6, positives, negatives, folds, several])
        wrong = defaultdict(list)
        for _ in range(repeats):
            t = draw_test_set(Cell(positives, positives / (positives + negatives), several), rng)
            fold = np.concatenate([np.arange(positives) % folds, np.arange(negatives) % folds])[t.code]
            for a, b, r in equal:
                one, other = (s + shift_for(a) * t.y for s in draw_pair(t, r, rng))
                first, second = (
                    [[(t.y[fold == f], s[fold == f], t.code[fold == f].astype(str))] for f in range(folds)] for s in (one, other)
                )
                wrong[a, b, r].append(permutation_p_value(first, second, n=499) <= 0.05)
        name = f"{positives} + {negatives} patients, {'1-20 images' if several else '1 image'}{', 5 folds' if folds > 1 else ''}"
        yield [name, *(float(np.mean(wrong[k])) for k in equal)]


def _paired_coverage(
    cell: Cell,
    rng: np.random.Generator,
    repeats: int,
    measure: Measure,
    pairs: tuple[tuple[float, float, float], ...],
    truth: Callable[[float], float],
) -> dict[tuple[float, float, float], float]:
    """Share of the intervals of the difference that contain the true one, for every pair of encoders."""
    inside = defaultdict(list)
    for _ in range(repeats):
        t = draw_test_set(cell, rng)
        for a, b, r in pairs:
            one, other = draw_pair(t, r, rng)
            parts = [measure(t, s + t.y * shift_for(area), shift_for(area)) for s, area in ((one, a), (other, b))]
            low, high = paired_interval(parts[0], parts[1])(0.95)
            inside[a, b, r].append(low <= truth(a) - truth(b) <= high)
    return {key: float(np.mean(values)) for key, values in inside.items()}


def _with_generators(cells: list[Cell], table: int) -> Iterator[tuple[Cell, np.random.Generator]]:
    for cell in cells:
        yield cell, np.random.default_rng([table, cell.positives, round(100 * cell.prevalence), cell.several])


def _name(cell: Cell) -> str:
    return f"{cell.positives} positive patients, {cell.prevalence:.0%}, {'1-20 images' if cell.several else '1 image'}"


def _print_row(row: list[object]) -> None:
    print("| " + " | ".join(f"{v:.3f}".lstrip("0") if isinstance(v, float) else str(v) for v in row) + " |", flush=True)


TABLES: dict[str, Callable[[list[Cell], int], Iterator[list[object]]]] = {
    "area": area_table,
    "paired": paired_table,
    "average_precision": partial(metric_table, measure_average_precision, true_average_precision, lambda shift: average_precision),
    "balanced_accuracy": partial(
        metric_table,
        measure_balanced_accuracy,
        true_balanced_accuracy,
        lambda shift: partial(balanced_accuracy, kind="binary", threshold=shift / 2),
    ),
    "macro": macro_table,
    "folds": folds_table,
    "groups": groups_table,
    "permutation": lambda cells, repeats: permutation_table(repeats),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000, help="test sets per cell")
    parser.add_argument("--tables", default=",".join(TABLES), help="comma-separated names of tables")
    parser.add_argument("--positives", default="20,30,60,200", help="comma-separated numbers of positive patients")
    options = parser.parse_args()
    cells = [
        Cell(int(positives), prevalence, several)
        for positives, prevalence, several in product(options.positives.split(","), (0.03, 0.30), (False, True))
    ]
    for name in options.tables.split(","):
        start = time.time()
        print(f"\n### {name}, {options.repeats} repeats\n")
        for i, row in enumerate(TABLES[name](cells, options.repeats)):
            _print_row(row)
            if i == 0:
                _print_row(["---"] * len(row))
        print(f"\n{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
