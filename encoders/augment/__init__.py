"""Random transforms of whole batches: what to draw (`config`, `presets`), the draws (`draw`), applying them (`apply`), masks."""

from encoders.augment.config import Augment
from encoders.augment.presets import PRESETS, get_preset, resolve_augment

__all__ = ["PRESETS", "Augment", "get_preset", "resolve_augment"]
