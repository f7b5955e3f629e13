"""How often each row is drawn: weights of stores, and balance between the values of a column."""

from collections import Counter

import numpy as np

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.errors import InputError
from pretrain.loop.corpus import Corpus


def row_weights(images: Corpus, weights: list[float] | None, balance: str | None = None) -> FloatArray | None:
    """(N,) how often each row is drawn, from one weight per store: a store of weight 2 gives twice the images of one of weight 1.

    balance: column whose values share the weight of their store equally; without `weights`, all values of all stores count equally.
    Returns None without either.  Raises InputError unless there is one positive weight per store, and for an unknown column."""
    if weights is None and balance is None:
        return None
    parts = images.store.parts
    store_of_row = np.searchsorted(images.store.starts, images.index, side="right") - 1  # (N,)
    within = np.ones(len(store_of_row))
    if balance is not None:
        within = balance_weights(images, balance, store_of_row if weights is not None else None)
    if weights is None:
        return within
    if len(weights) != len(parts) or min(weights) <= 0:
        raise InputError(f"data.weights has {len(weights)} numbers for {len(parts)} stores; give one above 0 for each")
    used = np.bincount(store_of_row, within, minlength=len(parts))
    return np.asarray(weights)[store_of_row] * within / used[store_of_row]


def balance_weights(images: Corpus, column: str, store_of_row: IntArray | None) -> FloatArray:
    """(N,) one over the number of rows with the same value of `column` in the same data set, or the same store if given as (N,)."""
    values = [str(value) for value in images.store.column(column)[images.index]]
    groups = list(zip(images.datasets() if store_of_row is None else store_of_row.tolist(), values, strict=True))
    count = Counter(groups)
    return np.array([1 / count[group] for group in groups])
