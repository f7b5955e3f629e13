"""Successive halving: its counts, its budget, and that it finds what is best."""

from dataclasses import replace

import numpy as np
import pytest

from transfer.search.halving import Rung, TrialResult, count_trainings, plan_rungs, run_halving
from transfer.search.search_file import SearchFolder

RESULT = TrialResult(0.0, 0, 0, 0, 0, 0, 0.0, False)


@pytest.mark.parametrize(
    ("trials", "factor", "looks", "counts", "shares"),
    [
        (20, 3, 10, [20, 6, 2], [1 / 9, 1 / 3, 1]),
        (9, 3, 9, [9, 3, 1], [1 / 9, 1 / 3, 1]),
        (81, 3, 100, [81, 27, 9, 3, 1], [1 / 81, 1 / 27, 1 / 9, 1 / 3, 1]),  # Li et al. 2018, table 1, s = 4
        (27, 3, 10, [27, 9, 3], [1 / 9, 1 / 3, 1]),  # ten validations allow three rungs
        (16, 2, 16, [16, 8, 4, 2, 1], [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]),
        (2, 3, 10, [2], [1]),
        (20, 3, 1, [20], [1]),
        (20, 30, 10, [20], [1]),
    ],
)
def test_the_rungs_are_those_of_the_closed_form(trials, factor, looks, counts, shares):
    rungs = plan_rungs(trials, factor, looks)
    assert [rung.trials for rung in rungs] == counts
    assert [rung.share for rung in rungs] == pytest.approx(shares)
    new = np.diff([0.0, *shares])
    assert count_trainings(rungs) == pytest.approx(float(np.dot(counts, new)))


class Curves:
    """Trials whose score is `best - distance / budget`; which rungs were run, and what was dropped."""

    def __init__(self, best):
        self.best, self.runs, self.dropped = best, [], []

    def run(self, rung, trial):
        self.runs.append((rung, trial))
        score = self.best[trial]
        return replace(RESULT, score=None if score is None else score - 0.1 * 3.0**-rung, complete=rung == 2)


def search(best, rungs, results=None, stop=None):
    curves, results = Curves(best), {} if results is None else results

    def finished(rung, trial, result):
        if stop is not None and len(curves.runs) == stop:
            raise KeyboardInterrupt

    return run_halving(rungs, results, curves.run, finished, lambda trial: curves.dropped.append(trial)), curves, results


def test_the_best_trial_is_found_wherever_it_is_and_the_first_of_equals():
    for place in range(9):
        winner, curves, _ = search([0.5 + 0.1 * (i == place) for i in range(9)], plan_rungs(9, 3, 9))
        assert winner == place
        assert [sum(rung == k for rung, _ in curves.runs) for k in range(3)] == [9, 3, 1]
    assert search([0.5] * 9, plan_rungs(9, 3, 9))[0] == 0


def test_trials_without_a_score_are_not_promoted():
    winner, curves, _ = search([None, None, 0.3, None, None, None, 0.4, None, None], plan_rungs(9, 3, 9))
    assert winner == 6
    assert sorted({trial for rung, trial in curves.runs if rung == 1}) == [2, 6]
    assert search([None] * 9, plan_rungs(9, 3, 9))[0] is None


def test_at_most_the_states_that_can_be_promoted_are_kept():
    draw = np.random.default_rng(0)
    rungs = plan_rungs(27, 3, 27)
    curves, results, kept, most = Curves(list(draw.random(27))), {}, set(), 0

    def run(rung, trial):
        nonlocal most
        kept.add(trial)
        most = max(most, len(kept))
        return curves.run(rung, trial)

    winner = run_halving(rungs, results, run, lambda *given: None, kept.discard)
    assert kept == {winner} == {int(np.argmax(curves.best))}
    assert most <= 9 + 1, "those of the second rung, and the one in training"


@pytest.mark.parametrize("stop", [1, 5, 9, 10, 12, 13])
def test_an_interrupted_search_repeats_nothing_and_ends_with_the_same_winner(stop, tmp_path):
    best, rungs = list(np.random.default_rng(1).random(9)), plan_rungs(9, 3, 9)
    whole, curves, _ = search(best, rungs)
    folder, results = SearchFolder(tmp_path), {}
    with pytest.raises(KeyboardInterrupt):
        search(best, rungs, results, stop)
    folder.save(results)
    again, rest, _ = search(best, rungs, folder.load())
    assert again == whole
    assert rest.runs == curves.runs[stop:]


def test_a_damaged_file_of_results_starts_the_search_again(tmp_path):
    folder = SearchFolder(tmp_path)
    folder.save({(0, 1): RESULT})
    assert folder.load() == {(0, 1): RESULT}
    folder.results_file.write_text(folder.results_file.read_text()[:-3])
    assert folder.load() == {}
    folder.results_file.write_text('[[0, 1, {"other": 1}]]')
    assert folder.load() == {}


def test_rungs_of_one_trial_each_are_one_training():
    assert count_trainings([Rung(1, 1.0)]) == 1.0
