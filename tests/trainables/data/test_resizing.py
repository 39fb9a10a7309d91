"""One resize rule: what training stores, what predictions read, and a slow reference, agree."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import SpecError
from common.seeds import numpy_generator
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.pixels import read_image
from trainables.data.resizing import ResizeRule, choose_crop_size
from trainables.data.splits import SplitSpec, make_splits
from trainables.data.user_function import images_from_function

SIZE = 48
RULES: tuple[ResizeRule, ...] = ("crop", "squash", "pad")
SHAPES = {"landscape": (150, 90), "portrait": (70, 201), "tiny": (9, 13), "large": (2400, 1500)}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return smooth waves with fine detail, in grey levels 20 to 235."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (3 + i + seed) + i) + np.cos(y / (2 + 2 * i) - x / 17) for i in range(3)]
    detail = numpy_generator(seed, "detail").normal(0, 6, (height, width, 3))
    levels = 128 + 40 * np.stack(waves, axis=2) + detail
    return Image.fromarray(levels.clip(20, 235).astype(np.uint8))


def pictures() -> dict[str, Image.Image]:
    named = {name: picture(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}
    named["palette"] = named["landscape"].quantize(64)
    named["grey"] = named["portrait"].convert("L")
    return named


def filter_loop(source: np.ndarray, start: float, length: float, size: int) -> np.ndarray:
    """Resize along the first axis by the antialiased cubic filter, in a loop."""
    step = length / size
    reach = max(step, 1.0)
    rows = []
    for i in range(size):
        x = np.abs(np.arange(len(source)) + 0.5 - start - (i + 0.5) * step) / reach
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = np.where(x < 1, near, np.where(x < 2, far, 0))
        rows.append(np.tensordot(weights / weights.sum(), source, axes=1))
    return np.stack(rows)


def slow_square(image: Image.Image, size: int, rule: ResizeRule) -> np.ndarray:
    """Apply a rule without Pillow's resize: float64, [size, size, 3]."""
    pixels = np.asarray(image.convert("RGB")).astype(np.float64)
    height, width = pixels.shape[:2]
    if rule == "crop":
        side = min(width, height)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
        height = width = side
    rows, columns = size, size
    if rule == "pad":
        rows = max(1, round(height * size / max(width, height)))
        columns = max(1, round(width * size / max(width, height)))
    narrow = filter_loop(pixels.transpose(1, 0, 2), 0, width, columns).transpose(1, 0, 2)
    resized = filter_loop(narrow, 0, height, rows)
    canvas = np.full((size, size, 3), 128.0)
    top, left = (size - rows) // 2, (size - columns) // 2
    canvas[top : top + rows, left : left + columns] = resized
    return canvas


def write_folder(root: Path) -> Path:
    """Write two classes with the same shapes and other content, as PNG."""
    for name, image in pictures().items():
        for i, label in enumerate(("a", "b")):
            path = root / label / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            (image if i == 0 else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).save(path)
    return root


@pytest.mark.parametrize("rule", RULES)
def test_training_and_prediction_have_the_pixels_of_the_slow_reference(
    rule: ResizeRule, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "data")
    spec = DatasetSpec(name="imagefolder", path=str(root), image_size=SIZE, resize=rule)
    stored = load_dataset(spec, cache=tmp_path / "cache")
    assert stored.resize == rule
    files = sorted(path.relative_to(root) for path in root.glob("*/*"))
    for pixels, file in zip(stored.images, files, strict=True):
        assert np.array_equal(pixels, read_image(root / file, SIZE, rule)), file
        with Image.open(root / file) as image:
            reference = slow_square(image, SIZE, rule)
        assert np.abs(pixels.astype(float) - reference).max() <= 1.2, file


@pytest.mark.parametrize("rule", RULES)
def test_a_large_jpeg_differs_little_from_the_reference(rule: ResizeRule) -> None:
    """It is decoded at a reduced size, which leaves out detail that the reference averages."""
    file = io.BytesIO()
    picture(2400, 1500).save(file, "JPEG", quality=95)
    with Image.open(file) as whole:
        reference = slow_square(whole, SIZE, rule)
    difference = np.abs(read_image(file.getvalue(), SIZE, rule).astype(float) - reference)
    assert difference.mean() < 0.7
    assert difference.max() <= 4


def test_rules_show_the_whole_image_or_its_centre() -> None:
    """Red at the left edge of a wide picture: cropped away, squashed or between grey bars."""
    wide = Image.new("RGB", (90, 30), (0, 0, 255))
    wide.paste((255, 0, 0), (0, 0, 15, 30))
    file = io.BytesIO()
    wide.save(file, "PNG")
    shown = {rule: read_image(file.getvalue(), 30, rule).astype(int) for rule in RULES}
    red = {rule: (pixels[..., 0] > 200).sum(axis=1) for rule, pixels in shown.items()}
    assert red["crop"].tolist() == [0] * 30
    assert set(red["squash"].tolist()) == {5}
    assert red["pad"].tolist() == [0] * 10 + [5] * 10 + [0] * 10
    assert bool((shown["pad"][:10] == 128).all())


