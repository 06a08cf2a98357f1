"""The study page from run folders: what it shows of whole, broken and unfinished runs, and the figures behind it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from equipoise import cli
from equipoise.recipe_file import parse_recipe
from equipoise.records import InputError
from equipoise.report.study_html import default_out, study_page, write_study
from equipoise.report.study_read import read_study
from equipoise.report.study_settings import MISSING, settings
from equipoise.report.study_table import edge
from equipoise.run_folder import read_lines, write_json, write_lines
from study_runs import RECIPE, spread, write_run


def page(*places: Path) -> str:
    return study_page(read_study(places))


def embedded(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def words(text: str) -> str:
    """What a reader sees, without marks and with single spaces."""
    return " ".join(re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL).split())


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A good recipe under two seeds, a bad one, and one that equals the base."""
    gains = {"tatqa": spread(2.0), "mt_bench": spread(2.0)}
    write_run(tmp_path / "good-0", gains, name="good", seed=0)
    write_run(tmp_path / "good-1", gains, name="good", seed=1)
    write_run(tmp_path / "bad", {"tatqa": spread(3.0), "mt_bench": spread(-3.0)}, rate="2e-5")
    write_run(tmp_path / "same", {"tatqa": [0.0] * 40, "mt_bench": [0.0] * 40}, rate="4e-5")
    return tmp_path


def test_the_page_says_what_to_ship(study: Path) -> None:
    said = words(page(study))
    assert "Ship good: overall score +1.4" in said  # 2 / the standard deviation of 0..4, 1.43
    assert "3 recipes in 4 finished runs" in said and "2 are feasible" in said
    assert "not feasible worse in mt_bench" in said
    assert "tatqa good" in said  # by this priority as well: `bad` gains more and is not feasible
    assert "stages.only.optim.learning_rate" in said


def test_the_data_hold_every_run_on_every_question(study: Path) -> None:
    """Values come back from base64 as they stand in the score files."""
    data = embedded(page(study))
    assert [run["name"] for run in data["runs"]] == ["good, seed 0", "good, seed 1", "same", "bad"]
    tatqa = data["domains"][0]
    values = np.frombuffer(base64.b64decode(tatqa["values"]), "<f4").reshape(4, len(tatqa["ids"]))
    records = {line["id"]: line["value"] for line in read_lines(study / "bad/scores/1-only/tatqa.jsonl")}
    assert values[3].tolist() == [records[key] for key in tatqa["ids"]]
    assert len(base64.b64decode(tatqa["bases"])) == 4 * len(tatqa["ids"])  # one base for all
    better = np.frombuffer(base64.b64decode(data["better"]), "<u4").reshape(3, 3)
    assert [row["name"] for row in data["rows"]] == ["good", "same", "bad"]
    assert better[0].tolist() == [0, 0b11, 0b10] and better[1].tolist() == [0, 0, 0b10]
    assert better[2].tolist() == [0b01, 0b01, 0]  # tatqa: 1 more than `good` on every question
    assert data["rows"][2]["gains"][1][0] == pytest.approx(3.0)


def test_two_runs_item_by_item(study: Path) -> None:
    said = words(page(study))
    assert "First: good, seed 0 . Second: same" in said
    # 2 +- 1 above the base on 40 questions: always better
    assert "tatqa 40 0 0 0 the first is shown to be better" in said


def test_answers_are_there_for_the_questions_on_which_runs_differ(study: Path) -> None:
    for folder in study.iterdir():
        lines = read_lines(folder / "scores/1-only/tatqa.jsonl")
        lines[7]["answers"] = [f"<script>alert('{folder.name}')</script>" + "x" * 900]
        write_lines(folder / "scores/1-only/tatqa.jsonl", lines)
        item = {"id": "test-7", "prompt": [{"role": "user", "content": "What </script> is it?"}], "gold": {"a": 1}}
        write_lines(folder / "items/tatqa.jsonl", [item])
    text = page(study)
    assert "alert('good-0')" in text and "<script>alert" not in text and "What </script>" not in text
    answers = embedded(text)["answers"]
    (item,) = [one for one in answers["items"] if (one["domain"], one["item"]) == (0, 7)]
    shown = [answers["texts"][number] for number in item["answers"]]
    assert [name in said for name, said in zip(["good-0", "good-1", "same", "bad"], shown, strict=True)] == [True] * 4
    assert all("characters left out" in said and len(said) < 800 for said in shown)
    assert (item["question"], item["expected"]) == ("What </script> is it?", '{"a": 1}')


def test_nothing_is_asked_of_others(study: Path) -> None:
    text = page(study)
    assert not re.search(r"(src|href)=[\"'](?!#)", text)
    assert "default-src 'none'" in text


