"""What the command line shows: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from equipoise.console_pairs import example as example
from equipoise.progress import duration

COLOURS = {"improved": "green", "held": "cyan", "worse": "red", "undecided": "yellow"}
COLOURS |= {"pass": "green", "fail": "red", "keep": "green", "rollback": "red", "stop": "red"}
LINE_EVERY = 30.0
"""Seconds between two lines about the same piece of work where there is no terminal."""


class _Bars(Progress):
    """Bars with the note of each on a line of its own, so that 80 columns hold both."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the notes."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["note"]:
                yield Text(f"  {task.fields['note']}", style="dim", no_wrap=True, overflow="ellipsis")


class Terminal:
    """A `progress.Display` on stderr: bars in a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = _Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Show one line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def begin(self, title: str, total: int | None = None) -> Callable[..., None]:
        """Begin a bar; the bars of finished work disappear. Without a terminal: a line from time to time.

        Work that goes on after a pause begins in the middle: what was there at the first call says nothing about
        the speed, and the time left is counted from there.
        """
        task = self._progress.add_task(title, total=total, note="")
        first: list[tuple[int, float]] = []
        said = time.monotonic()

        def show(done: int = 0, note: str = "") -> None:
            nonlocal said
            now = time.monotonic()
            if task not in self._progress.task_ids:
                return  # the work was finished, and somebody tells it once more
            if first:
                self._progress.update(task, completed=done, note=note)
            else:
                first.append((done, now))
                self._progress.reset(task, completed=done, total=total, note=note)
            if total is not None and done >= total:
                self._progress.remove_task(task)
                self.say(f"{title}: {total} done" + (f"  ({note})" if note else ""))
            elif not self.console.is_terminal and now - said >= LINE_EVERY:
                said = now
                self.say(f"{title}: {_how_far(done, total, *first[0], now)}" + (f"  ({note})" if note else ""))

        return show


def _how_far(done: int, total: int | None, first: int, since: float, now: float) -> str:
    """`3/10, 2 min left`: the time from what was done since the first call."""
    if total is None:
        return str(done)
    left = f", {duration((now - since) / (done - first) * (total - done))} left" if done > first else ""
    return f"{done}/{total}{left}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """Print a table; cells that are verdicts or outcomes get their colour, cells that are a `Text` keep theirs."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for name in columns:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else _cell(str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(grid)


def _cell(said: str) -> Text:
    return Text(said, style=COLOURS.get(said.split(" ")[0], ""))


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def verdict_table(verdict: Mapping[str, Any], title: str) -> None:
    """The verdict of a run, one line per domain."""
    domains = {name: row for name, row in verdict.items() if isinstance(row, dict) and "verdict" in row}
    rows = [
        (
            name,
            number(row["before"]),
            number(row["after"]),
            f"{row['difference']:+.3f}",
            f"{row['ci'][0]:+.3f} to {row['ci'][1]:+.3f}",
            number(row["p_holm"], 4) if row["p_holm"] >= 0.0001 else "<0.0001",
            row["n"],
            number(row["detectable"]),
            row["verdict"],
        )
        for name, row in domains.items()
    ]
    columns = ("domain", "before", "after", "difference", "interval", "p (Holm)", "n", "detectable", "verdict")
    table(title, columns, rows, right=columns[1:8])


def gate_table(gates: Sequence[Mapping[str, Any]]) -> None:
    """The decision of every gate with the rules that it looked at."""
    rows = []
    for gate in gates:
        flagged = " (flagged)" if gate["flagged"] else ""
        rows.append((gate["stage"], "", "", "", gate["outcome"], f"{gate['action']}{flagged}"))
        for rule in gate["rows"]:
            seen = rule["figure"] if rule["figure"] is not None else rule["difference"]
            limits = "" if rule["ci"] is None else f" ({rule['ci'][0]:+.3f} to {rule['ci'][1]:+.3f})"
            rows.append(
                (
                    "",
                    f"{rule['kind']} {rule['key']}",
                    number(rule["threshold"]),
                    number(seen) + limits,
                    rule["outcome"],
                    "",
                )
            )
    table("Gates (dev items)", ("stage", "rule", "threshold", "seen", "outcome", "action"), rows)


def ledger_tables(ledger: Mapping[str, Any]) -> None:
    """Where the pairs went: by source, then by stage."""
    from equipoise.report.words import source_name

    heads = ("source", "rows", "dropped", "available", "chosen\nlonger", "longer\nwins", "median gap")
    sources = [_source_cells(name, line) for name, line in ledger["sources"].items()]
    table("Sources", heads, sources, right=("rows", *heads[3:6]))
    for name, line in ledger["sources"].items():
        for note in _source_notes(line):
            print(f"{_plain(source_name(name))}: {note}")
    columns = ("stage", "source", "asked", "available", "unusable", "drawn", "repeated", "after\ntruncation",
               "prompts\ncut", "epochs", "seen")  # fmt: skip
    stages = [
        _stage_cells(name, source, line, stage["epochs"])
        for name, stage in ledger["stages"].items()
        for source, line in stage["sources"].items()
    ]
    table("Stages", columns, stages, right=(*columns[2:4], *columns[5:]))


