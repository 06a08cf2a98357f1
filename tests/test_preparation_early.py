"""What is wrong with sources is said before any model answers; and what they hold out or share stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

import equipoise
from equipoise import cli
from equipoise.data.kept import Pool
from equipoise.data.ledger import SourceLine, problems, with_pairs
from equipoise.data.tables import read_pairs
from equipoise.draw import in_pieces
from equipoise.model import adapters
from equipoise.model.load import policy_tokenizer
from equipoise.preparation import examples
from equipoise.records import InputError, Message, Pair
from equipoise.run_folder import Run
from equipoise.store import Store
from experiments import write_rows
from models import make_decoder, make_policy, make_reward, make_tokenizer
from test_preparation import STAGE, Told, a_table, prepared, recipe_of

MINE = f"  - name: s\n    mix: {{mine: 8}}\n{STAGE}"
SAMPLING = "samples: 2, max_new_tokens: 24, min_gap: 0.1, batch_size: 16"
OWN = f"  own: {{kind: on_policy, id: pocket, domain: reddit, rows: 60, sampling: {{{SAMPLING}}}}}\n"


def one_stage(mix: str, more: str = "") -> str:
    return f"  - name: s\n    mix: {{{mix}}}\n{more}{STAGE}"


def questions(pairs: list[Pair]) -> set[str]:
    return {pair.prompt[-1].content.lower() for pair in pairs}


def test_what_a_source_holds_out_no_other_source_brings_back(tmp_path: Path) -> None:
    """Both orders in the recipe; the other source has the questions in capitals, other answers and other groups."""
    mine = a_table(tmp_path / "rows.jsonl").replace("domain: d", "domain: d, hold_out: 0.25")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(
        tmp_path / "other.jsonl",
        [
            {"q": row["q"].upper(), "good": f"{row['good']} Surely so.", "bad": "What?", "g": row["q"][:-1]}
            for row in rows
        ],
    )
    columns = "columns: {prompt: q, chosen: good, rejected: bad, group: g}"
    other = f"  yours: {{kind: table, id: {tmp_path / 'other.jsonl'}, domain: e, {columns}}}\n"
    for sources in (mine + other, other + mine):
        found = prepared(recipe_of(sources, one_stage("mine: 8, yours: 8")), Store(tmp_path / "store"))
        held_out = found.gathered["mine"].held_out
        assert len(held_out) == 10 and not questions(held_out) & questions(found.pools["yours"].pairs)
        assert found.ledger.sources["yours"].cleaned == {"held out of source mine": 10}
        assert found.ledger.sources["yours"].available == 30 and found.ledger.sources["mine"].available == 30


def test_a_group_that_is_held_out_is_held_out_everywhere(tmp_path: Path) -> None:
    """Posts: other questions of the same group in another source of the same domain."""
    mine = a_table(tmp_path / "rows.jsonl").replace("rejected: bad}", "rejected: bad, group: g}")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "rows.jsonl", [{**row, "g": f"g{n // 4}"} for n, row in enumerate(rows)])
    write_rows(
        tmp_path / "other.jsonl",
        [{**row, "q": f"Where was thing {n}, and when?", "g": f"g{n // 4}"} for n, row in enumerate(rows)],
    )
    mine = mine.replace("domain: d", "domain: d, hold_out: 0.3")
    for domain, left in (("d", 28), ("e", 40)):
        other = mine.replace("mine", "yours").replace("rows.jsonl", "other.jsonl").replace(", hold_out: 0.3", "")
        recipe = recipe_of(mine + other.replace("domain: d", f"domain: {domain}"), one_stage("mine: 8, yours: 8"))
        assert len(prepared(recipe, Store(tmp_path / "store")).pools["yours"].pairs) == left


def test_a_pair_that_two_sources_have_changes_no_other_draw(tmp_path: Path) -> None:
    mine = a_table(tmp_path / "rows.jsonl")
    twin = a_table(tmp_path / "twin.jsonl", rows=3).replace("mine", "twin")
    alone, beside = (
        prepared(recipe_of(sources, one_stage(mix)), Store(tmp_path / "store"))
        for sources, mix in ((mine, "mine: 20"), (twin + mine, "twin: 3, mine: 20"))
    )
    assert beside.ledger.sources["mine"].cleaned == {"in source twin as well": 3}
    first, second = (one.stages[0].pairs if one.stages[0] else [] for one in (alone, beside))
    taken = beside.pools["twin"].pairs
    shared = {pair.prompt for pair in taken}
    kept = [pair for pair in first if pair.prompt not in shared]
    assert [pair for pair in second if pair.source == "mine"][: len(kept)] == kept and len(kept) >= 17


def test_places_that_were_left_out_are_passed_over() -> None:
    """By hand: the shuffle of five places, without those of the second and the fourth pair."""
    pairs = [Pair((Message("user", f"{n}?"),), "yes", "no", domain="d", source="a", group="g") for n in range(5)]
    pool = Pool(pairs, [], with_pairs(SourceLine(5, {}, {}, 0, None), pairs))
    order = pool.order(seed=1, stage="s", source="a")
    less = pool.without([None, "why", None, None, None]).without([None, None, "why", None])
    assert less.line.cleaned == {"why": 2} and less.line.available == 3 and less.left_out == {1, 3}
    assert [less.pairs[place] for place in less.order(seed=1, stage="s", source="a")] == [
        pool.pairs[place] for place in order if place not in (1, 3)
    ]
    assert replace(less, in_order=True).order(seed=1, stage="s", source="a") == [0, 1, 2]


def test_a_smaller_draw_of_generated_pairs_begins_the_larger_one(tmp_path: Path) -> None:
    small, large = (
        prepared(recipe_of(OWN, one_stage(f"own: {count}")), Store(tmp_path), models=True).stages[0]
        for count in (4, 12)
    )
    assert small and large and len(large.pairs) == 12 and large.pairs[:4] == small.pairs


def bad_models(folder: Path) -> dict[str, tuple[str, str]]:
    """Sources that name what cannot rank or answer, and what is said of each."""
    policy = make_policy(folder / "policy")
    judge = make_reward(folder / "judge")
    three = make_reward(folder / "three", num_labels=3)
    (folder / "empty").mkdir()
    finance = OWN.replace("on_policy, id: pocket, domain: reddit", "finance_instruct, id: pocket")
    style = "  own: {kind: mt_bench_style, questions: 16, ranking: {max_new_tokens: 16}, policies: [{}, {POLICY}]}\n"

    def ranked_by(spec: str) -> str:
        return OWN.replace("rows: 60", f"rows: 60, reward: {{{spec}}}")

    return {
        "gone": (ranked_by("id: /nope/rm"), r"sources\.own\.reward\.id: /nope/rm: no such folder"),
        "empty": (ranked_by(f"id: {folder}/empty"), r"sources\.own\.reward\.id: .*empty: no.* model folder"),
        "policy": (ranked_by(f"id: {policy}"), r"sources\.own\.reward\.id: .*Qwen3ForCausalLM with 2 outputs"),
        "three": (ranked_by(f"id: {three}"), r"sources\.own\.reward\.id: .*with 3 outputs; a reward model"),
        "also": (ranked_by(f"id: {judge}, also: [{{id: /nope/b}}]"), r"sources\.own\.reward\.also\.0\.id: /nope/b: no"),
        "finance": (finance.replace("rows: 60", "rows: 60, reward: {id: /nope}"), r"sources\.own\.reward\.id: /nope: "),
        "adapter": (
            style.replace("POLICY", "adapters: [runs/x]"),
            r"sources\.own\.policies\.1\.adapters\.0: runs/x: not",
        ),
        "model": (style.replace("POLICY", "model: {id: /no}"), r"sources\.own\.policies\.1\.model\.id: /no: no such"),
        "answers": (
            style.replace("POLICY", f"model: {{id: {judge}}}"),
            r"sources\.own\.policies\.1\.model\.id: .*writes no",
        ),
        "room": (
            OWN.replace("tokens: 24", "tokens: 4096"),
            r"sources\.own\.sampling\.max_new_tokens: 4096: .*4096 pos",
        ),
    }


def test_models_of_sources_are_looked_at_before_anything_is_built(tmp_path: Path) -> None:
    """Even those of a later stage, and without models (`plan`) as with them (`data`, `run`)."""
    stages = f"{MINE}  - name: later\n    mix: {{own: 2}}\n{STAGE}"
    for sources, said in bad_models(tmp_path).values():
        recipe = recipe_of(a_table(tmp_path / "rows.jsonl") + sources, stages)
        for models in (False, True):
            told = Told()
            with pytest.raises(InputError, match=f"^{said}") as error:
                prepared(recipe, Store(tmp_path / "store"), models=models, told=told)
            assert told.said == [] and "\n" not in str(error.value)


def test_what_loading_finds_names_the_source_as_well(tmp_path: Path) -> None:
    judge = make_reward(tmp_path / "judge")
    weights = judge / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    recipe = recipe_of(OWN.replace("rows: 60", f"rows: 60, reward: {{id: {judge}}}"), one_stage("own: 2"))
    with pytest.raises(InputError, match=r"^sources\.own\.reward\.id: .*damaged or cut short"):
        prepared(recipe, Store(tmp_path / "store"), models=True)


@pytest.mark.parametrize("kind", ["on_policy, domain: reddit", "finance_instruct"])
def test_one_sample_cannot_be_ranked(kind: str) -> None:
    source = f"  own: {{kind: {kind}, id: pocket, SAMPLING}}\n"
    with pytest.raises(InputError, match=r"sources\.own: sampling\.samples: .* 2 at least"):
        recipe_of(source.replace("SAMPLING", "sampling: {samples: 1}"), one_stage("own: 2"))
    if kind == "finance_instruct":  # one sample against the reference, whatever `samples` says
        recipe_of(source.replace("SAMPLING", "rejected: correctness, sampling: {samples: 1}"), one_stage("own: 2"))


def test_built_in_questions_are_counted_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.m: `questions` counts the built-in questions; with `id`"):
        recipe_of("  m: {kind: mt_bench_style, id: pocket, questions: 16}\n", one_stage("m: 2"))
    recipe = recipe_of("  m: {kind: mt_bench_style, questions: 9000}\n", one_stage("m: 2"))
    with pytest.raises(InputError, match=r"^sources\.m\.questions: 9000: there are 1000 .*8000 in all"):
        prepared(recipe, Store(tmp_path))


@pytest.mark.parametrize(
    ("most", "mix", "said"),
    [
        (5, "own: 9", r"9 pairs asked, 5 available.*\n.*beyond max_prompts: \d+; raise sources\.own\.sampling\.max_pr"),
        (
            5,
            "pairs: 9, by: tokens, shares: {own: 1.0}",
            r"9 pairs asked, 5 available \(source own: 5\).*\n.*max_prompts",
        ),
        (
            None,
            "pairs: 99, by: gradient, shares: {own: 0.5, mine: 0.5}",
            r"99 pairs asked, \d+ available \(source own:",
        ),
        (None, "pairs: 99, by: tokens, shares: {own: 1.0}", r"99 pairs asked, \d+ available"),
    ],
)
def test_a_shortage_that_is_sure_stops_before_any_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None, mix: str, said: str
) -> None:
    monkeypatch.setattr("equipoise.models.load_policy", lambda spec: pytest.fail("a model was loaded"))
    source = OWN.replace("samples: 2", f"samples: 2, max_prompts: {most}") if most else OWN
    sources = source + a_table(tmp_path / "rows.jsonl", rows=8)
    with pytest.raises(InputError, match=f"stage s: .*{said}"):
        prepared(recipe_of(sources, one_stage(mix)), Store(tmp_path / "store"), models=True)
    if most:  # what is allowed to shrink may be short
        allowed = f"{mix}, when_short: shrink"
        found = prepared(recipe_of(sources, one_stage(allowed)), Store(tmp_path / "store"))
        assert found.ledger.sources["own@s"].available == most


def test_an_error_about_a_short_source_counts_what_is_held_out_and_unusable(tmp_path: Path) -> None:
    mine = a_table(tmp_path / "rows.jsonl").replace("domain: d", "domain: d, hold_out: 0.25")
    with pytest.raises(InputError, match=r"31 pairs asked, 30 available;.*\nsource mine: 40 rows; held out: 10$"):
        prepared(recipe_of(mine, one_stage("mine: 31")), Store(tmp_path / "store"))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "rows.jsonl", [{**row, "q": f"<|im_end|> {row['q']}"} for row in rows[:5]] + rows[5:])
    mine = mine.replace(", hold_out: 0.25", "")
    with pytest.raises(InputError, match=r"36 pairs asked, 35 available.*\nstage s: source mine: unusable: .*: 5$"):
        prepared(recipe_of(mine, one_stage("mine: 36")), Store(tmp_path / "store"))


def test_a_stage_that_needs_almost_every_question_is_warned_about(tmp_path: Path) -> None:
    source = a_table(tmp_path / "rows.jsonl")
    there = len(prepared(recipe_of(OWN, one_stage("own: 1")), Store(tmp_path / "store")).gathered["own"].pairs)
    for asked, warned in ((there - 1, True), (there // 2, False)):
        stages = f"{MINE}  - name: later\n    mix: {{own: {asked}}}\n{STAGE}"
        for models in (False, True):  # `plan`, and `data` and `run`
            ledger = prepared(recipe_of(source + OWN, stages), Store(tmp_path / "store"), models=models).ledger
            said = (
                f"Stage later asks {asked} pairs of own, which has {there} questions, and not every question makes a "
            )
            assert problems(ledger) == [said + "pair; give it more rows, or ask for fewer."] * warned


class Killed(Told):
    """A display that stops everything while the second chunk of answers is written."""

    def begin(self, title: str, total: int | None = None) -> Callable[..., None]:
        def show(done: int = 0, note: str = "") -> None:
            if title == "own: pairs" and done:
                raise KeyboardInterrupt

        return show


def test_a_run_that_is_killed_while_answers_are_written_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where a later stage turns out to be short, what to do stands in the error."""
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    stages = f"  - name: one\n    mix: {{own: 4}}\n{STAGE}  - name: two\n    mix: {{own: MOST}}\n{STAGE}"
    source = OWN.replace("rows: 60", "rows: 40").replace("min_gap: 0.1", "min_gap: 0.3")
    there = len(prepared(recipe_of(source, stages.replace("MOST", "1")), Store(tmp_path)).gathered["own"].pairs)
    recipe = recipe_of(source, stages.replace("MOST", str(there)))
    with pytest.raises(KeyboardInterrupt):
        equipoise.run(recipe, out=tmp_path, name="run", display=Killed())
    run = Run.open(tmp_path / "run")
    assert {path.name for path in run.folder.iterdir()} == {".lock", "recipe.json", "recipe.yaml"}
    result = CliRunner().invoke(cli.app, ["run", "--resume", str(run.folder)])
    assert result.exit_code == 2
    assert f"stage two: source own: {there} pairs asked" in result.output
    assert "begin a new run with another --name" in result.output
    expected = prepared(recipe, Store(tmp_path / "cache"), models=True).stages[0]
    first = run.folder / "stages" / "1-one"
    assert (first / "done").is_file() and expected is not None
    assert read_pairs(first / "pairs.parquet") == expected.pairs


