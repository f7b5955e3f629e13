"""Protocols by name. Each is a module with `Config`, `VERSION`, `NEEDS` ("pooled" features, or "images") and `fit`; see `common.py`."""

from types import ModuleType

from transfer.protocols import fewshot, finetune, knn, linear

PROTOCOLS: dict[str, ModuleType] = {"knn": knn, "linear": linear, "fewshot": fewshot, "finetune": finetune}
