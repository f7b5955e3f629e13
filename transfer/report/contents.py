"""The table of contents: every heading gets an address and a link to it."""

import re
from collections.abc import Sequence

from encoders.runtime.html import Html, collapsible_section, tag

HEADING_PATTERN = re.compile(r"<(h[23])>(.*?)</\1>")  # as `tag` writes headings; their text is already escaped


def add_contents(sections: Sequence[Html]) -> tuple[list[Html], Html]:
    """The sections with addresses on their headings, and the list of links. Addresses are numbers, so no name on the page can forge one."""
    addressed, entries = [], []
    for i, section in enumerate(sections):
        titles: list[str] = []

        def add_address(match: re.Match[str], i: int = i, titles: list[str] = titles) -> str:
            titles.append(match[2])
            return f'<{match[1]} id="s{i}-{len(titles)}">{match[2]}</{match[1]}>'

        addressed.append(Html(HEADING_PATTERN.sub(add_address, section)))
        links = [tag("a", Html(title), href=f"#s{i}-{n + 1}") for n, title in enumerate(titles)]
        if links:
            below = tag("ul", *(tag("li", link) for link in links[1:])) if links[1:] else None
            entries.append(tag("li", links[0], below))
    return addressed, tag("nav", collapsible_section("Contents", tag("ol", *entries)), class_="contents", aria_label="contents")
