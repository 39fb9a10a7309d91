"""The server over HTTP: answers, refusals, limits, and who may ask."""

import gc
import http.client
import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import RunError
from ensemble.deployment.describe import write_metadata
from ensemble.deployment.metadata import ConformalThreshold, ModelMetadata
from ensemble.deployment.onnx_model import OnnxClassifier, classify
from quorum.serving.answers import Answers, Limits, RefusedError, conformal_set
from quorum.serving.server import Server
from tests.command_line import user_error
from tests.ensemble.deployment.test_onnx_model import SIZE, write_linear
from tests.names import controls_in
from trainables.data.image_formats import quiet_pillow

CLASSES = ("<b>cat</b>", "b\x1b[31m\u202e\ny")
LIMITS = Limits(max_bytes=200_000, max_pixels=10_000)
CONFORMAL = ConformalThreshold(coverage=0.9, min_probability=0.001)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_linear(tmp_path_factory.mktemp("served") / "model.onnx")
    write_metadata(
        path,
        ModelMetadata(
            class_names=CLASSES, image_size=SIZE, dataset="<i>pets</i>", conformal=CONFORMAL
        ),
    )
    return path


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with Server(Answers(OnnxClassifier(model), LIMITS)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def picture(side: tuple[int, int] = (9, 7), kind: str = "PNG") -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (*side[::-1], 3), np.uint8)
    file = io.BytesIO()
    with quiet_pillow():  # it means to drop IM
        Image.fromarray(colours).save(file, kind)
    return file.getvalue()


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.headers, content


def refusal(answer: tuple[int, Any, bytes]) -> tuple[int, str]:
    """Return the status and kind of a refusal, whose message is one harmless sentence."""
    status, headers, content = answer
    assert headers.get_content_type() == "application/json"
    error = json.loads(content)["error"]
    assert error["message"]
    assert not controls_in(error["message"], allowed="")
    return status, error["kind"]


def test_an_image_is_answered_as_predict_answers_it(
    server: Server, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (expected,) = classify(model, [tmp_path / "a.png"])
    status, _, content = ask(server, "POST", "/predict", picture())
    answer = json.loads(content)
    assert status == 200
    assert [(item["class"], item["probability"]) for item in answer["probabilities"]] == [
        *expected.ranked
    ]
    assert answer["prediction"] == expected.best
    assert answer["coverage"] == CONFORMAL.coverage
    assert answer["set"] == [name for name, share in expected.ranked if share >= 0.001]
    assert not any(controls_in(item["label"], allowed="") for item in answer["probabilities"])


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF", "GIF", "WEBP"])
def test_other_formats_are_read(server: Server, kind: str) -> None:
    assert ask(server, "POST", "/predict", picture(kind=kind))[0] == 200


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("TGA", ".tga"),
        ("TGA", "TGA"),
        ("PCX", ".pcx"),
        ("DIB", ".dib"),
        ("IM", ".im"),
        ("SPIDER", ".spi"),
        ("SPIDER", ""),
    ],
)
def test_the_suffix_tells_formats_without_distinctive_first_bytes(
    server: Server, model: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix.removeprefix('.')}".removesuffix(".")
    path.write_bytes(picture(kind=kind))
    (expected,) = classify(model, [path])
    nameless = ask(server, "POST", "/predict", path.read_bytes())
    assert refusal(nameless) == (422, "unreadable_image")
    status, _, content = ask(server, "POST", f"/predict?suffix={suffix}", path.read_bytes())
    assert status == 200
    shares = [item["probability"] for item in json.loads(content)["probabilities"]]
    assert shares == [share for _, share in expected.ranked]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("suffix", ["", ".tga", ".spi", ".png", "%00/..", "&suffix"])
def test_a_wrong_suffix_does_not_matter_where_the_first_bytes_tell(
    server: Server, kind: str, suffix: str
) -> None:
    image = picture(kind=kind)
    expected = ask(server, "POST", "/predict", image)
    assert ask(server, "POST", f"/predict?suffix={suffix}", image)[::2] == expected[::2]


