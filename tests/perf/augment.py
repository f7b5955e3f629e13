"""Two-view samples per second on one thread: `augment` against the same operations by lightly (Pillow) and albumentations (OpenCV).

    python -m tests.perf.augment [SECONDS_PER_CASE]

Both start from decoded 256-pixel images in memory (uint8) and end with two normalised 224-pixel float tensors each, without file reading.
Peers that are not installed are left out.
CPU time of the thread, best of three alternating turns, because other load on the machine can only slow a turn down.
"""

import argparse
import time
import warnings
from importlib.util import find_spec

import numpy as np
import torch

from encoders.augment.apply import RESAMPLE_GROUP, augment, chunk_slices, to_planar_float
from encoders.augment.draw import draw_params
from encoders.augment.presets import get_preset

SIDE, SIZE, N = 256, 224, 64


def augment_with_ours(name: str, images: np.ndarray):
    """A function of the number of a turn that makes two views of all images."""
    cfg, (n, c) = get_preset(name), (len(images), images.shape[3])
    mean, std = torch.full((1, c, 1, 1), 0.45), torch.full((1, c, 1, 1), 0.22)

    def turn(number: int) -> None:
        position = np.arange(n) + n * number
        params = [draw_params(cfg, 0, position, view, (SIDE, SIDE)) for view in (0, 1)]
        for rows in chunk_slices(n, RESAMPLE_GROUP):
            batch = to_planar_float(images[rows], 255.0)
            for drawn in params:
                augment(batch, {k: v[rows] for k, v in drawn.items()}, SIZE).sub_(mean).div_(std)

    return turn


def augment_with_lightly(name: str, images: np.ndarray):
    from PIL import Image

    pictures = [Image.fromarray(image.squeeze()) for image in images]
    transform = _transform(name, "RGB" if images.shape[3] == 3 else "L")

    def turn(number: int) -> None:
        for picture in pictures:
            transform(picture)
            transform(picture)

    return turn


def _transform(name: str, mode: str):
    """One view of lightly's MoCo v2, or the same operations as our radiograph preset from torchvision and lightly on Pillow images."""
    import torchvision.transforms as T
    from lightly.transforms import GaussianBlur
    from lightly.transforms.moco_transform import MoCoV2Transform

    stats = {"mean": [0.45] * len(mode.strip("L") or "L"), "std": [0.22] * len(mode.strip("L") or "L")}
    if name == "moco":
        return MoCoV2Transform(normalize=stats).transforms[0]
    cfg = get_preset(name)
    return T.Compose([
        T.RandomRotation(cfg.rotate, T.InterpolationMode.BILINEAR),
        T.RandomResizedCrop(SIZE, cfg.crop, cfg.ratio),
        T.RandomHorizontalFlip(cfg.flip),
        T.RandomApply([T.ColorJitter(cfg.brightness, cfg.contrast)], cfg.jitter),
        T.RandomApply([T.Lambda(lambda p: T.functional.adjust_gamma(p, float(np.random.uniform(*cfg.gamma_range))))], cfg.gamma),  # noqa: NPY002
        GaussianBlur(sigmas=cfg.blur_sigma, prob=cfg.blur),
        T.ToTensor(),
        T.Normalize(**stats),
    ])  # fmt: skip


