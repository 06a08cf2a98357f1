"""Sensible values for a first experiment, by the number of pairs, their lengths and the size of the model. Pure.

They are where people start from, not where they end: `equipoise search` finds better ones, on dev items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equipoise.records import Pair

MOST_PAIRS = 2000
"""Pairs of a first experiment where nothing is said: enough to see an effect, and soon done."""
GENERAL_SHARE = 0.3
"""Share of the mix that general data get where there is enough of them."""
LEAST_SHARE = 0.1
LENGTHS = (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""What `max_length` and `max_prompt_length` are chosen from, in tokens."""
BYTES_PER_TOKEN = 3.5
"""Of text in UTF-8, where no tokenizer is at hand; about 4 in English, less in code and tables."""
COVERED = 0.97
"""Share of the pairs that are to fit without a cut."""
LIMITS = {"tatqa": 250, "mt_bench": 80, "finance_instruct": 200, "reddit": 200, "ifeval": 200}
"""Items of a task: more can be seen with more, and takes longer."""
MARGINS = {"tatqa": 0.03, "ifeval": 0.03, "mt_bench": 0.2, "finance_instruct": 0.2, "reddit": 0.2}
"""How much a domain may lose: exact matches in shares, the others in units of raw reward."""
LONGEST = {"tatqa": 64, "mt_bench": 512, "finance_instruct": 512, "reddit": 256, "ifeval": 1024}
"""Longest answer of a task in tokens."""
_RATES = ((20_000_000, 1e-3), (300_000_000, 5e-5), (1_000_000_000, 2e-5), (4_000_000_000, 1e-5))


@dataclass(frozen=True)
class Training:
    """How a stage is trained."""

    learning_rate: float
    beta: float
    epochs: int
    batch_size: int
    rank: int


def training(pairs: int, parameters: int | None) -> Training:
    """Values for a mix of so many pairs and a model of so many parameters (None: a middling one).

    A small model bears a higher rate; few pairs need more passes, smaller batches (some 20 steps at least) and a
    stronger pull towards the reference, or they are learned by heart.
    """
    rate = next((rate for most, rate in _RATES if (parameters or 2_000_000_000) < most), 5e-6)
    epochs = 1 if pairs >= 500 else 2 if pairs >= 150 else 3
    fitting = [size for size in (4, 8, 16, 32, 64) if pairs * epochs >= 20 * size]
    return Training(
        learning_rate=rate,
        beta=0.1 if pairs >= 300 else 0.2,
        epochs=epochs,
        batch_size=fitting[-1] if fitting else 4,
        rank=16 if pairs >= MOST_PAIRS else 8,
    )


def hold_out(pairs: int) -> float:
    """Share of the groups that is kept out of training for the evaluation: about 400 pairs, 10 to 30 %."""
    return 0.3 if pairs < 300 else 0.2 if pairs < 2000 else 0.1


def margin(items: int, dev_share: float) -> float:
    """How much of a preference accuracy may be lost: 0.05, or where there are few items what they can just tell.

    A hit or miss has a standard deviation of 0.5 at most, so the half interval on n items is 1 / sqrt(n).
    """
    dev = max(1, round(items * dev_share))
    return min(0.25, max(0.05, math.ceil(100 / math.sqrt(dev)) / 100))


def mix(available: Mapping[str, int], general: str | None, wanted: int | None) -> tuple[int, dict[str, float]]:
    """Pairs in all and the share of each source; `general` names the source that holds the other abilities.

    Where nothing is asked, the mix takes as many pairs as every source has for its share, `MOST_PAIRS` at most.
    """
    own = {name: count for name, count in available.items() if name != general}
    rest = 1.0
    shares: dict[str, float] = {}
    if general is not None:
        part = available[general] / max(1, sum(available.values()))
        shares[general] = round(min(GENERAL_SHARE, max(LEAST_SHARE, part)), 2)
        rest -= shares[general]
    names = list(own)
    for name in names[1:]:
        shares[name] = round(max(0.01, rest * own[name] / max(1, sum(own.values()))), 2)
    shares[names[0]] = round(1.0 - sum(shares.values()), 2)
    most = min(int(available[name] / share) for name, share in shares.items())
    return wanted or max(len(names), min(MOST_PAIRS, most)), {name: shares[name] for name in available}


def lengths(
    pairs: Sequence[Pair], bytes_per_token: float, answer_tokens: int | None, positions: int | None
) -> tuple[int, int]:
    """`max_length` and `max_prompt_length` that hold most pairs whole, within the positions of the model.

    `answer_tokens` is the longest answer where a model is still to write it.
    """
    prompts = [_bytes("".join(message.content for message in pair.prompt)) for pair in pairs]
    answers = [max(_bytes(pair.chosen), _bytes(pair.rejected)) for pair in pairs]
    prompt = _step(_quantile(prompts) / bytes_per_token + 32)  # 32 for the turns of the chat template
    answer = _step(max(answer_tokens or 0, _quantile(answers) / bytes_per_token) + 8)
    whole = min(_step(prompt + answer), positions or LENGTHS[-1])
    return whole, min(prompt, whole * 3 // 4)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _quantile(sizes: Sequence[int]) -> int:
    return sorted(sizes)[min(len(sizes) - 1, int(COVERED * len(sizes)))] if sizes else 0


def _step(tokens: float) -> int:
    return next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
