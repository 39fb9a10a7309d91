"""The probe tells servers that refuse from servers that answer."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.probe import answers_http, greets_as_ssh, main, open_ports

TOKEN = "f" * 64


class Guarded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.send_response(200 if known else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Open(Guarded):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()


@pytest.fixture(params=[Guarded, Open])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("port", [Guarded], indirect=True)
def test_a_server_that_asks_for_a_token_passes(port: int, tmp_path: Path) -> None:
    assert open_ports("127.0.0.1", [port]) == [port]
    assert not greets_as_ssh("127.0.0.1", port)
    assert main(["127.0.0.1", str(port)]) == 0


@pytest.mark.parametrize("port", [Guarded], indirect=True)
def test_the_token_lets_in(port: int, tmp_path: Path) -> None:
    """The positive control: without it, a server that is merely down would pass."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert main(["127.0.0.1", str(port), "--token-file", str(tmp_path / "token")]) == 0
    (tmp_path / "token").write_text("0" * 64)
    assert main(["127.0.0.1", str(port), "--token-file", str(tmp_path / "token")]) == 1


@pytest.mark.parametrize("port", [Open], indirect=True)
def test_one_page_without_a_token_fails(port: int) -> None:
    found = answers_http("127.0.0.1", port)
    assert found
    assert found["/metrics"]
    assert main(["127.0.0.1", str(port)]) == 1


def test_a_closed_port_is_not_open() -> None:
    server = HTTPServer(("127.0.0.1", 0), Guarded)
    server.server_close()
    assert open_ports("127.0.0.1", [server.server_port]) == []
