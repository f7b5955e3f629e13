"""Random transforms of whole batches: one file per operation; settings in `config` and `presets`; `draw`, then `apply`; masks."""

from encoders.augment.config import Augment
from encoders.augment.presets import PRESETS, get_preset, resolve_augment

__all__ = ["PRESETS", "Augment", "get_preset", "resolve_augment"]
