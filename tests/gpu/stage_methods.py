"""Every method: loss and gradients of one step, and three steps of the loop, on a CPU and on the device."""

from contextlib import nullcontext
from typing import Any

import torch

from encoders.augment.masks import Masks
from encoders.runtime.arithmetic import without_tf32
from pretrain.loop.setup import Setup
from pretrain.loop.train import autocast, seed_model
from pretrain.methods import METHODS
from tests.gpu.made_data import store_path
from tests.gpu.session import GpuSession, Result, relative_distance
from tests.gpu.training import encoder_weights, small_run, train

LOSS_LIMITS = {"fp32": 2e-3, "bf16": 0.1, "fp16": 0.03}  # relative
GRADIENT_LIMIT = 2e-2  # fp32, relative
SCALE = 128.0  # of the loss in fp16
STEP_LIMIT = 2e-2  # of the encoder's weights after three steps, relative


def precisions(session: GpuSession) -> tuple[str, ...]:
    """Those that the device is checked in. A CPU emulates fp16, which takes minutes."""
    return ("fp32", "bf16", "fp16") if session.cuda else ("fp32", "bf16")


def compare_losses(session: GpuSession) -> Result:
    """Same weights, same views: loss and gradients in fp32 on both sides, then in half precision on the device."""
    store_path(session, "small")
    with without_tf32():
        return {name: _each_method(session, name, _compare_loss) for name in METHODS}


def compare_steps(session: GpuSession) -> Result:
    """Three steps of the loop with optimizer, averages and queue, from one store: the encoder's weights after them."""
    with without_tf32():
        return {name: _each_method(session, name, _compare_steps) for name in METHODS}


def _each_method(session: GpuSession, name: str, compare: Any) -> Result:
    try:
        return compare(session, name)
    except Exception as error:  # noqa: BLE001  one item of a batch job: the others continue
        session.flag(f"{name}: {type(error).__name__}: {error}"[:400])
        return {"error": f"{type(error).__name__}: {error}"[:400]}


def _compare_loss(session: GpuSession, name: str) -> Result:
    host, there = (small_run(session, name, device, "precision=fp32") for device in ("cpu", session.device))
    state = {key: value.clone() for key, value in host.method.state_dict().items() if isinstance(value, torch.Tensor)}
    (micro,) = host.batches.micro_batches(0)
    want, gradients = _loss_and_gradients(host, micro, "fp32")
    row: Result = {}
    for precision in precisions(session):
        there.method.load_state_dict(state, strict=False)
        got, g = _loss_and_gradients(there, _move(micro, session.device), precision)
        row[precision] = {"loss": got, "loss_off": abs(got - want) / max(abs(want), 1e-9), "gradient_off": relative_distance(g, gradients)}
        if not abs(got - want) < max(LOSS_LIMITS[precision] * abs(want), 5e-3):
            session.flag(f"{name} {precision}: the loss is {got:.5f} on the device and {want:.5f} on the CPU")
        if precision == "fp32" and not row[precision]["gradient_off"] < GRADIENT_LIMIT:
            session.flag(f"{name} fp32: gradients differ by {row[precision]['gradient_off']:.1e}")
    host.batches.close()
    there.batches.close()
    return row


def _loss_and_gradients(setup: Setup, micro: Any, precision: str) -> tuple[float, torch.Tensor]:
    """The loss, and all gradients as one vector on the host."""
    scale = SCALE if precision == "fp16" else 1.0
    setup.method.train().zero_grad(set_to_none=True)
    seed_model(0, 0, 0, 0)
    with autocast(precision, setup.device) if precision != "fp32" else nullcontext():  # type: ignore[arg-type]
        loss = setup.method(micro.views, micro.masks, progress=0.25, **micro.image_values())["loss"]
    assert loss.dtype == torch.float32, f"the loss is {loss.dtype}, expected float32 whatever autocast says"
    (loss * scale).backward()
    gradients = torch.cat([p.grad.flatten().float().cpu() for p in setup.method.parameters() if p.grad is not None]) / scale
    setup.method.after_backward(0.25)
    return float(loss.detach()), gradients


def _move(value: Any, device: torch.device) -> Any:
    """The micro-batch on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Masks):
        return value.map(lambda part: part.to(device))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_move(part, device) for part in value))
    return [_move(part, device) for part in value] if isinstance(value, list) else value


def _compare_steps(session: GpuSession, name: str) -> Result:
    sides = [("cpu", "fp32"), *((session.device, p) for p in (precisions(session) if not session.tiny else ("fp32",)))]
    row: Result = {}
    weights = []
    for device, precision in sides:
        setup = small_run(session, name, device, f"precision={precision}")
        lines = train(session, setup)
        weights.append(encoder_weights(setup))
        where = "cpu" if device == "cpu" else "device"
        row[f"{where} {precision}"] = {"loss": [line["loss"] for line in lines], "skipped": lines[-1]["skipped"]}
        if precision != "fp16" and lines[-1]["skipped"]:
            session.flag(f"{name} {precision}: {lines[-1]['skipped']:.0f} of 3 steps were refused")
    row["weights_off"] = off = relative_distance(weights[1], weights[0])
    if not off < STEP_LIMIT:
        session.flag(f"{name}: after three fp32 steps the encoder differs from the CPU's by {off:.1e}")
    return row
