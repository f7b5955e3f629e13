"""Cores of a tissue array drawn by the law of Beer and Lambert: glass times 10 to the minus optical density."""

import numpy as np

HEMATOXYLIN, EOSIN, DAB = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11]), np.array([0.27, 0.57, 0.78])
H_AND_E = (HEMATOXYLIN + EOSIN) / 2


def stained_core(side, stain, strength, glass=(243, 243, 243), seed=0):
    """(side, side, 3) float: `strength` is the mean optical density along the stain, with detail of 8 to 256 pixels."""
    rng, detail = np.random.default_rng(seed), np.zeros((side, side))
    for size in (8, 32, 256):
        count = -(-side // size)
        detail += np.kron(rng.random((count, count)), np.ones((size, size)))[:side, :side]
    return np.asarray(glass) * 10 ** (-strength * detail[..., None] / 1.5 * stain)


def draw_cores(height, width, cores, glass=(243, 243, 243), noise=2.0, seed=0):
    """(height, width, 3) uint8.  cores: (top, left, side, stain, strength).  noise: standard deviation of every pixel, gray levels."""
    image = np.broadcast_to(np.asarray(glass, float), (height, width, 3)).copy()
    for k, (top, left, side, stain, strength) in enumerate(cores):
        image[top : top + side, left : left + side] = stained_core(side, stain, strength, glass, seed + k)
    return np.clip(np.rint(image + np.random.default_rng(seed).normal(0, noise, image.shape)), 0, 255).astype(np.uint8)
