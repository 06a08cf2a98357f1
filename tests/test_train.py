"""Training, tested by equivalence: how a batch is cut, or a run interrupted, must not change the adapter."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from equipoise.dpo import checkpoint, schedule
from equipoise.dpo.distributed import ALONE, TrainingStopped
from equipoise.dpo.engine import PairScorer, engine
from equipoise.dpo.guards import difference, reference_of
from equipoise.dpo.logprobs import pair_logprobs
from equipoise.dpo.packing import micro_batches, padded_length, stream_length
from equipoise.dpo.reference import reference_logprobs
from equipoise.dpo.train import batches, train_stage
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe import Dpo, Lora, ModelSpec, Optim
from equipoise.records import InputError, Message, Pair
from equipoise.store import Store
from models import make_policy

WORDS = ("the", "bond", "pays", "interest", "every", "year", "until", "it", "is", "paid", "back")


def some_pairs(count: int) -> list[Pair]:
    return [
        Pair(
            prompt=(Message("user", f"What is bond {number}? " + " ".join(WORDS[: number % 7])),),
            chosen=" ".join(WORDS[: 2 + number % 5]),
            rejected=" ".join(WORDS[-(3 + number % 4) :]),
            domain="finance",
            source="even" if number % 2 == 0 else "odd",
            group=str(number),
        )
        for number in range(count)
    ]


def encoded(loaded: Loaded, count: int) -> list[EncodedPair]:
    rows = [encode_pair(loaded.tokenizer, pair, max_length=256, max_prompt_length=128) for pair in some_pairs(count)]
    return [row for row in rows if isinstance(row, EncodedPair)]


@pytest.fixture
def policy(tmp_path: Path) -> Loaded:
    return load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))))


def train(
    loaded: Loaded,
    folder: Path,
    pairs: list[EncodedPair],
    *,
    dropout: float = 0.0,
    options: dict[str, Any] | None = None,
    **optim: Any,
) -> dict[str, torch.Tensor]:
    """Train on a fresh adapter and return its tensors; `options` are of train_stage, the others of the optimiser."""
    folder.mkdir(exist_ok=True)
    options = options or {}
    values = {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "warmup": 0.1, **optim}
    model = adapters.add(adapters.attach(loaded, []), Lora(rank=4, dropout=dropout), seed=0, base_name="tiny")
    with engine(model, pairs) as scorer:
        with adapters.reference(model, "previous"):
            reference = reference_logprobs(scorer, "tiny", pairs, Store(folder / "store"))
        train_stage(
            scorer,
            pairs,
            reference.logps,
            dpo=Dpo(beta=0.1),
            optim=Optim(**values),
            seed=0,
            folder=folder,
            starts_at_reference=True,
            **options,
        )
    adapters.save(model, folder / "adapter")
    tensors = {name: value.detach().clone() for name, value in adapters.trainable(model).items()}
    adapters.detach(model)
    return tensors


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_a_batch_of_eight_equals_eight_batches_of_one(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 8)
    whole = train(policy, tmp_path / "a", pairs, batch_size=8, micro_batch_tokens=100_000)
    single = train(policy, tmp_path / "b", pairs, batch_size=8, micro_batch_tokens=1)
    assert distance(whole, single) < 1e-5
    assert max(float(value.abs().max()) for name, value in whole.items() if "lora_B" in name) > 1e-3


def test_a_resumed_stage_equals_an_uninterrupted_one_bit_for_bit(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 12)
    whole = train(policy, tmp_path / "whole", pairs, dropout=0.1, checkpoint_every=2)

    folder = tmp_path / "killed"
    real_save, saved = checkpoint.save, []

    def save_then_die(*arguments: Any) -> None:
        real_save(*arguments)
        saved.append(arguments[4])
        if len(saved) == 2:
            raise KeyboardInterrupt

    checkpoint.save = save_then_die
    try:
        with pytest.raises(KeyboardInterrupt):
            train(policy, folder, pairs, dropout=0.1, checkpoint_every=2)
    finally:
        checkpoint.save = real_save
        adapters.detach(policy.model)
    policy = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    resumed = train(policy, folder, pairs, dropout=0.1, checkpoint_every=2)
    assert saved == [2, 4]
    assert distance(whole, resumed) == 0.0
    assert (folder / "train.jsonl").read_bytes() == (tmp_path / "whole" / "train.jsonl").read_bytes()


def test_a_damaged_checkpoint_is_not_used(policy: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(policy, tmp_path / "a", encoded(policy, 12), checkpoint_every=2)
    folder = tmp_path / "a" / "checkpoints"
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-7])
    assert checkpoint.latest(folder) is None
    assert path.name in capsys.readouterr().err


def full_above(model: Any, tokens: int) -> Any:
    """A hook after which a forward pass of more than `tokens` tokens asks the allocator for more than there is."""

    def hook(module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if options["input_ids"].numel() > tokens:
            torch.empty(2**60, dtype=torch.uint8)

    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return base.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)


def train_short_of_memory(
    policy: Loaded, folder: Path, pairs: list[EncodedPair], *, room: int, **options: Any
) -> dict[str, torch.Tensor]:
    """As `train`, on a machine on which more than `room` tokens do not fit."""
    real_add = adapters.add

    def add(*arguments: Any, **values: Any) -> Any:
        model = real_add(*arguments, **values)
        hooks.append(full_above(model, room))
        return model

    hooks: list[Any] = []
    adapters.add = add
    try:
        return train(policy, folder, pairs, **options)
    finally:
        adapters.add = real_add
        for hook in hooks:
            hook.remove()
        adapters.detach(policy.model)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_without_memory_the_budget_is_halved_and_the_batch_kept(policy: Loaded, tmp_path: Path) -> None:
    """8 pairs of about 60 tokens; 300 fit: the budget goes from the sum of the batch to its half, and a half again."""
    pairs = encoded(policy, 16)
    said: list[str] = []
    values: dict[str, Any] = {"batch_size": 8, "dropout": 0.1, "checkpoint_every": 100}
    found = train_short_of_memory(
        policy, tmp_path / "full", pairs, room=300, options={"say": said.append}, micro_batch_tokens=10_000, **values
    )
    tokens = {record["micro_batch_tokens"] for record in records(tmp_path / "full")}
    assert len(tokens) == 1 and 100 < min(tokens) <= 300
    assert said and all("out of memory" in line and "8 pairs" in line for line in said)
    assert f"from here on {min(tokens)} tokens" in said[-1]
    policy = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    expected = train(policy, tmp_path / "small", pairs, micro_batch_tokens=min(tokens), **values)
    assert distance(found, expected) == 0.0
    assert records(tmp_path / "full") == records(tmp_path / "small")


def test_memory_that_fills_up_later_and_a_resume_give_the_same_bits(policy: Loaded, tmp_path: Path) -> None:
    """Only the second batch needs more than fits; the run dies after it and goes on with the smaller budget."""
    short, long = (
        encoded(policy, 4),
        [replace(pair, prompt=pair.prompt * 3, id=f"long{pair.id}") for pair in encoded(policy, 4)],
    )
    values: dict[str, Any] = {"batch_size": 4, "dropout": 0.1, "checkpoint_every": 100, "micro_batch_tokens": 4096}
    values |= {"epochs": 3, "options": {"bands": range(8), "say": lambda text: None}}  # in the order of the file
    whole = train_short_of_memory(policy, tmp_path / "whole", short + long, room=300, **values)
    budgets = [record["micro_batch_tokens"] for record in records(tmp_path / "whole")]
    assert budgets[0] == 4096 > budgets[1] and set(budgets[1:]) == {budgets[1]}
    assert len(list((tmp_path / "whole" / "checkpoints").glob("*.safetensors"))) == 1  # of the halving

    def die(progress: Any) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    policy = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    with pytest.raises(KeyboardInterrupt):
        dying = {**values, "options": {**values["options"], "on_step": die}}
        train_short_of_memory(policy, tmp_path / "killed", short + long, room=300, **dying)
    policy = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    resumed = train_short_of_memory(policy, tmp_path / "killed", short + long, room=300, **values)
    assert distance(whole, resumed) == 0.0
    assert records(tmp_path / "whole") == records(tmp_path / "killed")


def test_a_pair_that_does_not_fit_by_itself_stops_with_its_name(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 8)
    longest = replace(pairs[3], prompt=pairs[3].prompt * 12)
    pairs[3] = longest
    model = adapters.add(adapters.attach(policy, []), Lora(), seed=0, base_name="tiny")
    with engine(model, pairs) as scorer:
        hook = full_above(model, stream_length(longest) - 1)
        with pytest.raises(TrainingStopped, match=f"reference: out of memory.*pair {longest.id} alone takes"):
            reference_logprobs(scorer, "tiny", pairs, Store(tmp_path / "store"))
        with pytest.raises(TrainingStopped, match=f"step 1: .*pair {longest.id} alone"):
            train_stage(
                scorer,
                pairs,
                {pair.id: (0.0, 0.0) for pair in pairs},
                dpo=Dpo(),
                optim=Optim(),
                seed=0,
                folder=tmp_path,
                starts_at_reference=False,
                say=lambda text: None,
            )
        hook.remove()


def test_a_checkpoint_holds_whatever_the_optimiser_keeps(tmp_path: Path) -> None:
    """As of 8-bit optimisers: numbers, tensors of other shapes and types, nested mappings."""
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    state = {
        "step": 7,
        "state1": torch.arange(6, dtype=torch.uint8).view(2, 3),
        "absmax1": torch.tensor([0.5]),
        "quant": {"scale": torch.tensor(2.0), "shift": 0.25},
    }
    optimizer = torch.optim.AdamW([parameter])
    optimizer.state[parameter] = state
    checkpoint.save(tmp_path, {"a.weight": parameter}, optimizer, ALONE, 3, 4096)
    found = checkpoint.latest(tmp_path)
    assert found is not None and (found.step, found.tokens) == (3, 4096)
    other = torch.nn.Parameter(torch.zeros(2, 3))
    fresh = torch.optim.AdamW([other])
    checkpoint.restore(found, {"a.weight": other}, fresh)
    restored = fresh.state[other]
    assert torch.equal(other, parameter) and restored.keys() == state.keys()
    assert restored["step"] == 7 and isinstance(restored["step"], int) and restored["quant"]["shift"] == 0.25
    assert torch.equal(restored["state1"], state["state1"]) and restored["state1"].dtype == torch.uint8
    assert torch.equal(restored["quant"]["scale"], state["quant"]["scale"])  # type: ignore[index]
    optimizer.state[parameter] = {"name": "text"}
    with pytest.raises(InputError, match="cannot hold name"):
        checkpoint.save(tmp_path, {"a.weight": parameter}, optimizer, ALONE, 3, 4096)


def test_the_first_loss_is_ln_2_and_the_saved_adapter_is_plain_peft(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 8)
    train(policy, tmp_path / "a", pairs, batch_size=8)
    first = json.loads((tmp_path / "a" / "train.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["margin"] == pytest.approx(0, abs=1e-5)
    fresh = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    with torch.no_grad():
        before = pair_logprobs(fresh.model, pairs).chosen
        after = pair_logprobs(PeftModel.from_pretrained(fresh.model, tmp_path / "a" / "adapter"), pairs).chosen
    assert float((after - before).abs().max()) > 0.1


def test_a_wrong_reference_stops_before_the_first_step(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 4)
    model = adapters.add(adapters.attach(policy, []), Lora(), seed=0, base_name="tiny")
    scorer = PairScorer(model, shared=False)
    reference = reference_logprobs(scorer, "tiny", pairs, Store(tmp_path)).logps
    moved = {id: (chosen + 0.5, rejected) for id, (chosen, rejected) in reference.items()}
    with pytest.raises(TrainingStopped, match=r"differs from its reference by 0\.5 nats"):
        train_stage(scorer, pairs, moved, dpo=Dpo(), optim=Optim(), seed=0, folder=tmp_path, starts_at_reference=True)


@pytest.mark.parametrize(("dtype", "drift"), [("float32", 0.02), ("bfloat16", 3.0)])
def test_an_equal_drift_of_both_answers_is_noticed(policy: Loaded, tmp_path: Path, dtype: Any, drift: float) -> None:
    """It cancels out of the margin, but other losses would feel it; bf16 allows rounding and no more."""
    policy = load_policy(ModelSpec(id=str(tmp_path / "policy"), dtype=dtype))
    pairs = encoded(policy, 8)
    scorer = PairScorer(policy.model, shared=False)
    reference = reference_logprobs(scorer, "tiny", pairs, Store(tmp_path)).logps
    anchors = reference_of(pairs, reference, torch.device("cpu"))
    with torch.no_grad():
        logps = scorer(pairs)
    exact = dtype == "float32"
    assert difference(pairs, logps, anchors, exact=exact) is None
    moved = (anchors[0] - drift, anchors[1] - drift)
    assert "differs from its reference" in str(difference(pairs, logps, moved, exact=exact))


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 4)
    model = adapters.add(adapters.attach(policy, []), Lora(), seed=0, base_name="tiny")
    reference = {pair.id: (math.nan, 0.0) for pair in pairs}
    with pytest.raises(TrainingStopped, match=f"step 1: .*{pairs[0].id}"):
        train_stage(
            PairScorer(model, shared=False),
            pairs,
            reference,
            dpo=Dpo(),
            optim=Optim(),
            seed=0,
            folder=tmp_path,
            starts_at_reference=False,
        )


def test_a_second_stage_starts_where_the_first_ended(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 8)
    train(policy, tmp_path / "one", pairs)
    stack = [tmp_path / "one" / "adapter"]
    first = adapters.attach(policy, stack)
    with torch.no_grad():
        end = pair_logprobs(first, pairs)
    model = adapters.add(first, Lora(rank=2), seed=1, base_name="tiny")
    assert all(".default." in name for name in adapters.trainable(model))
    with torch.no_grad():
        start = pair_logprobs(model, pairs)
        with adapters.reference(model, "previous"):
            previous = pair_logprobs(model, pairs)
        with adapters.reference(model, "base"):
            base = pair_logprobs(model, pairs)
    assert torch.equal(start.chosen, end.chosen)
    assert torch.equal(previous.chosen, end.chosen)
    assert float((base.chosen - end.chosen).abs().max()) > 0.1
    plain = load_policy(ModelSpec(id=str(tmp_path / "policy"))).model
    with torch.no_grad():
        assert torch.equal(pair_logprobs(plain, pairs).chosen, base.chosen)
    assert adapters.stack_identity(policy, stack) != adapters.stack_identity(policy, [])


def test_detaching_gives_the_base_model_back(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 4)
    with torch.no_grad():
        before = pair_logprobs(policy.model, pairs).chosen
    train(policy, tmp_path / "one", pairs)
    base = adapters.detach(adapters.attach(policy, [tmp_path / "one" / "adapter"]))
    with torch.no_grad():
        assert torch.equal(pair_logprobs(base, pairs).chosen, before)


def test_references_are_computed_once_whatever_the_mix(policy: Loaded, tmp_path: Path) -> None:
    pairs, store = encoded(policy, 8), Store(tmp_path / "store")
    with engine(policy.model, pairs) as scorer:
        first = reference_logprobs(scorer, "x", pairs[:5], store)
        second = reference_logprobs(scorer, "x", pairs, store)
        other = reference_logprobs(scorer, "y", pairs, Store(tmp_path / "other"))
    assert (first.reused, first.computed) == (0, 5)
    assert (second.reused, second.computed) == (5, 3)
    assert second.logps == other.logps  # to the last bit, although they were computed in other company


def test_references_of_another_way_are_not_taken_over(policy: Loaded, tmp_path: Path) -> None:
    """Streams and padded sequences round differently."""
    pairs, store = encoded(policy, 4), Store(tmp_path / "store")
    plain = reference_logprobs(PairScorer(policy.model, shared=False), "x", pairs, store)
    with engine(policy.model, pairs) as scorer:
        assert scorer.shared
        streams = reference_logprobs(scorer, "x", pairs, store)
    assert (plain.computed, streams.reused, streams.computed) == (4, 0, 4)


def test_a_reference_that_is_no_number_stops_with_the_pair_named(policy: Loaded, tmp_path: Path) -> None:
    pairs = encoded(policy, 3)
    policy.model.get_decoder().norm.weight.fill_(math.nan)
    with pytest.raises(TrainingStopped, match=f"pair {pairs[0].id} .*no numbers"):
        reference_logprobs(PairScorer(policy.model, shared=False), "x", pairs, Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("shared", [True, False])
def test_micro_batches_keep_every_pair_within_the_budget(policy: Loaded, shared: bool) -> None:
    pairs = encoded(policy, 20)
    groups = micro_batches(pairs, 250, shared=shared)
    assert sorted(pair.id for group in groups for pair in group) == sorted(pair.id for pair in pairs)
    for group in groups:
        streams, padded = sum(map(stream_length, group)), 2 * len(group) * max(map(padded_length, group))
        assert len(group) == 1 or (streams if shared else padded) <= 250
    assert 1 < len(groups) < 20


def test_fractions_of_epochs_and_the_last_batch() -> None:
    """10 pairs, 1.5 epochs = 15 pairs in batches of 4: 4 + 4 + 4 + 3; the first 10 are all different."""
    ten = ["a"] * 10
    plan = batches(ten, epochs=1.5, batch_size=4, seed=0)
    assert [len(batch) for batch in plan] == [4, 4, 4, 3]
    seen = [position for batch in plan for position in batch]
    assert sorted(seen[:10]) == list(range(10))
    assert len(set(seen[10:])) == 5
    assert plan == batches(ten, epochs=1.5, batch_size=4, seed=0) != batches(ten, epochs=1.5, batch_size=4, seed=1)
    assert schedule.steps(10, 1.5, 4) == 4
    assert schedule.steps(3, 0.1, 64) == 1


def test_learning_rates_by_hand() -> None:
    """10 steps, 2 of them warm-up, peak 1: rises 1/3, 2/3, then cosine from 1 over the 8 that are left."""
    rates = [schedule.learning_rate(s, total=10, peak=1.0, warmup=0.2, schedule="cosine") for s in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.5)
    assert all(rate > 0 for rate in rates)
    linear = [schedule.learning_rate(s, total=4, peak=2.0, warmup=0.0, schedule="linear") for s in range(4)]
    assert linear == pytest.approx([2.0, 1.5, 1.0, 0.5])


def test_pairs_without_room_are_told_apart(policy: Loaded) -> None:
    pair = some_pairs(1)[0]
    assert encode_pair(policy.tokenizer, pair, max_length=20, max_prompt_length=15) == "answer too long"
    same = replace(pair, rejected=pair.chosen)
    assert encode_pair(policy.tokenizer, same, max_length=256, max_prompt_length=99) == "identical after tokenising"
    cut = encode_pair(policy.tokenizer, pair, max_length=256, max_prompt_length=10)
    assert isinstance(cut, EncodedPair)
    assert len(cut.prompt) == 10
    assert cut.prompt_cut > 0
