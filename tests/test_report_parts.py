"""Parts of the report: attempts, smaller adapters, changed words, bands of the data, what to ship, damaged lines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from equipoise.evaluation.gate import GateResult, Row
from equipoise.records import Comparison
from equipoise.report import answers, plots_change, plots_flow, training, verdict
from equipoise.report.changed import changed
from equipoise.report.read import Attempt, RunFiles, StageFiles, read_run
from equipoise.run_folder import Run, write_json, write_lines, write_text
from test_report import make_run, make_steps, page_of, parse, rows_of

FAILED = Row("hold", "mt_bench", 0.2, "fail", "hold mt_bench: too low", 24, 0, -0.9, (-1.2, -0.6))
PASSED = Row("hold", "mt_bench", 0.2, "pass", "hold mt_bench: fine", 24, 0, 0.1, (-0.05, 0.3), None, 2.0, 10.0)


def gate(row: Row, action: str, attempt: int, rate: float, **also: Any) -> dict[str, Any]:
    """A gate.json of a stage with one rule."""
    result = GateResult(row.outcome, action, False, 0.95, (row.reason,), (row,))  # type: ignore[arg-type]
    values = {
        "learning_rate": rate,
        "beta": {"kind": "cosine", "start": 0.3, "end": 0.1},
        "epochs": 1.0,
        "replay": None,
    }
    same = {"stage": "2-finance", "compared_with": "base", "kept_before": "1-general", "values": values}
    return {**result.record(), **same, "attempt": attempt, "scale": 1.0, "tries": [], "stopped": None, **also}


def make_retried(folder: Path, **sizes: int) -> Run:
    """A run whose second stage was tried twice, shrunk, and ended by itself; with noise of the instrument."""
    run = make_run(folder, **sizes)
    stage = run.stage(2, "finance")
    first = gate(FAILED, "retry", 1, 1e-4)
    tries = [{"scale": scale, **_decided(row)} for scale, row in ((1.0, FAILED), (0.5, PASSED))]
    stopped = "dev_loss is 0.70 after step 6; 2 looks in a row were no better than 0.65 after step 4"
    last = gate(PASSED, "keep", 2, 5e-5, scale=0.5, tries=tries, stopped=stopped, attempts=[first])
    write_json(stage / "gate.json", last)
    write_json(stage / "start.json", {"stack": ["1-general"], "reference": "previous"})
    write_json(stage / "attempts" / "1" / "gate.json", first)
    steps = make_steps(6)
    write_lines(stage / "attempts" / "1" / "train.jsonl", steps)
    looks = [{**step, "data_kl": 0.01, "dev_loss": 0.7 - 0.01 * number} for number, step in enumerate(steps)]
    write_lines(stage / "train.jsonl", looks)
    noise = {"repeats": 3, "n": 36, "spread": 0.0123, "limit": 0.0456, "moved": 0.25}
    write_json(run.folder / "noise.json", {"mt_bench": noise})
    return run


def _decided(row: Row) -> dict[str, Any]:
    record = asdict(row)
    return {"outcome": row.outcome, "reasons": [row.reason], "rows": [record]}


def test_attempts_scales_and_the_reason_of_a_stop_are_shown_with_their_numbers(tmp_path: Path) -> None:
    page = page_of(make_retried(tmp_path / "retried", items=12, steps=6))
    parse(page)
    plain = " ".join(page.split())
    assert "Trained on top of 1-general." in plain
    assert (
        "Decided on the dev questions against the base model, attempt 2, with the adapter at 0.5 of its size." in plain
    )
    assert "<dt>Beta</dt><dd>kind cosine, start 0.3, end 0.1</dd>" in plain
    assert "<dt>Learning rate</dt><dd>5e-05</dd>" in plain  # of the last attempt, not of the recipe
    assert "The stage ended by itself:</strong> dev_loss is 0.70 after step 6; 2 looks in a row" in plain
    seen = "-0.90 (95% interval -1.20 to -0.60)"
    assert rows_of(page, "finance, attempt 1") == [["hold mt_bench", "fail", "loss below 0.2", seen, "24", ""]]
    assert rows_of(page, "finance at 1 of its size")[0][1:4:2] == ["fail", seen]
    assert rows_of(page, "finance at 0.5 of its size")[0][1:3] == ["pass", "loss below 0.2 (2% of 10)"]
    assert "trained again" in plain and "the stage is kept" in plain and "Loss of every attempt" in plain
    assert rows_of(page, "Noise of the instrument") == [["mt_bench", "3 times", "36", "0.0123", "0.0456", "25.0%"]]
    for title in ("Loss of the pairs that were set apart", "KL from the reference", ">Beta<", ">Learning rate<"):
        assert title in plain


def test_a_run_that_was_killed_in_its_second_attempt_says_so(tmp_path: Path) -> None:
    run = make_retried(tmp_path / "killed", items=12, steps=6)
    (run.stage(2, "finance") / "gate.json").unlink()
    for name in ("verdict.json", "comparison.json"):
        (run.folder / name).unlink()
    run.log("begin")
    page = " ".join(page_of(run).split())
    assert "stage 2-finance: attempt 1 failed its gate, and attempt 2 is not finished" in page
    assert "not finished <span" in page and "begun 2 times, pauses included" in page
    assert "<dd>Nothing yet: the run has no verdict.</dd>" in page
    assert rows_of(page, "finance, attempt 1")[0][1] == "fail"


def test_each_domain_s_adapter_is_shown() -> None:
    lora = {"finance": {"rank": 4, "alpha": 8.0, "learning_rate": None}, "reddit": {"rank": 2, "alpha": 4.0}}
    steps = make_steps(3)
    moved = [{**step, "adapters": {"finance": {"learning_rate": 1e-3, "grad_norm": 0.5}}} for step in steps]
    stage = StageFiles(1, {"name": "x", "lora": lora}, moved, adapters=["finance", "reddit"])
    from equipoise.report.stages import stages

    view = stages(RunFiles("x", {}, stages=[replace(stage, start={"stack": []})]))[0]
    assert view.began == "Trained on top of the base model. Adapters of its own for finance and reddit."
    assert ("LoRA of finance", "rank 4, alpha 8") in view.settings
    titles = [title for title, _ in view.training.plots]
    assert "Gradient norm (solid: the stage; dashed, in order: adapters of finance)" in titles
    assert "adapter of finance: 0.001" in dict(view.training.plots)[titles[titles.index("Beta") - 1]]


def test_figures_of_a_source_count_every_pair_once() -> None:
    """The last fifth of ten steps are two: (1 x 4 + 3 x 8) / 4 = 7."""
    steps = [{"step": n, "sources": {"a": {"pairs": 1.0, "loss": 99.0}}} for n in range(1, 9)]
    steps += [{"step": n, "sources": {"a": {"pairs": p, "loss": x}}} for n, p, x in ((9, 1.0, 4.0), (10, 3.0, 8.0))]
    (name, means), *_ = training.view(StageFiles(1, {}, steps)).by_source
    assert (name, means) == ("a", {"pairs": 12.0, "loss": 7.0})


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("It sells boats, tyres.", "It sells boats, tyres, pianos.", [], [", pianos"]),
        ("The chief is nina", "The chief was nina", ["is"], ["was"]),
        ("a  b", "a b", [], []),
        ("", "all new", [], ["all new"]),
        ("東京は晴れ", "東京は雨", ["晴れ"], ["雨"]),
        ("<b>x</b>", "<b>y</b>", ["x"], ["y"]),
    ],
)
def test_changed_words_are_found(before: str, after: str, gone: list[str], new: list[str]) -> None:
    left, right = changed(before, after)
    assert ["".join(text for text, _ in side) for side in (left, right)] == [before, after]
    assert [[text for text, mark in side if mark] for side in (left, right)] == [gone, new]


def test_texts_that_repeat_themselves_are_compared_in_no_time() -> None:
    begun = time.process_time()
    left, right = changed("So: " + "!?" * 700 + " end", "So: " + "?!!" * 450 + " end")
    assert time.process_time() - begun < 0.5
    assert [text for text, new in left if new] == ["!?" * 700]
    assert [text for text, new in right if new] == ["?!!" * 450]
    assert left[0] == right[0] == ("So: ", False) and left[-1] == right[-1] == ("end", False)


def test_answers_name_their_question_by_its_last_line() -> None:
    message = {"role": "user", "content": "| a | 1 |\n\nWhat is a?\n"}
    assert answers._gist({"prompt": [message]}) == "What is a?"
    assert answers._gist({}) == ""
    assert answers._gist({"prompt": [{"role": "user", "content": "x" * 100}]}) == "x" * 90 + " …"


def test_bands_are_as_high_as_their_numbers() -> None:
    """84 units are 1000 rows: 500 are 42, 250 are 21, and one row is still 1.5."""
    uses = [plots_flow.Use("s", 250, 250, 0), plots_flow.Use("t", 1, None, 1)]
    root = ElementTree.fromstring(plots_flow.ribbon("<a>", 1000, 500, uses))
    nodes = [node.get("height") for node in root if node.get("class") == "node"]
    assert nodes == ["84.0", "42.0", "22.5", "21.0"]
    said = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert said[0] == "<a>: 1,000 rows, 500 available, 251 drawn, 250 seen"
    assert {"500 of 1,000 rows dropped", "249 pairs not asked for", "s: 250 drawn, 250 seen", "t: 1 drawn"} <= set(said)
    assert ElementTree.fromstring(plots_flow.ribbon("none", 0, 0, [])).get("role") == "img"


def row(name: str, verdict: str, difference: float = 0.5, **also: Any) -> Comparison:
    ends = (difference - 0.1, difference + 0.1)
    fields = {"p_value": 0.01, "p_holm": 0.02, "n": 50, "unscored": 0, "detectable": 0.2, "margin": 0.3}
    sides = {"before": 1.0, "after": 1.0 + difference, "difference": difference, "ci": ends}
    return Comparison(domain=name, **{**fields, **sides, "health": {}, "metrics": {}, "verdict": verdict, **also})


def test_before_and_after_stand_at_their_places() -> None:
    """From 0.7 (margin) to 1.6 and 8% air on both sides, 396 units wide from 12: 1 stands at 12 + 396 * 372 / 1044."""
    root = ElementTree.fromstring(plots_change.before_after(row("a<b>", "improved")))
    dot = next(part for part in root.iter("{http://www.w3.org/2000/svg}circle") if part.get("class") == "was")
    assert float(dot.get("cx", "")) == pytest.approx(12 + 396 * 0.372 / 1.044, abs=0.05)
    assert root.get("aria-label") == "a<b>: 1.00 before, 1.50 after: +0.50, interval +0.40 to +0.60: improved"
    ticks = [part.text for part in root if part.get("class") == "tick"]
    assert ticks == ["0.75", "1", "1.25", "1.5"]
    for odd in (
        row("x", "undecided", 0.0, ci=(0.0, 0.0), margin=None),
        row("y", "worse", -1e-9),
        row("z", "held", -1e9),
    ):
        svg = plots_change.before_after(odd)
        assert ElementTree.fromstring(svg).get("role") == "img" and "nan" not in svg


@pytest.mark.parametrize(
    ("kept", "rows", "said"),
    [
        ("", [], "Nothing yet: the run has no verdict."),
        ("base", ["worse"], "Nothing from this run: keep the base model."),
        ("1-a", ["improved", "held"], "Stage 1-a: no domain lost more than its margin."),
        ("2-b", ["improved"], "Stage 2-b on top of 1-a: no domain lost more than its margin."),
        ("1-a", ["improved", "worse"], "Stage 1-a, only where the loss in d1 is acceptable; else the base model."),
        ("1-a", ["improved", "undecided"], "Stage 1-a, if a possible loss in d1 is acceptable: it is not decided."),
        (
            "1-a",
            ["held"],
            "The base model: no gain is shown that would speak for stage 1-a, although the gates kept it.",
        ),
    ],
)
def test_what_to_ship_follows_from_the_verdicts(kept: str, rows: list[str], said: str) -> None:
    compared = {f"d{place}": row(f"d{place}", verdict) for place, verdict in enumerate(rows)}
    stages = []
    for number, name in ((1, "a"), (2, "b")):
        from equipoise.report.shape_gate import decision

        found = decision(gate(PASSED, "keep", 1, 1e-4))
        stages.append(StageFiles(number, {"name": name}, [], found))
    told = {"kept_stage": kept, "point": kept} if kept else {}
    files = RunFiles("x", {}, stages=stages, comparisons={kept: compared}, verdict=told)
    assert verdict.ship(files, {}) == said


def test_only_damaged_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "edited", items=12, steps=5)
    log = run.stage(1, "general") / "train.jsonl"
    lines = log.read_text().splitlines()
    lines[1] = lines[1].replace('"loss": 0.', '"loss": NaN, "was": 0.', 1)
    lines[3] = "x" * 5000
    write_text(log, "\n".join([*lines, json.dumps({"step": 6, "loss": 0.5})]))  # no line end: whole all the same
    files = read_run(run)
    assert [step["step"] for step in files.stages[0].steps] == [1, 3, 5, 6]
    name = "stages/1-general/train.jsonl"
    assert f"{name}: 2 lines cannot be read and are left out (line 2: loss is not a number)" in files.missing
    page = page_of(run)
    assert f"{name}: 2 lines" in page and "xxxx" not in page


def test_attempts_of_a_stage_whose_folder_of_attempts_is_gone_come_from_its_gate(tmp_path: Path) -> None:
    run = make_retried(tmp_path / "gone", items=12, steps=6)
    attempts = run.stage(2, "finance") / "attempts"
    for path in sorted(attempts.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    earlier = read_run(run).stages[1].earlier
    assert [type(one) for one in earlier] == [Attempt] and earlier[0].steps == []
    assert rows_of(page_of(run), "finance, attempt 1")[0][1] == "fail"


def test_categories_have_intervals(tmp_path: Path) -> None:
    found = rows_of(page_of(make_run(tmp_path / "many", items=60, steps=2)), "Categories of reddit")
    assert [line[0] for line in found] == ["&lt;b&gt;count&lt;/b&gt;", "arithmetic", "span"]
    assert all(" to " in line[4] and line[1].isdigit() for line in found)


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "equipoise", "report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1 and "not a run folder" in done.stderr
