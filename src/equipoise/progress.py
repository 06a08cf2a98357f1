"""What a run tells whoever watches it. The default says nothing; the command line shows it with rich."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Display(Protocol):
    """Something that shows how far a run is."""

    def say(self, text: str) -> None:
        """Show one line that stays."""

    def begin(self, title: str, total: int | None = None) -> Callable[..., None]:
        """Begin a piece of work; call the result with `done=` and, optionally, `note=` as it goes on."""


class Silent:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def begin(self, title: str, total: int | None = None) -> Callable[..., None]:
        """Show nothing."""
        return lambda done=0, note="": None
