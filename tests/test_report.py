"""The page of a run: everything that matters is on it, hostile text is text, and nothing missing is a traceback."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from equipoise.data.ledger import Ledger, Lengths, SourceLine, Spread, StageLedger, StageLine, Tokens
from equipoise.evaluation.gate import decide
from equipoise.evaluation.health import health
from equipoise.outcome import comparison_json, gate_before, only, verdict_json
from equipoise.recipe import Recipe
from equipoise.records import InputError, Score, content_id
from equipoise.report import plots, text, words
from equipoise.report.html import write_report
from equipoise.report.read import RunFiles, read_run
from equipoise.run_folder import Run, write_json, write_lines, write_text

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE += "\x00\x1b[31m\x85 \u202egnp.exe \u05e9\u05dc\u05d5\u05dd \ud800 🦉"
LONG = "word " * 20_000
DOMAINS = {"tatqa": 0.0, "mt_bench": -2.0, "finance_instruct": 0.8, "reddit": 0.05}
VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}


class Balance(HTMLParser):
    """Collects tags; fails on a tag that is closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def make_recipe(on_fail: str = "continue") -> Recipe:
    stage = {"mix": {"general": 40, "finance": 60}, "optim": {"learning_rate": 1e-4, "batch_size": 10}}
    gate = {"improve": {"finance_instruct": 0.0}, "hold": {"tatqa": 0.02, "mt_bench": 0.2}, "on_fail": on_fail}
    return Recipe.model_validate(
        {
            "name": "demo",
            "model": {"id": "pocket"},
            "reward": {"id": "pocket"},
            "sources": {name: {"kind": "pocket", "domain": name} for name in ("general", "finance")},
            "stages": [
                {"name": "general", **stage, "gate": {"hold": {"reddit": 5.0}}},
                {"name": "finance", **stage, "gate": {**gate, "health": {"mt_bench.repeated": 0.05}}},
            ],
            "evaluation": {"tasks": {name: {} for name in DOMAINS}},
        }
    )


def make_scores(gain: float, seed: int, items: int) -> dict[str, list[Score]]:
    return {
        task: [_score(task, number, gain * shift, seed) for number in range(items)] for task, shift in DOMAINS.items()
    }


def _score(task: str, number: int, shift: float, seed: int) -> Score:
    chance, item = random.Random(f"{seed}/{task}/{number}"), random.Random(f"{task}/{number}")
    answer = {0: HOSTILE, 1: LONG, 2: ""}.get(
        number, f"Answer {chance.randint(0, 99)} to question {number}.\nA second line."
    )
    if shift > 0.5 and number % 3 == 0:
        answer = "profit profit profit profit " * 6  # a reward model may like this
    right = item.random() + chance.gauss(0, 0.2) < 0.6
    value = float(right) if task == "tatqa" else round(item.gauss(0, 1) + chance.gauss(shift, 0.6), 4)
    metrics = {"f1": float(right)} if task == "tatqa" else {"ten": 10 / (1 + math.exp(-value)), "correct": float(right)}
    return Score(
        id=f"{task}-{number}",
        task=task,
        content=content_id([task, number]),
        group=f"g{number // 2}",
        category=("span", "arithmetic", "<b>count</b>")[number % 3],
        split="dev" if number % 5 < 2 else "test",
        answers=(answer, "And a second turn.") if task == "mt_bench" else (answer,),
        health=health([answer], cut_off=number % 17 == 0),
        value=value if number != 7 else None,
        unscored=None if number != 7 else "the judge gave no number",
        metrics=metrics,
    )


def make_steps(steps: int) -> list[dict[str, object]]:
    def figures(step: int, pairs: int) -> dict[str, float]:
        noise = random.Random(step * 7 + pairs).gauss(0, 0.02)
        loss = 0.2 + 0.49 * math.exp(-step / 20) + noise
        drift = {"chosen_drift": -0.02 * step, "rejected_drift": -0.1 * step}
        return {
            "loss": loss,
            "margin": 0.01 * step + noise,
            "accuracy": min(1.0, 0.5 + step / 80),
            **drift,
            "pairs": pairs,
        }

    return [
        {
            "step": step,
            "learning_rate": 1e-4 * (1 - step / steps),
            "beta": 0.1,
            "grad_norm": 1.5 / step,
            **figures(step, 10),
            "sources": {"general": figures(step, 4), "finance": figures(step + 3, 6)},
        }
        for step in range(1, steps + 1)
    ]