@pytest.mark.parametrize(
    ("kind", "suffix"), [("EPS", ".eps"), ("EPS", ""), ("EPS", ".tga"), ("TGA", ".png")]
)
def test_other_formats_stay_refused_with_a_suffix(server: Server, kind: str, suffix: str) -> None:
    answer = ask(server, "POST", f"/predict?suffix={suffix}", picture(kind=kind))
    assert refusal(answer) == (422, "unreadable_image")


def test_the_pixels_of_a_named_format_are_limited_too(server: Server) -> None:
    file = io.BytesIO()
    Image.new("L", (101, 100)).save(file, "TGA", compression="tga_rle")
    answer = ask(server, "POST", "/predict?suffix=.tga", file.getvalue())
    assert refusal(answer) == (413, "too_many_pixels")
    damaged = picture(kind="TGA")[:60]
    answer = ask(server, "POST", "/predict?suffix=.tga", damaged)
    assert refusal(answer) == (422, "unreadable_image")


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    status, headers, content = ask(server, "GET", "/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    text = content.decode()
    for address in re.findall(r'(?:src|href)="([^"]*)"', text):
        if address:
            assert address.startswith("/")
            status, headers, part = ask(server, "GET", address)
            assert status == 200
            if not address.endswith(".svg"):
                assert b"http:" not in part
                assert b"https:" not in part
    assert not re.search(r"<script>|<style>|\son\w+=|style=", text), (
        "the policy forbids inline code"
    )


def test_the_model_is_described(server: Server) -> None:
    _, _, content = ask(server, "GET", "/model")
    model = json.loads(content)
    assert model["dataset"] == "<i>pets</i>"
    assert len(model["classes"]) == 2
    assert not any(controls_in(name, allowed="") for name in model["classes"])


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/absent", None, (404, "not_found")),
        ("GET", "/../server.py", None, (404, "not_found")),
        ("POST", "/absent", b"x", (404, "not_found")),
        ("GET", "/predict", None, (405, "method_not_allowed")),
        ("POST", "/", b"x", (405, "method_not_allowed")),
        ("PUT", "/predict", b"x", (405, "method_not_allowed")),
        ("DELETE", "/", None, (405, "method_not_allowed")),
        ("POST", "/predict", b"", (400, "empty")),
        ("POST", "/predict", b"no image", (422, "unreadable_image")),
        ("POST", "/predict", picture()[:50], (422, "unreadable_image")),
        ("POST", "/predict", b"x" * 200_001, (413, "too_many_bytes")),
        ("POST", "/predict", picture((101, 100)), (413, "too_many_pixels")),
    ],
)
def test_every_refusal_has_its_kind(
    server: Server, method: str, path: str, body: bytes | None, expected: tuple[int, str]
) -> None:
    assert refusal(ask(server, method, path, body)) == expected


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(server: Server) -> None:
    file = io.BytesIO()
    Image.new("1", (30_000, 20_000)).save(file, "PNG")
    assert len(file.getvalue()) < LIMITS.max_bytes
    assert refusal(ask(server, "POST", "/predict", file.getvalue())) == (413, "too_many_pixels")


def test_a_form_is_refused_with_advice(server: Server) -> None:
    answer = ask(
        server, "POST", "/predict", b"--x--", Content_Type="multipart/form-data; boundary=x"
    )
    assert refusal(answer) == (415, "multipart")


