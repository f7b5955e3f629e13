"""From a recipe to everything that the loop needs: images, backbone, method, optimizer, and the card of the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from encoders.loading.batches import Batches
from encoders.loading.worker_count import choose_worker_count
from encoders.runtime import dist, optim
from encoders.runtime.arithmetic import has_bf16
from encoders.runtime.config import validate_config
from encoders.runtime.cpu_bf16 import describe_wrong_gradient, has_wrong_bf16_gradient
from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.card import Card
from pretrain.loop.batchnorm_mode import describe_batchnorm, freeze_backbone, resolve_batchnorm, synchronise_batchnorm
from pretrain.loop.compiled import compile_method
from pretrain.loop.complete_recipe import build_preprocess, complete_recipe
from pretrain.loop.continuation import Continuation, build_continuation, build_groups, copy_start, describe_continuation, reload_start
from pretrain.loop.corpus import Corpus, open_corpus
from pretrain.loop.initial_card import build_first_card
from pretrain.loop.initial_weights import enable_grad_checkpointing, is_plain_vit, load_initial_weights
from pretrain.loop.label_use import LabelUse, gather_labels
from pretrain.loop.sampling_weights import row_weights
from pretrain.methods import METHODS, DataShape, Method
from pretrain.recipe import positives
from pretrain.recipe.config import Recipe, augmentation, method_config


@dataclass
class Setup:
    """Everything that a run consists of, at step 0."""

    recipe: Recipe  # complete: no setting is left open
    corpus: Corpus
    method: Method
    batches: Batches
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    card: Card
    continuation: Continuation  # what is added to the method
    labels: LabelUse
    steps: int
    warmup: int  # steps
    device: torch.device


def build_setup(recipe: Recipe, device: str, card: Mapping[str, object] | None = None) -> Setup:
    """Everything for a run; the same recipe and store give bit-identical objects in every call.

    card: that of the checkpoint that is restored next; then nothing is measured, because the checkpoint holds the weights, and `init` is
    loaded only for the terms of `anchor`."""
    images = open_corpus(recipe)
    if len(images.index) < recipe.batch:
        raise InputError(f"batch={recipe.batch} is more than the {len(images.index)} images to train on; lower batch or add images")
    recipe, initial_encoder = complete_recipe(recipe, images) if card is None else (recipe, None)
    shape = DataShape(len(images.index), recipe.size, recipe.channels or 1, recipe.batch, recipe.init is not None, recipe.accumulate)
    kind = METHODS[recipe.method["name"]]
    if kind.plain_vit_only and not is_plain_vit(backbone.validate_arch(str(recipe.arch))):
        raise InputError(f"method {recipe.method['name']} needs a plain ViT; arch={recipe.arch} is none: try vit_tiny_patch16_224")
    network = backbone.build_backbone(str(recipe.arch), recipe.model_args, shape.channels, recipe.size, recipe.drop_path, recipe.seed)
    if card is not None and recipe.anchor.active:
        initial_encoder = reload_start(recipe, card)
    if initial_encoder is not None:
        load_initial_weights(network, initial_encoder)
    start = copy_start(recipe, network)
    recipe = resolve_batchnorm(recipe, kind, network, restored=card is not None)
    freeze_backbone(recipe, network)
    if recipe.checkpointing:
        enable_grad_checkpointing(network, str(recipe.arch))
    torch.manual_seed(recipe.seed)  # heads, decoder and queue are drawn next
    method = kind(method_config(recipe), network, shape).to(device)
    synchronise_batchnorm(recipe, method)
    start = start.to(device) if start is not None else None
    if recipe.channels_last:
        method = method.to(memory_format=torch.channels_last)
        start = start.to(memory_format=torch.channels_last) if start is not None else None
    if recipe.compile:
        compile_method(method)
    pixels = recipe.preprocess
    views = method.views(augmentation(recipe))
    recipe = resolve_precision(recipe, network, shape.channels, [view.size or recipe.size for view in views], torch.device(device))
    prep = build_preprocess(recipe, tuple(pixels.mean or ()), tuple(pixels.std or ()))
    drawn = row_weights(images, recipe.data.weights, recipe.data.balance)
    labels = gather_labels(recipe, images, method.label_column(), drawn, card)
    batches = Batches(
        images.store,
        views,
        prep,
        seed=recipe.seed,
        batch=recipe.batch,
        index=images.index,
        rank=dist.rank(),
        world=dist.world_size(),
        accumulate=recipe.accumulate,
        workers=choose_worker_count(recipe.data.workers, torch.device(device), images.store),
        prefetch=recipe.data.prefetch,
        device=device,
        mask=method.mask_spec(),
        context=recipe.data.context,
        weights=drawn,
        partners=positives.find_partners(recipe.data.positives, images.store, images.index, len(views)),
        patients=positives.patient_codes(images.store) if method.needs_patients() else None,
        class_ids=labels.class_ids(),
        targets=labels.targets(),
    )
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=recipe.precision == "fp16")
    steps = recipe.steps or max(1, round((recipe.epochs or 1) * batches.steps_per_epoch))
    warmup = recipe.warmup_steps or round(recipe.warmup_epochs * batches.steps_per_epoch)
    if warmup >= steps:
        raise InputError(f"the warm-up ({warmup} steps) is not shorter than the run ({steps} steps); lower warmup_steps or warmup_epochs")
    continuation = build_continuation(recipe, method, network, start, warmup, steps, labels.auxiliary)
    groups = build_groups(recipe, method, network) + (continuation.auxiliary.param_groups() if continuation.auxiliary else [])
    optimizer = optim.build_optimizer(groups, recipe.optim, recipe.batch)
    run_card = (
        validate_config(Card, card, "the checkpoint's card").replace(preprocess=prep.model_dump())  # a resumed run may change its size
        if card
        else build_first_card(recipe, prep, images, initial_encoder, network, labels)
    )
    return Setup(recipe, images, method, batches, optimizer, scaler, run_card, continuation, labels, steps, warmup, torch.device(device))


def resolve_precision(recipe: Recipe, network: nn.Module, channels: int, sizes: Sequence[int], device: torch.device) -> Recipe:
    """The recipe with a precision: for `auto` bf16 where the device computes it natively and correctly, else fp32.

    sizes: pixels a side of the views.  Raises InputError for bf16 where gradients would be wrong (`encoders.runtime.cpu_bf16`)."""
    if recipe.precision == "auto" and not has_bf16(device):
        return recipe.model_copy(update={"precision": "fp32"})
    if recipe.precision not in ("auto", "bf16"):
        return recipe
    correct = device.type != "cpu" or not has_wrong_bf16_gradient(network, channels, sizes)
    if recipe.precision == "bf16" and not correct:
        raise InputError(describe_wrong_gradient(str(recipe.arch), sizes))
    return recipe.model_copy(update={"precision": "bf16" if correct else "fp32"})


def describe_adjustments(setup: Setup) -> list[str]:
    """Sentences about what is adjusted to the data."""
    method = setup.method
    excludes_same_patient = method.needs_patients() if method.has_negatives else None
    kind, partners = setup.recipe.data.positives, setup.batches.partners
    norms = describe_batchnorm(setup.recipe, method.encoder()) if setup.recipe.init is not None else None
    return [
        *([f"BatchNorm of the backbone is {norms}"] if norms else []),
        *describe_continuation(setup.recipe),
        *method.notes(method.data),
        *setup.labels.notes,
        *positives.describe_positives(kind, partners, excludes_same_patient),
    ]
