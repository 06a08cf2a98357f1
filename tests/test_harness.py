"""Tasks of lm-evaluation-harness: the same scores as the harness itself gives, on the items that are asked."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.evaluation.harness import Scored, harness_items, harness_scores
from equipoise.evaluation.tasks.base import Outcome
from equipoise.model.adapters import detach
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe_evaluation import HarnessSpec
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError, Item
from models import make_policy, with_lora

pytest.importorskip("lm_eval", reason="pip install 'equipoise[lm-eval]'")

ROOT = Path(__file__).parents[1]
TASKS = "tests/harness_tasks"
CELLS, FIGURES, TABLES = (f"lm_eval:equipoise_{name}" for name in ("cells", "figures", "tables"))


@pytest.fixture(autouse=True)
def where_the_data_are(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the definitions name their data by paths relative to it
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture(scope="module")
def pocket() -> Loaded:
    return load_policy(ModelSpec(id="pocket"))


def spec(**options: Any) -> HarnessSpec:
    return HarnessSpec(**{"include_path": TASKS, **options})


def items_of(name: str, **options: Any) -> list[Item]:
    return harness_items(name, spec(**options)).items


def scored(
    name: str, model: Loaded, items: Sequence[Item] | None = None, rows: int = 8, **options: Any
) -> list[Scored]:
    return harness_scores(name, spec(**options), items or items_of(name, **options), model, batch_size=rows)


def values(found: Sequence[Scored]) -> list[float | None]:
    return [outcome.value for _, outcome, _ in found]


def by_the_harness(name: str, model: Loaded, **options: Any) -> dict[str, Any]:
    """A plain run of the harness over the whole task, as its own command makes it."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = HFLM(pretrained=model.model, tokenizer=model.tokenizer, backend="causal", batch_size=4)
    manager = TaskManager(include_path=TASKS, include_defaults=False)
    task = name.removeprefix("lm_eval:")
    results = lm_eval.simple_evaluate(own, tasks=[task], task_manager=manager, bootstrap_iters=0, **options)
    return {"figures": results["results"][task], "records": results["samples"][task]}


def changed_copy(tmp_path: Path, file: str, old: str, new: str) -> str:
    """A copy of the definitions, its paths and one more text changed."""
    folder = tmp_path / "tasks"
    shutil.copytree(TASKS, folder)
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text().replace(TASKS, str(folder)))
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    return str(folder)


@pytest.mark.parametrize("shots", [None, 2])
def test_choices_score_as_in_the_harness(pocket: Loaded, shots: int | None) -> None:
    found = scored(CELLS, pocket, num_fewshot=shots)
    plain = by_the_harness(CELLS, pocket, num_fewshot=shots)
    assert values(found) == [record["acc"] for record in plain["records"]]
    assert 0 < np.mean([outcome.value for _, outcome, _ in found]) == plain["figures"]["acc,none"] < 1
    norms = [outcome.metrics["acc_norm"] for _, outcome, _ in found]
    assert np.mean(norms) == plain["figures"]["acc_norm,none"]
    rows = [json.loads(line) for line in (Path(TASKS) / "cells.jsonl").read_text().splitlines()]
    for row, (_, outcome, said) in zip(rows, found, strict=True):
        assert (said == (row["choices"][row["answer"]],)) == (outcome.value == 1.0)
        assert set(outcome.metrics) == {"acc_norm"}, "the Brier score has no value per question"


def test_answers_score_as_in_the_harness(pocket: Loaded) -> None:
    found = scored(FIGURES, pocket, metric="exact_match,answer-line")
    plain = by_the_harness(FIGURES, pocket, apply_chat_template=True)
    by_line = [record for record in plain["records"] if record["filter"] == "answer-line"]
    assert values(found) == [record["exact_match"] for record in by_line]
    assert 0 < np.mean([outcome.value for _, outcome, _ in found]) == plain["figures"]["exact_match,answer-line"] < 1
    assert [said for *_, said in found] == [(record["resps"][0][0],) for record in by_line]
    assert {name for _, outcome, _ in found for name in outcome.metrics} == {"exact_match,whole"}