def make_ledger(seen: int | None) -> Ledger:
    lengths = Lengths(210.0, 120.0, 0.84, 0.85)
    gaps = Spread(898, 0.5, 0.75, 1.25, 2.0, 4.0)
    drops: tuple[dict[str, int], dict[str, int]] = {"empty answer": 12}, {"near-duplicate": 90}
    sources = {
        name: SourceLine(1000, *drops, 898, lengths, score_gaps=gaps, reward_gaps=gaps, spread=1.5)
        for name in ("general", "finance")
    }
    tokens = Tokens(33, 21.5, 14, 180, 1400)
    general = StageLine(40, 898, 40, 0, lengths, {}, 40, 0, tokens, seen=40)
    finance = StageLine(60, 898, 60, 0, lengths, {}, 60, 0, tokens, seen=60)
    first = StageLedger(1.0, {"general": general, "finance": finance})
    second = StageLedger(1.0, {"general": general, "finance": replace(finance, seen=seen)})
    return Ledger(sources, {"general": first, "finance": second})


def make_run(folder: Path, *, items: int = 60, steps: int = 40, on_fail: str = "continue", verdict: bool = True) -> Run:
    """A run as the stages leave it, written by the same functions; weights and pairs left out."""
    run, recipe = Run(folder), make_recipe(on_fail)
    write_text(
        folder / "recipe.yaml",
        "# Does finance improve while nothing is lost?\nname: demo # /home/anna/x hf_abcdefghijklmnopqrst\n",
    )
    write_json(folder / "recipe.json", {**recipe.model_dump(mode="json"), "fingerprint": "f" * 32})
    origin = {"started": "2025-01-01T10:00:00Z", "argv": ["equipoise", "run", "/home/anna/demo.yaml"], "seed": 0}
    write_json(
        folder / "provenance.json", {**origin, "versions": {"torch": "2.9"}, "git": None, "machine": {"cores": 2}}
    )
    write_json(folder / "data" / "ledger.json", make_ledger(seen=45).record())
    points = {
        "base": make_scores(0.0, 0, items),
        "1-general": make_scores(0.1, 1, items),
        "2-finance": make_scores(1.0, 2, items),
    }
    gates, kept = [], "base"
    for number, stage in enumerate(recipe.stages, 1):
        point = f"{number}-{stage.name}"
        write_lines(run.stage(number, stage.name) / "train.jsonl", make_steps(steps))
        result = decide(gate_before(stage, points, kept), only(points[point], "dev"), stage.gate)
        gates.append({"stage": point, "compared_with": "base", "kept_before": kept, **result.record()})
        write_json(run.stage(number, stage.name) / "gate.json", gates[-1])
        kept = point if result.action == "keep" else kept
    for point, scores in points.items():
        for task, records in scores.items():
            run.write_scores(point, task, records)
    for event in ("begin", "end"):
        run.log(event)
    if verdict:
        comparisons = comparison_json(recipe, points)
        write_json(folder / "comparison.json", comparisons)
        write_json(folder / "verdict.json", verdict_json(comparisons, points, gates, kept))
    return run


def page_of(run: Run) -> str:
    path = write_report(run)
    assert path == run.folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    run = make_run(tmp_path_factory.mktemp("runs") / "demo")
    return run, page_of(run)


def test_page_is_whole_and_has_landmarks(whole: tuple[Run, str]) -> None:
    tags = parse(whole[1]).seen
    names = [tag for tag, _ in tags]
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert names.count(landmark) == 1, landmark
    assert names.count("table") == names.count("caption") > 5
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    wanted = [attributes.get("href") or "" for tag, attributes in tags if tag == "a"]
    wanted += ["#" + (attributes["aria-labelledby"] or "") for _, attributes in tags if "aria-labelledby" in attributes]
    assert {link for link in wanted if link} <= {f"#{name}" for name in ids}


