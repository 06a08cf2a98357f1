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


def training_note(*, loss: float, margin: float, accuracy: float, pairs_per_s: float, tokens_per_s: float) -> str:
    """What stands beside the bar of a training: the last step's figures and the speed so far.

    `margin` is in reward units; `accuracy` is the share of pairs whose chosen answer gained more than the rejected.
    """
    speed = f"{pairs_per_s:.2f} pairs/s  {tokens_per_s:,.0f} tokens/s"
    return f"loss {loss:.4f}  margin {margin:+.3f}  right {accuracy:.0%}  {speed}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
