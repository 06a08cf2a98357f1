"""A stand-in for vLLM, which needs a GPU: the few names that `equipoise` uses, with their real signatures.

It answers one prompt after the other with transformers and PEFT; `VLLM_STAND_IN_MODE` has it do less. What it proves
is the way of the data (arguments, prompts, adapters, seeds, end tokens, errors), nothing about vLLM's own arithmetic,
memory or speed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm.lora.request import LoRARequest

print("INFO: what vLLM prints to stdout must not disturb anybody")


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    def __init__(
        self,
        model: str,
        *,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        quantization: str | None = None,
        seed: int = 0,
        gpu_memory_utilization: float = 0.9,
        **kwargs: Any,
    ) -> None:
        if "VLLM_STAND_IN_NOTES" in os.environ:
            arguments = {"dtype": dtype, "quantization": quantization, "seed": seed, "pid": os.getpid(), **kwargs}
            with Path(os.environ["VLLM_STAND_IN_NOTES"]).open("a") as notes:
                notes.write(json.dumps(arguments) + "\n")
        self._mode = os.environ.get("VLLM_STAND_IN_MODE", "")
        if self._mode == "dies at the start":
            print("some last words of another kind", file=sys.stderr)
            raise ValueError("Free memory on device (3/8 GiB) on startup is less than desired GPU memory utilization")
        if self._mode == "slow to start":
            time.sleep(60)
        if self._mode:
            return
        import torch
        import transformers

        torch.set_num_threads(1)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self._lora = kwargs.get("max_lora_rank", 0) if kwargs.get("enable_lora") else 0
        self._names: dict[int, str] = {}

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: SamplingParams | list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: list[LoRARequest] | LoRARequest | None = None,
    ) -> list[RequestOutput]:
        if self._mode == "dies when asked":
            os.kill(os.getpid(), 9)
        if self._mode == "echo":
            said = [] if lora_request is None else [7 + lora_request.lora_int_id]
            return [
                RequestOutput(one["prompt_token_ids"], [CompletionOutput(0, "", said, "length")]) for one in prompts
            ]
        assert isinstance(sampling_params, list) and not isinstance(lora_request, list)
        self._activate(lora_request)
        return [
            RequestOutput(prompt["prompt_token_ids"], [self._write(prompt["prompt_token_ids"], chosen)])
            for prompt, chosen in zip(prompts, sampling_params, strict=True)
        ]

    def _activate(self, request: LoRARequest | None) -> None:
        from peft import PeftModel

        if request is None:
            if isinstance(self._model, PeftModel):
                self._model.base_model.disable_adapter_layers()
            return
        if self._names.setdefault(request.lora_int_id, request.lora_path) != request.lora_path:
            raise ValueError("two adapters with one number")
        settings = json.loads((Path(request.lora_path) / "adapter_config.json").read_text())
        if settings["r"] > self._lora:
            raise ValueError(f"LoRA rank {settings['r']} is greater than max_lora_rank {self._lora}.")
        if not isinstance(self._model, PeftModel):
            self._model = PeftModel.from_pretrained(self._model, request.lora_path, adapter_name=request.lora_name)
        elif request.lora_name not in self._model.peft_config:
            self._model.load_adapter(request.lora_path, adapter_name=request.lora_name)
        self._model.base_model.enable_adapter_layers()
        self._model.base_model.set_adapter(request.lora_name)

    def _write(self, prompt: list[int], chosen: SamplingParams) -> CompletionOutput:
        import torch

        source = torch.Generator().manual_seed(chosen.seed or 0)
        ids = list(prompt)
        for _ in range(chosen.max_tokens or 16):
            with torch.inference_mode():
                logits = self._model(input_ids=torch.tensor([ids])).logits[0, -1].float()
            if chosen.temperature:
                token = int(torch.multinomial((logits / chosen.temperature).softmax(-1), 1, generator=source))
            else:
                token = int(logits.argmax())
            ids.append(token)
            if token in (chosen.stop_token_ids or []):
                return CompletionOutput(0, "", ids[len(prompt) :], "stop")
        return CompletionOutput(0, "", ids[len(prompt) :], "length")
