"""Each step of the DICOM pipeline on a synthetic file, and the order of the steps."""

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_windowing
from pydicom.uid import JPEG2000Lossless, RLELossless

from encoders.ingest.dicom.pixels import CT_WINDOWS, VoiWindow, find_content_box, parse_window, render_display
from encoders.ingest.source import Unreadable
from encoders.runtime.errors import InputError
from tests.encoders.ingest.dicom_files import build_dicom, build_lut, compress_as_jpeg, ramp


def displayed(ds, **options):
    """The displayed image (H, W) in [0, 1]."""
    image, _ = render_display(ds, **options)
    assert image.dtype == np.uint16
    return image[..., 0] / 65535


def test_eight_bits_map_to_the_same_share_of_the_range():
    pixels = ramp(np.uint8, 0, 255)
    image, record = render_display(build_dicom(pixels))
    np.testing.assert_array_equal(image[..., 0], pixels.astype(np.uint16) * 257)
    assert record["voi"] == "none"


def test_twelve_bits_in_sixteen_keep_all_their_levels():
    pixels = ramp(high=4095, shape=(64, 64))  # 4096 different values
    image, _ = render_display(build_dicom(pixels, BitsStored=12))
    assert len(np.unique(image)) == 4096
    assert (image.min(), image.max()) == (0, 65535)


def test_bits_above_the_stored_ones_are_not_part_of_the_value():
    pixels = ramp(high=4095)
    noisy = pixels | np.uint16(0xA000)
    np.testing.assert_array_equal(
        render_display(build_dicom(noisy, BitsStored=12))[0], render_display(build_dicom(pixels, BitsStored=12))[0]
    )


def test_a_high_bit_above_the_lowest_place_is_honoured():
    pixels = ramp(high=4095)
    shifted = build_dicom(pixels << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(render_display(shifted)[0], render_display(build_dicom(pixels, BitsStored=12))[0])


def test_signed_values_keep_their_order_also_when_the_unused_bits_are_zero():
    pixels = ramp(np.int16, -2048, 2047)
    want = (pixels + 2048.0) / 4095
    np.testing.assert_allclose(displayed(build_dicom(pixels, BitsStored=12)), want, atol=1e-5)
    cut = (pixels.view(np.uint16) & 0x0FFF).view(np.int16)
    np.testing.assert_allclose(displayed(build_dicom(cut, BitsStored=12)), want, atol=1e-5)


def test_rescale_comes_before_the_window():
    hounsfield = ramp(np.int16, -1024, 3000)
    ds = build_dicom(hounsfield + 1024, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    below, above = hounsfield <= 39.5 - 199.5, hounsfield > 39.5 + 199.5  # PS3.3 C.11.2.1.2.1
    want = np.where(below, 0, np.where(above, 1, (hounsfield - 39.5) / 399 + 0.5))
    np.testing.assert_allclose(displayed(ds), want, atol=1e-5)


def test_a_negative_slope_reverses_the_range():
    pixels = ramp(high=4095)
    np.testing.assert_allclose(
        displayed(build_dicom(pixels, BitsStored=12, RescaleSlope=-2, RescaleIntercept=100)), 1 - pixels / 4095, atol=1e-5
    )


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function):
    pixels = ramp(high=4095)
    ds = build_dicom(pixels, BitsStored=12, WindowCenter=["1800.5", "9"], WindowWidth=["901", "9"], VOILUTFunction=function)
    np.testing.assert_allclose(displayed(ds), apply_windowing(pixels, ds) / 4095, atol=1e-5)


def test_a_window_of_width_one_is_a_step():
    pixels = ramp(high=4095)
    np.testing.assert_array_equal(displayed(build_dicom(pixels, BitsStored=12, WindowCenter=100, WindowWidth=1)), pixels > 99.5)


def test_a_modality_table_of_twelve_bits_is_looked_up():
    entries = np.arange(1000)[::-1] * 4
    pixels = ramp(high=1500)
    want = entries[np.clip(pixels.astype(int) - 200, 0, 999)] / 4095
    np.testing.assert_allclose(displayed(build_dicom(pixels, ModalityLUTSequence=[build_lut(entries, 200, 12)])), want, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 12])
def test_a_voi_table_comes_after_rescale_and_its_ends_extend(bits):
    entries = np.round((2**bits - 1) * np.linspace(0, 1, 600) ** 2)
    hounsfield = ramp(np.int16, -900, 900)
    ds = build_dicom(hounsfield + 1024, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[build_lut(entries, -300, bits)])
    want = entries[np.clip(hounsfield.astype(int) + 300, 0, 599)] / (2**bits - 1)
    np.testing.assert_allclose(displayed(ds), want, atol=1e-5)


