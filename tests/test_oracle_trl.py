"""TRL as an oracle: the same pairs, model and adapter give the same loss and the same gradients.

Compared is what trains: streams, fused adapters and norms, and beside them the plain path.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from equipoise.dpo.engine import engine
from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.loss import LOSSES
from equipoise.dpo.train import pair_losses
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.load import load_policy
from equipoise.recipe import Dpo, Lora, ModelSpec
from equipoise.records import chat
from models import make_policy
from test_train import some_pairs

SHARED = ["sigmoid", "ipo", "hinge", "robust", "sigmoid_norm", "apo_zero", "apo_down"]
BETA, SMOOTHING = 0.3, 0.1


@dataclass
class Bench:
    """One model with an adapter for both sides, moved away from the reference that both sides know."""

    model: Any
    pairs: list[EncodedPair]
    reference: PairLogps
    trainer: Any


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    policy = load_policy(ModelSpec(id=str(make_policy(tmp_path_factory.mktemp("policy"), architecture="qwen3"))))
    # TRL trains on the line break that ChatML puts behind the end-of-turn token; nobody ever generates it.
    policy.tokenizer.chat_template = policy.tokenizer.chat_template.replace("<|im_end|>\\n", "<|im_end|>")
    model = adapters.add(policy.model, Lora(rank=4), seed=0, base_name="tiny")
    shake(model, seed=1)
    encoded = [encode_pair(policy.tokenizer, pair, max_length=200, max_prompt_length=150) for pair in some_pairs(4)]
    pairs = [pair for pair in encoded if isinstance(pair, EncodedPair)]
    with torch.no_grad():
        reference = pair_logprobs(model, pairs)
    # TRL's reference is a frozen copy of the adapter as it is now; afterwards the policy moves.
    trainer = DPOTrainer(
        model=model,
        args=config(tmp_path_factory.mktemp("trl")),
        train_dataset=rows(),
        processing_class=policy.tokenizer,
    )
    shake(model, seed=2)
    return Bench(model, pairs, reference, trainer)


def shake(model: Any, seed: int) -> None:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def rows() -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": chat(pair.prompt),
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in some_pairs(4)
        ]
    )


def config(folder: Path) -> DPOConfig:
    return DPOConfig(
        output_dir=str(folder), beta=BETA, label_smoothing=SMOOTHING, per_device_train_batch_size=4, max_length=200,
        bf16=False, use_cpu=True, report_to="none", gradient_checkpointing=False, disable_tqdm=True, dataset_num_proc=1,
    )  # fmt: skip


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if ".default." in name}
    model.zero_grad()
    return found


def own_loss(bench: Bench, pairs: list[EncodedPair], dpo: Dpo, path: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients as a training step has them, on one of the engine's two paths."""
    known = [bench.pairs.index(pair) for pair in pairs]
    reference = (bench.reference.chosen[known], bench.reference.rejected[known])

    def backward(score: Callable[[list[EncodedPair]], PairLogps]) -> tuple[float, dict[str, torch.Tensor]]:
        loss = pair_losses(score(pairs), reference, dpo).mean()
        loss.backward()
        return loss.item(), gradients(bench.model)

    if path == "plain":
        return backward(lambda some: pair_logprobs(bench.model, some))
    with engine(bench.model, bench.pairs, say=pytest.fail) as scorer:
        assert scorer.shared
        return backward(scorer)


def assert_equal_to_trl(
    own: tuple[float, dict[str, torch.Tensor]], bench: Bench, batch: Any, losses: list[str], weights: list[float]
) -> None:
    bench.trainer.loss_types, bench.trainer.loss_weights = losses, weights
    expected = bench.trainer.compute_loss(bench.trainer.model, batch)
    expected.backward()
    expected_gradients = gradients(bench.trainer.model)
    assert own[0] == pytest.approx(expected.item(), rel=1e-5)
    assert own[1].keys() == expected_gradients.keys()
    for name, gradient in own[1].items():
        other = expected_gradients[name]
        assert float(other.norm()) > 0, name
        assert float((gradient - other).norm()) <= 1e-4 * float(other.norm()) + 1e-7, name


@pytest.mark.parametrize("path", ["streams", "plain"])
@pytest.mark.parametrize("loss", SHARED)
def test_loss_and_every_gradient_equal_trl(bench: Bench, loss: str, path: str) -> None:
    dpo = Dpo(loss=loss, beta=BETA, label_smoothing=SMOOTHING if loss == "robust" else 0.0)
    own = own_loss(bench, bench.pairs, dpo, path)
    assert abs(own[0] - math.log(2)) > 1e-3  # the policy has moved: nothing here is trivially equal
    assert_equal_to_trl(own, bench, next(iter(bench.trainer.get_train_dataloader())), [loss], [1.0])


@pytest.mark.parametrize("path", ["streams", "plain"])
def test_the_sft_term_equals_trl_on_one_pair(bench: Bench, path: str) -> None:
    """On more than one TRL averages over the tokens of the batch, which would depend on how a batch is cut."""
    own = own_loss(bench, bench.pairs[:1], Dpo(loss="sigmoid", beta=BETA, sft_weight=0.7), path)
    batch = bench.trainer.data_collator([bench.trainer.train_dataset[0]])
    assert_equal_to_trl(own, bench, batch, ["sigmoid", "sft"], [1.0, 0.7])


def test_every_loss_that_trl_has_too_is_compared() -> None:
    """By TRL's own source; its bco_pair, nca_pair, sppo_hard, aot, discopop and exo_pair are not offered here."""
    theirs = set(re.findall(r'loss_type == "(\w+)"', inspect.getsource(DPOTrainer)))
    assert "sigmoid" in theirs
    assert theirs & set(LOSSES) == set(SHARED)
