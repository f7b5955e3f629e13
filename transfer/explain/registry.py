"""The methods by name, and which of them fit a network.

Shapes: K channels, S side of the input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import normalise_input
from transfer.explain.contract import Method
from transfer.explain.gradcam import GRADCAM
from transfer.explain.gradcam_plus_plus import GRADCAM_PLUS_PLUS
from transfer.explain.gradient_rollout import GRADIENT_ROLLOUT
from transfer.explain.hirescam import HIRESCAM
from transfer.explain.method_names import METHOD_NAMES, OCCLUSION
from transfer.explain.occlusion import OcclusionSettings, build_occlusion
from transfer.explain.rollout import ROLLOUT
from transfer.protocols.finetune_network import FinetuneNetwork

PLAIN_METHODS = {method.name: method for method in (GRADCAM, GRADCAM_PLUS_PLUS, HIRESCAM, ROLLOUT, GRADIENT_ROLLOUT)}
PREFERRED = ("gradcam", "gradient_rollout", OCCLUSION)  # the first that fits is the default


def choose_methods(
    names: Sequence[str], network: FinetuneNetwork, preprocess: Preprocess, settings: OcclusionSettings, fill: float | None
) -> list[Method]:
    """The methods of these names, or the default of the network for none; `all`: those that fit it.

    fill: value in [0, 1] that occlusion covers with; None: the mean of the card.  Raises InputError for an unknown name and for a method
    that does not fit the network."""
    for name in names:
        if name not in (*METHOD_NAMES, "all"):
            raise unknown_name_error("method of explanation", name, [*METHOD_NAMES, "all"])
    methods = PLAIN_METHODS | {OCCLUSION: build_occlusion(settings, prepare_fill(preprocess, fill))}
    if names and "all" not in names:
        for name in names:
            if problem := find_misfit(methods[name], network, preprocess):
                raise InputError(f"{name}: {problem}")
        return [methods[name] for name in dict.fromkeys(names)]
    fitting = [name for name in (METHOD_NAMES if names else PREFERRED) if not find_misfit(methods[name], network, preprocess)]
    return [methods[name] for name in (fitting if names else fitting[:1])]


def find_misfit(method: Method, network: FinetuneNetwork, preprocess: Preprocess) -> str:
    """Why a method does not fit a network, found by explaining an empty image; "" if it fits. Occlusion fits every network."""
    if method.needs == "outputs":
        return ""
    weight = network.head.weight
    x = torch.zeros(1, preprocess.channels, preprocess.size, preprocess.size, device=weight.device)
    try:
        method.explain(network, x, torch.zeros(1, dtype=torch.long, device=weight.device))
    except InputError as error:
        return str(error)
    return ""


def prepare_fill(preprocess: Preprocess, value: float | None) -> Tensor:
    """(K, 1, 1): a gray value in [0, 1] as prepared input; None: the mean of the card, which is 0."""
    if value is None:
        return torch.zeros(preprocess.channels, 1, 1)
    return normalise_input(torch.full((1, preprocess.channels, 1, 1), value), preprocess)[0]
