"""The settings of fine-tuning."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from encoders.runtime.errors import InputError
from encoders.runtime.optim_config import Optim
from encoders.zoo.tta_settings import TtaSettings
from transfer.losses.settings import ImbalanceSettings, own_imbalance
from transfer.protocols.mixing_settings import MixingSettings, own_mixing
from transfer.protocols.search_space import check_ends, list_own_parameters
from transfer.search.draws import draw_trials
from transfer.search.settings import SearchGroup, own_search
from transfer.strategies.names import own_settings
from transfer.strategies.settings import StrategySettings


class Config(StrategySettings, ImbalanceSettings, MixingSettings, SearchGroup):
    """How the encoder is trained on labels."""

    batch: int = Field(32, ge=2, description="images per step; fewer when there are fewer train rows")
    epochs: float = Field(10.0, gt=0, description="passes over the train rows, limited to between min_steps and max_steps steps")
    min_steps: int = Field(200, ge=1, description="minimum number of steps")
    max_steps: int = Field(20_000, ge=1, description="maximum number of steps")
    evaluations: int = Field(10, ge=1, description="number of validations, evenly spaced")
    patience: int = Field(4, ge=1, description="validations without a better score after which training stops")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    optim: Optim = Field(
        Optim(kind="adamw", lr=3e-4, lr_rule="none", weight_decay=0.05, betas=(0.9, 0.999), lr_end=0.01), description="optimizer"
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="learning rate factor per layer, from the head down; null: 0.75 for transformers, 0.9 for CNNs"
    )
    head_lr: float = Field(1.0, gt=0, description="learning rate of the head, as a multiple of the base rate")
    drop_path: float | None = Field(None, ge=0, lt=1, description="stochastic depth; null: 0.1 for transformers, 0 for CNNs")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features before the head that dropout sets to zero in training")
    ema: float = Field(
        0.99, ge=0, lt=1, description="decay per step of the averaged weights, which are validated and kept; 0: no averaging"
    )
    clip: float = Field(1.0, ge=0, description="maximum gradient norm; 0: no clipping")
    class_weight: Literal["balanced", "none"] = Field(
        "balanced", description="equal weight of all classes in the loss; removed again from the scores; with imbalance class_weight"
    )
    augment: dict[str, Any] = Field(
        {"preset": "auto"}, description="preset and knobs; auto: finetune_<modality of the store>, or none if there is no such preset"
    )
    freeze_bn: bool = Field(
        False, description="use and keep the encoder's BatchNorm statistics; useful for very small batches, not for random weights"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of training; auto: fp32 on a CPU, bf16 on a GPU that has it, otherwise fp16 with a scaled loss. The record "
        "holds what auto became. Validation and test images are scored in fp32, and fp32 is without TF32",
    )
    tta: TtaSettings = Field(
        TtaSettings(), description="test-time augmentation: validation and test scores are those of the mean logits of several views"
    )
    workers: int = Field(0, ge=0, description="loader processes of training and scoring; results do not depend on it")
    seed: int = Field(0, description="seed of the head, the order, the augmentation, mixing and drop path")

    @model_validator(mode="after")
    def _check_looks(self) -> Self:
        alphas = self.wise.alphas
        if self.strategy == "wise" and alphas is not None and len(alphas) != self.evaluations:
            raise ValueError(
                f"wise.alphas has {len(alphas)} values, and evaluations is {self.evaluations}; give equal numbers, so that all strategies "
                "have as many validations"
            )
        return self

    @model_validator(mode="after")
    def _check_search(self) -> Self:
        """The ends of all ranges are settings that it takes, so that a wrong one is an error now and not in the last trial."""
        own = list_own_parameters(self.strategy, self.imbalance, self.search.parameters)
        try:
            if own:
                check_ends(type(self), self.model_dump(), own)
            draw_trials(own, self.search.trials if own else 1, self.search.seed)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @model_serializer(mode="wrap")
    def _dump_own_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields that are used: records of plain fine-tuning, and their hash, are those of versions without the other settings."""
        used = own_search(own_mixing(own_imbalance(own_settings(serialize(self)))))
        unused = {*([] if self.tta.is_on else ["tta"]), *([] if self.dropout else ["dropout"])}
        return {name: value for name, value in used.items() if name not in unused}
