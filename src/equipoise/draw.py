"""One stage's draw: pairs become token ids as the mix needs them, and get their place in a curriculum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from equipoise.data import ledger as ledgers
from equipoise.data.ledger import StageLedger
from equipoise.data.mix import expected_gradient, mix, shortfall
from equipoise.dpo.loss import PER_TOKEN
from equipoise.model.chat import EncodedPair, Tokenizer, encode_pair, prompt_ids
from equipoise.model.reward import Reward
from equipoise.recipe import Stage
from equipoise.records import InputError, Message, Pair

Encode = Callable[[Pair], EncodedPair | str]


@dataclass(frozen=True)
class StageData:
    """What one stage trains on: pairs and their token ids, in the same order.

    `easiness` of each pair is what the stage's curriculum orders by; None where there is no curriculum, or where the
    reference will say it (`by: margin`).
    """

    pairs: list[Pair]
    encoded: list[EncodedPair]
    easiness: list[float] | None = None


class Encoder:
    """Pairs as the token ids of a stage, each encoded once.

    Drafts, whose answers are not generated yet, get answers of `assumed` tokens (by source) in their place.
    """

    def __init__(self, tokenizer: Tokenizer, stage: Stage, *, thinking: bool, assumed: Mapping[str, int]) -> None:
        self._tokenizer, self._dpo, self._thinking, self._assumed = tokenizer, stage.dpo, thinking, assumed
        self._known: dict[Pair, EncodedPair | str] = {}

    def __call__(self, pair: Pair) -> EncodedPair | str:
        """The encoded pair, or the reason why it cannot be trained on."""
        if pair not in self._known:
            self._known[pair] = self._as_assumed(pair) if pair.source in self._assumed else self._encode(pair)
        return self._known[pair]

    def _encode(self, pair: Pair) -> EncodedPair | str:
        return encode_pair(
            self._tokenizer,
            pair,
            max_length=self._dpo.max_length,
            max_prompt_length=self._dpo.max_prompt_length,
            thinking=self._thinking,
        )

    def _as_assumed(self, draft: Pair) -> EncodedPair:
        prompt = prompt_ids(self._tokenizer, draft.prompt, thinking=self._thinking)
        cut = max(0, len(prompt) - self._dpo.max_prompt_length)
        prompt = prompt[cut:]
        filler = (self._tokenizer.eos_token_id,) * min(self._assumed[draft.source], self._dpo.max_length - len(prompt))
        return EncodedPair(draft.id, draft.source, draft.domain, tuple(prompt), filler, filler, cut)


def draw_stage(
    stage: Stage, pools: Mapping[str, Sequence[Pair]], encode: Encode, *, seed: int
) -> tuple[StageData, StageLedger]:
    """Draw a stage's mix from the pairs that can be encoded, so that what is drawn is what is trained on."""
    unusable: dict[str, Counter[str]] = {name: Counter() for name in stage.mix.sources}

    def usable(pair: Pair) -> bool:
        result = encode(pair)
        if isinstance(result, str):
            unusable[pair.source][result] += 1
        return not isinstance(result, str)

    mixture = mix(pools, stage.mix, seed=seed, stage=stage.name, usable=usable, size=_sizes(stage, encode))
    rows = [replace(_encoded(encode, pair), source=pair.source) for pair in mixture.pairs]
    line = ledgers.encoded(
        ledgers.stage_ledger(mixture, epochs=stage.optim.epochs), unusable, rows, max_length=stage.dpo.max_length
    )
    return StageData(list(mixture.pairs), rows), line


def short_sources(stage: Stage, pools: Mapping[str, Sequence[Pair]], encode: Encode, *, seed: int) -> dict[str, int]:
    """Pairs that a stage asks of each source that has fewer usable ones."""

    def usable(pair: Pair) -> bool:
        return not isinstance(encode(pair), str)

    return shortfall(pools, stage.mix, seed=seed, stage=stage.name, usable=usable, size=_sizes(stage, encode))


def _sizes(stage: Stage, encode: Encode) -> Callable[[Pair], float]:
    """What a stage's shares are shares of, for each pair."""

    def size(pair: Pair) -> float:
        row = _encoded(encode, pair)
        if stage.mix.by == "tokens":
            return len(row.chosen) + len(row.rejected)
        return expected_gradient(len(row.chosen), len(row.rejected), per_token=stage.dpo.loss in PER_TOKEN)

    return size


def _encoded(encode: Encode, pair: Pair) -> EncodedPair:
    result = encode(pair)
    assert not isinstance(result, str)  # the mix holds usable pairs only
    return result


def with_easiness(stage: Stage, data: StageData, judge: Callable[[None], Reward] | None) -> StageData:
    """The data with what the stage's curriculum orders by, where that is known before the reference is.

    `by: reward_gap` asks the recipe's reward model (`judge(None)`) about pairs that no reward model ranked; without a
    judge the easiness stays unknown. Raises InputError where a source gives no scores to order by.
    """
    if isinstance(stage.order, str) or stage.order.by == "margin":
        return data
    if stage.order.by == "length":
        return replace(data, easiness=[-float(row.tokens - len(row.prompt)) for row in data.encoded])
    if stage.order.by == "reward_gap":
        return replace(data, easiness=_reward_gaps(data.pairs, judge)) if judge else data
    gaps = [pair.score_gap for pair in data.pairs]
    without = Counter(pair.source for pair in data.pairs if pair.score_gap is None)
    if without:
        raise InputError(
            f"stages.{stage.name}.order: by score_gap: source {', '.join(without)} gives no scores; use margin, "
            "reward_gap or length"
        )
    return replace(data, easiness=[gap for gap in gaps if gap is not None])


def _reward_gaps(pairs: Sequence[Pair], judge: Callable[[None], Reward]) -> list[float]:
    missing = list(dict.fromkeys(pair for pair in pairs if pair.reward_gap is None))
    asked: list[tuple[tuple[Message, ...], str]] = [
        (pair.prompt, answer) for pair in missing for answer in (pair.chosen, pair.rejected)
    ]
    rewards = judge(None).score(asked) if asked else []
    found: dict[Pair, float] = {}
    for pair, better, worse in zip(missing, rewards[::2], rewards[1::2], strict=True):
        # An answer that the reward model cannot take tells nothing about the pair: neither easy nor hard.
        found[pair] = 0.0 if isinstance(better, str) or isinstance(worse, str) else better - worse
    return [found[pair] if pair.reward_gap is None else pair.reward_gap for pair in pairs]
