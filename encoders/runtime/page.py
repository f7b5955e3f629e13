"""A self-contained HTML page: one style for screen, dark mode, phone and paper, and a policy by which the browser fetches nothing."""

import base64
import hashlib
from importlib.resources import files

from encoders.runtime.html import Html, tag


def render_document(title: str, *body: Html, style: str = "", script: str = "", generator: str = "isograft") -> str:
    """The HTML of a page. No other script than `script` runs, whatever a name on the page contains.

    style: CSS in addition to the common style.  script: JavaScript without the characters `</`.  generator: what wrote the page."""
    common = (files("encoders.runtime") / "page.css").read_text()
    end = tag("script", Html(script)) if script else None
    return render_bare_document(title, tag("body", tag("main", *body), end), common + style, script, generator)


def render_bare_document(title: str, body: Html, style: str, script: str = "", generator: str = "isograft") -> str:
    """As `render_document`, without the common style.  body: the body element, with the script in it."""
    if "</" in script:
        raise ValueError("a script in a page must not contain `</`, at which a browser may end it")
    if "</" in style:
        raise ValueError("a style in a page must not contain `</`, at which a browser may end it")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),  # first, so that it is among the bytes from which a browser takes the encoding
        tag("meta", http_equiv="Content-Security-Policy", content=build_policy(script)),
        tag("meta", name="generator", content=generator),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def build_policy(script: str = "") -> str:
    """The policy of a page: nothing is fetched, sent or embedded, and no script runs but this one, which is known by its hash."""
    allowed = f"; script-src 'sha256-{_hash_script(script)}'" if script else ""
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'{allowed}"


def _hash_script(script: str) -> str:
    """The SHA-256 of a script as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
