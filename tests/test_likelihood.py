"""Which of two given answers a model prefers: by the plain computation, and through the whole task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.evaluation.evaluate import Instruments, evaluate
from equipoise.evaluation.items import load_items
from equipoise.evaluation.likelihood import likelihoods
from equipoise.evaluation.tasks.base import PairLikelihood
from equipoise.model.adapters import add, detach, save
from equipoise.model.chat import encode_pair
from equipoise.model.load import load_policy
from equipoise.recipe import Lora, TableSource
from equipoise.recipe_evaluation import Evaluation, PreferenceSpec, Tasks
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError, Pair
from equipoise.store import Store
from experiments import write_rows
from models import make_policy

torch.set_num_threads(1)
COLUMNS = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def table(path: Path, rows: int = 6, **more: Any) -> TableSource:
    said = [{"q": f"What is {n}?", "good": f"It is {n} indeed.", "bad": f"No {n}."} for n in range(rows)]
    write_rows(path, said)
    return TableSource.model_validate({"kind": "table", "id": str(path), "domain": "d", "columns": COLUMNS, **more})


def test_likelihoods_are_those_of_the_plain_computation(tmp_path: Path) -> None:
    policy = load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))), torch.device("cpu"))
    model = add(policy.model, Lora(rank=4), seed=0, base_name="base")
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    save(model, tmp_path / "adapter")
    detach(model)
    items = load_items("preference_accuracy", PreferenceSpec(source=table(tmp_path / "rows.jsonl")))

    def plain(item: Any, stack: list[Path]) -> list[float]:
        from equipoise.model.adapters import attach

        chosen, rejected = item.gold["pair"]
        pair = Pair(item.prompt, chosen, rejected, "d", "s", "g")
        row = encode_pair(policy.tokenizer, pair, max_length=4096, max_prompt_length=4096)
        assert not isinstance(row, str)
        found = []
        with_adapters = attach(policy, stack)
        for answer in (row.chosen, row.rejected):
            ids = torch.tensor([[*row.prompt, *answer]])
            with torch.no_grad():
                logits = with_adapters(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].double()
            found.append(float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()))
        detach(with_adapters)
        return found

    found = likelihoods(policy, [tmp_path / "adapter"], items, Store(tmp_path / "store"), thinking=False)
    for item in items:
        one = found[item.id]
        assert isinstance(one, PairLikelihood)
        assert [one.chosen, one.rejected] == pytest.approx(plain(item, [tmp_path / "adapter"]), abs=1e-3)
        assert [one.reference_chosen, one.reference_rejected] == pytest.approx(plain(item, []), abs=1e-3)
        assert abs(one.chosen - one.reference_chosen) > 0.01
    base = likelihoods(policy, [], items, Store(tmp_path / "store"), thinking=False)
    assert all(isinstance(one, PairLikelihood) and one.chosen == one.reference_chosen for one in base.values())


def test_what_does_not_fit_is_unscored_with_the_reason(tmp_path: Path) -> None:
    policy = load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))), torch.device("cpu"))
    path = tmp_path / "rows.jsonl"
    spec = PreferenceSpec(source=table(path), max_length=64)
    long = {"q": "And?", "good": "word " * 90, "bad": "no"}
    write_rows(path, [{"q": "What is it?", "good": "It is this.", "bad": "No."}, long])
    items = {"preference_accuracy": load_items("preference_accuracy", spec)}
    evaluation = Evaluation(tasks=Tasks.model_validate({"preference_accuracy": spec.model_dump()}))
    found = likelihoods(policy, [], items["preference_accuracy"], Store(tmp_path), thinking=False, max_length=64)
    instruments = Instruments(None, likelihoods={"preference_accuracy": found})  # type: ignore[arg-type]
    scored = evaluate(items, instruments, evaluation, seed=0)["preference_accuracy"]
    assert sorted((score.value, score.unscored) for score in scored if score.value is None) == [
        (None, "no log-probability: answer too long")
    ]
    fine = next(score for score in scored if score.value is not None)
    assert (fine.value, fine.answers, fine.health.empty) == (0.5, (), False)


def test_only_pairs_that_are_held_out_are_asked(tmp_path: Path) -> None:
    source = table(tmp_path / "rows.jsonl", rows=40, hold_out=0.25)
    items = load_items("preference_accuracy", PreferenceSpec(source="mine"), {"mine": source})
    assert len(items) == 10
    with pytest.raises(InputError, match="set its `hold_out` above 0"):
        load_items("preference_accuracy", PreferenceSpec(source="mine"), {"mine": table(tmp_path / "rows.jsonl")})
    with pytest.raises(InputError, match="no source 'yours'"):
        load_items("preference_accuracy", PreferenceSpec(source="yours"), {"mine": source})


def test_real_preferences(real_data: Path) -> None:
    columns = {"prompt": "input", "first": "output_1", "second": "output_2", "label": "label"}
    llmbar = {"kind": "table", "id": str(real_data / "preferences/llmbar.jsonl.gz"), "domain": "d", "columns": columns}
    assert len(load_items("preference_accuracy", PreferenceSpec.model_validate({"source": llmbar}))) == 419
    columns = {"prompt": ["instruction", "input"], "first": "response1", "second": "response2",
               "label": ["annotator1", "annotator2", "annotator3"]}  # fmt: skip
    id = str(real_data / "preferences/pandalm_human_pairs_part.jsonl.gz")
    pandalm = {"kind": "table", "id": id, "domain": "d", "columns": columns}
    assert len(load_items("preference_accuracy", PreferenceSpec.model_validate({"source": pandalm}))) > 440