def break_verdict(folder: Path) -> None:
    (folder / "verdict.json").write_text('{"kept_')


def break_recipe(folder: Path) -> None:
    record = json.loads((folder / "recipe.json").read_text())
    write_json(folder / "recipe.json", {**record, "colour": "red"})


def break_score(folder: Path) -> None:
    path = folder / "scores/1-only/tatqa.jsonl"
    path.write_text(path.read_text().replace('"value": ', '"value": "', 1).replace(', "unscored"', '", "unscored"', 1))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "done").unlink(), "extra unfinished continue it with: equipoise run --resume extra"),
        (break_verdict, "extra damaged verdict.json: not JSON"),
        (break_recipe, "extra damaged extra: recipe.json: colour: unknown key"),
        (break_score, "extra damaged scores/1-only/tatqa.jsonl:1: value is"),
        (lambda folder: (folder / "provenance.json").unlink(), "extra damaged provenance.json: missing"),
        (lambda folder: (folder / "scores/base/tatqa.jsonl").unlink(), "tatqa: left out"),
        (
            lambda folder: (folder / "events.jsonl").write_text("?\n"),
            "events.jsonl cannot be read: times are not known",
        ),
        (
            lambda folder: (folder / "recipe.json").unlink(),
            "extra damaged extra: not a run folder (it has no recipe.json)",
        ),
    ],
)
def test_a_broken_run_is_a_row_with_its_reason(study: Path, damage: Any, said: str) -> None:
    damage(write_run(study / "extra", {"tatqa": spread(1.0), "mt_bench": spread(1.0)}, rate="8e-5"))
    text = words(page(study))
    assert said in text and "Ship good" in text


def test_failed_runs_have_the_reason_of_the_study(study: Path) -> None:
    """Also one whose folder was never made; seconds are the study's where they are more than the events tell."""
    broken = write_run(study / "half", {"tatqa": spread(1.0)}, rate="8e-5")
    (broken / "done").unlink()
    events = [{"time": 10.0, "event": "begin"}, {"time": 70.0, "event": "stage", "pairs": 16}]
    write_lines(broken / "events.jsonl", [*events, {"time": 370.0, "event": "evaluate", "point": "1-only"}])
    rows = [
        {"name": "half", "state": "failed", "reason": "killed by signal 9", "seconds": 720.0},
        {"name": "never", "state": "failed", "reason": "out of memory"},
    ]
    write_json(study / "study.json", {"rows": rows})
    said = words(page(study))
    assert "half failed killed by signal 9 0 of 1 stages done; scored: base, 1-only 12 min" in said
    assert "never failed out of memory no recipe.json; nothing scored" in said
    assert "2 runs are not in the table" in said
    (run,) = [run for run in read_study([study]).runs if run.name == "half"]
    assert (run.seconds, run.training, run.measuring, run.other, run.pairs) == (720.0, 300.0, 0.0, 420.0, 16)


def test_the_reason_that_a_run_wrote_down_itself(study: Path) -> None:
    """As its last event; once it goes on again that reason is a thing of the past."""
    broken = write_run(study / "half", {"tatqa": spread(1.0)}, rate="8e-5")
    (broken / "done").unlink()
    events = [{"time": 10.0, "event": "begin"}, {"time": 70.0, "event": "failed", "error": "out of memory"}]
    write_lines(broken / "events.jsonl", events)
    said = words(page(study))
    assert "half failed out of memory; continue it with: equipoise run --resume half" in said
    write_lines(broken / "events.jsonl", [*events, {"time": 90.0, "event": "begin"}])
    assert "half unfinished continue it with" in words(page(study))


def test_the_headline_says_what_may_be_lost(tmp_path: Path) -> None:
    write_run(tmp_path / "one", {"tatqa": spread(3.5), "mt_bench": spread(-0.1)})
    said = words(page(tmp_path))
    assert "Ship one if a possible loss in mt_bench (up to 0.42) is acceptable: overall score +1." in said


def test_a_page_without_an_overall_score(tmp_path: Path) -> None:
    for name, rate in (("one", "1e-5"), ("two", "2e-5")):
        write_run(tmp_path / name, {"tatqa": spread(2.0)}, base={"tatqa": [3.0] * 40}, rate=rate)
    text = page(tmp_path)
    said = words(text)
    assert "No overall score can be had: choose by the domain that matters" in said
    assert "tatqa one" in said and "balanced" not in said and "Overall" not in said
    assert '<option value="0">overall score' not in text
    assert embedded(text)["rows"][0]["gains"][0] is None


