"""Who may ask the app for something: pages of this app in a browser on this machine, and nobody else.

The app has no login. A page from elsewhere could still reach it: by a host name that points to 127.0.0.1 (DNS
rebinding, stopped by the check of Host), or by posting to it (stopped by the check of Origin).
"""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""A report is one file with its styles and scripts inside: it gets an origin of its own and can reach nothing."""
HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""What every answer says, unless it says something else itself."""


class Guard:
    """Refuses what does not come from this app, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or refuse it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.decode().lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name not in there]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        asked = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = refuse(str(scope["method"]), asked)
        if refusal:
            return await PlainTextResponse(refusal, status_code=403)(scope, receive, with_headers)
        return await self.app(scope, receive, with_headers)


def refuse(method: str, headers: dict[str, str]) -> str | None:
    """Why a request is refused; None where it is not. `headers` by lower-case name."""
    host = headers.get("host", "")
    if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
        return f"refused: this app answers on 127.0.0.1 and localhost alone, not on {host!r}"
    if method in ("GET", "HEAD"):
        return None
    if headers.get("origin") != f"http://{host}" or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "refused: this request does not come from a page of this app"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return "refused: application/json is expected"
    return None