@pytest.mark.parametrize("length", ["many", "-1", "", "9" * 5000, "١"])
def test_an_odd_length_is_refused(server: Server, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as client:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        client.sendall(head.encode("utf-8"))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.split(b" ")[1] in (b"411", b"413")


def test_a_large_body_is_refused_before_it_is_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_all_before_it_reads_gets_the_refusal(server: Server) -> None:
    answer = ask(server, "POST", "/predict", bytes(25_000_000))
    assert refusal(answer) == (413, "too_many_bytes")


@pytest.mark.parametrize(
    ("bound", "value", "part", "pause"),
    [("DISCARD_BYTES", 1_000_000, bytes(100_000), 0.0), ("DISCARD_SECONDS", 0.2, b"x", 0.01)],
)
def test_a_client_that_sends_for_ever_is_cut_off(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    value: float,
    part: bytes,
    pause: float,
) -> None:
    monkeypatch.setattr(f"quorum.serving.server.{bound}", value)
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 413")
        sent = sent_until_cut_off(client, part, pause, seconds=3)
    assert sent < 50_000_000, "the limit, and what the kernel buffers"


def sent_until_cut_off(client: socket.socket, part: bytes, pause: float, seconds: float) -> int:
    """Return the number of bytes that a client could send."""
    began, sent = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        try:
            sent += client.send(part)
        except ConnectionError:
            return sent
        time.sleep(pause)
    raise AssertionError(f"not cut off after {sent} bytes in {seconds} s")


@pytest.mark.parametrize("content", [b"no image", picture()[:50]], ids=["no image", "damaged"])
def test_refused_images_are_not_kept(model: Path, content: bytes) -> None:
    """An exception that is raised again keeps the frames of all its tracebacks."""
    answers = Answers(OnnxClassifier(model), LIMITS)
    image = content + bytes(100)
    kept = sys.getrefcount(image)
    refusals = set()
    for _ in range(20):
        with suppress(RefusedError):
            answers.predict(image)
    gc.collect()
    assert sys.getrefcount(image) == kept
    for _ in range(2):
        with pytest.raises(RefusedError, match="damaged, or not an image") as caught:
            answers.predict(image)
        refusals.add(caught.value)
    assert len(refusals) == 2, "each refusal is another object"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "[x"])
def test_another_host_name_is_refused(server: Server, method: str, host: str) -> None:
    """After DNS rebinding, a browser still sends the name of the page's own site."""
    assert refusal(ask(server, method, "/", Host=host)) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9999", "LOCALHOST", "[::1]:80"])
def test_names_of_this_machine_are_accepted_on_any_port(server: Server, host: str) -> None:
    """A tunnel may have another port at its other end."""
    assert ask(server, "GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[x"])
def test_pages_of_other_sites_are_refused(server: Server, origin: str) -> None:
    answer = ask(server, "POST", "/predict", picture(), Origin=origin)
    assert refusal(answer) == (403, "wrong_origin")
    assert "Access-Control-Allow-Origin" not in answer[1]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_malformed_address_is_refused(server: Server, method: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20) as client:
        client.sendall(f"{method} http://[x HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")


def test_the_servers_own_page_may_ask(server: Server) -> None:
    assert ask(server, "POST", "/predict", picture(), Origin=server.url.rstrip("/"))[0] == 200


def test_many_clients_at_once_get_the_same_answer(server: Server) -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(ask(server, "POST", "/predict", picture())[2])
        )
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len(set(answers)) == 1


def test_a_set_holds_the_best_class_at_least() -> None:
    ranked = [("a", 0.5), ("b", 0.3), ("c", 0.2)]
    strict = ConformalThreshold(coverage=0.9, min_probability=0.25)
    assert conformal_set(ranked, strict) == ["a", "b"]
    assert conformal_set(ranked, ConformalThreshold(coverage=0.1, min_probability=0.9)) == ["a"]
    assert conformal_set(ranked, None) is None


def test_only_loopback_is_bound(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_one_line(
    server: Server, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.server_address[1]
    with pytest.raises(RunError, match=f"--port {port}"):
        Server(Answers(OnnxClassifier(model), LIMITS), port=port)
    assert f"--port {port}" in user_error(capsys, "serve", model, f"--port={port}")
    assert "--port 99999" in user_error(capsys, "serve", model, "--port=99999")
    assert "--max-mb" in user_error(capsys, "serve", model, "--max-mb=0")