def test_a_study_without_a_finished_run_still_has_a_page(tmp_path: Path) -> None:
    (write_run(tmp_path / "one", {"tatqa": spread(1.0)}) / "done").unlink()
    said = words(page(tmp_path))
    assert "Nothing to rank yet" in said and "one unfinished" in said


def test_one_recipe_alone_and_one_domain(tmp_path: Path) -> None:
    write_run(tmp_path / "one", {"tatqa": spread(1.0)})
    said = words(page(tmp_path))
    assert "There is one finished run" in said and "These runs share one domain" in said


def test_settings_that_differ() -> None:
    """The learning rate alone between 0 and 1, together with another key in 2; names and seeds do not count."""
    texts = [RECIPE.format(name=f"r{k}", seed=k, rate=rate) for k, rate in enumerate(("1e-5", "2e-5", "4e-5"))]
    texts[2] = texts[2].replace("mix: {mine: 16}", "mix: {mine: 32}\n    dpo: {beta: 0.5}")
    found = {one.key: one for one in settings([parse_recipe(text) for text in texts])}
    rate = found["stages.only.optim.learning_rate"]
    assert (rate.values, rate.places, rate.only) == (
        ("1e-05", "2e-05", "4e-05"),
        ("1e-05", "2e-05", "4e-05"),
        ((0, 1),),
    )
    (other,) = [one for key, one in found.items() if key != rate.key]
    assert {other.key, *other.also} == {"stages.only.mix.counts.mine", "stages.only.dpo.beta"}
    assert other.only == ()


def test_settings_that_only_some_have_and_numbers_on_an_axis() -> None:
    texts = [RECIPE.format(name="r", seed=0, rate=f"{k}e-6") for k in (1, 2, 3, 4, 5, 6, 7, 8, 40)]
    (rate,) = settings([parse_recipe(text) for text in texts])
    assert (
        rate.logarithmic
        and rate.places == ()
        and rate.numbers == pytest.approx([float(f"{k}e-6") for k in (*range(1, 9), 40)])
    )
    second = texts[0].replace("evaluation:", "  - name: second\n    mix: {mine: 8}\nevaluation:")
    found = settings([parse_recipe(texts[0]), parse_recipe(second)])
    assert any(MISSING in one.values for one in found)


def test_the_edge_by_hand() -> None:
    assert edge([(0, 3), (1, 1), (2, 2), (3, 0), (3, -1), (2, 1)]) == [(0, 3), (2, 2), (3, 0)]


def test_the_command(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(cli.app, ["report", str(study)])
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.strip() == str(study / "report.html")
    out = tmp_path / "pages/x.html"
    assert (
        CliRunner().invoke(cli.app, ["report", str(study / "bad"), str(study / "same"), "--out", str(out)]).exit_code
        == 0
    )
    assert "2 recipes in 2 finished runs" in words(out.read_text())
    assert default_out([study / "bad", study / "same"]) == study / "report-study.html"
    assert default_out([study / "bad", tmp_path]) == Path("report-study.html")
    for wrong, why in (
        ([str(study / "nothing"), str(study)], "not a run folder"),
        ([str(study), "--out", str(study)], "this is a folder"),
        ([str(study / "bad"), "--out", "x.html"], "lies in its folder"),
    ):
        refused = CliRunner().invoke(cli.app, ["report", *wrong])
        assert refused.exit_code == 2 and why in refused.stderr and refused.stderr.count("\n") == 1


def test_runs_that_cannot_be_compared_are_refused(study: Path) -> None:
    write_run(study / "other", {"tatqa": spread(1.0), "mt_bench": spread(1.0)}, rate="8e-5", question="another")
    with pytest.raises(InputError, match="differ in content"):
        write_study([study])
    assert not (study / "report.html").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"value": 1.0', '"value": "one"', "tatqa.jsonl:2: value is 'one', not a finite number"),
        ('"value": 1.0', '"value": NaN', "tatqa.jsonl:2: value is nan, not a finite number"),
        ('"value": 1.0', '"value": true', "tatqa.jsonl:2: value is True, not a finite number"),
        ('"id": "test-1"', '"id": "test-0"', "tatqa.jsonl:2: item test-0 stands in line 1 already"),
        ('"answers"', '"replies"', "tatqa.jsonl:1: not a score: 'answers'"),
    ],
)
def test_a_wrong_score_is_named_with_file_and_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    one = write_run(tmp_path / "one", {"tatqa": spread(1.0)})
    path = one / "scores/base/tatqa.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    for command in (["leaderboard", str(tmp_path)], ["compare", str(path.parent), str(one)]):
        refused = CliRunner().invoke(cli.app, command)
        assert refused.exit_code == 2 and said in refused.stderr and refused.stderr.count("\n") == 1
