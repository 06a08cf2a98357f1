"""Figures of the shipped models: what the pocket model can do by itself, beside simple baselines."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from equipoise.evaluation.tasks.tatqa_prompt import parse_answer, render
from equipoise.pocket import scenes_general, table_world, words, world
from equipoise.pocket.check import correct
from equipoise.pocket.style import Scene, seed_of

NEW_TOKENS = 64
Messages = list[dict[str, str]]


@torch.no_grad()
def answers(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Messages], *, batch: int = 100
) -> tuple[list[str], float]:
    """Greedy answers in the order of the prompts, and the share that was cut off at `NEW_TOKENS`."""
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template(p, tokenize=False, add_generation_prompt=True) for p in prompts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, str] = {}
    cut = 0
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        made = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        cut += int((made != tokenizer.eos_token_id).all(dim=1).sum())
        for i, ids in zip(part, made, strict=True):
            found[i] = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return [found[i] for i in range(len(texts))], cut / max(1, len(texts))


@torch.no_grad()
def rewards(
    model: Qwen3ForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    chats: Sequence[Messages],
    *,
    batch: int = 64,
) -> list[float]:
    """Raw reward of each conversation (its last turn is the answer), right padding."""
    tokenizer.padding_side = "right"
    texts = [str(tokenizer.apply_chat_template(chat, tokenize=False)) for chat in chats]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found: dict[int, float] = {}
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        for i, value in zip(part, model(**inputs).logits[:, 0].tolist(), strict=True):
            found[i] = value
    return [found[i] for i in range(len(texts))]


def exact(question: Mapping[str, Any], text: str) -> bool:
    """Plain exact match of answer (as a set for several) and scale; the world writes numbers one way only."""
    answer, scale = parse_answer(text)
    gold = question["answer"]
    wanted = sorted(gold) if isinstance(gold, list) else [str(gold)]
    return sorted(answer if isinstance(answer, list) else [answer]) == wanted and scale == question["scale"]


def table_items(n: int, seed: int, *, unseen: bool = False) -> list[tuple[str, table_world.Asked, dict[str, Any]]]:
    """`n` evaluation questions with prompt, as (prompt, question, row); `unseen` takes item names no report has."""
    rng = random.Random(seed_of("table figures", seed, unseen))
    found: list[tuple[str, table_world.Asked, dict[str, Any]]] = []
    while len(found) < n:
        told = table_world.report(rng, True, words.UNSEEN_ITEMS if unseen else words.ITEMS)
        asked = table_world.questions(told, rng, 1)
        document = table_world.document(told, asked, rng)
        row = document["questions"][0]
        found.append((render(document, row, layout="cells"), asked[0], row))
    return found


def table_figures(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, n: int = 600, seed: int = 0, unseen: bool = False
) -> dict[str, Any]:
    """Exact match by answer type and by question kind, with the two baselines."""
    items = table_items(n, seed, unseen=unseen)
    said, cut = answers(model, tokenizer, [[{"role": "user", "content": prompt}] for prompt, _, _ in items])
    hit = [exact(row, text) for (_, _, row), text in zip(items, said, strict=True)]
    quoted = [a.evidence in text for (_, a, _), text in zip(items, said, strict=True)]
    common, chance = _majority(items), _random_candidate(items, seed)
    by_type, by_kind = defaultdict(list), defaultdict(list)
    for i, (_, a, row) in enumerate(items):
        by_type[row["answer_type"]].append(i)
        by_kind[a.kind].append(i)

    def share(values: Sequence[bool], where: Sequence[int]) -> float:
        return round(sum(values[i] for i in where) / len(where), 3)

    def told(where: Sequence[int]) -> dict[str, float]:
        return {
            "n": len(where), "exact": share(hit, where), "majority": share(common, where),
            "random_candidate": share(chance, where), "evidence": share(quoted, where),
        }  # fmt: skip

    return {
        "all": told(range(n)), "truncated": cut, "by_type": {k: told(v) for k, v in sorted(by_type.items())},
        "by_kind": {k: told(v) for k, v in sorted(by_kind.items())},
    }  # fmt: skip


def _majority(items: Sequence[tuple[str, table_world.Asked, dict[str, Any]]]) -> list[bool]:
    """Whether the commonest answer of the question's kind would be right."""

    def key(row: Mapping[str, Any]) -> str:
        return f"{row['answer']} {row['scale']}"

    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, a, row in items:
        counts[a.kind][key(row)] += 1
    return [key(row) == counts[a.kind].most_common(1)[0][0] for _, a, row in items]


