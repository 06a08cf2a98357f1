"""Scores in the terminal: further figures, categories, the instrument's noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.console import number, table

HEALTH = ("n", "unscored", "mean", "empty", "cut_off", "repeated", "switched", "words")
"""Figures that stand in a table of their own."""
KEYS = ("spread", "limit", "moved")


def score_tables(
    title: str, rows: Mapping[str, Mapping[str, Any]], categories: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> None:
    """Scores and health by task, then what stands behind them, one line each."""
    cells = [(name, row["n"], row["unscored"], *(number(row[key]) for key in HEALTH[2:])) for name, row in rows.items()]
    table(title, ("task", *HEALTH), cells, right=HEALTH)
    behind: list[tuple[Any, ...]] = [
        (name, key, "", number(value)) for name, row in rows.items() for key, value in row.items() if key not in HEALTH
    ]
    behind += [
        (name, category, found["n"], number(found["mean"]))
        for name, by_name in categories.items()
        if len(by_name) > 1
        for category, found in by_name.items()
    ]
    if behind:
        table("Behind the scores", ("task", "figure or category", "n", "mean"), behind, right=("n", "mean"))


def noise_table(noise: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """What measuring the same model again says."""
    rows = [
        (name, sides["all"]["repeats"], sides["all"]["n"], *(f"{sides['all'][key]:.4g}" for key in KEYS))
        for name, sides in noise.items()
        if "all" in sides
    ]
    if rows:
        columns = ("task", "measured", "n", "largest difference", "limit", "items that moved")
        table("Noise of the instrument: the same model measured again", columns, rows, right=columns[1:])
