"""The methods by name: the only place that names them all. Imported inside commands only (it needs torch)."""

from pretrain.methods.common import DataShape, Method
from pretrain.methods.mae import MAE
from pretrain.methods.moco import MoCo

METHODS: dict[str, type[Method]] = {"moco": MoCo, "mae": MAE}

__all__ = ["METHODS", "DataShape", "Method"]
