"""A self-contained HTML page: one style for screen, dark mode, phone and paper, and a policy by which the browser fetches nothing."""

import base64
import hashlib
from importlib.resources import files

from encoders.runtime.html import Html, tag


def render_document(title: str, *body: Html, style: str = "", script: str = "", generator: str = "isograft") -> str:
    """The HTML of a page. No other script than `script` runs, whatever a name on the page contains.

    style: CSS in addition to the common style.  script: JavaScript without the characters `</`.  generator: what wrote the page."""
    allowed = f"; script-src 'sha256-{_hash_script(script)}'" if script else ""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'{allowed}"
    common = (files("encoders.runtime") / "page.css").read_text()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content=generator),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(common + style)),
    )
    end = tag("script", Html(script)) if script else None
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *body), end), lang='en')}\n"


def _hash_script(script: str) -> str:
    """The SHA-256 of a script as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