def test_nothing_is_fetched(whole: tuple[Run, str]) -> None:
    for tag, attributes in parse(whole[1]).seen:
        assert tag not in {"link", "iframe", "object", "embed", "img"}
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    style = whole[1].partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style and "&" not in style


def test_a_browser_runs_the_page_s_own_script_and_no_other(whole: tuple[Run, str]) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", whole[1], re.DOTALL)
    assert len(scripts) == whole[1].count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in whole[1].partition("<script>")[0]
    assert not re.search(r"innerHTML|eval\(|fetch\(|XMLHttp|import\(|https?:", scripts[0])


def test_verdict_and_warnings_are_said(whole: tuple[Run, str]) -> None:
    run, page = whole
    verdict = json.loads((run.folder / "verdict.json").read_text())
    for domain in DOMAINS:
        assert re.search(
            rf"<h3><bdi>{domain}</bdi></h3>\s*<p><span class=\"badge {verdict[domain]['verdict']}\"", page
        ), domain
    assert verdict["mt_bench"]["verdict"] == "worse" and verdict["finance_instruct"]["verdict"] == "improved"
    assert "Better: finance_instruct. Worse: mt_bench. Answers degraded: finance_instruct.</h2>" in page
    assert "Stage 2-finance on top of 1-general, only where the loss in mt_bench is acceptable; else the base" in page
    assert "First read answers of finance_instruct (" in page
    assert "Preference training of pocket in 2 stages: general (400 pairs of general and finance) and finance (" in page
    assert "the interval covers items, not training seeds" in page
    assert "Stage 2-finance was kept although a rule of its gate failed." in page
    assert re.search(r"finance_instruct: the score rose while .*repeated text rose from 0.0% to", page)
    assert "Stage finance saw 45 pairs of finance, asked 60" in page
    assert "Does finance improve while nothing is lost?" in page


def test_hostile_text_is_shown_as_text(whole: tuple[Run, str]) -> None:
    run, _ = whole
    shown = [
        Score(
            **{**_fields(score), "value": 99.0 if score.id == "reddit-23" else score.value, "answers": (HOSTILE, LONG)}
        )
        for score in run.scores("2-finance")["reddit"]
        if score.value is not None
    ]
    copy = make_run(run.folder.parent / "hostile")
    copy.write_scores("2-finance", "reddit", shown)
    page = page_of(copy)
    parser = parse(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and page.count("<script") == 1 and "<img" not in page
    assert "<b>count" not in page and "&lt;b&gt;count&lt;/b&gt;" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert "⟨U+202E⟩gnp.exe" in page and "␛[31m" in page and "🦉" in page
    assert f"{len(LONG) - text.LONGEST:,} characters left out" in "".join(parser.text)
    assert "/home/anna" not in page and "hf_abc" not in page


def _fields(score: Score) -> dict[str, object]:
    return {name: getattr(score, name) for name in Score.__dataclass_fields__}


def test_a_refused_run_says_that_the_base_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path / "refused", on_fail="rollback")
    gate = json.loads((run.stage(1, "general") / "gate.json").read_text())
    verdict = json.loads((run.folder / "verdict.json").read_text())
    assert gate["action"] == "keep" and verdict["kept_stage"] == "1-general"
    write_json(run.folder / "verdict.json", {**verdict, "kept_stage": "base", "point": "2-finance"})
    page = page_of(run)
    assert "No stage was kept: the base model stays." in page
    assert "This is what the refused stage 2-finance did." in page
    assert "<li>2-finance: hold mt_bench: -" in page
    assert 'class="badge refused"' in page


def test_unfinished_and_damaged_runs_say_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "partial", verdict=False)
    (run.stage(2, "finance") / "gate.json").unlink()
    with (run.stage(2, "finance") / "train.jsonl").open("a") as log:
        log.write('{"step": 41, "lo')
    page = page_of(run)
    parse(page)
    assert "No verdict yet" in page and "stage 2-finance: 40 training steps, no gate yet" in page
    (run.folder / "data" / "ledger.json").write_text('{"sources": {"a": 1}}')
    (run.stage(1, "general") / "gate.json").write_text('{"outcome": "pass"}')
    run.score_file("base", "tatqa").write_text("not json\n")
    write_json(run.folder / "verdict.json", {"gates": [], "kept_stage": "1-general", "point": "1-general"})
    page = page_of(run)
    parse(page)
    for name in ("data/ledger.json", "gate.json"):
        assert f"{name} cannot be read" in page
    assert "scores/base/tatqa.jsonl: 1 line cannot be read and is left out (line 1: " in page
    assert str(tmp_path) not in page


