"""Checks of `transfer power` against a binormal model. Prints Markdown tables.

    OMP_NUM_THREADS=1 python -m tests.perf.power --repeats 2000 --pilots 400

The first table compares the power by resampling a large pilot with that of test sets that are drawn from the model, and with the normal
approximation from the exact variance. The second says how far the required number of a small pilot is from that of the model: for a planned
difference of .03 and a prevalence of 30 %, by the normal approximation with the variance of the pilot, with which the simulation starts.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from encoders.runtime.errors import InputError
from tests.perf.binormal_power import Binormal, draw_pilot, normal_power, required_by_theory
from transfer.stats.estimate import Estimate
from transfer.stats.factors import Position
from transfer.stats.parts import measure_part
from transfer.stats.planned_population import build_population
from transfer.stats.planned_repeats import FactorSizes
from transfer.stats.planned_verdict import VerdictRule, planned_verdict
from transfer.stats.power import simulate_power
from transfer.stats.required_patients import guess_patients, pilot_range

# Model of the pilot, planned difference, test patients, prevalence.
CELLS = (
    (Binormal(0.87, 0.85), 0.03, 500, 0.3),
    (Binormal(0.87, 0.85, 0.7), 0.02, 500, 0.3),
    (Binormal(0.82, 0.82), 0.03, 3000, 0.3),
    (Binormal(0.80, 0.80, images=4), 0.03, 800, 0.5),
    (Binormal(0.95, 0.93, images=3), 0.02, 600, 0.2),
    (Binormal(0.85, 0.82), 0.05, 400, 0.1),
)
PILOTS = ((12, 24), (20, 40), (30, 30), (60, 140))  # patients with and without a positive image


def power_table(repeats: int) -> Iterator[list[object]]:
    yield ["reference", "difference", "patients", "prevalence", "images", "from the pilot", "from the model", "normal approximation"]
    rng = np.random.default_rng(0)
    for model, difference, patients, prevalence in CELLS:
        population = build_population(draw_pilot(model, 1024, 1024, rng, even=True), difference, prevalence)
        found = simulate_power(population, patients, VerdictRule(), FactorSizes(), repeats=repeats).share(("better",))
        true, positive = model._replace(area=model.other + difference), round(patients * prevalence)
        fresh = fresh_power(true, positive, patients - positive, repeats, rng)
        row = (model.other, difference, patients, prevalence, model.images)
        yield [*row, found, fresh, normal_power(true, positive, patients - positive)]


def fresh_power(model: Binormal, positive: int, negative: int, repeats: int, rng: np.random.Generator) -> float:
    """The share of test sets of the model with the verdict "better"."""
    found = 0
    for _ in range(repeats):
        t = draw_pilot(model, positive, negative, rng)
        a, b = (Estimate({Position(): measure_part(t.y, s[0], t.patient)}, min(positive, negative)) for s in (t.a, t.b))
        found += planned_verdict(a, b, VerdictRule()) == "better"
    return found / repeats


def pilot_table(pilots: int) -> Iterator[list[object]]:
    yield ["pilot patients", "images", "pilots", "median ratio", "2.5 %", "97.5 %", "range covers"]
    rng, difference, prevalence = np.random.default_rng(1), 0.03, 0.3
    for images in (1, 3):
        model = Binormal(0.88, 0.85, images=images)
        target = required_by_theory(model, prevalence)
        for positive, negative in PILOTS:
            numbers, inside = [], []
            for _ in range(pilots):
                pilot = draw_pilot(model, positive, negative, rng)
                try:
                    population = build_population(pilot, difference, prevalence)
                except InputError:  # the reference of this pilot is too close to an area of 1
                    continue
                numbers.append(guess_patients(population, difference, "different", VerdictRule(), 0.8))
                low, high = pilot_range(pilot, int(numbers[-1]))
                inside.append(low <= target <= high)
            ratios = np.quantile(np.array(numbers) / target, [0.5, 0.025, 0.975])
            yield [f"{positive} + {negative}", images, len(inside), *ratios.tolist(), float(np.mean(inside))]


def print_markdown(rows: Iterator[list[object]]) -> None:
    for i, row in enumerate(rows):
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |", flush=True)
        if i == 0:
            print("|" + "---|" * len(row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--pilots", type=int, default=400)
    options = parser.parse_args()
    print_markdown(power_table(options.repeats))
    print()
    print_markdown(pilot_table(options.pilots))
