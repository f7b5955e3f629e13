"""The settings of the trials, drawn before the first one is trained.

Each parameter is drawn by Latin hypercube sampling (McKay, Beckman and Conover 1979): its range is divided into as many parts of equal
length as there are trials, and every part is drawn from once, in random order. Random search covers each parameter this way whatever the
number of parameters that matter (Bergstra and Bengio 2012, JMLR 13). A parameter's values depend on the seed, on its name and on the number
of trials alone, so that a strategy without this parameter has the same values of all others. Values without a range between them are drawn
from their grid without replacement.
"""

import hashlib
import math
from collections.abc import Collection, Sequence

import numpy as np

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from transfer.search.space import SearchParameter

Settings = dict[str, Json]  # dotted setting -> value


def draw_trials(space: Sequence[SearchParameter], trials: int, seed: int, integers: Collection[str] = ()) -> list[Settings]:
    """The settings of each trial that differ from the given ones; the first trial has none.

    integers: settings that take whole numbers only.  Raises InputError if a grid has fewer combinations than trials."""
    if not space:
        return [{}] * trials
    grid = math.prod(len(parameter.choices) for parameter in space)  # 0 with a range
    if grid:
        if trials - 1 > grid:
            raise InputError(
                f"--trials is {trials}, and the values of --search have {grid} combinations; give at most --trials {grid + 1}, "
                "which is all of them and the settings as given, or a range"
            )
        numbers = _generator(seed, "grid").permutation(grid)[: trials - 1]
        return [{}, *(_pick_combination(space, int(number)) for number in numbers)]
    columns = {}
    for parameter in space:
        draw = _generator(seed, parameter.setting)
        shares = (draw.permutation(trials - 1) + draw.random(trials - 1)) / max(trials - 1, 1)
        columns[parameter.setting] = [parameter.value(float(share), parameter.setting in integers) for share in shares]
    return [{}, *({setting: values[i] for setting, values in columns.items()} for i in range(trials - 1))]


def _pick_combination(space: Sequence[SearchParameter], number: int) -> Settings:
    """The combination of values with this number in the grid."""
    picked = {}
    for parameter in space:
        number, index = divmod(number, len(parameter.choices))
        picked[parameter.setting] = parameter.choices[index]
    return picked


def _generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each name."""
    digest = hashlib.sha256(f"search {seed} {name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
