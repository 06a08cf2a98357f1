"""The report of a run folder that is damaged, edited, from another version or not finished: never a false word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from equipoise.exporting.card import CardFacts, card
from equipoise.exporting.choice import Chosen
from equipoise.exporting.probes import Check
from equipoise.recipe import ModelSpec
from equipoise.report import doubts, text
from equipoise.report.read import read_run
from equipoise.run_folder import Run, hashes, write_json, write_lines
from test_report import make_ledger, make_recipe, make_run, page_of, parse

VERDICT = "Better: finance_instruct. Worse: mt_bench. Answers degraded: finance_instruct."
SHIP = "Stage 2-finance on top of 1-general, only where the loss in mt_bench is acceptable; else the base model. "
SHIP += "First read answers of finance_instruct (repeated text rose"
EDITED = "These may not be the figures of the run"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the hashes of its files."""
    run = make_run(tmp_path_factory.mktemp("made") / "demo", steps=2)
    write_json(run.folder / "data" / "ledger.json", make_ledger(seen=60).record())
    write_json(run.folder / "done", {"files": hashes(run.folder)})
    return run.folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(made, tmp_path / "demo")))


def first_screen(run: Run) -> tuple[str, str, str]:
    """The headline, the answer to Ship, and the whole page as a reader sees it."""
    page = page_of(run)
    parse(page)
    headline = re.search(r'class="headline">(.*?)</h2>', page)
    ship = re.search(r"<dt>Ship</dt><dd>(.*?)</dd>", page)
    assert headline and ship
    plain = " ".join(unescape(re.sub(r"<[^>]+>", " ", page.partition("<body>")[2])).split())
    return unescape(headline[1]), unescape(ship[1]), plain


