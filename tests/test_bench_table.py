"""`make bench`: ratios, limits and exponents of the table, and what a row says without its peer."""

import numpy as np
import pytest

from tests.perf.bench.__main__ import ROWS, expand_names
from tests.perf.bench.growth import CURVES, SIZES, fit_exponent
from tests.perf.bench.measure import HEAD, NOT_INSTALLED, Row, alternate, cpu_seconds


def test_a_row_states_the_median_of_the_ratios_of_its_rounds_with_their_range_and_whether_the_limit_is_kept():
    row = Row("work", "peer", 0.8, [1.0, 3.0, 2.0], [2.0, 4.0, 2.0])
    assert row.cells() == ["work", "<= 0.8", "peer", "2 s", "2 s", "0.75 (0.50-1.00)", "met"]
    assert Row("work", "peer", 0.7, [1.0, 3.0, 2.0], [2.0, 4.0, 2.0]).cells()[-1] == "MISSED"
    assert len(row.cells()) == len(HEAD)


def test_a_row_without_a_peer_is_judged_by_its_own_number():
    assert Row("command", limit=0.5, ours=[0.4, 0.45]).cells() == ["command", "<= 0.5 s", "-", "0.425 s", "", "", "met"]
    assert Row("command", limit=0.4, ours=[0.4, 0.45]).is_met is False
    assert Row("command", ours=[0.4]).is_met is None


def test_a_row_whose_peer_is_missing_says_so_and_misses_nothing():
    row = Row("views", "kornia", note=NOT_INSTALLED, ours=[1.0])
    assert row.cells()[-1] == "peer not installed"
    assert row.is_met is None


def test_turns_alternate_and_their_order_is_reversed():
    order = []
    seconds = alternate(2, lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b", "b", "a", "a", "b"], "one round to warm up, then two"
    assert [len(side) for side in seconds] == [2, 2]
    order.clear()
    alternate(1, lambda: order.append("a"), warm=False)
    assert order == ["a"]
    assert cpu_seconds(lambda: sum(range(300_000))) > 0.001


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_the_exponent_is_that_of_a_power_law_whatever_the_constant_cost_of_the_first_size(exponent):
    seconds = [1e-7 * n**exponent for n in SIZES]
    seconds[0] = 5.0
    assert fit_exponent(SIZES, seconds) == pytest.approx(exponent)


def test_names_of_rows_are_expanded_and_checked():
    assert expand_names([]) == list(ROWS)
    assert expand_names(["knn", "growth"]) == ["knn", *(f"growth:{name}" for name in CURVES)]
    with pytest.raises(SystemExit, match="there is no row 'nothing'"):
        expand_names(["nothing"])


@pytest.mark.parametrize("name", ["gate", "knn", "linear"])
def test_a_curve_prepares_work_of_the_given_size(name, tmp_path):
    CURVES[name](tmp_path, 200)()
    assert np.isfinite(cpu_seconds(CURVES[name](tmp_path, 200)))
