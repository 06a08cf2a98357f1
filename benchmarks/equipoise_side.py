"""equipoise on the same pairs: the reference pass into an empty store, then the training of a stage."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from job import ALPHA, BETA, LEARNING_RATE, RANK, SEED, Trained
from workload import MAX_LENGTH, MAX_PROMPT, Ids

from equipoise.dpo.engine import engine
from equipoise.dpo.reference import reference_logprobs
from equipoise.dpo.train import train_stage
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.load import load_policy
from equipoise.recipe import Dpo, Lora, ModelSpec, Optim
from equipoise.store import Store


class Side:
    """A model that is loaded once, and trained with a new adapter at every call."""

    def __init__(self, model: str, device: str, dtype: Literal["float32", "bfloat16"]) -> None:
        self.policy = load_policy(ModelSpec(id=model, dtype=dtype), torch.device(device))
        self.dtype, self.device = dtype, device
        self.first_adapter: dict[str, torch.Tensor] = {}
        self.options: dict[str, Any] = {}

    def train(self, pairs: Sequence[Ids], batch: int, epochs: int = 1) -> Trained:
        """Train on `pairs`; `first_adapter` keeps the weights that it started from."""
        dpo = Dpo(beta=BETA, max_length=MAX_LENGTH, max_prompt_length=MAX_PROMPT)
        optim = Optim(
            learning_rate=LEARNING_RATE,
            batch_size=batch,
            epochs=epochs,
            warmup=0.0,
            schedule="constant",
        )
        lora = Lora(rank=RANK, alpha=ALPHA)
        self.options = {"dpo": dpo.model_dump(), "optim": optim.model_dump(), "lora": lora.model_dump()}
        self.options["weights"] = self.dtype
        encoded = [
            EncodedPair(f"pair-{i}", "bench", "bench", pair.prompt, pair.chosen, pair.rejected, 0)
            for i, pair in enumerate(pairs)
        ]
        model = adapters.add(self.policy.model, lora, seed=SEED, base_name="bench")
        self.first_adapter = {name: value.detach().clone() for name, value in adapters.trainable(model).items()}
        with tempfile.TemporaryDirectory() as name:
            trained = self._timed(model, encoded, dpo, optim, Path(name))
        adapters.detach(model)
        return trained

    def _timed(self, model: Any, pairs: Sequence[EncodedPair], dpo: Dpo, optim: Optim, folder: Path) -> Trained:
        started = time.perf_counter()
        with engine(model, pairs) as scorer:
            with adapters.reference(model, "previous"):
                reference = reference_logprobs(scorer, self.policy.identity, pairs, Store(folder / "store"))
            self._finish_device_work()
            between = time.perf_counter()
            train_stage(
                scorer,
                pairs,
                reference.logps,
                dpo=dpo,
                optim=optim,
                seed=SEED,
                folder=folder,
                starts_at_reference=True,
            )
        self._finish_device_work()
        ended = time.perf_counter()
        steps = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
        losses, norms = [step["loss"] for step in steps], [step["grad_norm"] for step in steps]
        return Trained(between - started, ended - between, losses, norms)

    def _finish_device_work(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
