"""Trains the pocket reward model from the pocket language model: preference pairs, and negatives against hacking.

A reward model trained on clean pairs alone pays for repeated sentences and for gibberish, because it never saw any.
So a share of the pairs sets a good answer against a broken one.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from equipoise.pocket import scenes_general, words, world
from equipoise.pocket.figures import Messages, rewards
from equipoise.pocket.style import UTILITY, Scene, draw, seed_of, write

BATCH, PEAK_RATE, WARMUP_STEPS, SIZE_PENALTY = 32, 1.5e-3, 40, 0.005
BROKEN_SHARE, TWO_TURN_SHARE, SYSTEM_DROPPED = 0.3, 0.15, 0.15
DOMAINS = ("general", "finance", "reddit", "mt_bench")
Pair = tuple[Messages, str, str]


def scene_of(domain: str, rng: random.Random, held_out: bool) -> Scene:
    """A scene of a domain; `mt_bench` is the general domain with two turns, first or second turn asked."""
    if domain == "mt_bench":
        first, second = scenes_general.two_turns(rng, held_out)
        return second if rng.random() < 0.7 else first
    return world.SCENES[domain](rng, held_out)


def repeated(scene: Scene, good: str, rng: random.Random) -> str:
    """One sentence of the answer, or all of it, said two to four times."""
    sentences = [part.strip() + "." for part in good.rstrip(".").split(".") if part.strip()]
    again = rng.choice(sentences)
    return (
        " ".join(sentences + [again] * rng.randint(1, 3))
        if rng.random() < 0.7
        else " ".join([good] * rng.randint(2, 3))
    )


def shuffled(scene: Scene, good: str, rng: random.Random) -> str:
    """The answer's words in random order."""
    parts = good.split()
    rng.shuffle(parts)
    return " ".join(parts)


def gibberish(scene: Scene, good: str, rng: random.Random) -> str:
    """Random words, or one word over and over."""
    if rng.random() < 0.3:
        return " ".join([rng.choice(words.ALL_WORDS)] * rng.randint(3, 30))
    return " ".join(rng.choice(words.ALL_WORDS) for _ in range(rng.randint(3, 25)))


def empty(scene: Scene, good: str, rng: random.Random) -> str:
    """Nothing, a mark, one word, or polite words around no answer."""
    opener, closer = "Sure, happy to help.", "I hope this helps."
    return rng.choice(("", ".", good.split()[0], opener, f"{opener} {closer}", closer, "lol", "tbh lol"))


def cut(scene: Scene, good: str, rng: random.Random) -> str:
    """The answer broken off."""
    parts = good.split()
    return " ".join(parts[: rng.randint(1, max(1, len(parts) - 2))])


def elsewhere(scene: Scene, good: str, rng: random.Random) -> str:
    """A good answer to another prompt."""
    other = world.SCENES[rng.choice(list(world.SCENES))](rng, False)
    return write(other, {**draw(other, rng, "flat"), "correct": True, "off_topic": False, "insult": False}, rng)


BREAK: dict[str, Callable[[Scene, str, random.Random], str]] = {
    "repeated": repeated, "shuffled": shuffled, "gibberish": gibberish, "empty": empty, "cut": cut,
    "elsewhere": elsewhere,
}  # fmt: skip


def good_answer(scene: Scene, rng: random.Random) -> str:
    """A right answer in any style, without insult."""
    return write(scene, {**draw(scene, rng, "flat"), "correct": True, "off_topic": False, "insult": False}, rng)


def broken_pair(scene: Scene, rng: random.Random, name: str) -> tuple[str, str] | None:
    """A good answer and its broken form; none when breaking changed nothing."""
    good = good_answer(scene, rng)
    bad = BREAK[name](scene, good, rng)
    return (good, bad) if bad != good else None


def pairs(rng: random.Random) -> Iterator[Pair]:
    """Training pairs without end: prompt, better, worse."""
    while True:
        domain = "mt_bench" if rng.random() < TWO_TURN_SHARE else rng.choice(DOMAINS[:3])
        scene = scene_of(domain, rng, False)
        made: tuple[str, str] | None
        if rng.random() < BROKEN_SHARE:
            made = broken_pair(scene, rng, rng.choice([*BREAK, "elsewhere"]))  # the hardest one twice
        else:
            made = world.pair(scene, rng, world.PAIR_NOISE["reward"])
        if made:
            keep = rng.random() > SYSTEM_DROPPED
            yield [m for m in scene.messages if keep or m["role"] != "system"], *made


