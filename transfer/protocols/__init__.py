"""Protocols by name. Each is a module with `Config`, `VERSION`, `NEEDS` ("pooled" features, "bags", "images") and `fit`: `common.py`."""

from types import ModuleType

from transfer.protocols import fewshot, finetune, knn, linear, mil

PROTOCOLS: dict[str, ModuleType] = {"knn": knn, "linear": linear, "fewshot": fewshot, "finetune": finetune, "mil": mil}
