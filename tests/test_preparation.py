"""From a recipe to what its stages train on: built once, short before expensive, answered by the right model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import equipoise
from equipoise.data.ledger import Ledger
from equipoise.data.tables import read_pairs
from equipoise.dpo.job import Job, bands_of_job
from equipoise.dpo.reference import Reference
from equipoise.model.chat import EncodedPair
from equipoise.model.load import policy_tokenizer
from equipoise.models import Models
from equipoise.preparation import Preparation, Prepared
from equipoise.progress import Silent
from equipoise.recipe import Curriculum, Mix, ModelSpec, Recipe, Stage
from equipoise.recipe_file import parse_recipe
from equipoise.records import InputError
from equipoise.store import Store
from equipoise.verify import verify
from experiments import write_rows

HEAD = """\
# Is the data as asked?
name: data
model: {id: pocket}
reward: {id: pocket}
"""
TAIL = """\
evaluation:
  tasks: {reddit: {id: pocket, limit: 12}}
  generation: {max_new_tokens: 8}
"""
STAGE = """\
    dpo: {max_length: 512, max_prompt_length: 384}
    optim: {learning_rate: 1e-3, batch_size: 8}
"""


class Told(Silent):
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def recipe_of(sources: str, stages: str) -> Recipe:
    return parse_recipe(f"{HEAD}sources:\n{sources}stages:\n{stages}{TAIL}")


def prepared(recipe: Recipe, store: Store, *, models: bool = False, told: Told | None = None) -> Prepared:
    display = told or Told()
    lent = Models(recipe, store, display) if models else None
    return Preparation(recipe, policy_tokenizer(recipe.model), display, store, lent).begin()


def a_table(path: Path, rows: int = 40, **more: Any) -> str:
    said = [
        {"q": f"What is thing {n} of {n * n}?", "good": f"It is {n}.", "bad": f"No idea about {n}."}
        for n in range(rows)
    ]
    write_rows(path, [{**row, **more} for row in said])
    return f"  mine: {{kind: table, id: {path}, domain: d, columns: {{prompt: q, chosen: good, rejected: bad}}}}\n"


def test_a_source_is_built_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    source, store = a_table(tmp_path / "rows.jsonl"), Store(tmp_path / "store")
    stages = f"  - name: s\n    mix: {{mine: 20}}\n{STAGE}"

    def build(recipe: Recipe) -> tuple[Prepared, bool]:
        told = Told()
        result = prepared(recipe, store, told=told)
        return result, "source mine: from the store" in told.said

    first, kept = build(recipe_of(source, stages))
    assert not kept
    again, kept = build(recipe_of(source, stages.replace("20", "30")))  # another mix is the same source
    assert kept and again.pools["mine"] == first.pools["mine"]
    assert again.stages[0].pairs[:20] == first.stages[0].pairs  # type: ignore[union-attr]
    assert not build(recipe_of(source.replace("domain: d", "domain: e"), stages))[1]
    other_items = parse_recipe(f"{HEAD}sources:\n{source}stages:\n{stages}{TAIL.replace('12', '13')}")
    assert not build(other_items)[1]
    a_table(tmp_path / "rows.jsonl", rows=41)
    more, kept = build(recipe_of(source, stages))
    assert not kept and len(more.pools["mine"].pairs) == 41
    for path in (tmp_path / "store").rglob("*.bin"):
        path.write_bytes(path.read_bytes()[:-1])
    mended, kept = build(recipe_of(source, stages))
    assert not kept and mended.pools == more.pools


def test_what_a_second_source_has_as_well_is_counted_there(tmp_path: Path) -> None:
    source = a_table(tmp_path / "rows.jsonl")
    both = source + source.replace("mine", "yours")
    recipe = recipe_of(both, f"  - name: s\n    mix: {{mine: 20, yours: 1, when_short: repeat}}\n{STAGE}")
    with pytest.raises(InputError, match="stage s: source yours: 1 pairs asked, 0 available"):
        prepared(recipe, Store(tmp_path / "store"))


def test_held_out_groups_are_never_trained_on(tmp_path: Path) -> None:
    source = a_table(tmp_path / "rows.jsonl").replace("domain: d", "domain: d, hold_out: 0.25")
    found = prepared(recipe_of(source, f"  - name: s\n    mix: {{mine: 30}}\n{STAGE}"), Store(tmp_path / "store"))
    pool = found.gathered["mine"]
    assert (len(pool.pairs), len(pool.held_out), pool.line.held_out) == (30, 10, 10)
    assert not {pair.group for pair in pool.pairs} & {pair.group for pair in pool.held_out}


def test_posts_of_the_evaluation_are_never_trained_on(tmp_path: Path) -> None:
    """The group of an evaluated post goes whatever its prompt says."""
    source = a_table(tmp_path / "rows.jsonl")
    recipe = recipe_of(source, f"  - name: s\n    mix: {{mine: 20}}\n{STAGE}")
    group = prepared(recipe, Store(tmp_path / "store")).items["reddit"][0].group
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "rows.jsonl", [{**row, "post": group if n < 5 else f"p{n}"} for n, row in enumerate(rows)])
    source = source.replace("domain: d", "domain: reddit").replace("rejected: bad", "rejected: bad, group: post")
    line = prepared(recipe_of(source, f"  - name: s\n    mix: {{mine: 20}}\n{STAGE}"), Store(tmp_path / "store")).ledger
    assert line.sources["mine"].cleaned == {"group of the evaluation": 5}


SAMPLING = "sampling: {samples: 2, max_new_tokens: 24, min_gap: 0.1, batch_size: 16}"
GENERATED = f"""\
  own: {{kind: on_policy, id: pocket, domain: reddit, rows: 60, {SAMPLING}}}
  asked: {{kind: finance_instruct, id: pocket, rows: 60, {SAMPLING}}}
