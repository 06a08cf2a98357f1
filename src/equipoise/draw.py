"""One stage's draw: pairs become token ids as the mix needs them, and get their place in a curriculum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from equipoise.data import ledger as ledgers
from equipoise.data import replay
from equipoise.data.kept import Pool
from equipoise.data.ledger import StageLedger
from equipoise.data.mix import expected_gradient, mix, shortfall
from equipoise.dpo.loss import PER_TOKEN
from equipoise.model.chat import EncodedPair, Tokenizer, encode_pair, prompt_ids
from equipoise.model.reward import Reward
from equipoise.pools import told_what_was_dropped
from equipoise.recipe import Source, Stage
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


def draw_stage(stage: Stage, pools: Mapping[str, Pool], encode: Encode, *, seed: int) -> tuple[StageData, StageLedger]:
    """Draw a stage's mix from the pairs that can be encoded, so that what is drawn is what is trained on.

    Raises InputError where a source is short, with what was unusable of it.
    """
    unusable: dict[str, Counter[str]] = {name: Counter() for name in stage.mix.sources}

    def usable(pair: Pair) -> bool:
        result = encode(pair)
        if isinstance(result, str):
            unusable[pair.source][result] += 1
        return not isinstance(result, str)

    pairs, orders = _pairs_and_orders(stage, pools, seed)
    size = _sizes(stage, encode)
    try:
        mixture = mix(pairs, stage.mix, seed=seed, stage=stage.name, usable=usable, size=size, orders=orders)
    except InputError as error:
        said = [
            f"stage {stage.name}: source {name}: unusable: " + ", ".join(f"{why}: {n}" for why, n in reasons.items())
            for name, reasons in unusable.items()
            if reasons and f"source {name}:" in str(error)
        ]
        raise InputError("\n".join([str(error), *said])) from None
    mixture = replace(mixture, pairs=tuple(flipped(mixture.pairs, stage.flipped)))
    rows = [replace(_encoded(encode, pair), source=pair.source) for pair in mixture.pairs]
    line = ledgers.encoded(
        ledgers.stage_ledger(mixture, epochs=stage.optim.epochs), unusable, rows, max_length=stage.dpo.max_length
    )
    return StageData(list(mixture.pairs), rows), line


def flipped(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """The pairs in their order, a share of them with chosen and rejected exchanged.

    Which ones is decided by their content, so that a pair changes whatever stage draws it, and a larger share changes
    the same pairs and more. The gaps stay: they say how far apart the answers are.
    """
    return [
        replace(pair, chosen=pair.rejected, rejected=pair.chosen)
        if int(pair.id, 16) < share * 16 ** len(pair.id)
        else pair
        for pair in pairs
    ]


def draw_replay(
    stage: Stage, own: StageData, earlier: Sequence[Pair], encode: Encode, *, seed: int, planned: bool
) -> tuple[StageData, StageLedger]:
    """A stage's data with pairs of earlier stages beside its own, and the lines of what is replayed.

    `earlier` are the pairs that kept earlier stages were trained on; `planned`: all are assumed to be kept.
    """
    unusable: dict[str, Counter[str]] = {}

    def usable(pair: Pair) -> bool:
        result = encode(pair)
        if isinstance(result, str):
            unusable.setdefault(f"{pair.source}{replay.MARK}", Counter())[result] += 1
        return not isinstance(result, str)

    assert stage.replay is not None
    drawn = replay.draw(own.pairs, earlier, stage.replay, seed=seed, stage=stage.name, usable=usable, planned=planned)
    originals = [replace(pair, source=pair.source.removesuffix(replay.MARK)) for pair in drawn.pairs]
    rows = [
        replace(_encoded(encode, original), source=pair.source)
        for original, pair in zip(originals, drawn.pairs, strict=True)
    ]
    line = ledgers.encoded(
        ledgers.stage_ledger(drawn, epochs=stage.optim.epochs), unusable, rows, max_length=stage.dpo.max_length
    )
    return StageData([*own.pairs, *drawn.pairs], [*own.encoded, *rows]), line


def _pairs_and_orders(
    stage: Stage, pools: Mapping[str, Pool], seed: int
) -> tuple[dict[str, list[Pair]], dict[str, list[int]]]:
    """The pairs of a stage's sources, and in which order the stage draws them."""
    mine = {name: pools[name] for name in stage.mix.sources}
    orders = {name: pool.order(seed=seed, stage=stage.name, source=name) for name, pool in mine.items()}
    return {name: pool.pairs for name, pool in mine.items()}, orders


def require_enough(stage: Stage, pools: Mapping[str, Pool], sources: Mapping[str, Source], *, seed: int) -> None:
    """Raises InputError where a stage is sure to be short, be all drafts usable pairs; `sources` are the recipe's.

    Where shares are not of pairs, lengths decide how many pairs each source gives: only their sum is known.
    """
    spec = stage.mix
    pairs, orders = _pairs_and_orders(stage, pools, seed)
    with told_what_was_dropped({name: pool.line for name, pool in pools.items()}, sources):
        if spec.by == "pairs":
            mix(pairs, spec, seed=seed, stage=stage.name, orders=orders)
            return
        there, wanted = sum(map(len, pairs.values())), spec.pairs or 0
        empty = [name for name, share in (spec.shares or {}).items() if share and not pairs[name]]
        if empty or (there < wanted and spec.when_short == "fail"):
            parts = ", ".join(f"source {name}: {len(pairs[name])}" for name in empty or pairs)
            raise InputError(
                f"stage {stage.name}: {wanted} pairs asked, {there} available ({parts}); ask for fewer, give the "
                "sources more rows, or set `when_short: shrink` or `repeat`"
            )


def short_sources(stage: Stage, pools: Mapping[str, Pool], encode: Encode, *, seed: int) -> dict[str, int]:
    """Pairs that a stage asks of each source that has fewer usable ones."""

    def usable(pair: Pair) -> bool:
        return not isinstance(encode(pair), str)

    pairs, orders = _pairs_and_orders(stage, pools, seed)
    size = _sizes(stage, encode)
    return shortfall(pairs, stage.mix, seed=seed, stage=stage.name, usable=usable, size=size, orders=orders)


def in_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of tokens in pieces that join to it: one token each, or several that only together end a character."""
    whole = tokenizer.decode(list(ids))
    pieces: list[str] = []
    at, before, start = 0, 0, 0  # characters told; tokens from `before` to `start` are those of the last piece
    for end in range(1, len(ids) + 1):
        # With the last piece in front: some tokenizers drop the space with which a text begins.
        context = tokenizer.decode(list(ids[before:start]))
        piece = tokenizer.decode(list(ids[before:end])).removeprefix(context)
        if piece and whole.startswith(piece, at):
            pieces.append(piece)
            at, before, start = at + len(piece), start, end
    return [*pieces, whole[at:]] if at < len(whole) else pieces


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
