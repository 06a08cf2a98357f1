"""Answers of a vLLM engine that runs in a process of its own: many prompts at once, several adapters on one engine.

Prompts are rendered and tokenised here, by the same code as everywhere else, and stop at the same end tokens. The
engine starts when the first answer is needed that the store does not hold. vLLM puts one adapter on a request: a
stack of several is summed into one first (`model.combined`, exactly; the engine rounds it to the model's precision).

vLLM decides itself what it computes together, so the last bits of its numbers depend on the company of a prompt, and
a near-tie between two tokens may fall either way. Answers are kept one by one: after a kill the rest is written in
other company. Who needs answers without that uses `backend: transformers`, or vLLM's own `VLLM_BATCH_INVARIANT=1`.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import GenerationConfig

from equipoise.model.adapters import each, stack_identity
from equipoise.model.chat import answer_text, prompt_ids
from equipoise.model.combined import adapter_rank, combine
from equipoise.model.generate import Answer, Progress, end_tokens, positions
from equipoise.model.load import (
    Loaded,
    default_device,
    model_config,
    model_folder,
    policy_identity,
    policy_tokenizer,
    surroundings,
)
from equipoise.model.vllm_process import WorkerProcess
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError, Message, content_id
from equipoise.store import Store

VERSION = 1
"""Raise it when the same settings come to mean other answers: kept answers are then no longer served."""
WHERE = "evaluation.generation.vllm"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `max_lora_rank` may be."""
OURS = frozenset({"model", "dtype", "quantization", "trust_remote_code", "enable_lora", "max_loras", "max_lora_rank"})
"""Arguments that follow from the rest of the recipe."""
AT_ONCE = 512
"""Prompts between two writings to the store."""

