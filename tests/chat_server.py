"""A small HTTP server on loopback for tests: over a real socket it says whatever a test wants a chat server to say."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server sends: `body` as JSON, or as it is where it is bytes, after `delay` seconds.

    With status 0 it hangs up without a word.
    """

    body: Any
    status: int = 200
    content_type: str = "application/json"
    delay: float = 0.0


@dataclass
class ChatServer:
    """A running server: its address, and what it was asked."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    together: int = 0
    most_together: int = 0


def says(text: str | None, finish: str | None = "stop", **message: Any) -> Reply:
    """A proper reply with one answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return Reply({"id": "1", "object": "chat.completion", "choices": [choice], "usage": {"completion_tokens": 3}})


@contextmanager
def chat_server(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """A server that answers every request with `reply(body)`; errors may be tried again at once."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                server.asked.append(body)
                server.keys.append(self.headers.get("authorization", ""))
                server.together += 1
                server.most_together = max(server.most_together, server.together)
                answer = reply(body)
            time.sleep(answer.delay)
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            with lock:
                server.together -= 1
            if not answer.status:
                return
            try:
                self.send_response(answer.status)
                self.send_header("content-type", answer.content_type)
                self.send_header("content-length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client has given up
                pass

        def log_message(self, *arguments: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ChatServer(f"http://127.0.0.1:{listener.server_port}/v1")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
