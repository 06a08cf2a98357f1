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


def labelled(display: Display) -> Callable[[str, int, int], None]:
    """A function of (label, done, total) that begins a piece of work whenever the label changes."""
    shown: dict[str, Callable[..., None]] = {}

    def show(label: str, done: int, total: int) -> None:
        if label not in shown:
            shown.clear()
            shown[label] = display.begin(label, total)
        shown[label](done=done)

    return show
