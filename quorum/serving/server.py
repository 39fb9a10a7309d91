"""A small HTTP server on loopback for one classifier.

    GET  /          a page to drop a picture on
    GET  /model     what the model is, as JSON
    POST /predict   an image file as the request's body; its classes as JSON.
                    ?suffix=.tga is the suffix of the file's name, which some formats need

It answers only requests that name this machine as their host, so that a web page of another
site cannot reach it by rebinding its own name to 127.0.0.1, and refuses requests that another
site's page sends.
"""

import json
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from common.errors import RunError
from quorum.serving.answers import Answers, RefusedError, too_large

HOST = "127.0.0.1"
HOST_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

PAGES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""File and content type by path."""

DISCARD_BYTES = 1_000_000_000
"""Unread bytes that are dropped before a connection is closed: the largest `--max-mb`, so that any
file that some setting accepts gets its answer."""
DISCARD_SECONDS = 5.0
"""Seconds that this may take: loopback carries such a file in less, and a client that sends for
ever must not keep a thread."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    """A server of one classifier; use it as a context manager."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, answers: Answers, *, port: int = 0) -> None:
        """Listen on `port` of loopback; 0 takes a free one.

        Raises:
            RunError: the port is in use or not allowed.
        """
        self.answers = answers
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise RunError(f"--port {port}: {reason}; choose another port") from None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/"

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that leave early; print the traceback of a defect."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "quorum", ""
    timeout = 30
    """Seconds that a client may be silent."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def handle_expect_100(self) -> bool:
        """Refuse a body that is too large before the client sends it."""
        try:
            self._check_sender()
            self._length()
        except RefusedError as refusal:
            self._refuse(refusal)
            return False
        return super().handle_expect_100()

    def finish(self) -> None:
        """End the answer, then drop what the client still sends, up to a bound.

        If a connection is closed with unread data, the kernel resets it, and a client that is still
        sending gets an error instead of the answer.
        """
        super().finish()
        bytes_left, deadline = DISCARD_BYTES, time.monotonic() + DISCARD_SECONDS
        with suppress(OSError):  # the client left, or stays silent
            self.connection.shutdown(socket.SHUT_WR)
            while bytes_left > 0 and (seconds_left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(seconds_left)
                received = len(self.connection.recv(1 << 16))
                if received == 0:
                    return
                bytes_left -= received

    def send_error(self, code: int, message: str | None = None, *_: Any) -> None:
        """Send errors of the protocol itself as JSON, too."""
        kind = "method_not_allowed" if code == 501 else "bad_request"
        text = message or "the request is malformed"
        self._refuse(RefusedError(405 if code == 501 else code, kind, text))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: paths come from clients."""

    def _answer(self, answer: Any) -> None:
        try:
            self._check_sender()
            content, kind = answer(self._target())
        except RefusedError as refusal:
            self._refuse(refusal)
        else:
            self._send(200, content, kind)

    def _target(self) -> str:
        """Return the path of the request's target, which may be a whole address."""
        try:
            return urlsplit(self.path).path
        except ValueError:
            raise RefusedError(400, "bad_request", "the address is malformed") from None

    def _get(self, path: str) -> tuple[bytes, str]:
        if path in PAGES:
            name, kind = PAGES[path]
            return (files("quorum.serving") / "page" / name).read_bytes(), kind
        if path == "/model":
            return _json(self.server.answers.model())
        if path == "/predict":
            raise RefusedError(405, "method_not_allowed", "send the image file by POST")
        raise _not_found()

    def _post(self, path: str) -> tuple[bytes, str]:
        if path != "/predict":
            raise (
                RefusedError(405, "method_not_allowed", "use GET")
                if path in PAGES
                else _not_found()
            )
        length = self._length()
        if self.headers.get_content_type() == "multipart/form-data":
            raise RefusedError(
                415, "multipart", "send the image file itself as the body, e.g. curl --data-binary"
            )
        image = self.rfile.read(length)
        return _json(self.server.answers.predict(image, suffix=self._suffix()))

    def _suffix(self) -> str | None:
        """Return the suffix of the image file's name; None if the client did not send it."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        return query["suffix"][-1] if "suffix" in query else None

    def _check_sender(self) -> None:
        """Refuse a foreign host name, which DNS rebinding would show, and pages of other sites."""
        if _host_name(f"//{self.headers.get('Host', '')}") not in HOST_NAMES:
            raise RefusedError(421, "wrong_host", f"open this server as http://{HOST} or localhost")
        origin = self.headers.get("Origin")
        if origin is not None and _host_name(origin) not in HOST_NAMES:
            raise RefusedError(
                403, "wrong_origin", "requests from pages of other sites are refused"
            )

    def _length(self) -> int:
        """Return the body's length in bytes.

        Raises:
            RefusedError: it is unknown, zero or too large.
        """
        text = self.headers.get("Content-Length", "")
        if not (text.isascii() and text.isdigit()) or self.headers.get("Transfer-Encoding"):
            raise RefusedError(411, "length_required", "send a Content-Length")
        limits = self.server.answers.limits
        # The digits are counted first: Python refuses to convert very long numbers.
        if len(text) > 15 or int(text) > limits.max_bytes:
            raise too_large(limits)
        if int(text) == 0:
            raise RefusedError(400, "empty", "the request has no image: send a file as its body")
        return int(text)

    def _refuse(self, refusal: RefusedError) -> None:
        self.close_connection = True  # the body was not read
        content, kind = _json({"error": {"kind": refusal.kind, "message": str(refusal)}})
        self._send(refusal.status, content, kind)

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status == 405:
            self.send_header("Allow", "GET, HEAD, POST")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value).encode(), "application/json"


def _not_found() -> RefusedError:
    return RefusedError(404, "not_found", "unknown path: there are only /, /model and /predict")


def _host_name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
