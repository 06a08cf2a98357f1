"""What a person sees while a stage trains: in a terminal of 80 columns, and in the log file of a cluster."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from equipoise import console
from equipoise.progress import duration, training_note

FIGURES: dict[str, Any] = {"loss": 0.68123, "margin": 0.0132, "accuracy": 0.612, "tokens_per_s": 12345.6}


def test_the_note_of_a_training_by_hand() -> None:
    note = training_note(**FIGURES, pairs_per_s=1.974)
    assert note == "loss 0.6812  margin +0.013  right 61%  1.97 pairs/s  12,346 tokens/s"


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 90, 5399, 9000)] == ["0 s", "89 s", "2 min", "90 min", "2.5 h"]


class Clock:
    """A clock that the test moves; for the display's own and for that of its bars."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_in_80_columns_everything_is_there(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    terminal = console.Terminal()
    terminal._progress.get_time = lambda: clock.now
    show = terminal.begin("1-general: training", 118)
    for done in (1, 2, 3):
        clock.now += 2
        show(done=done, note=training_note(**FIGURES, pairs_per_s=1.974))
    screen = io.StringIO()
    Console(file=screen, width=80, color_system=None).print(terminal._progress.get_renderable())
    bar, note = screen.getvalue().splitlines()
    assert re.search(r"1-general: training .*3/118 .*left 0:03:50", bar)  # 2 s for a step, 115 steps
    assert note.strip() == training_note(**FIGURES, pairs_per_s=1.974)


def test_without_a_terminal_there_is_a_line_from_time_to_time(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    """10 s for a step: a line every 30 s, not at each step. A resumed stage counts its time from where it goes on."""
    with console.Terminal() as terminal:
        show = terminal.begin("training", 100)
        for done in range(91, 101):
            clock.now += 10
            show(done=done, note="loss 0.5")
    assert capsys.readouterr().err.splitlines() == [
        "training: 93/100, 70 s left  (loss 0.5)",
        "training: 96/100, 40 s left  (loss 0.5)",
        "training: 99/100, 10 s left  (loss 0.5)",
        "training: 100 done  (loss 0.5)",
    ]


def test_a_total_that_nobody_knows(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with console.Terminal() as terminal:
        show = terminal.begin("reading")
        for done in (5, 9):
            clock.now += 31
            show(done=done)
    assert capsys.readouterr().err.splitlines() == ["reading: 5", "reading: 9"]