"""


def test_what_is_short_stops_before_any_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(GENERATED, f"  - name: s\n    mix: {{own: 9, asked: 500}}\n{STAGE}")
    loaded: list[str] = []
    monkeypatch.setattr("equipoise.models.load_policy", lambda spec: loaded.append(spec.id))
    with pytest.raises(InputError, match="stage s: source asked: 500 pairs asked"):
        prepared(recipe, Store(tmp_path), models=True)
    assert not loaded


def test_without_models_answers_are_assumed(tmp_path: Path) -> None:
    found = prepared(recipe_of(GENERATED, f"  - name: s\n    mix: {{own: 9, asked: 12}}\n{STAGE}"), Store(tmp_path))
    assert found.ledger.sources["asked"].assumed and found.ledger.sources["own@s"].assumed
    assert found.stages[0] is not None and {len(row.chosen) for row in found.stages[0].encoded} == {24}


def test_a_stage_is_answered_by_its_own_start_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    stages = f"  - name: one\n    mix: {{own: 8, asked: 16}}\n{STAGE}  - name: two\n    mix: {{own: 8}}\n{STAGE}"
    recipe = recipe_of(GENERATED, stages.replace("1e-3", "2e-2"))  # so that the trained model answers otherwise
    outcome = equipoise.run(recipe, out=tmp_path, name="run")
    data = outcome.run.folder / "data"
    one, two = (read_pairs(data / f"own@{stage}.parquet") for stage in ("one", "two"))
    assert {pair.prompt for pair in one} & {pair.prompt for pair in two}  # the same questions ...
    assert {pair.id for pair in one} != {pair.id for pair in two}  # ... and other answers
    assert all(pair.reward_gap is not None and pair.reward_gap > 0 for pair in [*one, *two])
    ledger = Ledger.from_record(json.loads((data / "ledger.json").read_text()))
    assert not any(line.assumed for line in ledger.sources.values())
    assert [ledger.stages[name].sources["own"].seen for name in ("one", "two")] == [8, 8]
    assert verify(outcome.run) == []
    # A run that was lost before stage two is answered the same way again.
    for path in ("done", "verdict.json", "comparison.json"):
        (outcome.run.folder / path).unlink()
    for path in sorted((outcome.run.folder / "stages").glob("2-two/*")):
        if path.is_file():
            path.unlink()
    adapter = (outcome.run.folder / "stages/2-two/adapter/adapter_model.safetensors").read_bytes()
    again = equipoise.run(recipe, out=tmp_path, name="run", resume=True)
    assert again.verdict == outcome.verdict and read_pairs(data / "own@two.parquet") == two
    assert (again.run.folder / "stages/2-two/adapter/adapter_model.safetensors").read_bytes() == adapter


def test_shares_of_tokens_get_as_many_answers_as_they_need(tmp_path: Path) -> None:
    """Half of the tokens from answers that are far shorter than the others' are far more than half of the pairs."""
    source = a_table(tmp_path / "rows.jsonl", good="It is this. " * 6, bad="Nobody knows that. " * 6)
    mixed = "{pairs: 24, by: tokens, shares: {mine: 0.5, SHORT: 0.5}}"
    own = GENERATED.splitlines()[0].replace("rows: 60", "rows: 300") + "\n"
    asked = GENERATED.splitlines()[1].replace("rows: 60", "rows: 300") + "\n"
    for short, sources in (("own", source + own), ("asked", source + asked)):
        recipe = recipe_of(sources, f"  - name: s\n    mix: {mixed.replace('SHORT', short)}\n{STAGE}")
        found = prepared(recipe, Store(tmp_path / short), models=True)
        lines = found.ledger.stages["s"].sources
        assert lines[short].drawn == lines[short].asked > 16 and lines["mine"].drawn == 24 - lines[short].drawn
        tokens = {name: line.tokens.answers for name, line in lines.items() if line.tokens}
        assert abs(tokens["mine"] - tokens[short]) < 0.15 * sum(tokens.values())


