"""The tables of uncertainty that `transfer compare` adds: deep ensembles, prediction sets, and referral of the least certain."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encoders.runtime.cli import make_console

if TYPE_CHECKING:
    from transfer.metrics.set_rule import SetRule
    from transfer.tables.ensemble_rows import Ensemble, EnsembleKind
    from transfer.tables.referral import ReferralRule
    from transfer.tables.rows import Section


@dataclass(frozen=True)
class UncertaintyRules:
    """What was asked for; None: not asked for."""

    ensembles: "list[EnsembleKind] | None"
    sets: "SetRule | None"
    refer: "ReferralRule | None"


def parse_uncertainty(ensemble: str | None, sets: str | None, refer: str | None) -> UncertaintyRules:
    """The rules of --ensemble, --sets and --refer. Raises InputError."""
    from transfer.metrics.set_rule import parse_set_rule
    from transfer.tables.ensemble_rows import parse_ensembles
    from transfer.tables.referral import parse_shares

    return UncertaintyRules(
        None if ensemble is None else parse_ensembles(ensemble),
        None if sets is None else parse_set_rule(sets),
        None if refer is None else parse_shares(refer),
    )


def add_ensemble_rows(sections: "list[Section]", rules: UncertaintyRules) -> "tuple[list[Section], list[Ensemble]]":
    """The sections with the rows of ensembles, and these ensembles."""
    from transfer.tables.ensemble_rows import add_ensembles

    return (sections, []) if rules.ensembles is None else add_ensembles(sections, rules.ensembles)


def check_uncertainty(sections: "Sequence[Section]", rules: UncertaintyRules) -> None:
    """Raises InputError if the sections have nothing to show of what was asked for. What is computed for that is kept."""
    from transfer.tables.prediction_sets import gather_sets
    from transfer.tables.referral import gather_referrals

    if rules.sets is not None:
        gather_sets(sections, rules.sets)
    if rules.refer is not None:
        gather_referrals(sections, rules.refer)


def print_and_save_uncertainty(sections: "Sequence[Section]", ensembles: "Sequence[Ensemble]", rules: UncertaintyRules) -> None:
    """Prints the tables and writes them beside the records."""
    from encoders.runtime.paths import records_dir
    from transfer.tables.ensemble_table import ensembles_to_csv, print_ensembles
    from transfer.tables.prediction_sets import gather_sets, print_sets, sets_to_csv
    from transfer.tables.referral import gather_referrals
    from transfer.tables.referral_table import print_referrals, referrals_to_csv
    from transfer.tables.render import write_table

    if ensembles:
        print_ensembles(make_console(), ensembles)
        write_table(records_dir() / "ensembles.csv", ensembles_to_csv(ensembles))
    if rules.sets is not None:
        sets = gather_sets(sections, rules.sets)
        print_sets(make_console(), sets, rules.sets)
        write_table(records_dir() / "prediction_sets.csv", sets_to_csv(sets, rules.sets))
    if rules.refer is not None:
        referred = gather_referrals(sections, rules.refer)
        print_referrals(make_console(), referred, rules.refer)
        write_table(records_dir() / "referrals.csv", referrals_to_csv(referred, rules.refer))
