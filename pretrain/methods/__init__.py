"""The methods by name. Import it inside commands only: it imports torch."""

from pretrain.methods.barlowtwins import BarlowTwins
from pretrain.methods.byol import BYOL
from pretrain.methods.dino import DINO
from pretrain.methods.dinov2 import DINOv2
from pretrain.methods.ijepa import IJEPA
from pretrain.methods.lejepa import LeJEPA
from pretrain.methods.mae import MAE
from pretrain.methods.method import DataShape, Method, Reconstructs
from pretrain.methods.moco import MoCo
from pretrain.methods.mocov3 import MoCoV3
from pretrain.methods.simclr import SimCLR
from pretrain.methods.simmim import SimMIM
from pretrain.methods.simsiam import SimSiam
from pretrain.methods.spark import SparK
from pretrain.methods.supcon import SupCon
from pretrain.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {
    "moco": MoCo,
    "mae": MAE,
    "simclr": SimCLR,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlowtwins": BarlowTwins,
    "vicreg": VICReg,
    "mocov3": MoCoV3,
    "dino": DINO,
    "dinov2": DINOv2,
    "lejepa": LeJEPA,
    "simmim": SimMIM,
    "ijepa": IJEPA,
    "supcon": SupCon,
    "spark": SparK,
}

__all__ = ["METHODS", "DataShape", "Method", "Reconstructs"]
