"""Which images count as negatives of a contrastive loss."""

import torch
from torch import Tensor


def mask_same_patient(similarities: Tensor, query_patients: Tensor | None, key_patients: Tensor | None, positive_column: Tensor) -> Tensor:
    """Similarities (B, K), -inf where row and column are of the same patient, except in each row's positive column.

    query_patients: (B,), key_patients: (K,) patient ids; None: nothing is masked.  positive_column: (B,) column of each row's positive."""
    if query_patients is None or key_patients is None:
        return similarities
    same = query_patients[:, None] == key_patients[None]
    return similarities.masked_fill(same.scatter(1, positive_column[:, None], False), -torch.inf)
