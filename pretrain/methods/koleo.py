"""KoLeo: embeddings are far from their nearest neighbours, and so spread evenly over the sphere.

Source: Sablayrolles et al. 2019 (arXiv:1806.03198), equation 5, an estimate of the differential entropy by Kozachenko and Leonenko;
facebookresearch/dinov2, dinov2/loss/koleo_loss.py.

Shapes: B images, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.methods.precision import full_precision, l2_normalize

DISTANCE_EPS = 1e-8  # as published: two equal rows have a finite loss


@full_precision
def koleo_loss(x: Tensor) -> Tensor:
    """Minus the mean logarithm of each row's distance to its nearest other row, after scaling to length 1.  x: (B, D).  Returns a scalar.

    0 for a single row, which has no neighbour."""
    z = l2_normalize(x)
    if len(z) < 2:
        return 0 * z.sum()
    with torch.no_grad():
        nearest = (z @ z.T).fill_diagonal_(-1.0).argmax(dim=1)  # (B,); a row is not its own neighbour
    distance = F.pairwise_distance(z, z[nearest], eps=DISTANCE_EPS)  # (B,)
    return -(distance + DISTANCE_EPS).log().mean()
