"""What may be searched: short names, and the ranges that are searched when the user gives none.

The ranges span about a factor of ten on either side of the default where its scale is unknown, and the values in use where it is known.
"""

from dataclasses import dataclass
from typing import Literal

Scale = Literal["log", "linear"]


@dataclass(frozen=True)
class SearchedSetting:
    """A setting of fine-tuning that has a range of its own.

    range: as the user would write it.  scale: of a range; None: values beside each other.  help: one line."""

    range: str
    scale: Scale | None
    help: str


SHORT_NAMES = {
    "lr": "optim.lr",
    "weight_decay": "optim.weight_decay",
    "mixup": "mixup.alpha",
    "cutmix": "cutmix.alpha",
    "augment_strength": "augment.randaugment_strength",
}

SEARCHED: dict[str, SearchedSetting] = {
    "optim.lr": SearchedSetting("3e-5..3e-3", "log", "base learning rate"),
    "optim.weight_decay": SearchedSetting("1e-3..0.5", "log", "weight decay"),
    "epochs": SearchedSetting("3..30", "log", "passes over the train images"),
    "layer_decay": SearchedSetting("0.6..1", "linear", "learning rate factor per layer, from the head down"),
    "head_lr": SearchedSetting("0.3..30", "log", "learning rate of the head, as a multiple of the base rate"),
    "drop_path": SearchedSetting("0..0.3", "linear", "stochastic depth; transformers and networks that have it"),
    "batch": SearchedSetting("16|32|64", None, "images per step"),
    "ema": SearchedSetting("0|0.9|0.99|0.999", None, "decay of the averaged weights"),
    "warmup": SearchedSetting("0..0.3", "linear", "share of the steps in which the learning rate rises"),
    "freeze_bn": SearchedSetting("false|true", None, "keep the BatchNorm statistics of the encoder"),
    "mixup.alpha": SearchedSetting("0|0.1|0.2|0.4", None, "mixup; 0: none"),
    "cutmix.alpha": SearchedSetting("0|0.5|1", None, "CutMix; 0: none"),
    "augment.randaugment_strength": SearchedSetting("1..9", "linear", "strength of RandAugment, which must be on"),
    "linear.head_lr": SearchedSetting("1..100", "log", "strategies linear and lpft"),
    "last.count": SearchedSetting("1|2|3", None, "strategy last"),
    "lpft.share": SearchedSetting("0.2..0.8", "linear", "strategy lpft"),
    "gradual.share": SearchedSetting("0.2..0.8", "linear", "strategy gradual"),
    "lora.rank": SearchedSetting("2|4|8|16|32", None, "strategy lora"),
    "lora.alpha": SearchedSetting("4..64", "log", "strategy lora"),
    "lora.lr": SearchedSetting("0.3..30", "log", "strategy lora"),
    "l2sp.weight": SearchedSetting("1e-4..1", "log", "strategy l2sp"),
    "effective.beta": SearchedSetting("0.9|0.99|0.999|0.9999", None, "imbalance effective"),
    "focal.gamma": SearchedSetting("0.5..5", "linear", "imbalance focal"),
    "asymmetric.negative_gamma": SearchedSetting("1..8", "linear", "imbalance asymmetric"),
    "logit_adjustment.tau": SearchedSetting("0.25..2", "linear", "imbalance logit_adjustment"),
    "ldam.max_margin": SearchedSetting("0.1..1", "linear", "imbalance ldam"),
}

# What decides how trials are compared, or is compared by another option, is the same for all of them.
FIXED = {
    "seed": "every trial has the seed of the benchmark",
    "workers": "no result depends on it",
    "precision": "all trials have one arithmetic",
    "evaluations": "all trials have as many validations",
    "patience": "it changes how many images a trial sees; set it for all with finetune.patience=N",
    "strategy": "strategies are compared with --strategies",
    "imbalance": "approaches to imbalance are compared with --strategies STRATEGY+APPROACH",
    "search": "a search does not search itself",
}


def parameter_name(setting: str) -> str:
    """The name by which a setting is searched: `lr` for `optim.lr`."""
    return next((name for name, full in SHORT_NAMES.items() if full == setting), setting)


def list_search_ranges() -> list[tuple[str, str, str]]:
    """(name, range with its scale, description) of everything that has a range of its own."""
    ranges = {setting: entry.range + (f":{entry.scale}" if entry.scale else "") for setting, entry in SEARCHED.items()}
    return [(parameter_name(setting), ranges[setting], entry.help) for setting, entry in SEARCHED.items()]