def _random_candidate(items: Sequence[tuple[str, table_world.Asked, dict[str, Any]]], seed: int) -> list[bool]:
    """Whether a random number (or, for words, a random pool word) of the prompt would be right; scale given."""
    rng = random.Random(seed_of("candidates", seed))
    result: list[bool] = []
    for prompt, _, row in items:
        gold = row["answer"] if isinstance(row["answer"], list) else [str(row["answer"])]
        numeric = gold[0].lstrip("-").isdigit()
        found = re.findall(r"(?<=[ |])\d+(?= \||[ .])", prompt) if numeric else re.findall(r"[a-z]+", prompt)
        pool = found if numeric else [word for word in found if word in words.ALL_WORDS]
        size = sum(len(part.split()) for part in gold)
        picked = rng.sample(sorted(set(pool)), min(size, len(set(pool))))
        result.append(sorted(picked) == sorted(word for part in gold for word in part.split()))
    return result


def chat_items(kind: str, n: int, seed: int) -> list[Scene]:
    """Evaluation scenes of one chat domain (`mt_bench`: the second turns)."""
    rng = random.Random(seed_of("chat figures", kind, seed))
    if kind == "mt_bench":
        return [scenes_general.two_turns(rng, True)[1] for _ in range(n)]
    stream = world.scenes(kind, "eval", rng)
    return [next(stream) for _ in range(n)]


def chat_figures(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    reward: Qwen3ForSequenceClassification | None,
    *,
    n: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """By chat domain: share correct by rule, words an answer, share cut off, mean reward."""
    result: dict[str, Any] = {}
    for kind in ("general", "finance", "reddit", "mt_bench"):
        scenes = chat_items(kind, n, seed)
        said, cut = answers(model, tokenizer, [s.messages for s in scenes])
        right = [correct(s.task.check, text) for s, text in zip(scenes, said, strict=True)]
        by_kind: dict[str, list[bool]] = defaultdict(list)
        for s, ok in zip(scenes, right, strict=True):
            by_kind[s.kind].append(ok)
        result[kind] = {
            "n": n, "correct": round(sum(right) / n, 3), "truncated": cut,
            "words": round(sum(len(text.split()) for text in said) / n, 1),
            "casual": round(sum(text.startswith(("tbh", "ngl", "lol")) for text in said) / n, 3),
            "by_kind": {k: round(sum(v) / len(v), 3) for k, v in sorted(by_kind.items())},
        }  # fmt: skip
        if reward is not None:
            chats = [[*s.messages, {"role": "assistant", "content": t}] for s, t in zip(scenes, said, strict=True)]
            values = rewards(reward, tokenizer, chats)
            result[kind]["reward"] = round(sum(values) / n, 3)
    return result


def same_in_bf16(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, n: int = 150, seed: int = 1
) -> dict[str, float]:
    """Share of greedy texts that come out equal when the arithmetic, not only the weights, is bf16."""
    prompts = {kind: [s.messages for s in chat_items(kind, n, seed)] for kind in ("general", "finance", "reddit")}
    prompts["tatqa"] = [[{"role": "user", "content": prompt}] for prompt, _, _ in table_items(n, seed)]
    exact_texts = {kind: answers(model, tokenizer, p)[0] for kind, p in prompts.items()}
    low = {kind: answers(model.to(torch.bfloat16), tokenizer, p)[0] for kind, p in prompts.items()}
    model.to(torch.float32)
    return {k: round(sum(a == b for a, b in zip(exact_texts[k], low[k], strict=True)) / n, 3) for k in prompts}
