"""What is printed are the texts themselves: names in them are no markup, no emoji and no commands to the terminal."""

import pytest
from rich.table import Table

from encoders.runtime.cli import make_console

ODD = {
    "[red]a[/red]": "[red]a[/red]", "[/]": "[/]", "a[crop]": "a[crop]", ":warning:": ":warning:", "\\[b]": "\\[b]",
    "\x1b[31mred": "\\x1b[31mred", "\x1b]0;title\x07": "\\x1b]0;title\\x07", "a\rb": "a\\rb", "a\u202eb": "a\\u202eb", "é ²": "é ²",
}  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), ODD.items())
def test_a_text_is_printed_as_it_is(capsys, text, shown):
    table = Table("name", box=None, pad_edge=False, show_header=False)
    table.add_row(text)
    for printed in (text, table):
        make_console().print(printed)
        assert capsys.readouterr().out.rstrip() == shown
