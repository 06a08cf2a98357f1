"""The app: pages about the runs of one folder. It reads run folders, and writes and locks nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from equipoise import watch, watch_read
from equipoise.records import InputError
from equipoise.report.html import page
from equipoise.report.read import read_run
from equipoise.run_folder import Run
from equipoise.ui.comparing import compare_runs
from equipoise.ui.guard import REPORT_POLICY, Guard
from equipoise.ui.listing import Listing
from equipoise.ui.pages import render
from equipoise.ui.stacks import kept_point, tuned_points
from equipoise.ui.talk import MOST_TOKENS, Busy, Talk

BODY = 1 << 20
"""Bytes of a posted request."""


class App:
    """What the pages share."""

    def __init__(self, root: Path) -> None:
        self.listing = Listing(root)
        self.talk = Talk()

    def folder(self, request: Request) -> tuple[str, Path]:
        """The run that an address names: one of those that were found, else InputError."""
        id = str(request.path_params["id"])
        folder = self.listing.folders().get(id)
        if folder is None:
            raise InputError(f"{id}: no such run in {self.listing.root}")
        return id, folder

    def list_page(self) -> str:
        """The list of runs as text."""
        return render("list.html", entries=self.listing.entries(), root=str(self.listing.root))

    def list(self, request: Request) -> Response:
        """The list of runs."""
        return HTMLResponse(self.list_page())

    def runs(self, request: Request) -> Response:
        """The same as JSON."""
        return JSONResponse([asdict(entry) for entry in self.listing.entries()])

    def run(self, request: Request, template: str = "run.html") -> Response:
        """One run; its part that changes is asked for again and again, and sent when it has changed."""
        id, folder = self.folder(request)
        seen = watch.look(folder, self.listing.reader)
        text = render(template, id=id, seen=seen, open_states=watch.OPEN, going=seen.state in ("running", "silent"))
        tag = f'"{sha256(text.encode("utf-8", "replace")).hexdigest()[:16]}"'
        if template == "live.html" and request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return HTMLResponse(text, headers={"etag": tag})

    def report(self, request: Request) -> Response:
        """The run's report: the one that the run wrote at its end, else one that is made now and not kept."""
        _, folder = self.folder(request)
        written = folder / "report.html"
        if (folder / "done").is_file() and written.is_file():
            text = written.read_text(encoding="utf-8", errors="replace")
        else:
            text = page(read_run(Run(folder)))
        headers = {"content-security-policy": REPORT_POLICY}
        return HTMLResponse(text.encode("utf-8", "replace"), headers=headers)

    def compare(self, request: Request) -> Response:
        """Two or more runs side by side."""
        known = self.listing.folders()
        asked = list(dict.fromkeys(request.query_params.getlist("run")))
        lost = [id for id in asked if id not in known]
        if lost:
            raise InputError(f"{lost[0]}: no such run in {self.listing.root}")
        return HTMLResponse(render("compare.html", **compare_runs({id: known[id] for id in asked})))

    def talk_page(self, request: Request) -> Response:
        """The page of the talk."""
        id, folder = self.folder(request)
        recipe: dict[str, Any] = self.listing.reader.read(folder / "recipe.json", watch_read.recipe, {}, [])
        busy = any(entry.state == "running" for entry in self.listing.entries())
        model = {"id": "unknown", "trust_remote_code": False, **recipe.get("model", {})}
        values = {"kept": kept_point(folder), "points": tuned_points(folder), "busy": busy, "most": MOST_TOKENS}
        return HTMLResponse(render("talk.html", id=id, name=Run(folder).name, model=model, **values))

    async def ask(self, request: Request) -> Response:
        """Both models' answers, as lines of JSON while they are written."""
        _, folder = await run_in_threadpool(self.folder, request)
        news = self.talk.answer(folder, await _posted(request))
        first = await anext(news)  # what is wrong with the question is told with the status

        async def lines() -> AsyncGenerator[bytes]:
            try:
                yield _line(first)
                async for one in news:
                    yield _line(one)
            finally:
                await news.aclose()

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def stop(self, request: Request) -> Response:
        """End the answer that is being written."""
        self.talk.stop()
        return JSONResponse({})


def _line(news: dict[str, Any]) -> bytes:
    return json.dumps(news, ensure_ascii=True).encode() + b"\n"


async def _posted(request: Request) -> dict[str, Any]:
    """The JSON object of a request; raises InputError where it is none, or too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise InputError(f"the request is longer than {BODY:,} bytes")
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("a JSON object is expected")
    return found


def create_app(root: Path) -> Starlette:
    """The app about the runs below `root`; it reads them once now, so that its first answer does not wait for that."""
    app = App(root)
    app.list_page()

    @asynccontextmanager
    async def lifespan(starlette: Starlette) -> AsyncIterator[None]:
        yield
        await app.talk.close()

    live: Callable[[Request], Response] = partial(app.run, template="live.html")
    routes = [
        Route("/", app.list),
        Route("/api/runs", app.runs),
        Route("/compare", app.compare),
        Route("/run/{id:path}", app.run),
        Route("/live/{id:path}", live),
        Route("/report/{id:path}", app.report),
        Route("/talk/{id:path}", app.talk_page, methods=["GET"]),
        Route("/talk/{id:path}", app.ask, methods=["POST"]),
        Route("/stop", app.stop, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("equipoise.ui", "static")])),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Guard)],
        exception_handlers={InputError: _wrong_input, Busy: _busy, 404: _unknown},
    )


async def _wrong_input(request: Request, error: Exception) -> Response:
    return _said(request, str(error), 404 if "no such run" in str(error) else 400)


async def _busy(request: Request, error: Exception) -> Response:
    return _said(request, "another answer is being written; stop it, or wait for it", 409)


async def _unknown(request: Request, error: Exception) -> Response:
    return _said(request, "there is no such page", 404)


def _said(request: Request, text: str, status: int) -> Response:
    if request.method == "POST":
        return JSONResponse({"error": text}, status_code=status)
    return HTMLResponse(render("message.html", text=text), status_code=status)
