"""Successive halving: all trials train for a part of the budget, the best of them for `factor` times as much, and so on.

Source: Karnin, Koren and Somekh 2013 (ICML); Jamieson and Talwalkar 2016 (arXiv:1502.07943), algorithm 1, with the rungs of one bracket of
Hyperband (Li et al. 2018, JMLR 18(185), algorithm 1, s = the largest): rung k has floor(trials / factor^k) trials, and `factor` times the
budget of the rung before. Departure: validations are few, so that the first rung is not shorter than the first validation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """trials: that train in it.  share: of the largest budget of a trial that each of them has had at its end."""

    trials: int
    share: float


@dataclass(frozen=True)
class TrialResult:
    """A trial at the end of a rung, from its start.

    score: of the best validation so far; None: no validation had a finite one.  looks: validations.  step: of training, of `steps`.
    seconds: of all rungs.  complete: it was trained to its end."""

    score: float | None
    images: int
    looks: int
    step: int
    steps: int
    memory_bytes: int
    seconds: float
    complete: bool


Results = dict[tuple[int, int], TrialResult]  # (rung, trial) -> result


def plan_rungs(trials: int, factor: int, looks: int) -> list[Rung]:
    """The rungs, the last of which trains to the end.  looks: validations of a whole training, which no rung divides."""
    count = 1
    while factor**count <= min(trials, looks):
        count += 1
    return [Rung(trials // factor**k, factor ** (k + 1.0 - count)) for k in range(count)]


def count_trainings(rungs: Sequence[Rung]) -> float:
    """The budget of all rungs, in whole trainings: a trial goes on from where the rung before left it."""
    shares = [0.0, *(rung.share for rung in rungs)]
    return sum(rung.trials * (share - before) for rung, share, before in zip(rungs, shares[1:], shares, strict=False))


def rank_trials(results: Results, rung: int) -> list[int]:
    """The trials of a rung that have a score, best first; the first of equals."""
    scored = [(-result.score, trial) for (k, trial), result in results.items() if k == rung and result.score is not None]
    return [trial for _, trial in sorted(scored)]


def run_halving(
    rungs: Sequence[Rung],
    results: Results,
    run: Callable[[int, int], TrialResult],
    finished: Callable[[int, int, TrialResult], None],
    drop: Callable[[int], None],
) -> int | None:
    """The best trial of the last rung; None if no trial has a score.

    results: known from before an interruption; those of this call are added.  run: (rung, trial) -> result, from where the trial is.
    finished: hears of every result of this call.  drop: forgets a trial that will not train again."""
    chosen = list(range(rungs[0].trials))
    for k in range(len(rungs)):
        kept = rungs[k + 1].trials if k + 1 < len(rungs) else 1
        for trial in chosen:
            if (k, trial) not in results:
                result = run(k, trial)
                results[k, trial] = result
                finished(k, trial, result)
            best = rank_trials(results, k)[:kept]
            for other in chosen:  # at most `kept` states, and that of the trial in training, are on the disk
                if (k, other) in results and other not in best:
                    drop(other)
        chosen = sorted(rank_trials(results, k)[:kept])
    return chosen[0] if chosen else None
