"""The served page in headless Chromium, for mouse, keyboard and screen reader."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.deployment.describe import write_metadata
from ensemble.deployment.metadata import ConformalThreshold, ModelMetadata
from ensemble.deployment.onnx_model import OnnxClassifier, classify
from quorum.serving.answers import Answers, Limits
from quorum.serving.server import Server
from tests.browser import Page, browser, chromium
from tests.ensemble.deployment.test_onnx_model import SIZE, write_linear

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed"),
]
CLASSES = ("<img src=x onerror=alert(1)>", "\u202eevil\x1b[31m", "tabby cat", "dog")
PICTURES = os.environ.get("QUORUM_TEST_PICTURES")
"""A folder to keep screenshots in, for people."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_linear(tmp_path_factory.mktemp("page") / "model.onnx", classes=len(CLASSES))
    conformal = ConformalThreshold(coverage=0.9, min_probability=0.01)
    write_metadata(
        path,
        ModelMetadata(
            class_names=CLASSES, image_size=SIZE, dataset="<b>pets</b>", conformal=conformal
        ),
    )
    return path


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with Server(Answers(OnnxClassifier(model), Limits(max_bytes=100_000))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = chromium()
    assert program is not None
    with browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(started: Page, url: str) -> Page:
    started.problems.clear()
    started.requests.clear()
    started.open(url)
    started.wait("document.getElementById('about').textContent !== ''")
    return started


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    colours = np.random.default_rng(4).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


def keep(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(Path(PICTURES) / f"{name}.png")


def classified(page: Page, photo: Path) -> None:
    page.choose("#file", photo)
    page.wait("!document.getElementById('result').hidden && picture.complete")


def test_a_picture_is_classified(page: Page, model: Path, photo: Path, url: str) -> None:
    keep(page, "start")
    classified(page, photo)
    (expected,) = classify(model, [photo])
    rows = page.evaluate("[...classes.rows].map(row => [...row.cells].map(c => c.textContent))")
    assert len(rows) == len(CLASSES)
    assert rows[0][1] == f"{100 * max(expected.probabilities):.1f}%"
    names = [name for name, _ in rows]
    assert CLASSES[0] in names
    assert r"\u202eevil\x1b[31m" in names
    assert page.evaluate("picture.naturalWidth") == 320
    assert "90% coverage" in page.evaluate("document.getElementById('set').textContent")
    assert page.evaluate("document.title") == "Image classifier: <b>pets</b>"
    assert page.problems == []
    assert all(address.startswith((url, "blob:")) for address in page.requests)
    keep(page, "result")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 900])
def test_the_page_fits_any_width_and_scheme(
    page: Page, url: str, photo: Path, width: int, dark: bool
) -> None:
    page.open(url, width=width, dark=dark)
    classified(page, photo)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background, ink = (
        sum(map(int, page.evaluate(f"getComputedStyle(document.body).{name}")[4:-1].split(",")))
        for name in ("backgroundColor", "color")
    )
    assert (background < ink) == dark
    keep(page, f"result-{width}-{'dark' if dark else 'light'}")


def test_a_dropped_picture_is_classified(page: Page, photo: Path) -> None:
    data = list(photo.read_bytes())
    page.evaluate(
        "{const t = new DataTransfer();"
        f"t.items.add(new File([new Uint8Array({data})], 'a.png', {{type: 'image/png'}}));"
        "document.getElementById('drop').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: t, bubbles: true, cancelable: true}));}"
    )
    page.wait("!document.getElementById('result').hidden")
    assert page.problems == []


@pytest.mark.parametrize("content", [b"no picture", b"x" * 100_001], ids=["damaged", "too large"])
def test_a_refusal_is_shown_and_announced(
    page: Page, tmp_path: Path, photo: Path, content: bytes
) -> None:
    classified(page, photo)
    (tmp_path / "bad.png").write_bytes(content)
    page.choose("#file", tmp_path / "bad.png")
    page.wait("document.getElementById('error').textContent !== ''")
    assert page.evaluate("document.getElementById('result').hidden")
    assert any(role == "alert" for role, _ in page.accessible())
    keep(page, "refusal")


def test_a_file_over_the_limit_is_not_sent(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(b"x" * 100_001)
    page.choose("#file", tmp_path / "large.png")
    page.wait("document.getElementById('error').textContent !== ''")
    text = page.evaluate("document.getElementById('error').textContent")
    assert "larger than 0.1 MB" in text
    assert not any("/predict" in address for address in page.requests)


def test_a_format_is_told_by_the_files_suffix(page: Page, photo: Path) -> None:
    path = photo.with_suffix(".tga")
    Image.open(photo).resize((32, 24)).save(path)
    page.choose("#file", path)
    page.wait("!document.getElementById('result').hidden")
    assert page.problems == []


def test_the_keyboard_reaches_the_choice(page: Page) -> None:
    page.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    outline = "getComputedStyle(document.getElementById('drop')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    keep(page, "focus")


def test_a_screen_reader_hears_the_choice_and_the_result(page: Page, photo: Path) -> None:
    assert any("Choose a picture" in name for role, name in page.accessible() if role == "button")
    classified(page, photo)
    reached = page.accessible()
    assert {"heading", "table", "status", "image", "main"} <= {role for role, _ in reached}
    assert "The picture that was classified" in [name for role, name in reached if role == "image"]
    best = page.evaluate("heading.textContent").partition(": ")[0]
    assert best in page.evaluate("document.getElementById('status').textContent")
