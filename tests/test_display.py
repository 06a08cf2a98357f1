"""What a person sees: while a stage trains, of the ledger, and of a pair with the trained-on tokens marked."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from equipoise import console
from equipoise.data.ledger import Ledger, Lengths, SourceLine, Spread, StageLedger, StageLine, Tokens
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


HOSTILE = "\x1b[2Jno \u202eroom"


def make_ledger(name: str = "finance@second") -> dict[str, Any]:
    unfair = Lengths(90, 210, 0.1, 0.11)
    malformed, cleaned = {"empty answer": 12, "wrong type": 3}, {"near-duplicate": 88}
    gaps = {"score_gaps": Spread(9, 0.1, 0.2, 0.3, 0.4, 0.5), "reward_gaps": Spread(9, 1.0, 1.2, 1.75, 2.4, 3.5)}
    lost = {"held_out": 30, "unpaired": {"gap too small": 8}}
    source = SourceLine(251000, malformed, cleaned, 250859, unfair, **lost, **gaps, spread=1.5)
    line = StageLine(1500, 1400, 1300, 7, unfair, {HOSTILE: 4}, 1290, 55, Tokens(1, 2, 3, 4, 5), seen=650)
    other = StageLine(40, 50, 40, 0, None, {}, 40, 0)
    sources = {name: source, "general": SourceLine(50, {}, {}, 50, None, assumed=True)}
    return Ledger(sources, {"second": StageLedger(0.5, {name: line, "general": other})}).record()


def cells(output: str) -> list[list[str]]:
    """The rows of tables, the lines of a row joined."""
    rows: list[list[str]] = []
    for line in output.splitlines():
        if line.startswith(("┡", "├")):
            rows.append([])
        elif line.startswith("│"):
            parts = [part.strip() for part in line.strip("│").split("│")]
            if not rows or (parts[0] and parts[1]) or len(parts) != len(rows[-1]):
                rows.append(parts)
            else:
                rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], parts, strict=True)]
    return [row for row in rows if row]


def test_the_ledger_in_140_columns(capsys: pytest.CaptureFixture[str]) -> None:
    console.ledger_tables(make_ledger())
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 140
    name = "finance (made for stage second)"
    dropped = "15 by the reader: 12 empty answer, 3 wrong type 88 in cleaning: 88 near-duplicate 30 held out "
    dropped += "8 while pairing: 8 gap too small"
    assert cells(output) == [
        [name, "251000", dropped, "250859", "10%", "11%", "score 0.3 reward 1.75"],
        ["general", "50", "none", "50 questions", "", "", ""],
        ["second", name, "1500", "1400", "4 ␛[2Jno ⟨U+202E⟩room", "1300", "7", "1290", "55", "0.5", "650"],
        ["second", "general", "40", "50", "none", "40", "0", "40", "0", "0.5", ""],
    ]
    assert f"{name}: the longer answer is the chosen one in 11% of its pairs" in output
    assert "general: answers not generated yet; what is available counts questions" in output


def test_a_long_and_hostile_name_is_folded_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console.ledger_tables(make_ledger("x" * 60 + "\x1b[31m[bold]\u202e" + "y" * 60))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert max(map(len, lines)) <= 140
    first = "".join(line.split("│")[1].strip() for line in lines)
    assert "x" * 60 + "␛[31m[bold]⟨U+202E⟩" + "y" * 60 in first


PAIR: dict[str, Any] = {
    "stage": "second", "source": "finance@second", "id": "0" * 32, "domain": "finance", "prompt": "Why [b]\x1b[5m?\n",
    "prompt_tokens": 9, "prompt_cut": 0, "chosen": ["Sell", " low", ",\n", "\u200fnow\x07"], "rejected": ["No", "."],
    "score_gap": None, "reward_gap": None,
}  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pair: dict[str, Any], **env: str) -> str:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **env}.items():
        monkeypatch.setenv(name, value)
    console.example(pair)
    return capsys.readouterr().out


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb", "FORCE_COLOR": "1"}])
def test_a_pair_without_colours_has_its_tokens_in_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], env: dict[str, str]
) -> None:
    assert shown(monkeypatch, capsys, PAIR, **env).splitlines() == [
        f"── second / finance (made for stage second) / {'0' * 32}",
        "Why [b]␛[5m?",
        "",
        "chosen: [Sell][ low][,↵",
        "][⟨U+200F⟩now␇]",
        "rejected: [No][.]",
        "",
    ]


def test_a_pair_in_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Green (32) is chosen, red (31) rejected, the prompt dim (2); every second token is underlined (4)."""
    lines = shown(monkeypatch, capsys, PAIR, FORCE_COLOR="1").splitlines()
    assert lines[1] == "\x1b[2mWhy [b]␛[5m?\x1b[0m"
    assert lines[3] == "chosen: \x1b[32mSell\x1b[0m\x1b[4;32m low\x1b[0m\x1b[32m,↵\x1b[0m"
    assert lines[4] == "\x1b[4;32m⟨U+200F⟩now␇\x1b[0m"
    assert lines[5] == "rejected: \x1b[31mNo\x1b[0m\x1b[4;31m.\x1b[0m"


def test_the_head_of_a_pair_says_its_gaps_and_what_was_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = {**PAIR, "score_gap": 0.12345, "reward_gap": 0.0, "prompt_cut": 7}
    head = shown(monkeypatch, capsys, pair).splitlines()[0]
    assert head.endswith(": score gap 0.123, reward gap 0, 7 tokens of the prompt cut")
    old = {key: value for key, value in PAIR.items() if "gap" not in key}
    assert shown(monkeypatch, capsys, old) == shown(monkeypatch, capsys, PAIR)
