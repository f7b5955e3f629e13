"""The part of a card that describes a head: what an encoder that was fine-tuned on a task predicts, and how it decides.

The head is linear: logits = features @ weight.T + bias. Its tensors are in `head.safetensors` beside the weights (encoders/zoo/head.py).
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from encoders.runtime.config import Config
from encoders.zoo.tta_settings import TtaSettings, describe_tta

HeadKind = Literal["binary", "multilabel", "multiclass"]
NEVER = 2.0  # a threshold that no probability reaches
HEX_SHA256 = r"^[0-9a-f]{64}$"


class StoredImages(Config):
    """How the images of the task were stored, so that files are prepared for the network in the same way."""

    command: str = Field(description="the ingest command")
    channels: Literal[1, 3] = Field(description="channels of the store")
    dtype: Literal["uint8", "uint16"] = Field(description="type of the stored values")
    codec: Literal["raw", "jpeg"] = Field(description="raw pixels, or JPEG")
    scale: float = Field(gt=0, description="stored value of white, less the offset")
    offset: float = Field(0.0, description="stored value of black")
    size: int = Field(ge=0, description="side of the stored squares, pixels; 0: the size of the files")
    resize: Literal["pad", "crop", "squash", "none"] = Field(description="rule by which files became squares")
    bits: int | Literal["auto"] | None = Field(None, description="bits that 16-bit files use; auto: found by group; null: all")
    normalise: Literal["macenko", "reinhard"] | None = Field(None, description="method of stain normalisation")
    remove_hair: Literal["dullrazor"] | None = Field(None, description="method that removes hairs")
    voi: Literal["auto", "lut", "window", "none"] = Field("auto", description="of DICOM files: which window")
    window: dict[str, Any] | None = Field(None, description="of DICOM files: center, width and name of a fixed window")
    crop_borders: bool = Field(False, description="of DICOM files: whether uniform borders are removed")
    tiling: dict[str, Any] | None = Field(None, description="of tiles of slides: how slides became tiles; null: the images are none")


class Head(Config):
    """A classifier on the pooled features, and how its probabilities were calibrated on validation images."""

    kind: HeadKind = Field(description="binary and multilabel: a probability for each label; multiclass: one of the classes is true")
    classes: tuple[str, ...] = Field(min_length=1, description="the labels or classes, in the order of the outputs")
    task: str = Field(description="name of the task that it was trained on")
    task_digest: str = Field(description="of the definition of the task, 16 hex digits")
    labels_digest: str = Field(description="of the labels of the task, 16 hex digits")
    split_digest: str = Field(description="of the images of each part of the task, 16 hex digits")
    strategy: str = Field(description="strategy of fine-tuning")
    temperature: float = Field(gt=0, description="the logits are divided by it before they become probabilities")
    thresholds: tuple[float, ...] | None = Field(
        None, description="calibrated probability from which a label is positive, one per label; null: the most probable class is chosen"
    )
    calibration_images: int = Field(ge=1, description="validation images by which temperature and thresholds were chosen")
    calibration_patients: int = Field(ge=1, description="patients of these images")
    validation_score: float = Field(description="score of the kept weights on validation images: macro AUROC")
    images: tuple[StoredImages, ...] = Field((), description="how the images of each of its stores were stored; equal ones once")
    sha256: str = Field(pattern=HEX_SHA256, description="of head.safetensors")
    tta: TtaSettings | None = Field(None, description="views whose mean logits were calibrated and are predicted; null: the image alone")

    @model_validator(mode="after")
    def _thresholds_fit(self) -> "Head":
        if (self.kind == "multiclass") != (self.thresholds is None):
            raise ValueError(f"thresholds are {self.thresholds} and kind is {self.kind}; a multiclass head has none, the others have them")
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise ValueError(f"there are {len(self.thresholds)} thresholds and {len(self.classes)} classes, expected one per class")
        if self.thresholds is not None and not all(0 <= cut <= NEVER for cut in self.thresholds):
            raise ValueError(f"thresholds are {list(self.thresholds)}, expected probabilities, or {NEVER:g} for never")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes are {', '.join(self.classes)}, expected different names")
        return self


def describe_head(head: Head) -> str:
    """The head in words: task, classes, decisions and calibration."""
    if head.thresholds is None:
        rule = f"the most probable of {', '.join(head.classes)}"
    else:
        pairs = zip(head.classes, head.thresholds, strict=True)
        rule = ", ".join(f"{name} from {cut:.3g}" if cut < NEVER else f"{name} never" for name, cut in pairs)
    views = f"; mean of the logits of image, {describe_tta(head.tta)}" if head.tta else ""
    return (
        f"{head.kind} task {head.task}, strategy {head.strategy}; decides {rule}; temperature {head.temperature:.3g}, on "
        f"{head.calibration_images:,} validation images of {head.calibration_patients:,} patients{views}; `transfer predict` uses it"
    )
