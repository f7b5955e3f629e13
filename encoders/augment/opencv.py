"""OpenCV for one thread: the processes and threads that prepare images share the CPUs already, and no bit depends on how many there are.

Its float32 kernels compute most operations of a view on a CPU. An image (C, H, W) is passed plane by plane, as arrays that share the memory
of the tensor; `dst` is written in place.
"""

import cv2
import numpy as np
from torch import Tensor

from encoders.runtime.arrays import FloatArray

__all__ = ["cv2", "planes_of"]

cv2.setNumThreads(1)


def planes_of(image: Tensor) -> list[FloatArray]:
    """The channels of a contiguous float32 image (C, H, W) on the CPU, as arrays (H, W) of the same memory."""
    array: FloatArray = image.numpy()
    return [np.asarray(plane) for plane in array]