def test_a_part_of_the_task_scores_as_in_the_whole(pocket: Loaded) -> None:
    """The worked examples of an item are the same, and so is its score, whoever else is asked and in what batches."""
    whole = {item.id: (outcome, said) for item, outcome, said in scored(CELLS, pocket, num_fewshot=2)}
    some = [item for item in items_of(CELLS, num_fewshot=2) if int(item.id) in (1, 4, 5, 11)]
    for asked, rows in ((some[::-1], 1), (some[1:], 3)):
        found = scored(CELLS, pocket, asked, rows=rows, num_fewshot=2)
        assert [item for item, *_ in found] == asked
        assert all(whole[item.id] == (outcome, said) for item, outcome, said in found)
    answers = {item.id: said for item, _, said in scored(FIGURES, pocket)}
    some = items_of(FIGURES)[3:9]
    assert all(answers[item.id] == said for item, _, said in scored(FIGURES, pocket, some[::-1], rows=1))


def test_adapters_count_and_leave_no_trace() -> None:
    model = load_policy(ModelSpec(id="pocket"))
    before = scored(CELLS, model)
    adapted = with_lora(model.model)
    other = scored(CELLS, replace(model, model=adapted))
    assert [said for *_, said in other] != [said for *_, said in before]
    assert scored(CELLS, replace(model, model=detach(adapted))) == before


def test_a_group_has_its_parts_as_categories(pocket: Loaded) -> None:
    found = scored(TABLES, pocket)
    assert [item.category for item, *_ in found] == ["equipoise_cells"] * 12 + ["equipoise_cells_described"] * 12
    assert found[13][0].id == found[13][0].group == "equipoise_cells_described/000001"
    assert values(found)[:12] == values(scored(CELLS, pocket))
    described = scored("lm_eval:equipoise_cells_described", pocket)
    assert values(found)[12:] == values(described)
    tagged = items_of("lm_eval:equipoise_tagged")
    assert [item.category for item in tagged] == ["equipoise_cells_described"] * 12


def test_content_follows_what_decides_the_score(tmp_path: Path) -> None:
    plain = [item.content for item in items_of(CELLS)]
    assert plain == [item.content for item in items_of(CELLS)]
    assert len(set(plain)) == 12
    moved = changed_copy(tmp_path / "same", "cells.yaml", "test_split", "test_split")
    assert plain == [item.content for item in items_of(CELLS, include_path=moved)], "where the data are is no matter"

    other = changed_copy(tmp_path / "row", "cells.jsonl", "rent 2021: 19", "rent 2021: 18")
    changed = [item.content for item in items_of(CELLS, include_path=other)]
    assert changed[0] != plain[0] and changed[1:] == plain[1:]
    for old, new in (
        ("version: 1.0", "version: 2.0"),
        ('doc_to_text: "', 'doc_to_text: "Q: '),
        (" Answer: ", " Result: "),
    ):
        folder = changed_copy(tmp_path / old.replace(":", "")[:5], "cells.yaml", old, new)
        assert not set(plain) & {item.content for item in items_of(CELLS, include_path=folder)}
    shown = [item.content for item in items_of(CELLS, num_fewshot=2)]
    assert not set(plain) & set(shown)
    folder = changed_copy(tmp_path / "examples", "cells_examples.jsonl", "What was", "Which was")
    assert shown != [item.content for item in items_of(CELLS, num_fewshot=2, include_path=folder)]
    assert not set(plain) & {item.content for item in items_of(CELLS, metric="acc_norm")}


def test_items_that_changed_are_not_scored(tmp_path: Path, pocket: Loaded) -> None:
    folder = changed_copy(tmp_path, "cells.jsonl", "rent 2021: 19", "rent 2021: 18")
    with pytest.raises(InputError, match="item 000000 has changed"):
        scored(CELLS, pocket, items_of(CELLS), include_path=folder)
    shortened = Path(folder) / "cells.jsonl"
    shortened.write_text("".join(shortened.read_text().splitlines(keepends=True)[1:5]))
    with pytest.raises(InputError, match="fewer documents"):
        scored(CELLS, pocket, items_of(CELLS), include_path=folder)


def test_a_right_answer_that_is_no_choice_is_left_out(tmp_path: Path, pocket: Loaded) -> None:
    folder = changed_copy(tmp_path, "cells.jsonl", '"answer": 3}', '"answer": 4}')
    built = harness_items(CELLS, spec(include_path=folder))
    assert built.left_out == {"the right answer is none of the choices": 1}
    assert len(built.items) == 11
    assert [item.id for item in built.items] == [f"{place:06d}" for place in range(12) if place != 1]
    kept = scored(CELLS, pocket, built.items, include_path=folder)
    assert [outcome for _, outcome, _ in kept] == [
        outcome for item, outcome, _ in scored(CELLS, pocket) if item.id != "000001"
    ]


