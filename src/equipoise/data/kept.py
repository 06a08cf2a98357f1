"""A built and cleaned source as one file of the store, read back as it was in a fraction of a second.

The file is a Parquet table whose prompts are JSON texts (nested columns take ten times as long to read); what was
counted stands in its metadata. The store vouches for the bytes, so pairs are not hashed again.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow
import pyarrow.parquet

from equipoise.data.ledger import SourceLine, source_line_of, with_pairs
from equipoise.data.mix import draw_order
from equipoise.records import Message, Pair, content_id

_COLUMNS = ("chosen", "rejected", "group", "score_gap", "reward_gap")
_LINE = b"equipoise.line"


@dataclass(frozen=True)
class Pool:
    """The clean pairs of a source, those that are held out of training, and the ledger's line.

    Of a source that generates they are drafts, without answers, until a model has answered. `left_out` are the places,
    in the source as it was gathered, of pairs that other sources took away. `in_order`: the pairs are drawn as they
    stand, since their questions were shuffled before they were answered.
    """

    pairs: list[Pair]
    held_out: list[Pair]
    line: SourceLine
    left_out: frozenset[int] = frozenset()
    in_order: bool = False

    def without(self, reasons: Sequence[str | None]) -> Pool:
        """The pool without the pairs that have a reason (one for each pair), which the ledger's line then counts."""
        counts = Counter(reason for reason in reasons if reason)
        if not counts:
            return self
        places = [place for place in range(len(self.pairs) + len(self.left_out)) if place not in self.left_out]
        gone = {place for place, reason in zip(places, reasons, strict=True) if reason}
        pairs = [pair for pair, reason in zip(self.pairs, reasons, strict=True) if not reason]
        line = replace(self.line, cleaned=dict(Counter(self.line.cleaned) + counts))
        return replace(self, pairs=pairs, line=with_pairs(line, pairs), left_out=self.left_out | gone)

    def order(self, *, seed: int, stage: str, source: str) -> list[int]:
        """The places of the pairs in the order in which a stage draws them.

        All places of the source as it was gathered are shuffled and those left out are passed over, so that what other
        sources take away does not change the order of the rest.
        """
        if self.in_order:
            return list(range(len(self.pairs)))
        every = len(self.pairs) + len(self.left_out)
        here = {place: here for here, place in enumerate(place for place in range(every) if place not in self.left_out)}
        shuffled = draw_order(every, seed=seed, stage=stage, source=source)
        return [here[place] for place in shuffled if place in here]


def held_out_groups(pairs: Iterable[Pair], share: float) -> frozenset[str]:
    """Groups that are kept out of training: `share` of those of a source as it was read, rounded, by a fixed hash of
    their names, so that neither cleaning nor what else a recipe asks for moves a group from one side to the other."""
    groups = {pair.group for pair in pairs}
    ranked = sorted(groups, key=lambda group: (content_id(["held out", group]), group))
    return frozenset(ranked[: round(share * len(ranked))])


def pack(pool: Pool) -> bytes:
    """The pool as bytes."""
    pairs = [*pool.pairs, *pool.held_out]
    columns: dict[str, Any] = {name: [getattr(pair, name) for pair in pairs] for name in _COLUMNS}
    types = {name: pyarrow.float64() if name.endswith("gap") else pyarrow.string() for name in _COLUMNS}
    arrays = {name: pyarrow.array(values, types[name]) for name, values in columns.items()}
    arrays["prompt"] = pyarrow.array([_prompt_text(pair) for pair in pairs], pyarrow.string())
    arrays["held_out"] = pyarrow.array([False] * len(pool.pairs) + [True] * len(pool.held_out))
    table = pyarrow.table(arrays).replace_schema_metadata({_LINE: json.dumps(asdict(pool.line))})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd", use_dictionary=["group"])
    return buffer.getvalue()


def unpack(data: bytes, *, source: str, domain: str) -> Pool:
    """The pool that `pack` made; `source` and `domain` are those of the recipe."""
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    line = source_line_of(json.loads(table.schema.metadata[_LINE]))
    columns = [table.column(name).to_pylist() for name in ("prompt", *_COLUMNS)]
    pairs = [
        Pair(_messages(prompt), chosen, rejected, domain, source, group, score, reward)
        for prompt, chosen, rejected, group, score, reward in zip(*columns, strict=True)
    ]
    held_out = table.column("held_out").to_pylist()
    return Pool(_where(pairs, held_out, False), _where(pairs, held_out, True), line)


def _prompt_text(pair: Pair) -> str:
    return json.dumps([[message.role, message.content] for message in pair.prompt], ensure_ascii=False)


def _messages(text: str) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in json.loads(text))


def _where(pairs: Sequence[Pair], flags: Sequence[bool], wanted: bool) -> list[Pair]:
    return [pair for pair, flag in zip(pairs, flags, strict=True) if flag is wanted]
