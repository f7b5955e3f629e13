"""The precisions by name, for command lines and records, which do not import torch."""

from typing import Literal, TypeAlias

FeaturePrecision: TypeAlias = Literal["fp32", "bf16"]
TrainingPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]
FEATURE_PRECISION_HELP = (
    "arithmetic of the networks that compute features. fp32: single precision, without TF32. bf16: half precision, which is faster on "
    "a GPU that has it; the features are stored as float32 and never mixed with those in fp32"
)