def augment_with_albumentations(name: str, images: np.ndarray):
    """The same operations by OpenCV on single images, in float32. Its resize does not antialias when it reduces."""
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    cfg = get_preset(name)
    colour = [1 - cfg.brightness, 1 + cfg.brightness], [1 - cfg.contrast, 1 + cfg.contrast]
    jitter = A.ColorJitter(*colour, [1 - cfg.saturation, 1 + cfg.saturation], [-cfg.hue, cfg.hue], p=cfg.jitter)
    if images.shape[3] == 1:
        jitter = A.RandomBrightnessContrast(cfg.brightness, cfg.contrast, p=cfg.jitter)
    steps = [
        *([A.Rotate(cfg.rotate, border_mode=cv2.BORDER_CONSTANT, p=1)] if cfg.rotate else []),
        A.RandomResizedCrop((SIZE, SIZE), cfg.crop, cfg.ratio),
        jitter,
        *([A.ToGray(p=cfg.grayscale)] if cfg.grayscale and images.shape[3] == 3 else []),
        *([A.RandomGamma((100 * cfg.gamma_range[0], 100 * cfg.gamma_range[1]), p=cfg.gamma)] if cfg.gamma else []),
        A.GaussianBlur(blur_limit=0, sigma_limit=cfg.blur_sigma, p=cfg.blur),
        A.HorizontalFlip(p=cfg.flip),
        A.Normalize([0.45] * images.shape[3], [0.22] * images.shape[3], max_pixel_value=1.0),
    ]
    transform = A.Compose(steps)

    def turn(number: int) -> None:
        for image in images:
            real = image.astype(np.float32) / 255
            for _ in range(2):
                torch.from_numpy(np.ascontiguousarray(transform(image=real)["image"].transpose(2, 0, 1)))

    return turn


def augment_with_kornia(name: str, images: np.ndarray):
    """The same operations on whole batches of float32 tensors."""
    import kornia.augmentation as K

    cfg, channels = get_preset(name), images.shape[3]
    colour = (cfg.brightness, cfg.contrast, cfg.saturation, cfg.hue) if channels == 3 else (cfg.brightness, cfg.contrast)
    steps = [
        *([K.RandomRotation(cfg.rotate, p=1.0)] if cfg.rotate else []),
        K.RandomResizedCrop((SIZE, SIZE), cfg.crop, cfg.ratio),
        K.ColorJitter(*colour, p=cfg.jitter),
        *([K.RandomGrayscale(p=cfg.grayscale)] if cfg.grayscale and channels == 3 else []),
        *([K.RandomGamma(cfg.gamma_range, p=cfg.gamma)] if cfg.gamma else []),
        K.RandomGaussianBlur((23, 23), cfg.blur_sigma, p=cfg.blur),
        K.RandomHorizontalFlip(p=cfg.flip),
        K.Normalize(torch.full((channels,), 0.45), torch.full((channels,), 0.22)),
    ]
    transform = K.AugmentationSequential(*steps, data_keys=["input"])

    def turn(number: int) -> None:
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        for _ in range(2):
            transform(batch)

    return turn


PEERS = {"albumentations": augment_with_albumentations, "lightly": augment_with_lightly, "kornia": augment_with_kornia}


def measure_rate(turn, seconds: float) -> float:
    """Images per second, with two views each."""
    turn(0)
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        done += 1
        turn(done)
    return done * N / (time.process_time() - start)


def main(seconds: float = 2.0) -> dict[tuple[str, int, str], float]:
    """Prints one line per case and peer, and returns the ratios by preset, number of channels and peer."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng, ratios = np.random.default_rng(0), {}
    peers = {peer: make for peer, make in PEERS.items() if find_spec(peer)}
    for name, channels in (("moco", 1), ("moco", 3), ("cxr", 1)):
        smooth = rng.integers(0, 256, (N, 32, 32, channels), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        turns = [augment_with_ours(name, smooth), *(make(name, smooth) for make in peers.values())]
        ours, *others = (max(rates) for rates in zip(*[[measure_rate(turn, seconds) for turn in turns] for _ in range(3)], strict=True))
        kind = "gray" if channels == 1 else "RGB"
        print(f"{name:5} {kind:4}  ours {ours:6.0f} two-view samples/s")
        for peer, rate in zip(peers, others, strict=True):
            ratios[name, channels, peer] = ours / rate
            print(f"            {peer} {rate:6.0f}, ours is {ours / rate:.2f} times as fast")
    return ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=2.0, help="seconds per case and turn")
    main(parser.parse_args().seconds)
