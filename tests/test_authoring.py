"""docs/authoring.md: the task and the source that it writes do what it says, as they stand there."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from equipoise.data.clean import clean
from equipoise.evaluation.items import read_items
from equipoise.evaluation.tasks import TASKS
from equipoise.evaluation.tasks.base import Evidence
from equipoise.model.generate import Answer
from equipoise.recipe_evaluation import TaskSpec
from equipoise.records import InputError

PAGE = Path(__file__).parents[1] / "docs" / "authoring.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def module(name: str, folder: Path) -> ModuleType:
    """The block of the page whose first line speaks of `name`, as a file that is imported."""
    (text,) = [block for block in BLOCKS if name in block.partition("\n")[0]]
    file = folder / f"authored_{name.lower()}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = made  # pydantic looks up the names of annotations there
    spec.loader.exec_module(made)
    return made


def lines(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = module("Brevity", tmp_path).TASK
    monkeypatch.setitem(TASKS, "brevity", task)
    rows = [{"id": "a", "question": "What is a bond?", "most": 5}, {"id": "b", "question": "Why?", "most": 0}]
    built = read_items("brevity", TaskSpec(id=lines(tmp_path / "brevity.jsonl", *rows)))
    (item,) = built.items
    assert item.question == "Say in at most 5 words: What is a bond?"
    assert built.left_out == {"most is not a number above 0": 1}

    def score(text: str) -> tuple[float | None, str | None, dict[str, float]]:
        found = task.score(item, Evidence(answers=[Answer(text, False, 1)]))
        return found.value, found.unscored, dict(found.metrics)

    assert score("A loan to a state.") == (1.0, None, {"words": 5.0})
    assert score("A bond is a loan to a state.") == (0.0, None, {"words": 8.0})
    assert score(" ") == (None, "empty answer", {})
    with pytest.raises(InputError, match="no column 'most'"):
        read_items("brevity", TaskSpec(id=lines(tmp_path / "other.jsonl", {"id": "a", "question": "q"})))


def test_the_source(tmp_path: Path) -> None:
    source = module("graded", tmp_path)
    answers = [{"grade": 2, "text": "So so."}, {"grade": 5, "text": " Good. "}, {"grade": 1, "text": "Bad."}]
    rows = [
        {"question": "Why?", "answers": answers},
        {"question": "How?", "answers": answers[:1]},
        {"question": "When?", "answers": [answers[0], {"grade": 2.5, "text": "Soon."}]},
        {"question": "Who?", "answers": None},
    ]
    id = lines(tmp_path / "graded.jsonl", *rows)
    spec = source.GradedSource(kind="graded", id=id, domain="mine", max_malformed=0.5)
    assert source.GradedSource.model_fields["least_gap"].description == "Smallest difference of the two grades."
    built = source.build("mine", spec)
    (pair,) = built.pairs
    assert (pair.prompt[0].content, pair.chosen, pair.rejected, pair.domain) == ("Why?", "Good.", "Bad.", "mine")
    assert built.dropped == {"fewer than two answers": 1, "grades too close": 1, "missing value": 1}
    assert clean(built.pairs, evaluation_texts=())[0] == built.pairs
    with pytest.raises(InputError, match="1 of 4 rows are malformed"):
        source.build("mine", spec.model_copy(update={"max_malformed": 0.1}))
