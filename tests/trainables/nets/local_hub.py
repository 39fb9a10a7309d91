"""A hub on the loopback interface: one file of weights in every repository."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 40


@dataclass(kw_only=True)
class LocalHub:
    """The hub's answers, and what it was asked."""

    content: bytes = b"weights"
    files: tuple[str, ...] = ("model.safetensors",)
    status: int = 200
    """HTTP status of files."""
    drip_seconds: float = 0.0
    """Wait before every byte of a file."""
    downloads: int = 0
    url: str = field(default="", init=False)


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    """Serve a hub until the end of the block."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(hub.content, body=False)

        def do_GET(self) -> None:
            if self.path.startswith("/api/models/"):
                files = [{"rfilename": name} for name in hub.files]
                about = {"id": "timm/x", "modelId": "timm/x", "sha": COMMIT, "siblings": files}
                self._answer(json.dumps(about).encode())
                return
            hub.downloads += "/resolve/" in self.path
            self._answer(hub.content)

        def _answer(self, content: bytes, *, body: bool = True) -> None:
            file = "/resolve/" in self.path
            self.send_response(hub.status if file else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not body:
                return
            if not (file and hub.drip_seconds):
                self.wfile.write(content)
                return
            for byte in content:
                if ended.is_set():
                    return
                time.sleep(hub.drip_seconds)
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