def test_every_file_may_be_absent(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", items=12, steps=3)
    names = [path.relative_to(whole.folder) for path in sorted(whole.folder.rglob("*")) if path.is_file()]
    for name in names:
        if name.name != "recipe.json":
            content = (whole.folder / name).read_bytes()
            (whole.folder / name).unlink()
            parse(page_of(whole))
            (whole.folder / name).write_bytes(content)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "recipe.json").write_bytes((whole.folder / "recipe.json").read_bytes())
    page = page_of(Run.open(bare))
    assert "No verdict yet" in page and "stage 1-general: not begun" in page


def test_hand_edited_files_never_break_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "edited", items=12, steps=2)
    chance = random.Random(0)
    names = ["recipe.json", "verdict.json", "comparison.json", "provenance.json", "data/ledger.json"]
    for name in [*names, "stages/2-finance/gate.json"] * 3:
        path = run.folder / name
        content = path.read_text()
        write_text(path, json.dumps(_spoilt(json.loads(content), chance)))
        try:
            parse(page_of(run))
        except InputError as error:
            assert name == "recipe.json", error
        write_text(path, content)


def _spoilt(value: object, chance: random.Random) -> object:
    """The same JSON with one value, at a random depth, replaced by something else."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice([None, "<b>x</b>", [1, "2"], {"a": None}, -1e300, True])
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return [_spoilt(part, chance) if at == place else part for at, part in enumerate(value)]
    key = chance.choice(sorted(value))
    return {**value, key: _spoilt(value[key], chance)}


def test_a_domain_that_was_not_measured_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "unmeasured", items=12, steps=2)
    verdict = json.loads((run.folder / "verdict.json").read_text())
    write_json(run.folder / "verdict.json", {**verdict, "unmeasured": {"ifeval": "0 groups scored"}})
    assert "ifeval was not measured: 0 groups scored." in page_of(run)


def rows_of(page: str, label: str) -> list[list[str]]:
    """The cells of a table's body as a reader sees them, plots left out."""
    body = page.partition(f'aria-label="{label}"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = []
    for row in body.split("</tr>")[:-1]:
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        plain = [re.sub(r"<svg.*?</svg>", "", cell, flags=re.DOTALL) for cell in cells]
        rows.append([" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in plain])
    return rows


def page_with(folder: Path, ledger: object) -> str:
    run = make_run(folder, items=12, steps=2)
    write_json(folder / "data" / "ledger.json", ledger)
    return page_of(run)


def test_the_way_of_the_data_is_shown_step_by_step(tmp_path: Path) -> None:
    """1000 rows: 12 + 90 + 30 held out + 8 while pairing are lost, 860 are left; a stage cannot use 3 of them."""
    fair, unfair = Lengths(310, 300, 0.51, 0.52), Lengths(90, 210, 0.1, 0.11)
    gaps = Spread(860, 0.5, 0.75, 1.25, 2.0, 4.0)
    sources = {
        "finance@second": SourceLine(
            1000, {"empty answer": 12}, {"near-duplicate": 88, "too long": 2}, 860, unfair, held_out=30,
            unpaired={"gap too small": 8}, score_gaps=gaps, reward_gaps=Spread(9, 0.1, 0.2, 0.3, 0.4, 0.5), spread=1.5,
        ),
        "general": SourceLine(50, {}, {}, 50, None, assumed=True),
        "reddit": SourceLine(50, {}, {}, 50, fair),
    }  # fmt: skip
    tokens = Tokens(33, 21.5, 14, 180, 12345)
    line = StageLine(400, 857, 400, 7, unfair, {"no room": 3}, 399, 5, tokens, seen=200)
    page = page_with(tmp_path / "way", Ledger(sources, {"second": StageLedger(0.5, {"finance@second": line})}).record())
    name = "finance (made for stage second)"
    assert rows_of(page, "Sources") == [
        [name, "1,000", "12 by the reader 12 empty answer 90 in cleaning 88 near-duplicate 2 too long 30 held out "
         "8 while pairing 8 gap too small", "860", ""],
        ["general", "50", "none", "50 questions; answers not generated yet", ""],
        ["reddit", "50", "none", "50", ""],
    ]  # fmt: skip
    said = "gap of the source&#39;s scores: median 1.25, half between 0.75 and 2"
    said += " gap of rewards: median 0.3, half between 0.2 and 0.4"
    said += " Standard deviation of rewards by which gaps were judged: 1.5"
    assert rows_of(page, "Available pairs") == [
        [name, "90", "210", "10.0%", "⚠ 11.0%", said],
        ["general", "", "", "", "", "answers not generated yet"],
        ["reddit", "310", "300", "51.0%", "52.0%", "no scores and no rewards"],
    ]
    assert rows_of(page, "Pairs by stage") == [
        ["second", name, "400", "857", "3 no room", "400", "7", "399", "5", "0.5", "200"]
    ]
    assert rows_of(page, "Drawn pairs by stage") == [
        ["second", name, "90", "210", "10.0%", "⚠ 11.0%", "33", "21.5", "14", "180", "12,345"]
    ]
    assert "the length of an answer tells which one is better" in page
    assert "860 pairs: from 0.5 to 4, half of them between 0.75 and 2, median 1.25" in page  # the plot in words
    assert "Every stage was trained on the mix that was asked for." in page
    assert "finance@second" not in page and "Another mix" not in page


def test_a_box_plot_stands_where_its_numbers_are() -> None:
    """0 to 4 are 340 units from 10 on: a quarter is 85."""
    root = ElementTree.fromstring(plots.box("gaps", (0.0, 1.0, 2.0, 3.0, 4.0)))
    parts = {part.get("class"): part for part in root}
    assert (parts["middle"].get("x"), parts["middle"].get("width")) == ("95.0", "170.0")
    assert parts["median"].get("x1") == parts["median"].get("x2") == "180.0"
    whisker = next(part for part in root if part.get("class") == "whisker")
    assert (whisker.get("x1"), whisker.get("x2")) == ("10.0", "350.0")
    assert [part.text for part in root if part.get("class") == "tick"] == ["0", "1", "2", "3", "4"]


def test_another_mix_than_asked_for_stands_in_the_first_line(tmp_path: Path) -> None:
    said = "Another mix than asked for: Stage finance saw 45 pairs of finance, asked 60"
    page = page_with(tmp_path / "other", make_ledger(seen=45).record())
    title, headline = (re.search(f"<{tag}>(.*?)</", page) for tag in ("title", 'h2 id="h-verdict" class="headline"'))
    assert title and title[1].startswith(f"other: {said}") and headline and headline[1].startswith(said)
    assert "the same is true" not in page.lower()
    for seen in (59, 60, 61):  # one pair is rounding
        assert "Another mix" not in page_with(tmp_path / str(seen), make_ledger(seen=seen).record())
    record = make_ledger(seen=45).record()
    record["stages"]["general"]["sources"]["general"]["seen"] = 20
    page = page_with(tmp_path / "two", record)
    assert "Stage general saw 20 pairs of general, asked 40" in page.partition("</title>")[0]
    assert "The same is true of 1 more" in page.partition("</title>")[0]
    record = make_ledger(seen=None).record()  # not trained yet, and too few were drawn
    record["stages"]["finance"]["sources"]["finance"]["drawn"] = 30
    assert "Another mix than asked for: Stage finance has 30 pairs" in page_with(tmp_path / "drawn", record)


def test_cut_prompts_are_no_other_mix(tmp_path: Path) -> None:
    record = make_ledger(seen=60).record()
    record["stages"]["finance"]["sources"]["finance"]["prompts_cut"] = 30
    page = page_with(tmp_path / "cut", record)
    assert "Another mix" not in page and "30 of 60 prompts of finance lost their beginning" in page


def test_a_ledger_of_an_earlier_version_is_shown_with_what_it_has(tmp_path: Path) -> None:
    record = make_ledger(seen=45).record()
    for line in record["sources"].values():
        for key in ("held_out", "unpaired", "score_gaps", "reward_gaps", "spread", "assumed"):
            del line[key]
    for stage in record["stages"].values():
        for line in stage["sources"].values():
            for key in ("after_truncation", "prompts_cut", "tokens"):
                del line[key]
    page = page_with(tmp_path / "earlier", record)
    row = ["finance", "finance", "60", "898", "none", "60", "0", "", "", "1", "⚠ 45"]  # not known, which is not 0
    assert rows_of(page, "Pairs by stage")[-1] == row
    assert rows_of(page, "Drawn pairs by stage")[0] == [
        "general",
        "general",
        "210",
        "120",
        "84.0%",
        "⚠ 85.0%",
        *[""] * 5,
    ]
    assert "Another mix than asked for" in page and "cannot be read" not in page
    for line in record["stages"]["finance"]["sources"].values():  # a field that has another name today
        line["too_long"] = line.pop("unusable") | {"prompt too long": 4}
        del line["lengths"]["longer_wins"]
    page = page_with(tmp_path / "oldest", record)
    assert rows_of(page, "Pairs by stage")[-1][4] == "4 prompt too long"
    assert "data/ledger.json is of another version" in page


def test_a_ledger_with_gaps_out_of_order_is_left_out(tmp_path: Path) -> None:
    record = make_ledger(seen=60).record()
    record["sources"]["general"]["reward_gaps"]["median"] = 3.0
    page = page_with(tmp_path / "order", record)
    assert "sources.general.reward_gaps is not in order" in page and "There is no ledger." in page


def test_hostile_names_and_reasons_of_a_ledger_are_text(tmp_path: Path) -> None:
    record = make_ledger(seen=45).record()
    name = 'x"><img src=x onerror=alert(1)>\u202e@</title><script>'
    line = {**record["sources"].pop("finance"), "malformed": {HOSTILE: 5}, "unpaired": {HOSTILE: 7}}
    record["sources"] = {name: line}
    stage = record["stages"]["finance"]["sources"]
    stage[name] = {**stage.pop("finance"), "unusable": {HOSTILE: 2}}
    page = page_with(tmp_path / "hostile", record)
    tags = [tag for tag, _ in parse(page).seen]
    assert tags.count("title") > 1 and "img" not in tags and tags.count("script") == 1
    assert "\u202e" not in page and "\x1b" not in page and "⟨U+202E⟩" in page
    assert "5 &lt;script&gt;alert(1)&lt;/script&gt;" in " ".join(re.sub("<bdi>", "", page).split())
    assert "<title>hostile: Another mix than asked for: Stage finance saw 45 pairs of x&#34;&gt;&lt;img" in page


SOURCES: dict[str, dict[str, object]] = {
    "sampled": {"kind": "finance_instruct", "id": "x", "rejected": "sampled"},
    "corrupted": {"kind": "finance_instruct", "id": "x", "rejected": "corrupted"},
    "correctness": {"kind": "finance_instruct", "id": "x", "rejected": "correctness"},
    "own": {"kind": "on_policy", "id": "x", "domain": "finance"},
    "mt": {"kind": "mt_bench_style"},
    "plain": {"kind": "orca", "id": "x"},
}


@pytest.mark.parametrize(
    ("source", "ranks", "warned"),
    [
        ("sampled", None, True),
        ("own", None, True),
        ("mt", None, True),
        ("mt", {"id": "pocket"}, True),
        ("mt", {"id": "pocket", "revision": "v2"}, False),
        ("own", {"id": "another"}, False),
        ("sampled", {"id": "another"}, False),
        ("corrupted", None, False),
        ("correctness", None, False),
        ("plain", None, False),
    ],
)
def test_one_reward_model_that_selects_and_grades_is_warned_about(
    whole: tuple[Run, str], source: str, ranks: dict[str, str] | None, warned: bool
) -> None:
    files = read_run(whole[0])
    spec = {**SOURCES[source], **({"reward": ranks} if ranks else {})}
    recipe = {**make_recipe().model_dump(mode="json"), "sources": {"answers": spec}}

    def said(recipe: dict[str, object], *, tasks: Iterable[str] = DOMAINS, drawn: str = "answers@finance") -> bool:
        ledger = {"stages": {"finance": {"epochs": 1.0, "sources": {drawn: {}}}}}
        scores = {"base": {name: files.points["base"][name] for name in tasks}}
        found = words.warnings(RunFiles("x", recipe, ledger=ledger, points=scores), {})
        about = [warning for warning in found if "also selected the training pairs of answers:" in warning]
        assert all("that graded mt_bench, finance_instruct and reddit also" in warning for warning in about)
        return bool(about)

    assert said(recipe) is warned
    assert not said({**recipe, "reward": None})
    assert not said(recipe, tasks=["tatqa"])  # nothing was graded by it
    assert not said(recipe, drawn="others")


def test_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        write_report(Run.open(tmp_path))
    (tmp_path / "recipe.json").write_text("[1")
    with pytest.raises(InputError, match="not JSON"):
        write_report(Run.open(tmp_path))


def test_size_and_speed_of_a_large_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "large", items=500, steps=600)
    begun = time.perf_counter()
    page = page_of(run)
    assert time.perf_counter() - begun < 3.0
    assert len(page.encode()) < 2_000_000


def test_the_page_is_the_same_every_time(whole: tuple[Run, str]) -> None:
    assert page_of(whole[0]) == whole[1]


def test_questions_are_shown_where_the_run_keeps_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "asked", items=12, steps=3)
    asked = [
        {
            "id": f"reddit-{n}",
            "prompt": [{"role": "user", "content": f"<i>Question</i> {n}?"}],
            "follow_ups": ["And?"],
            "gold": {"answer": "<u>"},
        }
        for n in range(12)
    ]
    write_lines(run.folder / "items" / "reddit.jsonl", asked)
    page = page_of(run)
    assert (
        "&lt;i&gt;Question&lt;/i&gt;" in page and "And?" in page and "{&#34;answer&#34;: &#34;&lt;u&gt;&#34;}" in page
    )


@pytest.mark.parametrize(
    "svg",
    [
        plots.interval(plots.Mark('a"<b>&\x01', 0.0, (0.0, 0.0), "undecided"), border=-0.1, border_name="margin"),
        plots.interval(plots.Mark("tiny", 1e-9, (-1e-9, 2e-9), "improved")),
        plots.interval(plots.Mark("huge", -1e9, (-2e9, 1e8), "worse"), border=0.0),
        plots.path(
            [plots.Mark("1", 0.2, (0.1, 0.3), "held"), plots.Mark("2 refused", -1, (-2, 0), "worse")],
            margin=0.5,
            title="<&>",
        ),
        plots.lines("flat", [plots.Line("a", [(1, 0.5), (2, 0.5)])]),
        plots.lines("one", [plots.Line("a", [(1, 0.0)])], zero=True),
        plots.lines("many", [plots.Line(f"<{n}>", [(x, x * n) for x in range(1000)]) for n in range(9)]),
        plots.bar({"<a>": 3, "b": 0}, "bar"),
        plots.dumbbell(0.0, 0.0, 0.0, 0.0),
        plots.box('a"<b>&\x01', (0.0, 0.0, 0.0, 0.0, 0.0)),
        plots.box("one", (-2.0, -2.0, -2.0, -2.0, -2.0)),
        plots.box("far", (-1.7e308, 0.0, 1e-300, 1.0, 1.7e308)),
        plots.box("near", (0.0, 5e-324, 5e-324, 5e-324, 5e-324)),
    ],
)
def test_plots_are_well_formed(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("aria-label") and root[0].text
    assert "nan" not in svg.lower().replace("dominan", "") and "inf" not in svg.replace("infer", "")


def test_empty_plots_are_empty() -> None:
    assert plots.lines("none", []) == plots.lines("none", [plots.Line("a", [])]) == plots.bar({}, "none") == ""


def test_thinning_keeps_the_mean_and_the_end() -> None:
    values = [(float(x), float(x)) for x in range(1, 801)]
    thinned = plots.thin(values, 80)
    assert len(thinned) == 80 and thinned[-1][0] == 800
    assert sum(y for _, y in thinned) / 80 == pytest.approx(400.5)


def test_the_report_needs_no_model_library() -> None:
    code = "import sys, equipoise.report.html; print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
