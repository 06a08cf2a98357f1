"""A hub on loopback: the few addresses that an upload of small files needs, and what was sent to them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class TinyHub:
    """Its address, the repositories that were made, the cards that were to be validated, the files that were committed
    by path."""

    url: str
    token: str
    refuses_commits: bool = False
    asked: list[str] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def tiny_hub(token: str) -> Iterator[TinyHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = TinyHub(f"http://127.0.0.1:{server.server_port}", token)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        hub: TinyHub = self.server.hub  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        hub.asked.append(path)
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, {"error": "Invalid username or password."})
        if path == "/api/whoami-v2":
            return self._send(200, {"type": "user", "name": "me"})
        if path == "/api/repos/create":
            hub.made.append(json.loads(body))
            return self._send(200, {"url": f"{hub.url}/me/tiny", "name": "me/tiny"})
        if path == "/api/validate-yaml":
            hub.cards.append(json.loads(body)["content"])
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/models/me/tiny/preupload/main":
            asked = json.loads(body)["files"]
            found = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
            return self._send(200, {"files": found})
        if path == "/api/models/me/tiny/commit/main":
            if hub.refuses_commits:
                return self._send(403, {"error": "You have no right to write here."})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._send(200, {"commitUrl": f"{hub.url}/me/tiny/commit/abc", "commitOid": "abc"})
        return self._send(404, {"error": f"no {path} here"})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass
