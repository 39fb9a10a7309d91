"""Image files of every format, mode and size become RGB pixels in the same way."""

import io
import statistics
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.errors import DataError
from common.seeds import numpy_generator
from trainables.data.grey_levels import GreyLevels
from trainables.data.pixels import (
    choose_image_size,
    decode_batches,
    read_image,
    resize_image,
    short_sides,
)
from trainables.data.resizing import Resizing

MODES = (
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB",
    "I;16", "I;16B", "I", "F",
)  # fmt: skip


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    pixels = noise(8, 8)
    assert np.array_equal(resize_image(Image.fromarray(pixels), 8), pixels)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(8, 13, 0, 2), (11, 8, 1, 0)])
def test_the_centred_square_is_cropped(height: int, width: int, top: int, left: int) -> None:
    pixels = noise(height, width)
    expected = pixels[top : top + 8, left : left + 8]
    assert np.array_equal(resize_image(Image.fromarray(pixels), 8), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(0, 255))
def test_uniform_images_of_any_size_stay_uniform(
    height: int, width: int, size: int, grey: int
) -> None:
    resized = resize_image(Image.new("RGB", (width, height), (grey, grey, grey)), size)
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.uint8
    assert (resized == grey).all()


def test_reduction_antialiases() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    resized = resize_image(Image.fromarray(stripes), 8).astype(int)
    assert np.abs(resized - 127).max() <= 8


def cubic_reduction(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize bicubically (a = −½, support grown by the reduction), axis by axis, in float."""
    side = len(pixels)
    scale = side / size
    weights = np.zeros((size, side))
    for i in range(size):
        x = np.abs((np.arange(side) + 0.5 - (i + 0.5) * scale) / max(scale, 1.0))
        inner = (1.5 * x - 2.5) * x * x + 1
        outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights[i] = np.where(x < 1, inner, np.where(x < 2, outer, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    across = np.clip(np.rint(np.einsum("ij,hjc->hic", weights, pixels)), 0, 255)
    return np.asarray(np.clip(np.einsum("ij,jwc->iwc", weights, across), 0, 255))


@pytest.mark.parametrize(("side", "size"), [(30, 8), (64, 16), (8, 20)])
def test_the_filter_is_bicubic_and_antialiased(side: int, size: int) -> None:
    pixels = noise(side, side)
    resized = resize_image(Image.fromarray(pixels), size)
    assert np.abs(resized - cubic_reduction(pixels, size)).max() <= 1.5  # one rounding an axis


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mode: str) -> None:
    resized = resize_image(Image.new(mode, (9, 7)), 4)
    assert resized.shape == (4, 4, 3)
    assert resized.dtype == np.uint8


def test_transparency_is_put_on_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[0, 0, 3], pixels[1, 1, 3] = 255, 128
    resized = resize_image(Image.fromarray(pixels), 4)
    assert resized[0, 0].tolist() == [200, 0, 0]
    assert resized[2, 2].tolist() == [255, 255, 255]
    assert np.abs(resized[1, 1].astype(int) - [227, 127, 127]).max() <= 1


def test_a_palette_with_a_transparent_colour_is_put_on_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    resized = read_image(encode(image, transparency=0), 4)
    assert resized[0, 0].tolist() == [255, 255, 255]
    assert resized[3, 3].tolist() == [10, 20, 30]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 257], [32896, 65535]], np.uint16)
    resized = read_image(encode(Image.fromarray(grey)), 2)
    assert resized[..., 0].tolist() == [[0, 1], [128, 255]]
    assert (resized == resized[..., :1]).all()


def test_deep_grey_is_scaled_by_the_given_range() -> None:
    grey = np.array([[0, 4095], [2048, 65535]], np.uint16)
    levels = GreyLevels(integer=(0, 4095))
    resized = read_image(encode(Image.fromarray(grey)), 2, levels=levels)
    assert resized[..., 0].tolist() == [[0, 255], [128, 255]]


def slow_rgb(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Convert one image to RGB pixel by pixel, in float."""
    if mode == "RGBA":
        alpha = pixels[..., 3:] / 255
        return np.asarray(pixels[..., :3] * alpha + 255 * (1 - alpha))
    if mode == "LA":
        alpha = pixels[..., 1:] / 255
        return np.repeat(pixels[..., :1] * alpha + 255 * (1 - alpha), 3, axis=2)
    if mode == "CMYK":
        return np.asarray((255 - pixels[..., :3]) * (1 - pixels[..., 3:] / 255))
    if mode == "L":
        return np.repeat(pixels[..., None], 3, axis=2)
    return pixels


@pytest.mark.parametrize(
    ("mode", "channels", "kind"),
    [("RGBA", 4, "PNG"), ("RGBA", 4, "TIFF"), ("LA", 2, "PNG"), ("L", 0, "TIFF"),
     ("CMYK", 4, "TIFF"), ("RGB", 3, "QOI"), ("RGB", 3, "PPM"), ("RGBA", 4, "WEBP")],
)  # fmt: skip
def test_pixels_equal_a_slow_conversion(mode: str, channels: int, kind: str) -> None:
    shape = (8, 8, channels) if channels else (8, 8)
    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(pixels, mode), kind, **options)
    assert np.abs(read_image(data, 8) - slow_rgb(pixels, mode)).max() <= 1.5