def test_two_sources_of_one_stage_hold_no_equal_answers(tmp_path: Path) -> None:
    own = GENERATED.splitlines()[0] + "\n"
    stages = f"  - name: s\n    mix: {{own: 8, twin: 8}}\n{STAGE}"
    same = recipe_of(own + own.replace("own:", "twin:"), stages)
    with pytest.raises(InputError, match=r"source twin: 8 pairs asked.*\n.*in source own as well"):
        prepared(same, Store(tmp_path), models=True)
    other = own.replace("own:", "twin:").replace("samples: 2", "samples: 2, seed: 5")
    found = prepared(recipe_of(own + other, stages), Store(tmp_path), models=True)
    assert found.stages[0] is not None and len({pair.id for pair in found.stages[0].pairs}) == 16


@pytest.mark.parametrize("by", ["length", "reward_gap", "score_gap"])
def test_curricula_know_how_easy_a_pair_is(tmp_path: Path, by: str) -> None:
    stages = f"  - name: s\n    mix: {{posts: 20}}\n    order: {{kind: curriculum, by: {by}}}\n{STAGE}"
    sources = "  posts: {kind: reddit, id: pocket, rows: 400, min_post_chars: 0, min_comment_chars: 1}\n"
    data = prepared(recipe_of(sources, stages), Store(tmp_path), models=True).stages[0]
    assert data is not None and data.easiness is not None
    for pair, row, easy in zip(data.pairs, data.encoded, data.easiness, strict=True):
        if by == "length":
            assert easy == -(len(row.prompt) + len(row.chosen) + len(row.rejected))
        elif by == "score_gap":
            assert easy == pair.score_gap
    if by == "reward_gap":  # the reward model agrees with most votes
        assert sum(easy > 0 for easy in data.easiness) > 10


def test_a_curriculum_by_scores_needs_scores(tmp_path: Path) -> None:
    order = "    order: {kind: curriculum, by: score_gap}\n"
    stages = f"  - name: s\n    mix: {{mine: 20}}\n{order}{STAGE}"
    with pytest.raises(InputError, match=r"recipe:\d+: stages.0.order.by: score_gap: source mine gives no scores"):
        recipe_of(a_table(tmp_path / "rows.jsonl"), stages)


def test_by_margin_the_reference_says_what_is_easy(tmp_path: Path) -> None:
    """Bands of a curriculum by margin: the pairs that the reference has right by far come first."""
    pairs = [EncodedPair(str(n), "s", "d", (1,), (2,), (3,), 0) for n in range(4)]
    logps = {"0": (-5.0, -1.0), "1": (-1.0, -9.0), "2": (-2.0, -2.5), "3": (-7.0, -8.0)}  # margins -4, 8, 0.5, 1
    stage = Stage(name="s", mix=Mix(counts={"s": 4}), order=Curriculum(bands=2))
    job = Job(ModelSpec(id="pocket"), stage, pairs, [], tmp_path, 0)
    assert bands_of_job(job, Reference(logps, reused=0, computed=4)) == [1, 0, 1, 0]
    plain = Job(ModelSpec(id="pocket"), Stage(name="s", mix=Mix(counts={"s": 4})), pairs, [], tmp_path, 0)
    assert bands_of_job(plain, Reference(logps, reused=0, computed=4)) is None


def test_two_sources_may_ask_the_same_questions(tmp_path: Path) -> None:
    both = GENERATED.splitlines()[1] + "\n"
    recipe = recipe_of(
        both + both.replace("asked:", "other:").replace("id: pocket", "id: pocket, rejected: corrupted"),
        f"  - name: s\n    mix: {{asked: 9, other: 9}}\n{STAGE}",
    )
    found = prepared(recipe, Store(tmp_path / "one")).ledger
    assert found.sources["asked"].assumed and not found.sources["other"].assumed
    recipe = recipe_of(
        both + both.replace("asked:", "other:"), f"  - name: s\n    mix: {{asked: 9, other: 9}}\n{STAGE}"
    )
    lines = prepared(recipe, Store(tmp_path / "two")).ledger.sources
    assert lines["asked"].available == lines["other"].available


def test_an_error_about_a_short_source_says_what_was_dropped(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "rows.jsonl", [{"q": f"{n}?", "good": "Yes.", "bad": "Yes." if n else "No."} for n in range(9)]
    )
    source = a_table(tmp_path / "other.jsonl").replace("other.jsonl", "rows.jsonl")
    source = source.replace("domain: d", "domain: d, max_malformed: 1")
    with pytest.raises(InputError, match=r"5 pairs asked, 1 available;.*\nsource mine: 9 rows; identical sides: 8"):
        prepared(recipe_of(source, f"  - name: s\n    mix: {{mine: 5}}\n{STAGE}"), Store(tmp_path / "store"))
