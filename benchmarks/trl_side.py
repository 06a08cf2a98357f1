"""TRL's DPOTrainer as installed, on pairs that are token ids already.

Only the tokenisation is left out (`_prepare_dataset`): collator, loss, reference pass and loop are TRL's own. In TRL
a reference that is computed ahead belongs to the constructor; the time of that pass alone is counted, in TRL's
favour, since the rest of the constructor is preparation.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import trl.trainer.utils
from datasets import Dataset
from job import ALPHA, BETA, LEARNING_RATE, RANK, SEED, Trained
from peft import LoraConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from workload import MAX_LENGTH, Ids

COMMON: dict[str, Any] = {
    "beta": BETA,
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "max_length": MAX_LENGTH,
    "seed": SEED,
    "num_train_epochs": 1,
    "logging_steps": 1,
    "disable_tqdm": True,
    "report_to": "none",
    "save_strategy": "no",
}


@dataclass(frozen=True)
class Setting:
    """How TRL is run: dtype of the loaded weights, pairs per forward pass, and further options of DPOConfig."""

    dtype: torch.dtype
    micro: int = 1
    forced: bool = False
    options: dict[str, Any] = field(default_factory=dict)


class OnIds(DPOTrainer):
    """DPOTrainer whose data set holds token ids, and which times its own reference pass."""

    reference_s = 0.0

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *arguments: Any) -> Dataset:
        started = time.perf_counter()
        dataset = super()._precompute_ref_logps(*arguments)
        self.reference_s = time.perf_counter() - started
        return dataset


def force_compact_head() -> None:
    """Make the head score answer positions only, as on a GPU; the kernels stay those of this machine."""
    vars(trl.trainer.utils)["_use_triton"] = lambda device: True  # the kernels ask another module's name


class Side:
    """A model that is loaded once, and trained with a new adapter at every call."""

    def __init__(self, setting: Setting, model: str, device: str) -> None:
        self.setting, self.device = setting, device
        if setting.forced:
            force_compact_head()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=setting.dtype)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        self.options: dict[str, Any] = {}

    def train(
        self, pairs: Sequence[Ids], batch: int, epochs: int = 1, adapter: dict[str, torch.Tensor] | None = None
    ) -> Trained:
        """Train on `pairs`; `adapter` holds the weights to start from (default: PEFT's own, seeded)."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = self._trainer(pairs, batch, epochs, Path(folder))
            if adapter:
                _copy_into(trainer.model, adapter)
            started = time.perf_counter()
            trainer.train()
            training_s = time.perf_counter() - started
        self.options = _options(trainer, self.setting)
        steps = [line for line in trainer.state.log_history if "grad_norm" in line]
        self._take_back(trainer)
        norms = [float(line["grad_norm"]) for line in steps]
        return Trained(trainer.reference_s, training_s, [float(line["loss"]) for line in steps], norms)

    def _trainer(self, pairs: Sequence[Ids], batch: int, epochs: int, folder: Path) -> OnIds:
        micro = min(self.setting.micro, batch)
        values = COMMON | {"use_cpu": self.device == "cpu", "num_train_epochs": epochs}
        values |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": batch // micro}
        trainer = OnIds(
            model=self.model,
            args=DPOConfig(output_dir=str(folder), **(values | self.setting.options)),
            train_dataset=_dataset(pairs),
            processing_class=self.tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def _take_back(self, trainer: OnIds) -> None:
        """Make the model what it was before the trainer: no adapter, its own forward."""
        self.model = trainer.model.unload()
        for name in ("forward", "peft_config", "_hf_peft_config_loaded"):
            vars(self.model).pop(name, None)


def _dataset(pairs: Sequence[Ids]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt_ids": list(pair.prompt),
                "chosen_ids": list(pair.chosen),
                "rejected_ids": list(pair.rejected),
                "length": len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)),
            }
            for pair in pairs
        ]
    )


def _copy_into(model: Any, adapter: dict[str, torch.Tensor]) -> None:
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in adapter.items():
            parameters[name].copy_(value)


def _options(trainer: OnIds, setting: Setting) -> dict[str, Any]:
    """The options that were set, and TRL's value of those that matter here."""
    shown = [*COMMON, *setting.options, "per_device_train_batch_size", "gradient_accumulation_steps"]
    shown += ["bf16", "gradient_checkpointing", "precompute_ref_log_probs", "optim", "train_sampling_strategy"]
    values = trainer.args.to_dict()
    allocator = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return {name: values[name] for name in shown} | {
        "weights": str(setting.dtype).removeprefix("torch."),
        "answer_only_head_forced": setting.forced,
        "environment": allocator,
    }
