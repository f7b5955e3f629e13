"""A linear probe that stopped before it converged is named below the table."""

from tests.transfer import toys
from tests.transfer.bench.test_bench import add, run
from transfer.tables.build import build_sections
from transfer.tables.render import results_to_markdown


def test_a_probe_that_did_not_converge_is_named_below_the_table(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=40))
    text = {
        n: results_to_markdown(build_sections(run(protocols=["linear"], overrides=[f"linear.max_iter={n}"]).records), {}, {})
        for n in (1, 500)
    }
    assert "did not converge" in text[1]
    assert "raise linear.max_iter" in text[1]
    assert "did not converge" not in text[500]
