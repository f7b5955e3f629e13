"""The console of all commands: texts are printed as they are, because names, keys and reasons in them are data."""

import re

from rich.console import Console, HighlighterType, JustifyMethod, OverflowMethod
from rich.style import Style
from rich.text import Text

CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # all but the tab and the end of a line


class PlainConsole(Console):
    """A console without markup and emoji codes; what could move the cursor, colour a terminal or turn the direction is shown as escapes."""

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """A text of a table's cell or of `print`, as rich renders it."""
        shown = CONTROL_CHARACTER.sub(lambda found: repr(found[0])[1:-1], text)
        return super().render_str(
            shown, style=style, justify=justify, overflow=overflow, emoji=False, markup=False, highlight=highlight, highlighter=highlighter
        )
