"""Adapters of domains: all active in the forward pass, each updated by the pairs of its own domain alone."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

import equipoise
from equipoise.attempts import earlier_attempts
from equipoise.commands_study import merge_command
from equipoise.dpo import checkpoint, schedule
from equipoise.dpo import train as loop
from equipoise.dpo.engine import engine
from equipoise.dpo.forecast import StageForecast
from equipoise.dpo.logprobs import pair_logprobs
from equipoise.dpo.loss import sigmoid
from equipoise.dpo.reference import reference_logprobs
from equipoise.dpo.trackers import flat
from equipoise.dpo.train import batches, train_stage
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.combined import combine
from equipoise.model.load import Loaded, load_policy
from equipoise.model.memory import lora_parameters, shape_of
from equipoise.pocket.twin import twin
from equipoise.recipe import DomainLora, Dpo, Lora, ModelSpec, Optim, Stage
from equipoise.recipe_file import RecipeError, parse_recipe, resolved, stored_recipe
from equipoise.records import InputError
from equipoise.remedies import in_attempt, values_of
from equipoise.run_folder import hashes, read_json, read_lines
from equipoise.shrink import fold
from equipoise.store import Store
from equipoise.verify import verify
from experiments import make_experiment
from models import make_policy, shake
from test_quantization import needs_bitsandbytes
from test_train import distance, encoded, records

LORA = {"finance": DomainLora(rank=4, alpha=8, learning_rate=3e-3), "general": DomainLora(rank=2, alpha=4)}
OPTIM = {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "warmup": 0.1, "weight_decay": 0.1}


@pytest.fixture
def policy(tmp_path: Path) -> Loaded:
    return load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))))


def mixed(loaded: Loaded, count: int, general: tuple[int, ...]) -> list[EncodedPair]:
    """Pairs of the domain finance, those at the places `general` of the other one; each domain is a source."""
    domains = ["general" if place in general else "finance" for place in range(count)]
    pairs = [replace(pair, prompt=pair.prompt[: 16 + 2 * place]) for place, pair in enumerate(encoded(loaded, count))]
    return [replace(pair, domain=domain, source=domain) for pair, domain in zip(pairs, domains, strict=True)]


def fresh(loaded: Loaded, lora: Mapping[str, DomainLora] = LORA) -> Any:
    return adapters.add(adapters.attach(loaded, []), lora, seed=0, base_name="tiny")


def train(
    loaded: Loaded,
    folder: Path,
    pairs: list[EncodedPair],
    lora: Mapping[str, DomainLora] = LORA,
    options: Mapping[str, Any] | None = None,
    **optim: Any,
) -> dict[str, Tensor]:
    """Train fresh adapters, save them in `folder/adapter`, and return their tensors."""
    folder.mkdir(exist_ok=True)
    model = fresh(loaded, lora)
    with engine(model, pairs) as scorer:
        with adapters.reference(model, "previous"):
            reference = reference_logprobs(scorer, "tiny", pairs, Store(folder / "store")).logps
        train_stage(
            scorer,
            pairs,
            reference,
            dpo=Dpo(beta=0.1),
            optim=Optim(**{**OPTIM, **optim}),
            lora=lora,
            seed=0,
            folder=folder,
            starts_at_reference=True,
            **(options or {}),
        )
    adapters.save(model, folder / "adapter")
    tensors = tensors_of(model)
    adapters.detach(model)
    return tensors


def tensors_of(model: Any, domain: str | None = None) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in adapters.trainable(model, domain).items()}


# --- who learns from what ---


def test_only_adapters_with_pairs_in_a_step_move(policy: Loaded, tmp_path: Path) -> None:
    """Step by step: two pairs of `general` among ten, so that it is missing in most steps of three pairs.

    What does not move keeps every bit, although AdamW has moments and weight decay; what the optimiser keeps of it
    counts its own steps alone.
    """
    pairs = mixed(policy, 10, (2, 7))
    plan = batches([pair.source for pair in pairs], epochs=2, batch_size=3, seed=0)
    expected = [{pairs[place].domain for place in places} for places in plan]
    assert {"finance"} in expected[1:] and {"finance", "general"} in expected
    model = fresh(policy)
    states = [{domain: tensors_of(model, domain) for domain in LORA}]
    adapters.detach(model)
    real_save, real_learners = checkpoint.save, loop.learners_of
    kept: dict[str, Tensor] = {}
    seen: list[Any] = []

    def keep(*arguments: Any) -> None:
        real_save(*arguments)
        found = checkpoint.latest(arguments[0])
        assert found
        kept.update(found.tensors)

    def learners_of(model: Any, *rest: Any) -> Any:
        seen.append(model)
        return real_learners(model, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "learners_of", learners_of)
        patch.setattr(checkpoint, "save", keep)
        step = {"on_step": lambda _: states.append({name: tensors_of(seen[0], name) for name in LORA})}
        train(policy, tmp_path / "a", pairs, options=step, batch_size=3, checkpoint_every=len(plan) - 1)
    moved = [
        {domain for domain in LORA if distance(before[domain], after[domain]) > 0} for before, after in pairwise(states)
    ]
    assert moved == expected
    logged = records(tmp_path / "a")
    assert [set(record["adapters"]) for record in logged] == expected
    turns = Counter(domain for domains in expected[:-1] for domain in domains)
    for domain, name in (("finance", "@finance@"), ("general", "@general@")):
        counts = {float(value) for key, value in kept.items() if f".{name}." in key and key.endswith("/step")}
        assert counts == {turns[domain]}


def test_a_domain_without_pairs_stays_as_it_was(policy: Loaded, tmp_path: Path) -> None:
    """And each adapter begins with values that do not depend on the others."""
    begun = fresh(policy)
    before = tensors_of(begun, "general")
    adapters.detach(begun)
    alone = fresh(policy, {"general": LORA["general"]})
    assert distance(before, tensors_of(alone, "general")) == 0.0
    adapters.detach(alone)
    after = train(policy, tmp_path / "a", mixed(policy, 6, ()))
    assert distance(before, {name: value for name, value in after.items() if name in before}) == 0.0
    assert max(float(value.abs().max()) for name, value in after.items() if "lora_B" in name) > 1e-3
    with pytest.raises(InputError, match="domain general; add `general"):
        train(policy, tmp_path / "b", mixed(policy, 6, (1,)), {"finance": LORA["finance"]})


def plain_gradients(folder: Path, base: Path, pairs: list[EncodedPair], reference: Any) -> dict[str, Tensor]:
    """By PEFT, autograd and the model's own forward pass: both adapters active, one of them frozen at a time."""
    model = PeftModel.from_pretrained(load_policy(ModelSpec(id=str(base))).model, folder / "finance", "finance")
    model.load_adapter(str(folder / "general"), "general")
    model.base_model.set_adapter(["finance", "general"])
    found: dict[str, Tensor] = {}
    for domain in LORA:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(f".{domain}." in name)
        own = [pair for pair in pairs if pair.domain == domain]
        logps = pair_logprobs(model, own)
        anchor = torch.tensor([reference[pair.id] for pair in own])
        sigmoid(logps.chosen, logps.rejected, anchor[:, 0], anchor[:, 1], beta=0.1).mean().backward()
        found |= {name: value.grad for name, value in model.named_parameters() if f".{domain}." in name}
        for parameter in model.parameters():
            parameter.grad = None
    return found


