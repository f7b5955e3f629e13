import numpy as np
import pytest
import torch
from PIL import Image

from encoders.runtime.errors import InputError
from encoders.runtime.random import uniform
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import normalise_input, prepare_input

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def random_images(b=2, h=70, w=90, c=3, seed=0):
    return uniform(seed, 6, np.arange(b), n=h * w * c).reshape(b, h, w, c).astype(np.float32)


def by_pillow(image, height, width, how):
    """(H, W, C) float32, each channel resized by Pillow, an independent implementation."""
    channels = [Image.fromarray(image[..., c]).resize((width, height), how) for c in range(image.shape[-1])]
    return np.clip(np.stack(channels, axis=-1), 0, 1)


@pytest.mark.parametrize(("name", "how"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)])
@pytest.mark.parametrize("size", [32, 128])
def test_resizing_equals_pillow(name, how, size):
    x = random_images()
    got = prepare_input(x, Preprocess(size=size, resize="squash", interpolation=name, **PLAIN))
    want = np.stack([by_pillow(image, size, size, how) for image in x])
    assert np.abs(got.permute(0, 2, 3, 1).numpy() - want).max() < 2e-4


def test_crop_keeps_the_aspect_ratio_and_the_centre():
    x = random_images(h=64, w=128)
    got = prepare_input(x, Preprocess(size=64, resize="crop", **PLAIN))
    assert torch.equal(got, torch.from_numpy(x[:, :, 32:96]).permute(0, 3, 1, 2))


def test_crop_pct_keeps_that_fraction_of_the_shorter_side():
    x = random_images(h=40, w=40)
    got = prepare_input(x, Preprocess(size=32, resize="crop", crop_pct=0.8, **PLAIN))
    assert torch.equal(got, torch.from_numpy(x[:, 4:36, 4:36]).permute(0, 3, 1, 2))


def test_pad_keeps_the_whole_image_between_black_borders():
    x = random_images(h=32, w=64)
    got = prepare_input(x, Preprocess(size=64, resize="pad", **PLAIN))
    assert torch.equal(got[:, :, 16:48], torch.from_numpy(x).permute(0, 3, 1, 2))
    assert got[:, :, :16].abs().max() == got[:, :, 48:].abs().max() == 0


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("h", "w"), [(33, 97), (97, 33), (8, 200), (64, 64), (1, 5)])
def test_images_of_every_shape_become_square(resize, h, w):
    assert prepare_input(random_images(1, h, w), Preprocess(size=48, resize=resize)).shape == (1, 3, 48, 48)


def test_normalising_subtracts_the_mean_and_divides_by_std():
    x = random_images(h=16, w=16)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    got = prepare_input(x, Preprocess(size=16, mean=mean, std=std)).permute(0, 2, 3, 1).numpy()
    assert np.allclose(got, (x - np.array(mean)) / np.array(std), atol=1e-6)


def test_gray_is_replicated_and_colour_reduced_to_luma_as_in_pillow():
    gray = random_images(c=1, h=16, w=16)
    three = prepare_input(gray, Preprocess(size=16, **PLAIN))
    assert torch.equal(three, torch.from_numpy(gray).permute(0, 3, 1, 2).expand(-1, 3, -1, -1))
    colour = (random_images(1, 16, 16) * 255).astype(np.uint8)
    want = np.asarray(Image.fromarray(colour[0]).convert("L")) / 255
    got = prepare_input(colour / np.float32(255), Preprocess(size=16, channels=1, mean=(0.0,), std=(1.0,)))
    assert np.abs(got[0, 0].numpy() - want).max() < 1 / 255


def test_arrays_and_tensors_in_either_layout_give_the_same_input():
    x, p = random_images(), Preprocess(size=32)
    want = prepare_input(x, p)
    assert torch.equal(prepare_input(torch.from_numpy(x), p), want)
    assert torch.equal(prepare_input(torch.from_numpy(x).permute(0, 3, 1, 2), p), want)


def test_normalise_equals_prepare_on_images_of_the_final_size():
    x, p = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)), Preprocess(size=32)
    assert torch.equal(normalise_input(x, p), prepare_input(x, p))


def test_the_result_does_not_depend_on_the_batch():
    x, p = random_images(b=5), Preprocess(size=48)
    assert torch.allclose(prepare_input(x, p), torch.cat([prepare_input(x[i : i + 1], p) for i in range(5)]), atol=1e-6)


def test_another_number_of_channels_is_rejected():
    with pytest.raises(InputError, match="2x8x8x4"):
        prepare_input(np.zeros((2, 8, 8, 4), np.float32), Preprocess(size=8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [32, 128])
def test_cuda_equals_cpu(resize, size):
    x, p = torch.from_numpy(random_images()), Preprocess(size=size, resize=resize)
    assert (prepare_input(x.cuda(), p).cpu() - prepare_input(x, p)).abs().max() < 1e-4
