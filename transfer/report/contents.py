"""The table of contents: every heading gets an address, and a link to it."""

import re
from collections.abc import Sequence

from encoders.runtime.html import Html, collapsible_section, tag

HEADING_PATTERN = re.compile(r"<(h[23])>(.*?)</\1>")  # as `tag` writes them: what stands inside is escaped already


def add_contents(sections: Sequence[Html]) -> tuple[list[Html], Html]:
    """The sections with addresses on their headings, and a list of links. Addresses are numbers: no name can forge one."""
    done, entries = [], []
    for i, section in enumerate(sections):
        found: list[str] = []

        def addressed(match: re.Match[str], i: int = i, found: list[str] = found) -> str:
            found.append(match[2])
            return f'<{match[1]} id="s{i}-{len(found)}">{match[2]}</{match[1]}>'

        done.append(Html(HEADING_PATTERN.sub(addressed, section)))
        links = [tag("a", Html(title), href=f"#s{i}-{n + 1}") for n, title in enumerate(found)]
        if links:
            below = tag("ul", *(tag("li", link) for link in links[1:])) if links[1:] else None
            entries.append(tag("li", links[0], below))
    return done, tag("nav", collapsible_section("Contents", tag("ol", *entries)), class_="contents", aria_label="contents")
