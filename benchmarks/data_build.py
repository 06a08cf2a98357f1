"""From a file of Reddit rows to clean pairs, side by side: `python benchmarks/data_build.py` (options: --help).

Makes files of rows from a seed (`reddit_rows.py`), in which every fault was planted and counted, and lets each side
(`data_sides.py`) work on them, alternating, each time in a process of its own. The 2,500,000 rows of `--large` need 8
GB of disk and 16 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from data_sides import CACHE, ROWS, SIDES, WELL_FORMED
from processes import HERE, run_python
from reddit_rows import write

RESULT = HERE / "results" / "data_build.json"
LARGE = 2_500_000
LARGE_SIDES = ("equipoise", "store", "original")
RESULTS = {"equipoise": "pairs", "store": "pairs", "original": "pairs", "datasets": "rows"}
"""What each side gives."""


def main() -> None:
    """Run what the command line asks for and print the tables."""
    parser = _parser()
    options = parser.parse_args()
    changed = {name for name, value in vars(options).items() if value != parser.get_default(name)} - {"large", "folder"}
    out = options.out or (None if changed else RESULT)
    threads = len(os.sched_getaffinity(0))
    about = json.loads(run_python("machine.py", "cpu", threads=threads))
    result: dict[str, Any] = {**about, "settings": {"seed": options.seed, "repeats": options.repeats}, "sizes": {}}
    for rows in [*options.rows, *[LARGE] * options.large]:
        sides = LARGE_SIDES if rows >= LARGE else tuple(SIDES)
        result["sizes"][str(rows)] = _measure(rows, sides, 1 if rows >= LARGE else options.repeats, options, threads)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{markdown(result)}\n\n{f'written: {out}' if out else 'not written: give --out to keep it'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--rows", nargs="+", type=int, default=[25_000, 250_000], help="rows of each file")
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} rows, once, without datasets")
    parser.add_argument("--repeats", type=int, default=3, help="measurements per side and size")
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    parser.add_argument("--folder", type=Path, help="where the files are made for the time being; default: temporary")
    parser.add_argument("--out", type=Path, help="result file; without it only the usual sizes are written")
    return parser


def _measure(
    rows: int, sides: Sequence[str], repeats: int, options: argparse.Namespace, threads: int
) -> dict[str, Any]:
    """Make one file and let every side work on it; the file is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        started = time.perf_counter()
        well_formed = folder / WELL_FORMED if "datasets" in sides else None
        planted = write(folder / ROWS, rows, options.seed, well_formed)
        size = (folder / ROWS).stat().st_size
        print(f"{rows:,} rows, {size / 1e6:.0f} MB, made in {time.perf_counter() - started:.0f} s", flush=True)
        measured: dict[str, Any] = {}
        for _ in range(repeats):
            shutil.rmtree(folder / CACHE, ignore_errors=True)
            for side in sides:
                answer = json.loads(run_python("data_sides.py", side, name, str(options.seed), threads=threads))
                if "kept" in answer and answer["kept"] != (side == "store"):
                    sys.exit(f"data_build: {side}: the store was asked in vain, or was not empty; did the code change?")
                shutil.rmtree(folder / "datasets", ignore_errors=True)
                _add(measured.setdefault(side, {}), answer)
                print(f"  {side}: {answer['seconds']:.2f} s, peak {answer['peak_mb']:.0f} MB", flush=True)
        if measured["store"]["pairs"] != measured["equipoise"]["pairs"]:
            sys.exit("data_build: the store gives other pairs than the build")
    return {"file_mb": round(size / 1e6, 1), "planted": planted, "sides": measured}


def _add(entry: dict[str, Any], answer: Mapping[str, Any]) -> None:
    """Append the seconds of a measurement; of memory the largest value is kept."""
    entry.setdefault("seconds", []).append(round(answer["seconds"], 3))
    for name in ("peak_mb", "above_start_mb"):
        entry[name] = max(entry.get(name, 0.0), round(answer[name], 1))
    entry.update({name: answer[name] for name in ("pairs", "rows", "found") if name in answer})


def markdown(result: Mapping[str, Any]) -> str:
    """Time and memory of each side and size, how time grows, and what was found of what was planted."""
    machine = result["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "",
        "| rows | file MB | side | seconds | microseconds a row | peak MB | above start MB | gives |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows, size in result["sizes"].items():
        for side, entry in size["sides"].items():
            seconds = entry["seconds"]
            spread = f" ({min(seconds):.2f}-{max(seconds):.2f})" if len(seconds) > 1 else ""
            gives = RESULTS[side]
            lines.append(
                f"| {int(rows):,} | {size['file_mb']:.0f} | {side} | {median(seconds):.2f}{spread} | "
                f"{1e6 * median(seconds) / int(rows):.1f} | {entry['peak_mb']:.0f} | {entry['above_start_mb']:.0f} | "
                f"{entry[gives]:,} {gives} |"
            )
    *_, (rows, size) = ((rows, size) for rows, size in result["sizes"].items())
    found = size["sides"]["equipoise"]["found"]
    lines += ["", f"| fault, in {int(rows):,} rows | planted | found |", "|---|---|---|"]
    lines += [f"| {reason} | {count:,} | {found.get(reason, 0):,} |" for reason, count in size["planted"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