def test_copies_hold_the_whole_picture_and_leave_the_images_as_they_are(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    spec = DatasetSpec(name="imagefolder", path=str(root), image_size=SIZE, crop_size=64)
    copied = load_dataset(spec, cache=tmp_path / "cache")
    plain = load_dataset(replace(spec, crop_size=None), cache=tmp_path / "cache")
    assert plain.large is None
    assert copied.large is not None
    assert np.array_equal(copied.images, plain.images)
    assert copied.fingerprint == plain.fingerprint
    assert copied.nbytes == plain.nbytes + 12 * 64 * 64 * 3
    files = sorted(path.relative_to(root) for path in root.glob("*/*"))
    for pixels, aspect, file in zip(copied.large.pixels, copied.large.aspects, files, strict=True):
        with Image.open(root / file) as image:
            assert aspect == pytest.approx(image.width / image.height)
        assert np.array_equal(pixels, read_image(root / file, 64, "squash")), file


@pytest.mark.parametrize("rule", ["squash", "pad"])
def test_copies_of_other_rules_are_larger_images_of_the_same_shape(
    rule: ResizeRule, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "data")
    spec = DatasetSpec(
        name="imagefolder", path=str(root), image_size=SIZE, crop_size=60, resize=rule
    )
    large = load_dataset(spec, cache=tmp_path / "cache").large
    assert large is not None
    assert set(large.aspects.tolist()) == {1.0}
    assert np.array_equal(large.pixels[0], read_image(root / "a" / "grey.png", 60, rule))


def test_workers_find_the_entry_with_the_copies_that_they_ask_for(tmp_path: Path) -> None:
    """The fingerprint is the same for every rule and with or without copies."""
    root, cache = write_folder(tmp_path / "data"), tmp_path / "cache"
    base = DatasetSpec(name="imagefolder", path=str(root), image_size=SIZE)
    specs = [base, replace(base, crop_size=60), replace(base, resize="squash")]
    sets = [load_dataset(spec, cache=cache) for spec in specs]
    assert len({images.fingerprint for images in sets}) == 1
    for spec, images in zip(specs, sets, strict=True):
        found = load_dataset(spec, cache=cache, fingerprint=images.fingerprint)
        assert np.array_equal(found.images, images.images)
        assert (found.large is None) == (images.large is None)
        assert found.resize == spec.resize


def test_splits_depend_neither_on_the_rule_nor_on_the_copies(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    for i in range(60):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(30 + i % 3 * 7, 24 + i % 5 * 5, seed=i).save(path)
    base = DatasetSpec(name="imagefolder", path=str(root), image_size=24)
    others = [replace(base, resize=rule) for rule in RULES] + [replace(base, crop_size=32)]
    splits = [make_splits(load_dataset(spec, cache=cache), SplitSpec(floor=5)) for spec in others]
    assert len({each.split_id for each in splits}) == 1
    assert len({each.train.tobytes() for each in splits}) == 1


def test_skipped_images_leave_no_copies(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    (root / "a" / "broken.png").write_bytes(b"text")
    spec = DatasetSpec(
        name="imagefolder", path=str(root), image_size=16, crop_size=24, skip_unreadable=True
    )
    images = load_dataset(spec, cache=tmp_path / "cache")
    assert images.large is not None
    assert len(images) == len(images.large.pixels) == len(images.large.aspects) == 12
    assert np.array_equal(images.large.pixels[0], read_image(root / "a" / "grey.png", 24, "squash"))


def test_copies_that_would_equal_the_images_are_not_kept(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(20, 20, seed=i).save(path)
    spec = DatasetSpec(name="imagefolder", path=str(root), image_size=20, crop_size=20)
    images = load_dataset(spec, cache=tmp_path / "cache")
    assert images.large is None
    assert not [*(tmp_path / "cache").glob("*/large.npy")]


def test_copies_are_made_where_a_recipe_crops(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    spec = DatasetSpec(name="images", path=str(root))
    assert resolve_dataset(spec).crop_size is None
    resolved = resolve_dataset(spec, crops=True)
    assert (resolved.image_size, resolved.crop_size) == (64, 80)
    assert resolve_dataset(replace(spec, crop_size=0), crops=True).crop_size == 0
    assert resolve_dataset(replace(spec, crop_size=96), crops=True).crop_size == 96
    assert resolve_dataset(resolved) == resolved
    with pytest.raises(SpecError, match=r"crop_size must be 0 or lie in \[4, 2048\] .* got 3000"):
        DatasetSpec(crop_size=3000)


@pytest.mark.parametrize(
    ("image_size", "typical_side", "expected"),
    [(64, 500, 80), (224, 500, 280), (128, 32, 128), (96, 110, 110), (100, 100, 100)],
)
def test_copies_are_a_quarter_larger_but_not_larger_than_the_files(
    image_size: int, typical_side: int, expected: int
) -> None:
    assert choose_crop_size(image_size, typical_side) == expected


def test_a_user_functions_arrays_follow_the_same_rules(monkeypatch: Any) -> None:
    import sys
    from types import ModuleType

    from trainables.data.resizing import ResizeRequest

    array = np.stack([np.asarray(picture(40, 25, seed=i)) for i in range(4)])
    module = ModuleType("mydata")
    module.load = lambda path, image_size: (array, [0, 1, 0, 1], ["a", "b"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mydata", module)
    for rule in RULES:
        asked = ResizeRequest(size=20, rule=rule, crop_size=24)
        images = images_from_function("mydata:load", None, asked)
        assert images.large is not None
        expected = slow_square(Image.fromarray(array[1]), 20, rule)
        assert np.abs(images.images[1].astype(float) - expected).max() <= 1.2
        assert images.large.pixels.shape == (4, 24, 24, 3)
        assert images.large.aspects[0] == pytest.approx(1.6 if rule == "crop" else 1.0)