def test_the_voi_step_is_chosen_and_recorded():
    pixels = ramp(high=4095)
    both = build_dicom(
        pixels, BitsStored=12, WindowCenter=1000, WindowWidth=500, VOILUTSequence=[build_lut(np.linspace(0, 4095, 4096) // 2, 0, 12)]
    )
    used = {voi: render_display(both, voi=voi)[1]["voi"] for voi in ("auto", "lut", "window", "none")}
    assert used == {"auto": "lut", "lut": "lut", "window": "window of the file", "none": "none"}
    assert render_display(both, voi="window")[1]["window_center"] == 1000
    plain = build_dicom(pixels, BitsStored=12)
    assert render_display(plain)[1]["voi"] == "none"
    for voi in ("lut", "window"):
        with pytest.raises(Unreadable, match="--voi auto"):
            render_display(plain, voi=voi)


def test_a_named_window_is_for_ct_only():
    values = ramp(np.int16, -1500, 1500)
    lung = parse_window("lung")
    np.testing.assert_allclose(
        displayed(build_dicom(values, Modality="CT"), window=lung),
        displayed(build_dicom(values, WindowCenter=-600, WindowWidth=1500)),
        atol=1e-9,
    )
    with pytest.raises(Unreadable, match="Hounsfield"):
        render_display(build_dicom(values, Modality="CR"), window=lung)


def test_windows_are_read_from_text():
    assert parse_window("-600,1500") == VoiWindow(-600, 1500)
    assert parse_window("bone") == VoiWindow(*CT_WINDOWS["bone"], name="bone")
    for wrong, message in [("lungs", "lung"), ("40;400", "CENTER,WIDTH"), ("a,b", "CENTER,WIDTH"), ("40,0", "at least 1")]:
        with pytest.raises(InputError, match=message):
            parse_window(wrong)


def test_inversion_comes_after_the_window():
    pixels = ramp(high=4095)
    window = {"BitsStored": 12, "WindowCenter": 800, "WindowWidth": 300}
    upright = displayed(build_dicom(pixels, **window))
    np.testing.assert_allclose(displayed(build_dicom(pixels, PhotometricInterpretation="MONOCHROME1", **window)), 1 - upright, atol=2e-5)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "IDENTITY", 0),
        ("MONOCHROME1", None, 1),
        ("MONOCHROME2", "INVERSE", 1),
        ("MONOCHROME1", "INVERSE", 1),
        ("MONOCHROME1", "IDENTITY", 1),
    ],
)
def test_an_image_is_inverted_once_even_if_two_tags_declare_it(photometric, shape, inverted):
    pixels = ramp(high=4095)
    ds = build_dicom(pixels, BitsStored=12, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    image, record = render_display(ds)
    want = 1 - pixels / 4095 if inverted else pixels / 4095
    np.testing.assert_allclose(image[..., 0] / 65535, want, atol=1e-5)
    assert record["inverted"] == inverted


def test_a_scene_and_its_negative_with_the_other_photometric_are_displayed_equal():
    scene = ramp(high=4095)
    upright = build_dicom(scene, BitsStored=12)
    negative = build_dicom(4095 - scene, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(render_display(upright)[0], render_display(negative)[0])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_for_both_photometric_interpretations(photometric):
    pixels = ramp(np.int16, -1000, 1000)
    pixels[:5] = -2000
    pixels[5:7] = -1990
    ds = build_dicom(pixels, PhotometricInterpretation=photometric)
    ds.add_new("PixelPaddingValue", "US", 65536 - 2000)  # the unsigned reading of a signed value, as many writers give it
    ds.add_new("PixelPaddingRangeLimit", "SS", -1990)
    image, record = render_display(ds)
    assert image[:7].max() == 0
    assert image[7:].min() > 0
    assert record["padding"] == pytest.approx(7 / 48)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("pixels", [ramp(high=4095), ramp(np.int16, -2048, 2047)], ids=["unsigned", "signed"])
def test_lossless_syntaxes_give_the_same_image_as_plain_ones(syntax, pixels):
    plain = build_dicom(pixels, BitsStored=12)
    packed = build_dicom(pixels, BitsStored=12)
    packed.compress(syntax, generate_instance_uid=False)
    assert packed.PixelData != plain.PixelData
    np.testing.assert_array_equal(render_display(packed)[0], render_display(plain)[0])


def test_baseline_jpeg_decodes():
    pixels = ramp(np.uint8, 0, 255)
    image, _ = render_display(compress_as_jpeg(build_dicom(pixels), pixels))
    assert np.abs(image[..., 0] / 257 - pixels).max() < 4


def test_colour_is_kept_and_gray_in_three_channels_becomes_one_channel():
    grey = ramp(np.uint8, 0, 255)
    assert render_display(build_dicom(np.stack([grey] * 3, axis=-1)))[0].shape == (48, 40, 1)
    rgb = np.stack([grey, grey[::-1], grey // 2], axis=-1)
    np.testing.assert_array_equal(render_display(build_dicom(rgb))[0], rgb.astype(np.uint16) * 257)


def test_colour_jpeg_and_palettes_become_rgb():
    grey = ramp(np.uint8, 40, 200)
    rgb = np.stack([grey, grey[::-1], np.full_like(grey, 90)], axis=-1)
    jpeg, _ = render_display(compress_as_jpeg(build_dicom(rgb, PhotometricInterpretation="YBR_FULL_422"), rgb))
    assert np.abs(jpeg / 257.0 - rgb).mean() < 3
    indices = build_dicom(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40) % 4, PhotometricInterpretation="PALETTE COLOR")
    entries = {"Red": [0, 65535, 0, 9], "Green": [0, 0, 65535, 9], "Blue": [0, 0, 0, 65535]}
    for name, values in entries.items():
        indices.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        indices.add_new(f"{name}PaletteColorLookupTableData", "OW", np.array(values, "<u2").tobytes())
    want = np.stack([np.array(v)[np.arange(48 * 40).reshape(48, 40) % 4] for v in entries.values()], axis=-1)
    np.testing.assert_array_equal(render_display(indices)[0], want)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PhotometricInterpretation": None}, "lacks PhotometricInterpretation"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "RescaleSlope is 0"),
        ({"WindowCenter": 10, "WindowWidth": 0}, "width 0"),
        ({"BitsStored": 12, "HighBit": 9}, "HighBit 9"),
        ({"VOILUTSequence": [build_lut(range(9), 0, 30)]}, "damaged"),
    ],
)
def test_an_unreadable_image_raises_with_the_reason(tags, reason):
    with pytest.raises(Unreadable, match=reason):
        render_display(build_dicom(ramp(), **tags))


def test_uniform_borders_are_found_on_every_side_even_if_their_gray_levels_differ():
    rng = np.random.default_rng(0)
    image = np.zeros((100, 80, 1), np.uint16)
    image[:, :9] = 65535
    image[12:90, 9:70] = rng.integers(10000, 50000, (78, 61, 1))
    assert find_content_box(image) == (12, 90, 9, 70)


def test_an_image_that_is_mostly_uniform_is_not_cropped():
    image = np.zeros((100, 80, 1), np.uint16)
    image[50:53, 10:70] = np.arange(60)[:, None] * 900 + 2000
    assert find_content_box(image) == (0, 100, 10, 70)
    assert find_content_box(np.full((30, 20, 1), 5, np.uint16)) == (0, 30, 0, 20)


@pytest.mark.real
def test_equal_stored_values_of_opposite_photometric_are_displayed_as_negatives(data_dir):
    """Only the header of Fake_MONOHR1.dcm differs: the same numbers have the opposite gray levels."""
    one = pydicom.dcmread(next((data_dir / "dicom_cxr").glob("1.2.276*.dcm")))
    two = pydicom.dcmread(data_dir / "dicom_cxr" / "Fake_MONOHR1.dcm")
    assert (one.PhotometricInterpretation, two.PhotometricInterpretation) == ("MONOCHROME2", "MONOCHROME1")
    assert one.PixelData == two.PixelData
    np.testing.assert_array_equal(render_display(one)[0], 65535 - render_display(two)[0])


@pytest.mark.real
def test_a_real_radiograph_and_its_true_negative_are_displayed_equal(data_dir):
    """Stored values and photometric interpretation are both inverted: the same image."""
    real = pydicom.dcmread(next((data_dir / "dicom_cxr").glob("1.2.276*.dcm")))
    negative = build_dicom(255 - real.pixel_array, PhotometricInterpretation="MONOCHROME1")
    ours, same = render_display(real)[0], render_display(negative)[0]
    assert np.abs(ours.astype(int) - same.astype(int)).max() <= 257  # decoders of JPEG differ by one grey of 255


@pytest.mark.real
def test_fifteen_bit_jpeg2000_is_windowed_and_inverted(data_dir):
    ds = pydicom.dcmread(data_dir / "dicom_cxr" / "RG1_J2KI.dcm")
    image, record = render_display(ds)
    assert image.shape == (1955, 1841, 1)
    assert (record["voi"], record["window_center"], record["window_width"], record["inverted"]) == ("window of the file", 15000, 30000, 1)
    want = 1 - ((ds.pixel_array - 14999.5) / 29999 + 0.5)
    np.testing.assert_allclose(image[..., 0] / 65535, want, atol=1e-5)
    assert len(np.unique(image)) > 10000  # not squeezed through 8 bits
    middle = image[..., 0][600:1400]
    assert middle[:, 850:1000].mean() > 1.3 * middle[:, 350:650].mean()  # the spine and heart are brighter than the right lung