Ids = tuple[int, ...]
Argument = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter as the engine gets it: a number of its own, a folder, its rank."""

    number: int
    folder: Path
    rank: int


class VllmEngine:
    """A model in a vLLM engine, shared by the generators of its adapters.

    Args:
        model: the model of the recipe.
        engine_args: arguments of vLLM's `LLM`, as `gpu_memory_utilization` or `max_model_len`.
        lora_rank: the largest rank that a stack will have, where it is known: the engine is made for it from the
            start. A stack of a larger one starts the engine anew.

    Raises InputError where vLLM is not installed, the model cannot be found, or an argument is not the recipe's to
    choose. To be used as a context manager, or closed: the process holds GPU memory until then.
    """

    def __init__(self, model: ModelSpec, *, engine_args: Mapping[str, Argument], lora_rank: int = 0) -> None:
        reserved = sorted(OURS & set(engine_args))
        if reserved:
            raise InputError(f"{WHERE}.{reserved[0]}: follows from `model` and the adapters; leave it out")
        version = _vllm_version()
        device = default_device()
        folder = model_folder(model.id, model.revision, what="model.id")
        identity = content_id(
            [VERSION, version, surroundings(device), policy_identity(model, device), dict(engine_args)]
        )
        self.loaded = Loaded(_described(model, folder), policy_tokenizer(model), identity, device)
        self.ends = sorted(end_tokens(self.loaded))
        limit = engine_args.get("max_model_len")
        longest = positions(self.loaded.model)
        self.longest = min(longest, limit) if isinstance(limit, int) and limit > 0 else longest
        precision = "bfloat16" if device.type == "cuda" else "float32"
        self._settings: dict[str, Any] = {
            "model": str(folder),
            "dtype": precision if model.dtype == "auto" else model.dtype,
            "quantization": "bitsandbytes" if model.quantization else None,
            "trust_remote_code": model.trust_remote_code,
            "generation_config": "vllm",  # not the model's own ideas of sampling
            "seed": 0,
            **engine_args,
        }
        self._rank = lora_rank
        self._adapters: dict[str, Adapter] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="equipoise-vllm-", ignore_cleanup_errors=True)
        self._process: WorkerProcess | None = None

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self.close(at_once=kind is not None)

    def close(self, *, at_once: bool = False) -> None:
        """End the process, which frees its memory, and remove what was written for it; `at_once` kills it."""
        if self._process is not None:
            self._process.close(at_once=at_once)
            self._process = None
        self._scratch.cleanup()

    def adapter(self, stack: Sequence[Path]) -> Adapter | None:
        """The stack as one adapter, None for no stack; raises InputError where it cannot be one."""
        if not stack:
            return None
        identity = stack_identity(self.loaded, stack)
        if identity not in self._adapters:
            rank = sum(adapter_rank(folder) for folder in each(stack))
            if rank > RANKS[-1]:
                raise InputError(f"{WHERE}: a stack of rank {rank}; vLLM takes at most {RANKS[-1]}: use transformers")
            folder = Path(self._scratch.name) / identity
            combine(each(stack), folder)  # of one adapter as well: its folder may change or go while the engine runs
            self._adapters[identity] = Adapter(len(self._adapters) + 1, folder, rank)
        return self._adapters[identity]

    def write(
        self, prompts: Sequence[Ids], adapter: Adapter | None, *, max_tokens: int, temperature: float, seed: int
    ) -> list[Answer]:
        """Answer the prompts, all with one adapter; raises InputError where the engine cannot start or ends."""
        seeds = [_seed(seed, ids) if temperature > 0 else None for ids in prompts]
        reply = self._started(adapter.rank if adapter else 0).ask(
            {
                "prompts": [list(ids) for ids in prompts],
                "seeds": seeds,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "ends": self.ends,
                "adapter": {"number": adapter.number, "folder": str(adapter.folder)} if adapter else None,
            }
        )
        return [self._answer(one["ids"], one["ended"]) for one in reply["answers"]]

    def _answer(self, ids: list[int], ended: bool) -> Answer:
        """The end token belongs to the count and not to the text, whether the engine gives it or not."""
        given = bool(ids) and ids[-1] in self.ends
        text = answer_text(self.loaded.tokenizer, ids[:-1] if given else ids)
        return Answer(text, len(ids) + (ended and not given), not ended)

    def _started(self, rank: int) -> WorkerProcess:
        """The running engine; one that was made for smaller adapters is ended first."""
        if self._process is not None and rank <= self._rank:
            return self._process
        if self._process is not None:
            self._process.close()
        self._rank = max(rank, self._rank)
        lora: dict[str, Any] = {}
        if self._rank:
            rounded = next((allowed for allowed in RANKS if allowed >= self._rank), RANKS[-1])
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rounded}
        self._process = WorkerProcess({**self._settings, **lora}, where=WHERE)
        return self._process


class VllmGenerator:
    """Generates with one stack of adapters on a shared engine.

    Args:
        engine: the engine with the model.
        stack: folders of the adapters, the first stage's first; none for the model alone.
        store: where answers are kept; None keeps nothing.
        thinking: render prompts of thinking models with thinking on.

    Raises InputError where a folder holds no plain LoRA.
    """

    def __init__(
        self, engine: VllmEngine, stack: Sequence[Path] = (), *, store: Store | None, thinking: bool = False
    ) -> None:
        self.engine, self.stack, self.store, self.thinking = engine, list(stack), store, thinking
        self.identity = stack_identity(engine.loaded, self.stack)
        for folder in each(self.stack):
            adapter_rank(folder)

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order.

        Temperature 0 is greedy; above 0 tokens are drawn from the whole softmax with a seed of their own for each
        prompt. A prompt that leaves no room for `max_new_tokens` is refused with the reason.
        """
        settings = [max_new_tokens, temperature, seed if temperature > 0 else 0]
        encoded = [
            tuple(prompt_ids(self.engine.loaded.tokenizer, prompt, thinking=self.thinking)) for prompt in prompts
        ]
        room = self.engine.longest - max_new_tokens
        answers = {ids: _refused(len(ids), room, max_new_tokens) for ids in encoded if len(ids) > room}
        identity = content_id(["vllm", self.identity, self.thinking, settings])
        kept = self.store.get("answers", identity) if self.store else {}
        keys = {ids: content_id(list(ids)) for ids in encoded}
        answers |= {ids: Answer(**kept[key]) for ids, key in keys.items() if key in kept}
        due = list(_batches({ids for ids in encoded if ids not in answers}))
        adapter = self.engine.adapter(self.stack) if due else None
        for batch in due:
            written = self.engine.write(batch, adapter, max_tokens=max_new_tokens, temperature=temperature, seed=seed)
            answers |= dict(zip(batch, written, strict=True))
            if self.store:
                self.store.put("answers", identity, {keys[ids]: asdict(answers[ids]) for ids in batch})
            if progress:
                progress(len(answers), len(keys))
        return [answers[ids] for ids in encoded]


def _batches(prompts: set[Ids]) -> Iterator[list[Ids]]:
    """Prompts by length, so that the same set is asked for in the same way whatever its order was."""
    ordered = sorted(prompts, key=lambda ids: (len(ids), ids))
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start : start + AT_ONCE]


def _refused(length: int, room: int, new: int) -> Answer:
    reason = f"prompt too long: {length} tokens, room for {max(room, 0)} beside {new} new ones"
    return Answer("", 0, False, reason)


def _seed(seed: int, ids: Ids) -> int:
    return int(content_id([seed, list(ids)])[:7], 16)


def _described(model: ModelSpec, folder: Path) -> Any:
    """What this side needs to know of a model that it does not load: its configurations."""
    config = model_config(folder, "model.id", trust_remote_code=model.trust_remote_code)
    if (folder / "generation_config.json").is_file():
        return SimpleNamespace(config=config, generation_config=GenerationConfig.from_pretrained(folder))
    return SimpleNamespace(config=config, generation_config=GenerationConfig.from_model_config(config))


def _vllm_version() -> str:
    try:
        return importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            "evaluation.generation.backend: vllm is not installed: pip install vllm (it needs a GPU), or use "
            "backend: transformers"
        ) from None
