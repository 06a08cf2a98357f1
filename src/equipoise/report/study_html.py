"""`write_study`: one self-contained page that explains many runs: which recipe to ship, and how sure that is."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from equipoise.records import InputError
from equipoise.report import study_items as items
from equipoise.report import study_table as tables
from equipoise.report import text
from equipoise.report.html import environment
from equipoise.report.study_read import StudyFiles, is_run, read_study
from equipoise.run_folder import write_text
from equipoise.study.entrants import make_entrants
from equipoise.study.leaderboard import Board, make_board
from equipoise.study.overall import FORMULA

LONG = 300
"""A note of more characters is folded."""


def write_study(places: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of run folders and folders of runs and return its path; reads nothing but these folders.

    Raises InputError for a place that is no run and no folder of runs, for an `out` that is a folder, and for runs
    that cannot be compared: other questions, other reward models, no domain in common.
    """
    path = out or default_out(places)
    if path.is_dir():
        raise InputError(f"--out {path}: this is a folder; name a file")
    write_text(path, study_page(read_study(places)))
    return path


def default_out(places: Sequence[Path]) -> Path:
    """`report.html` of one folder of runs; else `report-study.html` beside the runs, or here where they lie apart."""
    if len(places) == 1 and not is_run(places[0]):
        return places[0] / "report.html"
    parents = {place.resolve().parent for place in places}
    return (places[0].parent if len(parents) == 1 else Path()) / "report-study.html"


def study_page(files: StudyFiles) -> str:
    """The page as text."""
    board = make_board(make_entrants(files.finished, "test")) if files.finished else None
    left_out = [run for run in files.runs if run.state != "done"]
    context: dict[str, Any] = {"files": files, "board": board, "left_out": left_out, "headline": "Nothing to rank yet"}
    data: dict[str, Any] = {"rows": []}
    if board:
        context |= _ranked(files, board)
        runs = items.members(board, files.finished)
        pair = items.first_pair(runs)
        counts, differing = items.compared(board, *(runs[place] for place in pair)) if len(runs) > 1 else ([], [])
        context |= {"members": runs, "pair": pair, "counts": counts, "differing": differing}
        data = _data(board, runs)
    return _environment().get_template("study.html").render(**context, **_inlined(data))


@cache
def _environment() -> Environment:
    """That of all pages, with two more filters."""
    made = environment().overlay()
    made.filters = {**made.filters, "span": text.duration, "private": text.private}
    return made


def _ranked(files: StudyFiles, board: Board) -> dict[str, Any]:
    """What the templates show of the table."""
    advised = tables.advice(board)
    best, balanced = advised[0]
    scored = any(board.units.values())
    if best.shown:
        headline = f"{' '.join(['Ship', best.ship, best.condition]).strip()}: overall score {best.gain}"
    elif not scored:
        headline = "No overall score can be had: choose by the domain that matters"
    else:
        headline = "Keep the base model: no recipe that loses nothing is shown to gain overall"
    feasible = sum(row.feasible for row in board.rows)
    standing = (
        f"{len(board.rows)} recipes in {sum(len(row.entrant.seeds) for row in board.rows)} finished runs. {feasible} "
        f"are feasible: in no domain shown to be worse than the base. {sum(row.on_front for row in board.rows)} of "
        "these are on the front: no feasible recipe is shown to be better."
    )
    shown, unshown = tables.effects(board)
    notes = [text.private(note) for note in (*files.notes, *board.notes)]
    refused = [why for why in balanced.why if why.startswith("not feasible: ")]
    return {
        "headline": headline,
        "standing": standing,
        "advice": [one for one, _ in advised if scored or one is not best],
        "why": [why for why in balanced.why if why not in refused],
        "refused": refused,
        "costs": balanced.costs,
        "alike": tables.few(balanced.alike) if best.shown else "",
        "scored": scored,
        "rows": tables.table(board, files.runs),
        "domains": list(board.units),
        "confidence": f"{board.confidence * 100:g}%",
        "formula": FORMULA,
        "front": tables.front_plot(board),
        "parallel": tables.parallel_plot(board),
        "effects": shown,
        "unshown": unshown,
        "notes": [note for note in notes if len(note) <= LONG],
        "long_notes": [note for note in notes if len(note) > LONG],
        "totals": _totals(files),
    }


def _totals(files: StudyFiles) -> dict[str, float]:
    keys = ("seconds", "training", "measuring", "other")
    return {key: sum(getattr(run, key) or 0.0 for run in files.runs) for key in keys}


def _data(board: Board, runs: Sequence[items.Member]) -> dict[str, Any]:
    """What the page's script knows: gains with their intervals, the runs' values on every question, and answers."""
    return {
        "measures": ["overall", *(text.visible(name) for name in board.units)],
        "rows": [
            {
                "name": text.visible(row.name),
                "kind": tables.kind(row),
                "gains": [
                    [round(end, 6) for end in tables.reach(effect)] if effect else None
                    for effect in (row.overall, *(gain.effect for gain in row.gains.values()))
                ],
            }
            for row in board.rows
        ],
        "units": list(board.units.values()),
        "runs": [{"name": text.visible(run.label), "row": run.row} for run in runs],
        "better": items.shown_better(board),
        "domains": items.packed(board, runs),
        "answers": items.answers(board.entrants, runs),
    }


def _inlined(data: dict[str, Any]) -> dict[str, Markup]:
    """The scripts, the data, and the policy that lets a browser run nothing else and ask nobody for anything."""
    loader = environment().loader
    assert loader is not None
    scripts = {name: loader.get_source(environment(), f"{name}.js")[0] for name in ("report", "study")}
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts.values()]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    said = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return {
        "script": Markup(scripts["report"]),
        "study_script": Markup(scripts["study"]),
        "policy": Markup(f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"),
        "data": Markup(said.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")),
    }