def test_a_prompt_that_does_not_fit_is_unscored(tmp_path: Path) -> None:
    small = load_policy(ModelSpec(id=str(make_policy(tmp_path, max_position_embeddings=215))))
    outcomes = [outcome for _, outcome, _ in scored(CELLS, small)]
    lengths = [len(small.tokenizer(item.prompt[0].content)["input_ids"]) for item in items_of(CELLS)]
    assert min(lengths) < 190 and max(lengths) > 216
    for length, outcome in zip(lengths, outcomes, strict=True):
        if length > 216:
            assert outcome == Outcome(None, "prompt too long for the model")
        if length < 190:
            assert outcome.value in (0.0, 1.0)
    with pytest.raises(InputError, match="equipoise_figures asks for answers of 40 tokens, and the model has 30"):
        small.model.config.max_position_embeddings = 30
        scored(FIGURES, small)


def test_nothing_is_printed_and_no_random_number_is_drawn(pocket: Loaded, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    expected = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)
    capfd.readouterr()
    shown: list[tuple[int, int]] = []
    items = items_of(FIGURES)
    harness_scores(
        FIGURES, spec(), items, pocket, batch_size=8, progress=lambda done, total: shown.append((done, total))
    )
    assert capfd.readouterr() == ("", "")
    assert shown == [(done, 16) for done in range(1, 17)]
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_a_figure_that_unfolds_is_taken_by_its_first_part(tmp_path: Path, pocket: Loaded) -> None:
    """Code tasks declare `pass_at_k`, and their records hold `pass@1`."""
    folder = changed_copy(tmp_path, "figures.yaml", "metric: exact_match", "metric: !function own.hits")
    (Path(folder) / "own.py").write_text(
        "def hits(references, predictions):\n"
        "    hit = float(references[0] in predictions[0])\n"
        "    return {'hit@1': hit, 'miss@1': 1 - hit}\n"
    )
    found = scored(FIGURES, pocket, include_path=folder)
    hits = [1 - outcome.metrics["miss@1,whole"] for _, outcome, _ in found]
    assert values(found) == hits
    assert 0 < sum(hits) < 16
    assert all(
        set(outcome.metrics) == {"miss@1,whole", "hit@1,answer-line", "miss@1,answer-line"} for _, outcome, _ in found
    )


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("equipoise_cels", {}, "no task 'equipoise_cels'.*did you mean equipoise_cells"),
        ("equipoise_cells", {"metric": "f2"}, r"metric: no figure 'f2'; usable: acc, acc_norm"),
        ("equipoise_cells", {"metric": "brier_score"}, "brier_score is a figure of all answers together.*usable: acc"),
        ("equipoise_figures", {"metric": "bleu"}, "usable: exact_match,whole, exact_match,answer-line"),
        ("equipoise_figures", {"metric": "exact_match,line"}, "no figure 'exact_match,line'"),
        ("equipoise_code", {}, "runs code that the model writes; set HF_ALLOW_CODE_EVAL=1"),
        ("equipoise_cells", {"num_fewshot": 6}, "num_fewshot: 6 asked, and there are 5 examples"),
        ("equipoise_cells", {"include_path": "tests/no_such_folder"}, "include_path: tests/no_such_folder: no such"),
        ("equipoise_cells", {"split": "test"}, "split: a task of the harness names its data itself"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    task: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    with pytest.raises(InputError, match=message) as caught:
        items_of(f"lm_eval:{task}", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("figures.jsonl", "absent.jsonl", "cannot be loaded .*absent.jsonl"),
        ("{{answer}}", "{{answr}}", "cannot be loaded .*answr"),
        ("doc_to_target", "doc_to_taget", "cannot be loaded .*doc_to_taget"),
        ("higher_is_better: true", "higher_is_better: false", "of exact_match less is better"),
        ("metadata", "num_fewshot: 0\nmetadata", "made for 0 worked examples"),
    ],
)
def test_a_definition_that_is_wrong_is_said_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = changed_copy(tmp_path, "figures.yaml", old, new)
    with pytest.raises(InputError, match=message) as caught:
        items_of(FIGURES, include_path=folder, num_fewshot=1)
    assert "\n" not in str(caught.value)


def test_code_runs_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    assert len(items_of("lm_eval:equipoise_code")) == 16


def test_without_the_package_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'equipoise\[lm-eval\]'"):
        items_of(CELLS)
