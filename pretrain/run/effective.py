"""What the settings of a run became: automatic values, and those that follow from the data or from other settings."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias

from encoders.runtime.lr_rule import scale_lr
from encoders.runtime.redact import hide_path
from encoders.zoo.pretraining_columns import count_images_seen
from pretrain.run.run_info import RunInfo
from pretrain.watch.diagnose import MetricsLine

EffectiveRow: TypeAlias = tuple[str, str, str]  # name, value, how it came about


def list_effective_values(settings: Mapping[str, Any], info: RunInfo) -> list[EffectiveRow]:
    """The values that the run used, in the order of a recipe.  settings: those of config.yaml, resolved."""
    optim, prep, batch, parts = settings["optim"], settings["preprocess"], int(settings["batch"]), int(settings["accumulate"])
    steps, warmup, images = info["steps"], info.get("warmup", 0), info["images"]
    seen, rule, channels = count_images_seen(steps, batch, changes_of(info)), optim["lr_rule"], settings["channels"]
    decay = _describe_decay(optim["weight_decay"], optim.get("weight_decay_end"))
    return [
        ("network", str(settings["arch"]), describe_start(settings)),
        ("input", f"{settings['size']} px, {channels} channel{'s' if channels != 1 else ''}", describe_pixel_values(prep)),
        ("images", f"{images:,}", _describe_files(settings["data"]["store"])),
        ("steps", f"{steps:,}", f"{seen / max(images, 1):,.1f} epochs, {seen:,} images seen"),
        ("warm-up", f"{warmup:,} steps", f"{100 * warmup / max(steps, 1):.0f} % of the run"),
        ("batch", f"{batch:,} images", f"in {parts} parts per process" if parts > 1 else ""),
        (
            "learning rate at its peak",
            f"{scale_lr(optim['lr'], rule, batch):.3g}",
            f"optim.lr={optim['lr']:g}, {rule} rule" if rule != "none" else f"optim.lr={optim['lr']:g}, not scaled to the batch",
        ),
        ("optimizer", str(optim["kind"]), f"{optim.get('schedule', 'cosine')} schedule, weight decay {decay}"),
        ("precision", str(settings["precision"]), "of the network; losses are float32"),
        *([("BatchNorm", str(settings["batchnorm"]), "")] if settings.get("batchnorm") else []),
        ("CPU threads", str(settings.get("threads") or "one for each CPU that was free"), ""),
        ("licence of the images", str(settings.get("licence")), ""),
    ]


def changes_of(info: RunInfo) -> list[dict[str, Any]]:
    """The changes of settings at a resume."""
    return [dict(change) for change in info.get("changes", [])]


def describe_start(settings: Mapping[str, Any]) -> str:
    """Which weights the run started from."""
    start = settings.get("init")
    return f"starts from {hide_path(str(start))}" if start else f"starts from random weights, seed {settings['seed']}"


def describe_speed(lines: Sequence[MetricsLine]) -> Mapping[str, float]:
    """Medians over the logged lines of images/s and of the share of time waiting for images, and the highest memory in GiB.

    {} without lines."""
    rates = [line["time/images_per_s"] for line in lines if "time/images_per_s" in line]
    if not rates:
        return {}
    waits = [line.get("time/data_wait", 0.0) for line in lines]
    return {"rate": median(rates), "wait": median(waits), "memory": max(line.get("time/memory_gib", 0.0) for line in lines)}


def describe_pixel_values(prep: Mapping[str, Any]) -> str:
    """Mean and standard deviation of the pixels, which a recipe may leave to the corpus."""
    mean, std = prep.get("mean"), prep.get("std")
    if not mean or not std:
        return ""
    return f"mean {', '.join(f'{v:.3g}' for v in mean)}, standard deviation {', '.join(f'{v:.3g}' for v in std)}"


def _describe_files(store: str | Sequence[str] | None) -> str:
    stores = [store] if isinstance(store, str) else list(store or [])
    return f"of {len(stores)} store{'s' if len(stores) != 1 else ''}"  # a store may be named after a patient


def _describe_decay(start: float, end: float | None) -> str:
    return f"{start:g}" if end is None else f"{start:g} to {end:g}"
