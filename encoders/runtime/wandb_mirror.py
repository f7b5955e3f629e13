"""Weights & Biases as a mirror: we decide its mode before it starts; it never asks, never hangs, and never stops a run."""

import secrets
from pathlib import Path
from typing import Any, Literal

Mode = Literal["online", "offline", "disabled"]


def new_id() -> str:
    """A fresh run id, eight characters as W&B makes them."""
    return secrets.token_hex(4)


def decide() -> Mode:
    return "disabled"


class Mirror:
    """One W&B run."""

    def __init__(self, run_dir: Path, mode: Mode, **about: Any):
        self.run: Any = None

    def log(self, step: int, values: dict[str, float]) -> None: ...
    def image(self, step: int, name: str, picture: Any) -> None: ...
    def summary(self, flat: dict[str, Any]) -> None: ...
    def artifact(self, name: str, folder: Path, metadata: dict[str, Any]) -> None: ...
    def close(self, failed: bool) -> None: ...