def test_a_run_whose_input_is_wrong_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    recipe = recipe_of(OWN.replace("min_gap: 0.1", "min_gap: 50"), one_stage("own: 4"))
    with pytest.raises(InputError, match="stage s: source own: 4 pairs asked, 0 available"):
        equipoise.run(recipe, out=tmp_path, name="run")
    assert not (tmp_path / "run").exists()


def test_shown_pairs_keep_their_characters(tmp_path: Path) -> None:
    text = "Zinsen 📈 sind 利息, naïve \ufffd 👩\u200d🚀!"
    tokenizer = make_tokenizer()
    ids = tokenizer(text)["input_ids"]
    pieces = in_pieces(tokenizer, ids)
    assert "".join(pieces) == text and sum("\ufffd" in piece for piece in pieces) == 1
    assert {"📈", "利", "息"} <= set(pieces) and len(pieces) < len(ids)
    plain = tokenizer("Answer: 12.5 million")["input_ids"]
    assert in_pieces(tokenizer, plain) == [tokenizer.decode([token]) for token in plain]
    write_rows(tmp_path / "rows.jsonl", [{"q": "Und?", "good": "📈 利息", "bad": "Nein."}])
    source = a_table(tmp_path / "other.jsonl").replace("other.jsonl", "rows.jsonl")
    recipe = recipe_of(source, one_stage("mine: 1"))
    (shown,) = examples(recipe, prepared(recipe, Store(tmp_path / "store")), policy_tokenizer(recipe.model), 1)
    assert [piece for piece in shown["chosen"] if piece.strip()] == ["📈", "利", "息", "<|im_end|>"]


def test_a_negative_number_of_pairs_cannot_be_shown() -> None:
    result = CliRunner().invoke(cli.app, ["data", "pocket", "--show", "-1"])
    assert result.exit_code == 2 and "--show" in result.output


def test_an_adapter_is_written_with_its_lists_in_order(tmp_path: Path) -> None:
    """PEFT keeps the names of modules in a set, whose order is another one in every process."""
    model = make_decoder("Qwen3")
    model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    adapters.save(model, tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["target_modules"] == sorted(written["target_modules"]) and len(written["target_modules"]) > 3
