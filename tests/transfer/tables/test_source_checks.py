"""Tables say which imported encoders were never compared with their source, and which differ from it."""

import subprocess
import sys
from types import SimpleNamespace

from encoders.runtime.paths import zoo_dir
from encoders.zoo import zoo
from encoders.zoo.card import Card
from tests.encoders.zoo.small import tiny_card, tiny_network
from transfer.tables.caveats import describe_source_checks


def test_a_table_names_encoders_that_were_never_compared_or_differ():
    checks = {"equal": 1e-7, "other": 0.2}
    for name in ("imported", *checks):
        zoo.publish_encoder(name, tiny_network(), tiny_card(name, source="w.pt"))
    zoo.publish_encoder("trained", tiny_network(), tiny_card("trained", config={"arch": "resnet10t"}))
    for name, relative in checks.items():
        file = zoo_dir() / name / "card.yaml"
        check = {"relative": relative, "absolute": relative, "tensors": 6, "software": "theirs.Net", "answer_sha256": "0" * 64}
        Card.read(file).replace(source_check=check).write(file)
    names = ["imported", "imported", "equal", "other", "trained", "random_resnet10t:size=64", "imported+pixels", "gone"]
    block = [SimpleNamespace(rows=[SimpleNamespace(encoder=name) for name in names])]
    lines = describe_source_checks(block, {name: name for name in names})
    assert [line.split(":")[0] for line in lines] == ["imported", "other", "imported+pixels"]
    assert lines[0] == "imported: never compared with its source; see `encoders probe`"
    assert "NOT equal to its source: max difference 0.2" in lines[1]


def test_tables_are_printed_without_torch():
    """Its import takes four seconds, kept results a tenth of one."""
    code = "import sys, transfer.tables.caveats, transfer.tables.render; print(*{'torch', 'timm', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
