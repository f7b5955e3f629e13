"""Relational distillation: distances between images stay as they were at the start.

Source: Park et al. 2019 (arXiv:1904.05068), distance-wise loss RKD-D with the Huber loss of threshold 1. Distances are divided by their
mean, so that only relations count, not the scale of the features.

Chosen over similarity-preserving distillation (Tung and Mori 2019, arXiv:1907.09682): that one compares rows of A A^T, which the common
mean of pooled ReLU features dominates; distances do not contain the mean.

Departures: features are normalised to length 1 first, because k-NN and retrieval compare cosines; the mean is over pairs of different rows.

Shapes: N rows of features (images times views, of all ranks), D width.
"""

from torch import Tensor
from torch.nn import functional as F

from pretrain.methods.precision import full_precision, l2_normalize

SMALLEST_MEAN = 1e-12  # of distances: features that are all equal give 0, not NaN


@full_precision
def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the relative distances of all pairs of rows.  student, teacher: (N, D), N > 1.  Returns a scalar."""
    return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher.detach()))


def relative_distances(x: Tensor) -> Tensor:
    """(N (N - 1) / 2,) distances of all pairs of unit rows of x (N, D), divided by their mean; equal rows have no gradient."""
    distances = F.pdist(l2_normalize(x))
    return distances / distances.mean().clamp(min=SMALLEST_MEAN)