def huge_png(width: int, height: int) -> bytes:
    """Return a small PNG file that claims to be large."""
    data = bytearray(encode(Image.new("L", (4, 4))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_pillow_is_silent_about_large_images(capfd: pytest.CaptureFixture[str]) -> None:
    """100 megapixels only make Pillow warn; above 179 it refuses the image."""
    large, refused = huge_png(10_000, 10_000), huge_png(20_000, 10_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in (large, refused):
            with pytest.raises(DataError, match="cannot be read"):  # they hold no such pixels
                read_image(data, 4)
        assert short_sides([("a", large), ("b", refused)]) == [10_000, 0]
        (batch,) = decode_batches([[("a", large), ("b", refused)]], Resizing(size=4))
    assert batch.broken == {0: "a", 1: "b"}
    assert batch.too_large == {1}
    assert caught == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_used_and_told(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 120, 250)]
    several = encode(frames[1], kind, save_all=True, append_images=[frames[0], frames[2]])
    one = encode(frames[1], kind)
    (batch,) = decode_batches([[("s", several), ("o", one)]], Resizing(size=8))
    assert np.abs(batch.images.astype(int) - [120, 0, 0]).max() <= 8
    topics = [own.topics for own in batch.observed if own is not None]
    assert topics == [{"first_frame"}, set()]


def test_sixteen_bit_colour_is_told() -> None:
    """Pillow reads the upper bytes; the file is made by hand, because it does not write any."""
    rows = b"".join(b"\0" + bytes([200, 7] * 12) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    (batch,) = decode_batches([[("deep", data), ("plain", encode(frame()))]], Resizing(size=4))
    assert (batch.images[0] == 200).all()
    assert [own.topics for own in batch.observed if own] == [{"upper_byte"}, set()]


def frame() -> Image.Image:
    return Image.new("RGB", (4, 4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    resized = read_image(encode(Image.fromarray(pixels), exif=exif), 8)
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1),
              8: (1, 0)}[orientation]  # fmt: skip
    white = np.argwhere(resized[::4, ::4, 0] == 255).tolist()
    assert white == [list(corner)]


def test_a_damaged_exif_block_is_ignored() -> None:
    pixels = noise(8, 8)
    data = encode(Image.fromarray(pixels), exif=b"Exif\x00\x00garbage")
    assert np.array_equal(read_image(data, 8), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_accepted_formats_are_read_from_files_and_bytes(kind: str, tmp_path: Path) -> None:
    data = encode(Image.new("RGB", (12, 10), (255, 0, 0)), kind)
    path = tmp_path / "image"
    path.write_bytes(data)
    assert np.array_equal(read_image(data, 6), read_image(path, 6))
    assert np.abs(read_image(path, 6).astype(int) - [255, 0, 0]).max() <= 3
    assert short_sides([("a", path), ("b", data)]) == [10, 10]


def test_other_formats_and_broken_files_are_refused(tmp_path: Path) -> None:
    post_script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    whole = encode(Image.fromarray(noise(20, 20)), "JPEG")
    for data in (post_script, b"", b"text", whole[:40], whole[: len(whole) // 2]):
        with pytest.raises(DataError, match=f"{len(data)} bytes cannot be read"):
            read_image(data, 8)
    with pytest.raises(DataError, match=r"absent\.png cannot be read"):
        read_image(tmp_path / "absent.png", 8)
    assert short_sides([("a", b"text"), ("b", whole[:40])]) == [0, 0]


def test_a_file_truncated_anywhere_is_read_or_refused() -> None:
    whole = encode(Image.fromarray(noise(6, 6)))
    outcomes = set()
    for length in range(len(whole)):
        try:
            outcomes.add(read_image(whole[:length], 4).shape)
        except DataError:
            outcomes.add(())
    assert outcomes <= {(), (4, 4, 3)}
    assert () in outcomes


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DDS"])
def test_a_damaged_file_is_read_or_refused_whatever_its_decoder_raises(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Some decoders raise RuntimeError or NotImplementedError, or log to standard error."""
    whole = bytearray(encode(Image.fromarray(noise(16, 16)), kind))
    rng = numpy_generator(0, "damage", kind)
    damaged: list[tuple[str, bytes]] = []
    for number in range(150):
        copy = whole.copy()
        for position in rng.integers(0, len(copy), 8):
            copy[position] = rng.integers(256)
        damaged.append((f"{number}", bytes(copy)))
    (batch,) = decode_batches([damaged], Resizing(size=8))
    assert len(batch.images) == 150
    assert len(short_sides(damaged)) == 150
    assert capfd.readouterr().err == ""


def test_batches_are_decoded_in_order() -> None:
    images = [encode(Image.new("RGB", (5, 5), (i, 0, 0))) for i in range(50)]
    named = [(f"row {i}", data) for i, data in enumerate(images)]
    batches = list(decode_batches([named[:20], named[20:]], Resizing(size=5)))
    assert [len(batch.images) for batch in batches] == [20, 30]
    assert np.concatenate([batch.images for batch in batches])[:, 0, 0, 0].tolist() == list(
        range(50)
    )


def test_unreadable_images_are_black_and_named() -> None:
    good = encode(Image.new("RGB", (5, 5), (9, 9, 9)))
    batch = [(f"row {i}", b"broken" if i % 2 else good) for i in range(5)]
    (decoded,) = decode_batches([batch], Resizing(size=5))
    assert decoded.broken == {1: "row 1", 3: "row 3"}
    assert decoded.images[:, 0, 0, 0].tolist() == [9, 0, 9, 0, 9]
    assert list(decoded.formats) == [(5, 5, "RGB"), None] * 2 + [(5, 5, "RGB")]


def test_formats_describe_the_source_file() -> None:
    """Sizes are from before EXIF rotation and before a JPEG is decoded at a quarter size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.new("L", (640, 480))
    batch = [("a", encode(grey, "JPEG", exif=exif)), ("b", encode(grey.convert("LA")))]
    (decoded,) = decode_batches([batch], Resizing(size=8))
    assert list(decoded.formats) == [(640, 480, "L"), (640, 480, "LA")]


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpegs_are_decoded_at_reduced_size(orientation: int) -> None:
    data = photograph(orientation, height=1080, width=1440)
    whole = resize_image(Image.open(io.BytesIO(data)), 32)
    assert np.abs(read_image(data, 32).astype(int) - whole).max() <= 4
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (512, 512))
        assert image.size == (720, 540)
        reduced = resize_image(image, 32)
    assert np.array_equal(read_image(data, 32), reduced)


def photograph(orientation: int = 1, *, height: int, width: int) -> bytes:
    """Return a JPEG with smooth shapes."""
    rng = np.random.default_rng(0)
    waves = np.cumsum(np.cumsum(rng.normal(size=(height, width, 3)), axis=0), axis=1)
    pixels = (127 + 127 * waves / np.abs(waves).max()).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(pixels), "JPEG", quality=95, exif=exif)


def digest_of(data: bytes, size: int) -> bytes:
    """Return the digest with which an image of this size is cached."""
    (batch,) = decode_batches([[("image", data)]], Resizing(size=size))
    assert batch.digests is not None
    return bytes(batch.digests[0])


@pytest.mark.parametrize("side", [20, 600, 1080])
def test_digests_do_not_depend_on_the_size(side: int) -> None:
    data = photograph(height=side, width=side + 60)
    assert len({digest_of(data, size) for size in (8, 64, 224, 300)}) == 1
    assert digest_of(photograph(6, height=side, width=side + 60), 8) != digest_of(data, 8)


def test_images_of_large_sizes_are_read_from_enough_pixels() -> None:
    """At 300 pixels a side, a JPEG of 1080 is decoded whole, though its digest is of half."""
    data = photograph(height=1080, width=1440)
    whole = resize_image(Image.open(io.BytesIO(data)), 300)
    assert np.array_equal(read_image(data, 300), whole)


def test_digests_of_deep_grey_are_of_the_values_in_the_file() -> None:
    grey = np.array([[0, 1], [2, 4095]], np.uint16)
    digest = digest_of(encode(Image.fromarray(grey)), 2)
    assert digest_of(encode(Image.fromarray(grey), "TIFF"), 2) == digest
    assert digest_of(encode(Image.fromarray(grey.astype(np.int32)), "TIFF"), 2) == digest
    grey[0, 1] = 3  # too little to show among 8 bits
    assert digest_of(encode(Image.fromarray(grey)), 2) != digest


def test_digests_are_of_upright_rgb_pixels() -> None:
    """Lossless copies in other formats, modes and orientations are copies; shapes count."""
    grey = Image.fromarray(noise(6, 9)[..., 0])
    digest = digest_of(encode(grey), 4)
    assert digest_of(encode(grey.convert("RGB"), "BMP"), 4) == digest
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = grey.transpose(Image.Transpose.ROTATE_180)
    assert digest_of(encode(turned, exif=exif), 4) == digest
    assert digest_of(encode(turned), 4) != digest
    assert digest_of(encode(Image.fromarray(np.asarray(grey).reshape(9, 6))), 4) != digest
    white = np.dstack([noise(6, 9), np.full((6, 9), 255, np.uint8)])
    assert digest_of(encode(Image.fromarray(white)), 4) == digest_of(
        encode(Image.fromarray(noise(6, 9))), 4
    )


def slow_size(sides: list[int], affordable: int | None) -> int:
    """Apply the rule of `choose_image_size` without NumPy."""
    largest = (
        64 if affordable is None else max(multiple for multiple in range(0, affordable + 1, 8))
    )
    commonest = max(set(sides), key=sides.count)
    if sides.count(commonest) > len(sides) / 2:
        side = commonest
    else:
        median = statistics.median(sides)
        side = min(range(0, 4000, 8), key=lambda multiple: (abs(multiple - median), -multiple))
    return max(8, min(side, largest))


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=9), st.none() | st.integers(1, 300))
def test_the_image_size_equals_the_slow_rule(sides: list[int], affordable: int | None) -> None:
    assert choose_image_size(sides, affordable=affordable) == slow_size(sides, affordable)


@pytest.mark.parametrize(
    ("sides", "affordable", "size"),
    [([28] * 9, None, 28), ([32] * 6 + [64] * 5, None, 32), ([300, 500, 800], None, 64),
     ([300, 500, 800], 224, 224), ([300, 500, 800], 45, 40), ([3, 3, 4], None, 8),
     ([32], 20, 16), ([20, 30], None, 24), ([20, 28], 3, 8)],
)  # fmt: skip
def test_image_sizes_computed_by_hand(sides: list[int], affordable: int | None, size: int) -> None:
    assert choose_image_size(sides, affordable=affordable) == size


def test_an_image_size_needs_positive_sides() -> None:
    with pytest.raises(ValueError, match=r"got \[\]"):
        choose_image_size([])
    with pytest.raises(ValueError, match=r"got \[5, 0\]"):
        choose_image_size([5, 0])