def edit(path: Path, change: Callable[[Any], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    write_json(path, record)


def test_a_run_as_it_ended_has_no_doubts(run: Run) -> None:
    headline, ship, plain = first_screen(run)
    assert headline == VERDICT and ship.startswith(SHIP) and EDITED not in plain
    (run.folder / "done").unlink()
    assert EDITED not in first_screen(run)[2]  # the report that a run writes before its last file is the same
    assert not read_run(run).doubts


@pytest.mark.parametrize("damage", ["missing", "cut", "without the point"])
def test_without_a_comparison_the_verdict_is_the_same(run: Run, damage: str) -> None:
    path = run.folder / "comparison.json"
    whole = read_run(run)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_text(path.read_text()[:900])
    else:
        edit(path, lambda record: record.pop("2-finance"))
    headline, ship, plain = first_screen(run)
    assert headline == VERDICT and ship.startswith(SHIP)
    assert "comparison.json does not tell of 2-finance: the figures are of verdict.json" in plain
    told = read_run(run).compared
    for name, row in whole.compared.items():  # what verdict.json does not hold comes from the scores
        again = told[name]
        assert (again.difference, again.ci, again.verdict, again.n) == (row.difference, row.ci, row.verdict, row.n)
        assert (again.lost, again.unscored, again.health) == (row.lost, row.unscored, row.health)
        assert again.metrics == {key: pytest.approx(pair) for key, pair in row.metrics.items()}


def test_where_neither_can_be_read_nothing_is_recommended(run: Run) -> None:
    (run.folder / "comparison.json").unlink()
    write_json(run.folder / "verdict.json", {"gates": [], "kept_stage": "2-finance", "point": "2-finance"})
    headline, ship, _ = first_screen(run)
    assert headline == ship == "Not known: the comparison cannot be read."
    (run.folder / "verdict.json").write_text("{")
    headline, ship, plain = first_screen(run)
    assert headline == ship == "Not known: the verdict cannot be read."
    assert "Nothing was compared yet" not in plain
    (run.folder / "verdict.json").unlink()
    headline, ship, plain = first_screen(run)
    assert headline == ship == "Not known: the verdict cannot be read."
    assert "verdict.json is missing: how the run ended is not known" in plain


@pytest.mark.parametrize("name", ["comparison.json", "verdict.json", "scores/base/tatqa.jsonl", "recipe.yaml"])
def test_files_that_were_changed_are_named_on_the_first_screen(run: Run, name: str) -> None:
    path = run.folder / name
    path.write_text(path.read_text().replace(" ", "  ", 1))
    assert f"{EDITED} changed since the run ended: {name}. " in first_screen(run)[2]
    path.unlink()
    assert f"{EDITED} gone since the run ended: {name}. " in first_screen(run)[2]


def test_the_report_and_the_log_may_change(run: Run) -> None:
    run.log("looked at")
    (run.folder / "report.html").write_text("old")
    assert EDITED not in first_screen(run)[2]
    (run.folder / "done").write_text("[]")
    assert "Whether files were changed since the run ended is not known" in first_screen(run)[2]


def test_without_hashes_figures_are_held_against_figures(run: Run) -> None:
    (run.folder / "done").unlink()
    edit(run.folder / "comparison.json", lambda record: record["2-finance"]["tatqa"].update(difference=9.0))
    plain = first_screen(run)[2]
    assert "verdict.json and comparison.json do not agree: tatqa (difference)." in plain
    assert "comparison.json: the difference is not after minus before in tatqa." in plain
    edit(run.folder / "verdict.json", lambda record: record["tatqa"].update(difference=9.0))
    plain = first_screen(run)[2]
    assert "do not agree" not in plain and "verdict.json: the difference is not after minus before in tatqa." in plain
    edit(run.folder / "verdict.json", lambda record: record["reddit"].update(ci=[1.0, 2.0], verdict="improved"))
    edit(run.folder / "verdict.json", lambda record: record.pop("mt_bench"))
    said = "do not agree: mt_bench (in comparison.json alone) and reddit (ci, verdict)."
    assert said in first_screen(run)[2]
    (run.folder / "comparison.json").unlink()
    assert "verdict.json: the difference is not after minus before in tatqa." in first_screen(run)[2]


def test_scores_that_were_cut_short_are_counted(run: Run) -> None:
    path = run.score_file("base", "tatqa")
    lines = [line + "\n" for line in path.read_text().split("\n")[:-1]]
    path.write_text("".join(lines[:11]) + lines[11][:40])  # 11 of 60 items, of which 5 are dev: 0, 1, 5, 6 and 10
    assert "scores/base/tatqa.jsonl: 6 of 36 test items" in read_run(run).missing
    questions = [{"id": f"tatqa-{number}", "prompt": []} for number in range(60)]
    write_lines(run.folder / "items" / "tatqa.jsonl", questions)
    assert "scores/base/tatqa.jsonl: 11 of 60 items" in first_screen(run)[2]
    path.write_text("".join(lines))
    assert not any(" of 60 items" in note or "test items" in note for note in read_run(run).missing)


def test_counts_by_hand() -> None:
    assert doubts.cut_short({"base": {"tatqa": []}}, [("tatqa", "a"), ("tatqa", "b")], {}) == [
        "scores/base/tatqa.jsonl: 0 of 2 items"
    ]
    assert doubts.cut_short({"base": {"tatqa": []}}, [], {}) == []  # how many there were is not known


def test_a_folder_without_its_recipe_shows_what_is_there(run: Run) -> None:
    (run.folder / "recipe.json").unlink()
    headline, ship, plain = first_screen(run)
    assert headline == VERDICT and ship.startswith(SHIP)  # its recipe.yaml is none
    assert "recipe.yaml cannot be read" in plain
    assert "recipe.json is missing: stages and domains are those whose files are here; their settings are not" in plain
    assert "Preference training of (not known) in 2 stages: general (" in plain
    written = json.dumps({**make_recipe().model_dump(mode="json", exclude_defaults=True), "seed": 77})
    (run.folder / "recipe.yaml").write_text(written)  # JSON is YAML
    plain = first_screen(run)[2]
    assert "recipe.json is missing: the settings are those of recipe.yaml, without changes by the command" in plain
    assert "One training seed (77)" in plain and "Preference training of pocket in 2 stages" in plain
    (run.folder / "recipe.json").write_text('{"seed": ')
    assert "recipe.json cannot be read and is left out" in first_screen(run)[2]


@pytest.mark.parametrize("name", ["events.jsonl", "scores", "verdict.json"])
def test_one_thing_of_a_run_is_enough_for_the_command(made: Path, tmp_path: Path, name: str) -> None:
    here, folder = made / name, tmp_path / "rest"
    folder.mkdir()
    shutil.copytree(here, folder / name) if here.is_dir() else shutil.copy(here, folder)
    done = subprocess.run(
        [sys.executable, "-m", "equipoise", "report", str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "") and (folder / "report.html").is_file()


def test_a_recipe_alone_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: demo\n")
    done = subprocess.run(
        [sys.executable, "-m", "equipoise", "report", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and not done.stdout and len(done.stderr.strip().splitlines()) == 1
    assert "nothing was begun here" in done.stderr and not (tmp_path / "report.html").exists()


def change_scores(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    for path in (run.folder / "scores").rglob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        for record in records:
            change(record)
        write_lines(path, records)


def test_records_of_another_version_are_read(run: Run) -> None:
    before = read_run(run)
    change_scores(run, lambda record: (record.update(mood="good"), record["health"].update(rude=False)))
    edit(run.folder / "comparison.json", lambda record: record["2-finance"]["tatqa"].update(mood="good"))
    edit(run.stage(2, "finance") / "gate.json", lambda record: record["rows"][0].update(mood="good"))
    files = read_run(run)
    assert files.points == before.points and files.compared == before.compared and files.missing == before.missing
    assert files.stages[1].gate == before.stages[1].gate


def test_scores_without_health_are_said_once_and_never_called_zero(run: Run) -> None:
    change_scores(run, lambda record: (record.pop("health"), record.pop("metrics")))
    edit(run.folder / "comparison.json", lambda record: [row.pop("health") for row in record["2-finance"].values()])
    files = read_run(run)
    assert len(files.points["base"]["tatqa"]) == 60
    assert [note for note in files.missing if "scores" in note] == [
        "scores: written by another version of equipoise: scores without health figures"
    ]
    plain = first_screen(run)[2]
    assert "empty answers" not in plain and "words per answer" not in plain and " 0 words" not in plain


def test_the_same_fault_in_many_files_is_one_note_in_plain_words(run: Run) -> None:
    change_scores(run, lambda record: record.pop("group"))
    notes = [note for note in read_run(run).missing if "cannot be read" in note]
    assert notes == [
        "scores/base/finance_instruct.jsonl and 11 other files: 720 lines cannot be read and are left out "
        "(line 1: it has no 'group')"
    ]
    change_scores(run, lambda record: record.update(group="g", answers=5))
    notes = [note for note in read_run(run).missing if "cannot be read" in note]
    assert "not of the form that this version of equipoise reads" in notes[0] and "object" not in notes[0]


def test_a_p_value_is_never_zero(run: Run) -> None:
    assert [text.p_value(p) for p in (0.0, 9.9e-5, 0.0001, 0.04321, 1.0)] == [
        "<0.0001", "<0.0001", "0.0001", "0.0432", "1.0000",
    ]  # fmt: skip
    edit(run.folder / "comparison.json", lambda record: record["2-finance"]["tatqa"].update(p_holm=1e-9))
    page = page_of(run)
    assert '<td class="n">&lt;0.0001</td>' in page and ">0.0000<" not in page


def test_a_run_in_the_middle_says_what_was_scored_and_decided(run: Run) -> None:
    for name in ("done", "verdict.json", "comparison.json"):
        (run.folder / name).unlink()
    shutil.rmtree(run.folder / "scores" / "2-finance")
    (run.stage(2, "finance") / "gate.json").unlink()
    headline, ship, plain = first_screen(run)
    assert (headline, ship) == ("No verdict yet", "Nothing yet: the run has no verdict.")
    said = "Scored: base and 1-general. Gate of 1-general: pass, the stage is kept."
    assert f"So far {said}" in plain and f"Nothing was compared yet. {said}" in plain


def test_a_run_that_failed_says_so_first(run: Run) -> None:
    run.log("failed", error="out of memory in /home/anna/x\nsecond line <b>")
    assert first_screen(run)[2].index("failed: out of memory in ~/x second line <b>") > 0
    assert VERDICT in page_of(run).partition("<dl")[0]  # it had its verdict before
    for name in ("done", "verdict.json", "comparison.json"):
        (run.folder / name).unlink()
    assert first_screen(run)[0] == "failed: out of memory in ~/x second line <b>"
    run.log("begin")
    assert "failed:" not in first_screen(run)[2]


def test_the_card_and_the_report_have_the_same_headline(run: Run, tmp_path: Path) -> None:
    write_json(run.folder / "data" / "ledger.json", make_ledger(seen=45).record())
    headline = re.search(r'class="headline">(.*?)</h2>', page_of(run))
    chosen = Chosen(run, make_recipe(), ("1-general", "2-finance"), {}, kept=True)
    check = Check(1, 1, "float32", 0.0, 0.0, 1.0, 1e-4)
    facts = CardFacts(chosen, ModelSpec(id="pocket"), tmp_path, "merged", check, (), templated=False, gguf=False)
    said = card(facts, read_run(run))
    assert headline and VERDICT in headline[1] and "Another mix than asked for" in headline[1]
    assert f"**{headline[1]}**" in said.replace("\\", "")