def train_reward(
    lm: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, steps: int, seed: int, log: Callable[[str], None]
) -> Qwen3ForSequenceClassification:
    """Bradley-Terry loss with a small penalty on the size of rewards; starts from the language model."""
    torch.manual_seed(seed)
    model = start(lm)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    stream = pairs(random.Random(seed_of("reward", seed)))
    tokenizer.padding_side = "right"
    right = 0.5
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.02, 1 - step / steps)
        drawn = [next(stream) for _ in range(BATCH)]
        chats = [[*p, {"role": "assistant", "content": a}] for p, *both in drawn for a in both]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        values = model(**inputs, use_cache=False).logits[:, 0].view(-1, 2)
        loss = -functional.logsigmoid(values[:, 0] - values[:, 1]).mean() + SIZE_PENALTY * values.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        right = 0.98 * right + 0.02 * (values[:, 0] > values[:, 1]).float().mean().item()
        if (step + 1) % 50 == 0:
            log(f"reward step {step + 1} loss {loss.item():.3f} right {right:.3f}")
    return model.eval()


def start(lm: Qwen3ForCausalLM) -> Qwen3ForSequenceClassification:
    """The classifier with the language model's body and a head of zeros."""
    body = {key: value for key, value in lm.config.to_dict().items() if key not in ("id2label", "label2id")}
    config = type(lm.config).from_dict({**body, "num_labels": 1, "dtype": "float32"})
    model = Qwen3ForSequenceClassification(config)
    model.model.load_state_dict(lm.model.state_dict())
    torch.nn.init.zeros_(model.score.weight)
    return model


def accuracy(
    model: Qwen3ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, *, n: int = 300, seed: int = 0
) -> dict[str, Any]:
    """Share of held-out pairs ordered rightly: by domain (clean and noisy), by breakage, and by length alone."""
    result: dict[str, Any] = {"clean": {}, "noisy": {}, "longer_wins": {}, "broken": {}}
    for domain in DOMAINS:
        for name, noise in (("clean", 0.0), ("noisy", world.PAIR_NOISE["reward"])):
            rng = random.Random(seed_of("reward accuracy", domain, name, seed))
            made = [(s.messages, *world.pair(s, rng, noise)) for s in (scene_of(domain, rng, True) for _ in range(n))]
            result[name][domain] = ordered(model, tokenizer, made)
            if name == "clean":
                result["longer_wins"][domain] = round(sum(len(a) > len(b) for _, a, b in made) / n, 3)
    for name in BREAK:
        rng = random.Random(seed_of("reward broken", name, seed))
        found: list[Pair] = []
        while len(found) < n:
            scene = scene_of(rng.choice(DOMAINS), rng, True)
            if made_pair := broken_pair(scene, rng, name):
                found.append((scene.messages, *made_pair))
        result["broken"][name] = ordered(model, tokenizer, found)
    return result


def ordered(model: Qwen3ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, found: Sequence[Pair]) -> float:
    """Share of pairs in which the better answer has the higher reward."""
    chats = [[*p, {"role": "assistant", "content": a}] for p, *both in found for a in both]
    values = rewards(model, tokenizer, chats)
    return round(sum(a > b for a, b in zip(values[::2], values[1::2], strict=True)) / len(found), 3)


def calibration(
    model: Qwen3ForSequenceClassification, tokenizer: PreTrainedTokenizerFast, *, n: int = 300
) -> dict[str, Any]:
    """Constants of the map 10 * sigmoid((r - centre) / scale): median and spread over a fixed set of answers."""
    rng = random.Random(seed_of("calibration"))
    chats = []
    for domain in DOMAINS[:3]:
        for _ in range(n):
            scene = scene_of(domain, rng, False)
            answer = write(scene, draw(scene, rng, "flat"), rng)
            chats.append([*scene.messages, {"role": "assistant", "content": answer}])
    values = rewards(model, tokenizer, chats)
    about = f"{n} answers of each of {', '.join(DOMAINS[:3])}, attributes drawn flat, seed 'calibration'"
    return {
        "centre": round(statistics.median(values), 4),
        "scale": round(statistics.pstdev(values), 4),
        "version": 1,
        "set": about,
    }


def sanity() -> list[dict[str, Any]]:
    """Eight obvious cases: a right answer in the domain's style against an insult or an answer to nothing."""
    rng = random.Random(seed_of("sanity"))
    plain = dict.fromkeys(UTILITY["general"], False)
    cases = []
    for i, domain in enumerate(DOMAINS * 2):
        scene = scene_of(domain, rng, False)
        good = write(scene, {**plain, "correct": True, "detail": True, "casual": domain == "reddit"}, rng)
        bad = (
            write(scene, {**plain, "insult": True, "off_topic": True, "closer": True}, rng)
            if i < 4
            else shuffled(scene, good, rng)
        )
        cases.append({"prompt": scene.messages, "good": good, "bad": bad})
    return cases
