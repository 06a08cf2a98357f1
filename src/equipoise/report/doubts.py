"""Whether the figures of a run folder are those that the run wrote: hashes, figures against figures, lines counted.

A page repeats what stands in the files, so it must say where somebody else wrote there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from equipoise.records import Comparison, Score
from equipoise.report.reader import BAD
from equipoise.report.text import listed
from equipoise.run_folder import Run, read_json, sha256

READ = (".json", ".jsonl", ".yaml")
"""Files that a page is made of; weights and pairs are large, and no figure comes from them."""
_NAMED = 6
_SAME = ("before", "after", "difference", "ci", "p_holm", "n", "detectable", "verdict")


def changed(run: Run) -> list[str]:
    """Return what differs from the hashes that a run wrote down at its end; nothing while it has not ended."""
    if not run.finished:
        return []
    try:
        hashes = dict(read_json(run.folder / "done")["files"])
        paths = {name: run.folder / name for name in sorted(hashes) if PurePosixPath(name).suffix in READ}
        gone = [name for name, path in paths.items() if not path.is_file()]
        other = [name for name, path in paths.items() if name not in gone and sha256(path) != hashes[name]]
    except (*BAD, OSError):
        return ["Whether files were changed since the run ended is not known: done or a file cannot be read."]
    said = {"changed since the run ended": other, "gone since the run ended": gone}
    return [f"{how}: {_some(names)}." for how, names in said.items() if names]


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return listed([*names[:_NAMED], *more])


def disagreements(told: Mapping[str, Comparison], compared: Mapping[str, Comparison] | None) -> list[str]:
    """Return where the rows of verdict.json and comparison.json differ, or a difference is not after minus before.

    `compared` is None where comparison.json cannot be read.
    """
    rows_of = {"verdict.json": told, **({} if compared is None else {"comparison.json": compared})}
    differing = _differing(told, compared) if compared is not None else []
    found = [f"verdict.json and comparison.json do not agree: {listed(differing)}."] if differing else []
    for file, rows in rows_of.items():
        wrong = [
            name
            for name, row in rows.items()
            if not math.isclose(row.difference, row.after - row.before, rel_tol=1e-6, abs_tol=_rounding(row))
        ]
        if wrong:
            found.append(f"{file}: the difference is not after minus before in {listed(wrong)}.")
    return found


def _differing(told: Mapping[str, Comparison], compared: Mapping[str, Comparison]) -> list[str]:
    found = []
    for name in sorted({*told, *compared}):
        if name not in told or name not in compared:
            found.append(f"{name} (in {'verdict.json' if name in told else 'comparison.json'} alone)")
            continue
        fields = [key for key in _SAME if not _same(getattr(told[name], key), getattr(compared[name], key))]
        if fields:
            found.append(f"{name} ({', '.join(fields)})")
    return found


def _same(one: object, other: object) -> bool:
    """Equal as texts, numbers and pairs of numbers are after one was written to a file."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(map(_same, one, other))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def _rounding(row: Comparison) -> float:
    """What the difference of two means may be off by in floating point, generously."""
    return 1e-9 * max(1.0, abs(row.before), abs(row.after))


def cut_short(
    points: Mapping[str, Mapping[str, Sequence[Score]]],
    questions: Iterable[tuple[str, str]],
    comparisons: Mapping[str, Mapping[str, Comparison]],
) -> list[str]:
    """Return a sentence for each score file with fewer items than the run asked.

    `questions` are task and id of the run's items. Where a run does not keep them, the test items are counted against
    those that its comparisons looked at.
    """
    asked = Counter(task for task, _ in questions)
    tested: dict[str, int] = {}
    for rows in comparisons.values():
        for name, row in rows.items():
            tested[name] = max(tested.get(name, 0), row.n + row.unscored)
    found = []
    for point, tasks in points.items():
        for task, scores in tasks.items():
            kind, known = ("items", scores) if task in asked else ("test items", _test(scores))
            have, wanted = len({score.id for score in known}), asked[task] or tested.get(task, 0)
            if have < wanted:
                found.append(f"scores/{point}/{task}.jsonl: {have} of {wanted} {kind}")
    return found


def _test(scores: Sequence[Score]) -> list[Score]:
    return [score for score in scores if score.split == "test"]