def _source_cells(name: str, line: Mapping[str, Any]) -> tuple[Text | str, ...]:
    from equipoise.report.words import losses, source_name

    drops = [f"{count} {how}" + (f": {_counts(reasons)}" if reasons else "") for how, count, reasons in losses(line)]
    lengths = line["lengths"]
    shares = [f"{lengths[key]:.0%}" if lengths else "" for key in ("chosen_longer", "longer_wins")]
    kinds = {"score": line["score_gaps"], "reward": line["reward_gaps"]}
    gaps = [f"{kind} {spread['median']:.3g}" for kind, spread in kinds.items() if spread]
    available = f"{line['available']} questions" if line["assumed"] else str(line["available"])
    dropped = _plain("\n".join(drops) or "none")
    return (_plain(source_name(name)), str(line["rows"]), dropped, available, *shares, "\n".join(gaps))


def _source_notes(line: Mapping[str, Any]) -> list[str]:
    from equipoise.report.words import by_length

    notes = ["answers not generated yet; what is available counts questions"] if line["assumed"] else []
    if by_length(line["lengths"]):
        wins = line["lengths"]["longer_wins"]
        notes.append(f"the longer answer is the chosen one in {wins:.0%} of its pairs: a model can learn length alone")
    return notes


def _stage_cells(stage: str, source: str, line: Mapping[str, Any], epochs: float) -> tuple[Text | str, ...]:
    from equipoise.report.words import source_name

    counts = (line["asked"], line["available"])
    later = (line["drawn"], line["repeated"], line["after_truncation"], line["prompts_cut"], f"{epochs:g}")
    seen = "" if line["seen"] is None else str(line["seen"])
    named = (_plain(stage), _plain(source_name(source)))
    return (*named, *map(str, counts), _plain(_counts(line["unusable"]) or "none"), *map(str, later), seen)


def _counts(reasons: Mapping[str, float]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _plain(said: str) -> Text:
    """A cell without a colour of its own, in which no character moves the cursor or turns the text around."""
    from equipoise.report.text import visible

    return Text(visible(said))


def plan_tables(plan: Mapping[str, Any]) -> None:
    """Print a plan for people."""
    model = plan["model"]
    print(f"{plan['recipe']}: {model['id']} ({model['architecture']}), {model['parameters']:,} parameters")
    ledger_tables(plan["ledger"])
    _stage_tables(plan["stages"], plan["memory"])
    heads = ("task", "items", "dev", "test", "base", "smallest effect", "assuming")
    tasks = [
        (name, t["items"], t["dev"], t["test"], number(t["base_mean"]), number(t["detectable"]), t["assuming"])
        for name, t in plan["evaluation"].items()
    ]
    table(f"Evaluation ({plan['evaluations']} times)", heads, tasks, right=heads[1:6])
    print(f"at least {duration(plan['seconds'])} in all on this machine ({plan['memory']['device']}), rough")
    for kind in ("problems", "notes"):
        for text in plan[kind]:
            print(f"{kind[:-1]}: {text}")


def _stage_tables(stages: Sequence[Mapping[str, Any]], memory: Mapping[str, Any]) -> None:
    """What every stage trains on, and where its memory goes."""
    columns = ("stage", "pairs", "seen", "steps", "tokens", "shared", "passes", "longest", "LoRA parameters", "about")
    rows = [
        (
            stage["name"],
            stage["pairs"],
            stage["pairs_seen"],
            stage["steps"],
            f"{stage['tokens_seen']:,}",
            f"{1 - stage['stream_tokens'] / stage['tokens_seen']:.0%}" if not stage["refused"] else "no",
            f"{stage['micro_batches']:,} x {stage['micro_batch_tokens']:,}",
            stage["longest"],
            f"{stage['lora_parameters']:,}",
            duration(stage["seconds"]),
        )
        for stage in stages
    ]
    table("Training (shared: tokens saved; passes: forward passes of up to so many tokens)", columns, rows,
          right=columns[1:])  # fmt: skip
    parts = list(stages[0]["memory_parts"])
    sizes = [
        (
            stage["name"],
            f"{stage['memory'] / 2**30:.2f}",
            *(f"{stage['memory_parts'][part] / 2**30:.2f}" for part in parts),
            "yes" if stage["checkpointing"] else "no",
        )
        for stage in stages
    ]
    heads = ("stage", "peak", *parts, "recomputed")
    there = f"{memory['device']}: {memory['available'] / 2**30:.1f} available"
    table(f"Memory in training (GiB; {there})", heads, sizes, right=heads[1:])
