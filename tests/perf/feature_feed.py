"""Images per CPU second that the host gives to feature extraction: prepared by the host, or read for a device that prepares them.

python -m tests.perf.feature_feed
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from encoders.features.input_batches import _PreparedBatches, _StoredBatches
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.gpu.made_data import made_up_pixels, random_encoder

IMAGES, SIDE, BATCH = 256, 256, 64


def main() -> None:
    torch.set_num_threads(1)
    parts = np.split(np.arange(IMAGES), IMAGES // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        for channels in (1, 3):
            pixels = made_up_pixels(IMAGES, SIDE, channels)
            store = Store.open(save_store(Path(folder) / f"{channels}.h5", pixels, modality="cxr" if channels == 1 else "histology"))
            encoder = random_encoder("resnet10t", "cpu", 224, channels)
            for name, source in (("prepared", _PreparedBatches(store, encoder, parts)), ("bytes", _StoredBatches(store, parts))):
                source[0]  # the file is in the cache of the system
                started = time.process_time()
                for i in range(len(parts)):
                    source[i]
                print(f"{channels} channels of {SIDE} px, {name}: {IMAGES / (time.process_time() - started):,.0f} images per CPU second")


if __name__ == "__main__":
    main()
