"""Every class of mutated inputs: none silently wrong, none with a traceback, a crash, a hang, or more memory than the limit."""

import pytest

from tests.fuzz.harness import find_classes
from tests.fuzz.runner import run_class


@pytest.mark.parametrize("name", find_classes())
def test_every_mutated_input_is_right_or_refused_with_one_sentence(name):
    fuzzed = find_classes()[name]
    outcome = run_class(fuzzed)
    assert not outcome.faults, outcome.describe()
    assert outcome.counts["refused"] or fuzzed.all_valid, "nothing was refused, so the mutations change nothing that is read"
