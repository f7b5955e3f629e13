"""Small NIfTI files for tests, written with nibabel."""

from pathlib import Path

import nibabel as nib
import numpy as np


def ras_affine(spacing=(1.0, 1.0, 1.0), codes="RAS", shape=(1, 1, 1)):
    """The affine of an array whose axes point along `codes`, e.g. LPS or SAR."""
    base = np.diag([*spacing, 1.0])
    ornt = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt("RAS"))
    return base @ np.linalg.inv(nib.orientations.inv_ornt_aff(ornt, shape))


def save_volume(path: Path, values, affine=None, **header):
    """Writes `values` as NIfTI-1, compressed if the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.asarray(values), np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def head(shape=(12, 14, 10), seed=0, peak=800.0):
    """A bright ellipsoid on an empty background, with blocks of its own, without symmetry, so that a flip shows."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    blocks = np.kron(rng.uniform(-0.5, 0.5, tuple(-(-n // 3) for n in shape)), np.ones((3, 3, 3)))[: shape[0], : shape[1], : shape[2]]
    inside = x**2 + y**2 + z**2 < 0.8
    return np.where(inside, peak * (1.2 + 0.2 * x + 0.1 * y - 0.1 * z + blocks) + rng.uniform(0, 50, shape), 0).astype(np.float32)
