"""Serves the app on this machine alone, until it is interrupted."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import uvicorn

from equipoise.records import InputError
from equipoise.ui.app import create_app

HOST = "127.0.0.1"


class _Server(uvicorn.Server):
    """Says its address once it answers."""

    said = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, then say where."""
        await super().startup(sockets=sockets)
        print(self.said, flush=True)


def serve(folder: Path, port: int) -> None:
    """Serve, and print the address; port 0 takes a free one. Raises InputError where the port is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise InputError(f"--port {port}: cannot be had ({error.strerror}); choose another, or 0") from None
        config = uvicorn.Config(
            create_app(folder), log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        server = _Server(config)
        server.said = f"http://{HOST}:{listening.getsockname()[1]}/  (runs of {folder}; Ctrl-C ends it)"
        server.run(sockets=[listening])