@pytest.mark.parametrize("shared", [True, False], ids=["fused streams", "PEFT's forward"])
def test_gradients_are_those_of_plain_peft(
    policy: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """The loop's own gradients of one step, over several micro-batches: 2 of 8 pairs are general, and not diluted."""
    if not shared:
        monkeypatch.setattr(type(policy.model), "_can_set_attn_implementation", classmethod(lambda cls: False))
    pairs = mixed(policy, 8, (0, 5))
    reference = {pair.id: (-40.0 - place, -42.0 + place) for place, pair in enumerate(pairs)}
    real_clip = loop.clip
    found: dict[str, Tensor] = {}
    clipped: dict[str, Tensor] = {}

    def clip(accelerator: Any, learners: Any, team: Any, most: float) -> Any:
        every = {name: value for learner in learners for name, value in learner.parameters.items()}
        found.update({name: value.grad.clone() for name, value in every.items()})
        norms = real_clip(accelerator, learners, team, most)
        clipped.update({name: value.grad.clone() for name, value in every.items()})
        return norms

    monkeypatch.setattr(loop, "clip", clip)
    model = shake(fresh(policy), torch.float32)
    adapters.save(model, tmp_path / "adapter")
    with engine(model, pairs, lambda line: None) as scorer:
        assert scorer.shared == shared
        optim = Optim(batch_size=8, micro_batch_tokens=150, max_grad_norm=0.05)
        train_stage(
            scorer, pairs, reference, dpo=Dpo(beta=0.1), optim=optim, lora=LORA, seed=0, folder=tmp_path,
            starts_at_reference=False,
        )  # fmt: skip
    (record,) = records(tmp_path)
    expected = plain_gradients(tmp_path / "adapter", tmp_path / "policy", pairs, reference)
    assert len(found) == len(expected) > 20
    for name, gradient in found.items():
        plain = expected[name.replace("@", "")]
        assert float((gradient - plain).norm()) <= 1e-4 * float(plain.norm()) + 1e-8, name
    for domain in LORA:
        own = [value for name, value in found.items() if f"@{domain}@" in name]
        norm = math.sqrt(sum(float(value.square().sum()) for value in own))
        assert record["adapters"][domain]["grad_norm"] == pytest.approx(norm, rel=1e-4)
        cut = [value for name, value in clipped.items() if f"@{domain}@" in name]
        assert math.sqrt(sum(float(value.square().sum()) for value in cut)) == pytest.approx(0.05, rel=1e-3)
    assert record["grad_norm"] == pytest.approx(math.hypot(*(record["adapters"][name]["grad_norm"] for name in LORA)))


# --- the same result, however it is computed ---


def test_a_batch_of_eight_equals_eight_batches_of_one(policy: Loaded, tmp_path: Path) -> None:
    pairs = mixed(policy, 8, (1, 2, 6))
    whole = train(policy, tmp_path / "a", pairs, batch_size=8, micro_batch_tokens=100_000)
    single = train(policy, tmp_path / "b", pairs, batch_size=8, micro_batch_tokens=1)
    assert distance(whole, single) < 1e-5
    first = records(tmp_path / "a")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["margin"] == pytest.approx(0, abs=1e-6)
    assert {name: figures["pairs"] for name, figures in first["sources"].items()} == {"finance": 5, "general": 3}


def test_each_has_its_own_learning_rate_under_the_schedule_of_the_stage(policy: Loaded, tmp_path: Path) -> None:
    train(policy, tmp_path / "a", mixed(policy, 8, (1, 2, 6)), batch_size=8)
    for step, record in enumerate(records(tmp_path / "a")):
        rates = {
            peak: schedule.learning_rate(step, total=2, peak=peak, warmup=0.1, schedule="cosine")
            for peak in (3e-3, 1e-2)
        }
        found = {domain: figures["learning_rate"] for domain, figures in record["adapters"].items()}
        assert found == {"finance": rates[3e-3], "general": rates[1e-2]}
        assert record["learning_rate"] == rates[1e-2]
        assert flat(record)["finance/learning_rate"] == rates[3e-3]


def test_a_resumed_stage_equals_an_uninterrupted_one_bit_for_bit(policy: Loaded, tmp_path: Path) -> None:
    """With dropout in one adapter, and a domain that is missing in some steps and has no state at the kill."""
    lora = {"finance": DomainLora(rank=4, dropout=0.1), "general": DomainLora(rank=2)}
    pairs = mixed(policy, 12, (4, 9))
    whole = train(policy, tmp_path / "whole", pairs, lora, batch_size=2, checkpoint_every=1)
    first = next(place for place, record in enumerate(records(tmp_path / "whole")) if "general" in record["adapters"])
    assert first > 0

    class Died(Exception):
        pass

    def die(progress: Any) -> None:
        if progress.step == first + 1:
            raise Died

    with pytest.raises(Died):
        train(policy, tmp_path / "cut", pairs, lora, {"on_step": die}, batch_size=2, checkpoint_every=1)
    adapters.detach(policy.model)
    policy = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    assert distance(whole, train(policy, tmp_path / "cut", pairs, lora, batch_size=2, checkpoint_every=1)) == 0.0
    assert (tmp_path / "cut/train.jsonl").read_bytes() == (tmp_path / "whole/train.jsonl").read_bytes()
    assert hashes(tmp_path / "cut", "adapter/") == hashes(tmp_path / "whole", "adapter/")


@needs_bitsandbytes
def test_on_4_bit_weights(tmp_path: Path) -> None:
    folder = make_policy(tmp_path / "policy", hidden_size=64, intermediate_size=128, head_dim=16)
    policy = load_policy(ModelSpec(id=str(folder), quantization="nf4"))
    found = train(policy, tmp_path / "a", mixed(policy, 6, (0, 3)), epochs=1)
    assert all(float(value.abs().max()) > 0 for name, value in found.items() if "lora_B" in name)
    assert sorted(path.name for path in (tmp_path / "a/adapter").iterdir() if path.is_dir()) == sorted(LORA)


# --- adapters in folders ---


def logps(model: Any, pairs: list[EncodedPair]) -> Tensor:
    with torch.no_grad():
        found = pair_logprobs(model, pairs)
    return torch.cat((found.chosen, found.rejected))


@pytest.fixture
def trained(policy: Loaded, tmp_path: Path) -> tuple[Path, list[EncodedPair], Tensor]:
    """A folder of adapters, pairs, and their log-probabilities with it."""
    pairs = mixed(policy, 6, (0, 3))
    train(policy, tmp_path / "stage", pairs)
    folder = tmp_path / "stage" / "adapter"
    model = adapters.attach(policy, [folder])
    found = logps(model, pairs)
    adapters.detach(model)
    assert float((found - logps(policy.model, pairs)).abs().max()) > 0.1
    return folder, pairs, found


def test_plain_peft_loads_them_to_the_same_function(
    policy: Loaded, trained: tuple[Path, list[EncodedPair], Tensor]
) -> None:
    folder, pairs, expected = trained
    model = PeftModel.from_pretrained(load_policy(ModelSpec(id=str(folder.parents[1] / "policy"))).model,
                                      folder / "general")  # fmt: skip
    model.load_adapter(str(folder / "finance"), "finance")
    model.base_model.set_adapter(["default", "finance"])
    assert torch.allclose(logps(model, pairs), expected, atol=1e-4)
    for domain, lora in LORA.items():
        config = read_json(folder / domain / "adapter_config.json")
        assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (lora.rank, lora.alpha, "tiny")
        assert not [name for name in load_file(folder / domain / "adapter_model.safetensors") if "@" in name]


def test_everything_that_takes_an_adapter_takes_their_folder(
    policy: Loaded, trained: tuple[Path, list[EncodedPair], Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pairs, expected = trained
    both = [folder / "finance", folder / "general"]
    assert adapters.each([folder, folder / "general"]) == [*both, folder / "general"]
    assert adapters.stack_identity(policy, [folder]) == adapters.stack_identity(policy, both)
    combine(adapters.each([folder]), tmp_path / "one")
    base = str(tmp_path / "policy")
    arguments = (None, "cat", 0.5, 1.0, base, None, 0, 0, tmp_path / "merged", True)
    with pytest.raises(InputError, match=r"3 for 2 adapters.*finance.*general"):
        merge_command([folder], "1,1,1", *arguments[1:])
    assert merge_command([folder], "1,1", *arguments[1:]) == 0
    capsys.readouterr()
    names = [part["name"] for part in read_json(tmp_path / "merged/merge.json")["adapters"]]
    assert names == ["stage/adapter/finance", "stage/adapter/general"]
    for place in ("one", "merged"):
        model = adapters.attach(policy, [tmp_path / place])
        assert torch.allclose(logps(model, pairs), expected, atol=1e-4)
        adapters.detach(model)


def test_shrinking_scales_all_of_them(
    policy: Loaded, trained: tuple[Path, list[EncodedPair], Tensor], tmp_path: Path
) -> None:
    """At a scale of 0 nothing is left of either; done twice it is as done once."""
    folder, pairs, _ = trained
    stage = folder.parent
    (stage / "trained.json").write_text(json.dumps({"files": hashes(stage, "adapter/")}))
    for scale in (0.5, 0.5, 0.0):
        fold(stage, LORA, scale)
        found = [read_json(part / "adapter_config.json")["lora_alpha"] for part in adapters.parts(folder)]
        assert found == [8 * scale, 4 * scale]
        assert read_json(stage / "trained.json")["files"] == hashes(stage, "adapter/")
    model = adapters.attach(policy, [folder])
    without = logps(model, pairs)
    adapters.detach(model)
    assert torch.equal(without, logps(policy.model, pairs))


def test_what_is_no_adapter_is_said(tmp_path: Path) -> None:
    """A part without its weights, and the checkpoints of a trainer, which are states of one adapter."""
    for name in ("finance", "general"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "adapter_config.json").write_text("{}")
    (tmp_path / "broken/finance/adapter_model.safetensors").write_text("")
    with pytest.raises(InputError, match=r"x: .*general: not an adapter: adapter_model.safetensors is missing"):
        adapters.require_adapter(tmp_path / "broken", "x: ")
    for name in ("checkpoint-10", "checkpoint-20"):
        shutil.copytree(tmp_path / "broken/finance", tmp_path / "trainer" / name)
    with pytest.raises(InputError, match="trainer: not an adapter"):
        adapters.each([tmp_path / "trainer"])


def test_names_that_are_those_of_layers_or_of_each_other(policy: Loaded, tmp_path: Path) -> None:
    """`layers` and `weight` stand in names of parameters, `fin` in `finance`, and a dot is not allowed there."""
    lora = {name: DomainLora(rank=2) for name in ("layers", "weight", "fin", "finance", "a.b", "default", "q_proj")}
    pairs = [
        replace(pair, domain=domain) for pair, domain in zip(encoded(policy, 14), [*lora, *lora], strict=True)
    ]  # fmt: skip
    found = train(policy, tmp_path / "a", pairs, lora, batch_size=7)
    assert [path.name for path in adapters.parts(tmp_path / "a/adapter")] == sorted(lora)
    one = {len(load_file(part / "adapter_model.safetensors")) for part in adapters.parts(tmp_path / "a/adapter")}
    assert one == {len(found) // 7}
    assert all(float(value.abs().max()) > 0 for name, value in found.items() if "lora_B" in name)


# --- recipes ---

RECIPE = """\
name: t
model: {id: pocket}
reward: {id: pocket}
sources:
  general: {kind: pocket, domain: general}
  finance: {kind: pocket, domain: finance}
stages:
  - name: one
    mix: {general: 30}
    lora: {rank: 8}
  - name: two
    mix: {finance: 30}
    replay: {share: 0.2}
    lora: {finance: {rank: 4, learning_rate: 1e-5}, general: {}}
    gate: {hold: {mt_bench: 1}, on_fail: retry, retry: {scale: {learning_rate: 0.5}}}
evaluation:
  tasks: {mt_bench: {id: pocket}}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{rank: 8}", "{finance: {rank: 8}, rank: 4}", r"recipe:10: stages.0.lora: .*\(finance\) are mixed.*\(rank\)"),
        ("{rank: 8}", "{rank: 8, learning_rate: 1e-5}", "recipe:10: stages.0.lora: .*optim.learning_rate"),
        ("{rank: 8}", "{rnk: 8}", "recipe:10: stages.0.lora.rnk: unknown key; did you mean 'rank'"),
        ("{rank: 8}", "{general: {rnk: 8}}", "recipe:10: stages.0.lora.general.rnk: .*did you mean 'rank'"),
        ("{rank: 8}", "{general: {}, fin: {}}", "recipe:10: stages.0.lora.fin: no pairs of this domain"),
        (", general: {}", "", "recipe:14: stages.1.lora: domain 'general' .*add `general: {rank: 8, alpha: 16}`"),
        ("replay: {share: 0.2}", "", "recipe:14: stages.1.lora.general: no pairs of this domain"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        parse_recipe(RECIPE.replace(old, new))
    assert "\n" not in str(caught.value)


def test_retry_and_twin_change_every_learning_rate() -> None:
    recipe = parse_recipe(RECIPE)
    assert stored_recipe(resolved(recipe)) == recipe
    stage = in_attempt(recipe.stages[1], 3)
    assert isinstance(stage.lora, dict)
    assert {name: one.learning_rate for name, one in stage.lora.items()} == {"finance": 2.5e-6, "general": None}
    assert values_of(stage)["lora.finance.learning_rate"] == 2.5e-6 and values_of(stage)["learning_rate"] == 1.25e-6
    written = json.loads(json.dumps(recipe.model_dump(mode="json", exclude_unset=True)))
    written["model"]["id"] = "some/model"
    written["sources"]["finance"] |= {"kind": "hh", "domain": "law"}
    written["stages"][1]["lora"]["law"] = {**written["stages"][1]["lora"].pop("finance"), "target_modules": ["q_proj"]}
    assert twin(written)["stages"][1]["lora"]["general"] == {"rank": 4, "learning_rate": 0.0015}


def test_the_forecast_counts_all_of_them(policy: Loaded) -> None:
    """Ranks 4 and 2 have as many parameters as one of rank 6; beside it one more set of gradients, in fp32."""
    config: Any = policy.model.config
    shape = shape_of(config)
    assert lora_parameters(shape, LORA) == lora_parameters(shape, Lora(rank=6))
    bytes_of = {}
    for name, lora in (("one", Lora(rank=6)), ("two", LORA)):
        stage = Stage.model_validate({"name": "s", "mix": {"x": 1}, "lora": lora, "optim": {"batch_size": 4}})
        spec = ModelSpec(id=str(policy.model.name_or_path))
        pairs = mixed(policy, 8, (0, 3))
        made = StageForecast(config, shape, spec, stage, pairs, seed=0, dtype=torch.float32, device="cpu")
        bytes_of[name] = made.parts(4096, False)
        assert made.forecast(2**40).micro_batches == (2 if name == "one" else 4)
    extra = bytes_of["two"].adapters - bytes_of["one"].adapters
    assert extra == 4 * lora_parameters(shape, LORA)


# --- a whole run ---


def test_a_run_with_an_ordinary_stage_on_top(tmp_path: Path, own_store: None) -> None:
    """Two adapters, refused and shrunk together in each of two attempts; then kept, and an ordinary stage on them."""
    folder = tmp_path / "lab"
    recipe = make_experiment(folder)
    text = recipe.read_text().replace("mix: {general: 12}", "mix: {general: 8, finance: 5}").replace(
        "lora: {rank: 4}", "lora: {general: {rank: 4}, finance: {rank: 2, alpha: 8, learning_rate: 3e-3}}"
    )  # fmt: skip
    one = folder / "one.yaml"
    one.write_text(text[: text.index("  - name: second")] + text[text.index("evaluation:") :])
    recipe.write_text(text.replace("name: second\n", "name: second\n    replay: {share: 0.3, when_short: shrink}\n"))
    gate = "stages.first.gate={improve: {mt_bench: 1000}, on_fail: retry, retry: {max: 1, scale: {learning_rate: 0.5}}"
    first = equipoise.load_recipe(one, [f"{gate}, shrink: {{steps: 1}}}}"])
    found = equipoise.run(first, out=tmp_path, name="refused", text=text)
    stage = found.run.folder / "stages/1-first"
    assert verify(found.run) == [] and found.verdict["kept_stage"] == "base"
    (before,) = earlier_attempts(stage)
    rates = [read_lines(place / "train.jsonl")[0]["adapters"]["finance"]["learning_rate"] for place in (before, stage)]
    assert rates[1] == pytest.approx(rates[0] / 2)
    assert [one["scale"] for one in read_json(stage / "gate.json")["tries"]] == [1.0, 0.5]

    outcome = equipoise.run(equipoise.load_recipe(recipe), out=tmp_path, name="kept", text=text)
    run = outcome.run.folder
    assert outcome.verdict["kept_stage"] == "2-second" and verify(outcome.run) == []
    names = {path.relative_to(run / "stages").as_posix() for path in (run / "stages").rglob("adapter_config.json")}
    assert names == {f"{place}/adapter_config.json" for place in
                     ("1-first/adapter/finance", "1-first/adapter/general", "2-second/adapter")}  # fmt: skip
    scores = equipoise.evaluate(
        first.model, first.evaluation, reward=first.reward, adapters=[run / "stages/1-first/adapter"]
    )  # most answers come from the store, which knows the adapters by what is in them
    stored = [score["value"] for score in read_lines(run / "scores/1-first/mt_bench.jsonl")]
    assert [score.value for score in scores["mt_bench"]] == stored
    (run / "stages/1-first/adapter/general/adapter_config.json").write_text("{}")
    assert any("adapter/general" in problem for problem in verify(outcome.run))
