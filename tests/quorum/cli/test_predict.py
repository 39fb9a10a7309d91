"""`quorum predict`: any image, folders, three forms of output, and images that cannot be read."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.deployment.describe import write_metadata
from ensemble.deployment.onnx_model import classify
from quorum.cli.main import main
from tests.command_line import user_error
from tests.ensemble.deployment.test_card import card
from tests.ensemble.deployment.test_onnx_model import SIZE, write_linear
from tests.names import controls_in
from tests.trainables.data.samples import forbid_listing
from trainables.data.image_formats import BY_SUFFIX_ONLY, UNREAD

CLASSES = ("[red]cat", 'b\x1b[31m\ny, "dog"')


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = write_linear(tmp_path / "model.onnx")
    write_metadata(path, card(image_size=SIZE, class_names=CLASSES).metadata)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with images at several depths, and files that are no images."""
    root = tmp_path / "photos"
    for number, name in enumerate(
        ("b.png", "a/c.jpg", "a/deep/d.BMP", "a/no_suffix", ".hidden.png")
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if name.endswith("jpg") else "PNG"
        colours = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(colours).save(path, "BMP" if name.endswith("BMP") else kind)
    (root / "notes.txt").write_text("no image")
    (root / ".git").mkdir()
    Image.new("RGB", (4, 4)).save(root / ".git" / "x.png")
    return root


def output(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> list[str]:
    assert main(["predict", *map(str, arguments)]) == code
    out = capsys.readouterr().out
    assert not controls_in(out, allowed="\n\t")
    return out.splitlines()


def test_a_folder_stands_for_all_visible_images_below_it(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [photos / name for name in ("a/c.jpg", "a/deep/d.BMP", "a/no_suffix", "b.png")]
    lines = output(capsys, model, photos, photos / "b.png")
    assert [line.partition("\t")[0] for line in lines] == [
        *map(str, expected),
        str(photos / "b.png"),
    ]


def test_every_form_prints_the_same_probabilities(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = classify(model, [photos / "b.png", photos / "a" / "c.jpg"])
    images = [prediction.image for prediction in predictions]
    objects = [json.loads(line) for line in output(capsys, model, *images, "--json")]
    rows = list(csv.DictReader(io.StringIO("\n".join(output(capsys, model, *images, "--csv")))))
    assert len(objects) == len(rows) == len(predictions)
    for prediction, value, row in zip(predictions, objects, rows, strict=True):
        exact = dict(zip(CLASSES, prediction.probabilities, strict=True))
        assert value == {
            "image": str(prediction.image),
            "prediction": prediction.best,
            "probabilities": exact,
        }
        assert [row["image"], float(row["probability"])] == [
            str(prediction.image), pytest.approx(max(prediction.probabilities), rel=1e-5)
        ]  # fmt: skip
        shares = [float(cell) for name, cell in row.items() if name.startswith("p(")]
        assert shares == pytest.approx(prediction.probabilities, rel=1e-5)


def test_only_the_most_probable_classes_are_printed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = output(capsys, model, photos / "b.png", "--top", 1)
    (prediction,) = classify(model, [photos / "b.png"])
    assert line.endswith(f"{max(prediction.probabilities):.3f}")
    assert line.count(".") == str(photos / "b.png").count(".") + 1


@pytest.mark.parametrize("top", ["0", "-1"])
def test_no_classes_are_refused(
    top: str, model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"--top must be at least 1, got {top}" in user_error(
        capsys, "predict", model, photos, f"--top={top}"
    )


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
@pytest.mark.parametrize("bad", [1, 2])
def test_bad_images_are_named_and_the_others_printed(
    bad: int, form: list[str], model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(bad):
        (photos / f"bad\x1b{number}.png").write_bytes(b"\x89PNG\r\n\x1a\nthen nothing")
    good = 4 + (form == ["--csv"])
    assert main(["predict", str(model), str(photos), *form]) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == good
    errors = printed.err.splitlines()
    assert not controls_in(printed.err)
    assert len(errors) == (1 if bad == 1 else 3)
    for number in range(bad):
        assert f"bad\\x1b{number}.png" in errors[number]


def test_a_folder_without_images_is_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in user_error(capsys, "predict", model, tmp_path / "empty")


def test_paths_that_cannot_be_reached_are_named_and_the_others_printed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = photos / f"{'x' * 300}.png"
    assert main(["predict", str(model), str(photos / "b.png"), str(long), str(photos / "a")]) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    (line,) = printed.err.splitlines()
    assert f"{long} cannot be read: File name too long" in line
    assert main(["predict", str(model), str(long), str(long), str(photos / "b.png")]) == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert len(printed.err.splitlines()) == 3, "each path, and their number"


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_printed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = photos / "a" / "deep"
    forbid_listing(monkeypatch, locked)
    assert main(["predict", str(model), str(photos)]) == 2
    printed = capsys.readouterr()
    assert [line.partition("\t")[0] for line in printed.out.splitlines()] == [
        str(photos / name) for name in ("a/c.jpg", "a/no_suffix", "b.png")
    ]
    (line,) = printed.err.splitlines()
    assert f"{locked} cannot be listed: Permission denied" in line
    assert str(locked) in user_error(capsys, "predict", model, locked)


def test_a_name_that_is_not_utf8_is_printed(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(photos) + b"/\xff\xfe.png")
    Path(photos / "b.png").rename(odd)
    (line,) = output(capsys, model, odd)
    assert r"\xff\xfe.png" in line


def written_formats() -> list[str]:
    Image.init()
    both = set(Image.SAVE) & set(Image.OPEN)
    return sorted(both - set(UNREAD) - set(BY_SUFFIX_ONLY))


@pytest.mark.parametrize("kind", written_formats())
def test_every_format_that_pillow_writes_is_read(
    kind: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow cannot write all the formats that it reads, so this is most of them."""
    path = tmp_path / "picture"
    for mode in ("RGB", "L", "1", "P"):
        try:
            Image.new(mode, (16, 16)).save(path, kind)
        except (OSError, KeyError, ValueError):
            continue
        (line,) = output(capsys, model, path)
        assert line.startswith(str(path))
        return
    pytest.skip(f"Pillow cannot write a plain {kind} here")
