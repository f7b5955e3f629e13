"""Deep ensembles on the page of `transfer report --ensemble`."""

import re

from tests.transfer.study.test_study import strategy_records
from transfer.report.page import render_page
from transfer.tables.build import build_sections
from transfer.tables.ensemble_rows import add_ensembles
from transfer.tables.ensemble_table import tabulate_ensembles
from transfer.tables.render import shorten_names


def test_a_page_has_the_tables_of_its_ensembles_only_if_it_was_asked_for_them():
    records = strategy_records([(None, 3.0)])
    sections, ensembles = add_ensembles(build_sections(records), ["seeds"])
    page = render_page(records, sections, {}, ensembles=ensembles)
    assert page.count("Deep ensembles</h3>") == 1
    ranking, calibration = tabulate_ensembles(ensembles, shorten_names(sections))
    assert len(ranking.lines) == len(ensembles) == 6
    part = page[page.index("Deep ensembles</h3>") :]
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", part)
    for line in (*ranking.lines, *calibration.lines):
        assert {cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells} >= {cell for cell in line if cell}
    assert "Deep ensembles" not in render_page(records, build_sections(records), {})
