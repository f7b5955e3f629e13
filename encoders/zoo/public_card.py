"""The card of an encoder as it may be passed on."""

from pathlib import Path

from encoders.runtime.redact import redact_private
from encoders.zoo.card import Card


def publish_card(card: Card) -> Card:
    """The card without files, folders, dates, hosts and users of this machine, also in the cards of its parts."""
    config, corpus = (None if value is None else redact_private(value) for value in (card.config, card.corpus))
    parts = None if card.parts is None else [publish_card(part).model_dump() for part in card.parts]
    lineage = {key: _publish_value(value) for key, value in card.lineage.items()}
    return card.replace(config=config, corpus=corpus, lineage=lineage, **({} if parts is None else {"parts": parts}))


def _publish_value(value: object) -> object:
    """A value of a lineage: names of encoders stay as they are, those of files and folders do not."""
    if isinstance(value, dict):
        return {key: _publish_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_publish_value(item) for item in value]
    if not isinstance(value, str):
        return value
    local = Path(value).is_absolute() or ".." in value or Path(value).suffix in (".yaml", ".yml")
    return redact_private(value) if local else value
