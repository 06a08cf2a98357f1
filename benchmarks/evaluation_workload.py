"""What both sides of `evaluation.py` work on, made below a folder: `python evaluation_workload.py FOLDER`.

Prompts are those of the embedded world's tasks, pairs those of its sources. The embedded model's answers end by
themselves; the larger model has random weights, so that nearly every answer is written to its limit.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from random_model import qwen3
from workload import SHAPES

from equipoise.data.sources import pocket
from equipoise.evaluation.items import load_items
from equipoise.model.chat import EncodedPair, encode_pair, prompt_ids, prompt_text
from equipoise.model.load import load_tokenizer
from equipoise.pocket import model_dir
from equipoise.recipe_evaluation import TaskSpec, TatqaSpec
from equipoise.recipe_sources import PocketSource
from equipoise.records import Message

TASKS = ("tatqa", "mt_bench", "finance_instruct", "reddit")
DOMAINS = ("general", "finance", "reddit")
PROMPTS, PAIRS = "prompts.json", "pairs.json"
SPREAD = 0.1
"""Spread of the random weights: large, so that different prompts get different answers."""


@dataclass(frozen=True)
class Asked:
    """A prompt as messages and as text."""

    messages: tuple[Message, ...]
    text: str


def main() -> None:
    """Write prompts, pairs and the larger model below FOLDER; print the lengths as JSON."""
    folder = Path(sys.argv[1])
    tokenizer = load_tokenizer(Path(model_dir()), "pocket")
    prompts = [item.prompt for task in TASKS for item in load_items(task, _spec(task))]
    asked = [{"messages": [[m.role, m.content] for m in p], "text": prompt_text(tokenizer, p)} for p in prompts]
    (folder / PROMPTS).write_text(json.dumps(asked))
    pairs, conversations = [], []
    for domain in DOMAINS:
        for pair in pocket.build(domain, PocketSource(kind="pocket", domain=domain, rows=400)).pairs[:40]:
            pairs.append(encode_pair(tokenizer, pair, max_length=2048, max_prompt_length=1024))
            conversations.append([[[m.role, m.content] for m in pair.prompt], [pair.chosen, pair.rejected]])
    encoded = [dataclasses.asdict(pair) for pair in pairs if isinstance(pair, EncodedPair)]
    (folder / PAIRS).write_text(json.dumps({"encoded": encoded, "conversations": conversations}))
    make_large(folder / "large")
    answers = [len(pair[side]) for pair in encoded for side in ("chosen", "rejected")]
    lengths = {
        "prompts": _lengths([len(prompt_ids(tokenizer, prompt)) for prompt in prompts]),
        "pair_prompts": _lengths([len(pair["prompt"]) for pair in encoded]),
        "pair_answers": _lengths(answers),
    }
    print(json.dumps(lengths))


def read_prompts(folder: Path) -> list[Asked]:
    """The prompts of FOLDER."""
    return [
        Asked(tuple(Message(*message) for message in one["messages"]), one["text"])
        for one in json.loads((folder / PROMPTS).read_text())
    ]


def read_pairs(folder: Path) -> tuple[list[EncodedPair], list[tuple[tuple[Message, ...], str]]]:
    """The pairs of FOLDER as token ids, and all their answers as conversations."""
    found = json.loads((folder / PAIRS).read_text())
    pairs = [EncodedPair(**{name: _tuple(value) for name, value in one.items()}) for one in found["encoded"]]
    told = [
        (tuple(Message(*message) for message in prompt), answer)
        for prompt, answers in found["conversations"]
        for answer in answers
    ]
    return pairs, told


def make_large(folder: Path) -> None:
    """A Qwen3 model of the shape `small` of `workload.py`, random weights; the embedded tokenizer, its vocabulary
    filled up."""
    source, shape = Path(model_dir()), SHAPES["small"]
    folder.mkdir()
    for name in ("tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokens = tokenizer["model"]["vocab"]
    tokens.update({f"<{id}>": id for id in range(max(tokens.values()) + 1, shape.vocab)})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = qwen3(shape, initializer_range=SPREAD)
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config)
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)


def _spec(task: str) -> TaskSpec:
    return TatqaSpec(id="pocket", limit=60, layout="cells") if task == "tatqa" else TaskSpec(id="pocket", limit=60)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _lengths(tokens: Sequence[int]) -> dict[str, float]:
    return {
        "count": len(tokens),
        "least": min(tokens),
        "mean": round(sum(tokens) / len(tokens), 1),
        "most": max(tokens),
    }


if __name__ == "__main__":
    main()
