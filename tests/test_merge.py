"""Merge: what PEFT makes of adapters is a plain adapter that does what the coefficients say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from equipoise import api
from equipoise.commands_study import merge_command
from equipoise.model import adapters
from equipoise.model.load import Loaded, load_policy
from equipoise.outcome import only
from equipoise.progress import Silent
from equipoise.recipe import Lora, ModelSpec
from equipoise.recipe_file import load_recipe
from equipoise.records import InputError
from equipoise.study.merge import Blend, merge
from equipoise.study.merge_search import Coefficients, candidates
from experiments import make_experiment
from models import make_policy, shake

TOKENS = torch.arange(3, 40)[None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("merge")


@pytest.fixture(scope="module")
def loaded(place: Path) -> Loaded:
    return load_policy(ModelSpec(id=str(make_policy(place / "policy"))))


def adapter(loaded: Loaded, folder: Path, seed: int, rank: int = 4, base: str = "policy") -> Path:
    model = adapters.add(loaded.model, Lora(rank=rank, alpha=8), seed=seed, base_name=base)
    adapters.save(shake(model, torch.float32, seed), folder)
    adapters.detach(model)
    return folder


@pytest.fixture(scope="module")
def pair(loaded: Loaded, place: Path) -> list[Path]:
    return [adapter(loaded, place / name, seed) for seed, name in enumerate(("one", "two"), 1)]


def logits(loaded: Loaded, stack: list[Path]) -> Tensor:
    model = adapters.attach(loaded, stack)
    with torch.no_grad():
        found: Tensor = model(TOKENS).logits
    adapters.detach(model)
    return found


def test_cat_is_exactly_the_stack(loaded: Loaded, pair: list[Path], tmp_path: Path) -> None:
    """Two adapters on top of each other and their `cat` with weights 1 and 1 are the same function."""
    merge(loaded, pair, Blend((1.0, 1.0)), tmp_path / "merged")
    torch.testing.assert_close(logits(loaded, [tmp_path / "merged"]), logits(loaded, pair), rtol=1e-4, atol=1e-5)
    assert (logits(loaded, [tmp_path / "merged"]) - logits(loaded, [])).abs().max() > 1e-2
    record = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert [part["weight"] for part in record["adapters"]] == [1.0, 1.0]


def test_svd_at_full_rank_is_the_weighted_sum(loaded: Loaded, pair: list[Path], tmp_path: Path) -> None:
    merge(loaded, pair, Blend((0.3, 0.7)), tmp_path / "cat")
    merge(loaded, [tmp_path / "cat"], Blend((1.0,), method="svd"), tmp_path / "svd")
    torch.testing.assert_close(
        logits(loaded, [tmp_path / "svd"]), logits(loaded, [tmp_path / "cat"]), rtol=1e-3, atol=1e-4
    )


def test_towards_the_base(loaded: Loaded, pair: list[Path], tmp_path: Path) -> None:
    """Scale 0 is the base, and half of one adapter is that adapter with weight 0.5."""
    merge(loaded, pair, Blend((1.0, 1.0), scale=0.0), tmp_path / "none")
    torch.testing.assert_close(logits(loaded, [tmp_path / "none"]), logits(loaded, []))
    merge(loaded, pair[:1], Blend((1.0,), scale=0.5), tmp_path / "half")
    merge(loaded, pair[:1], Blend((0.5,)), tmp_path / "weight")
    torch.testing.assert_close(logits(loaded, [tmp_path / "half"]), logits(loaded, [tmp_path / "weight"]))


def test_a_weight_of_one_and_nothing_is_the_adapter_by_every_simple_method(
    loaded: Loaded, pair: list[Path], tmp_path: Path
) -> None:
    for method in ("cat", "linear"):
        merge(loaded, pair, Blend((1.0, 0.0), method=method), tmp_path / method)
        torch.testing.assert_close(logits(loaded, [tmp_path / method]), logits(loaded, pair[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties", "dare_ties_svd"])
def test_pruning_methods_give_the_same_bytes_again(
    loaded: Loaded, pair: list[Path], tmp_path: Path, method: str
) -> None:
    blends = [Blend((0.5, 0.5), method=method, seed=seed) for seed in (0, 0, 1)]
    for number, blend in enumerate(blends):
        merge(loaded, pair, blend, tmp_path / str(number))
    files = [(tmp_path / str(number) / "adapter_model.safetensors").read_bytes() for number in range(3)]
    assert files[0] == files[1]
    assert (files[0] != files[2]) == ("dare" in method)
    whole = Blend((0.5, 0.5), method=method, density=1.0)
    merge(loaded, pair, whole, tmp_path / "whole")
    assert (tmp_path / "whole" / "adapter_model.safetensors").read_bytes() != files[0]


def test_what_cannot_be_merged_is_one_line(loaded: Loaded, pair: list[Path], tmp_path: Path) -> None:
    wide = adapter(loaded, tmp_path / "wide", 3, rank=8)
    foreign = adapter(loaded, tmp_path / "foreign", 4, base="other/model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for folders, blend, out, said in [
        ([pair[0], wide], Blend((1, 1), method="linear"), "a", "needs equal ranks; use cat or svd"),
        ([pair[0], foreign], Blend((1, 1)), "a", "an adapter of other/model"),
        (pair, Blend((1,)), "a", "1 for 2 adapters"),
        (pair, Blend((1, 1), method="mean"), "a", "one of cat, svd"),
        ([pair[0], tmp_path / "nothing"], Blend((1, 1)), "a", "adapter_config.json is missing"),
        (pair, Blend((1, 1)), "full", "holds files already"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            merge(loaded, folders, blend, tmp_path / out)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "a").exists()
    merge(loaded, [pair[0], wide], Blend((1, 1)), tmp_path / "cat")
    torch.testing.assert_close(
        logits(loaded, [tmp_path / "cat"]), logits(loaded, [pair[0], wide]), rtol=1e-4, atol=1e-5
    )


def test_an_adapter_of_another_shape_is_refused(loaded: Loaded, pair: list[Path], tmp_path: Path) -> None:
    other = load_policy(ModelSpec(id=str(make_policy(tmp_path / "other", hidden_size=64))))
    strange = adapter(other, tmp_path / "strange", 5)
    with pytest.raises(InputError, match="strange: this adapter does not fit the model"):
        merge(loaded, [pair[0], strange], Blend((1, 1)), tmp_path / "merged")


def test_candidates_begin_with_what_everybody_tries() -> None:
    found = candidates(2, 8, 0)
    assert found[:4] == [(1.0, 1.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)]
    assert len(set(found)) == 8 and all(0 <= weight <= 1 for one in found for weight in one)
    assert candidates(2, 8, 0) == found != candidates(2, 8, 1)


def test_coefficients_against_a_gate(tmp_path: Path) -> None:
    """The best that the gate allows on dev items; else nothing is written; `eval` takes the result."""
    path = make_experiment(tmp_path)
    text = path.read_text()
    recipe = load_recipe(path)
    policy = load_policy(recipe.model)
    folders = [adapter(policy, tmp_path / name, seed, base=recipe.model.id) for seed, name in ((1, "one"), (2, "two"))]
    found = Coefficients(recipe, policy, folders, Blend((1, 1)), Silent()).search(5)
    assert len(found.tried) == 5
    assert found.best and found.best.overall == max(one.overall for one in found.tried if one.allowed)
    assert set(found.test) == {"mt_bench", "finance_instruct"}

    path.write_text(text.replace("gate: {hold: {mt_bench: 100}}", "gate: {improve: {mt_bench: 100}}"))
    options = ("cat", 0.5, 1.0, None, path, 3, 0)
    assert merge_command(folders, None, *options, tmp_path / "merged", True) == 1
    assert not (tmp_path / "merged").exists()

    merge_command(folders, "0.5,0.25", "cat", 0.5, 1.0, None, None, 1, 0, tmp_path / "merged", True)
    scores = api.evaluate(recipe.model, recipe.evaluation, reward=recipe.reward, adapters=[tmp_path / "merged"])
    assert len(only(scores, "test")["mt_bench"]) == 6

    path.write_text(text.replace("gate: {hold: {mt_bench: 100}}", "gate: {}"))
    with pytest.raises(InputError, match="no rule to search against"):
        Coefficients(load_recipe(path), policy, folders, Blend((1, 1)), Silent())
