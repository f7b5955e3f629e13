"""The methods by name: the only place that names them all. Imported inside commands only (it needs torch)."""

from pretrain.methods.common import DataShape, Method

METHODS: dict[str, type[Method]] = {}

__all__ = ["METHODS", "DataShape", "Method"]
