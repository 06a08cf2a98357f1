"""Cleaning: exact and near duplicates, and what the evaluation will ask. Pure; every drop has a counted reason.

Near duplicates: two pairs are near duplicates when their prompts, their chosen and their rejected answers are all
near each other (`data/near.py`). All three, because prompts share templates and documents: another question about the
same table, or another preference for the same prompt, is a pair of its own. Of two near duplicates the first stays.
What touches the evaluation stands in `data/overlap.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from equipoise.data.near import near_duplicates
from equipoise.data.overlap import Overlap
from equipoise.records import Pair

EXACT = "exact duplicate"
EVALUATED_GROUP = "group of the evaluation"
NEAR_DUPLICATE = "near duplicate"
Progress = Callable[[str, int, int], None]


def clean(
    pairs: Sequence[Pair],
    *,
    evaluation_texts: Sequence[str],
    evaluated_groups: frozenset[str] = frozenset(),
    overlap: Overlap | None = None,
    progress: Progress | None = None,
) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs that may be trained on, in their order, and how many went for which reason.

    `evaluation_texts` are the texts that no pair may touch; a caller that cleans several times gives none and their
    `overlap`, made once. `evaluated_groups` names the groups (posts, documents) that the evaluation asks about in the
    domain of these pairs. A draft, a pair that lacks an answer, is judged by the texts it has. `progress` takes (what
    is being done, done, all). Raises ValueError where both texts and `overlap` are given.
    """
    if overlap is not None and evaluation_texts:
        raise ValueError("give either evaluation_texts or overlap")
    reasons: Counter[str] = Counter()
    kept = _first_of_each(pairs)
    reasons[EXACT] = len(pairs) - len(kept)
    apart = [pair for pair in kept if pair.group not in evaluated_groups]
    reasons[EVALUATED_GROUP] = len(kept) - len(apart)
    checker = overlap or Overlap(evaluation_texts)
    found = checker.reasons(apart, progress=_labelled(progress, "looking for texts of the evaluation"))
    reasons.update(reason for reason in found if reason is not None)
    clear = [pair for pair, reason in zip(apart, found, strict=True) if reason is None]
    twins = near_duplicates(list(map(_document, clear)), progress=_labelled(progress, "looking for near duplicates"))
    distinct = [pair for pair, twin in zip(clear, twins, strict=True) if twin is None]
    reasons[NEAR_DUPLICATE] = len(clear) - len(distinct)
    return distinct, {reason: count for reason, count in sorted(reasons.items()) if count}


def _first_of_each(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without those whose prompt and answers came before, from whatever source."""
    first: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.prompt, pair.chosen, pair.rejected), pair)
    return list(first.values())


def _document(pair: Pair) -> tuple[str, ...]:
    """What decides whether two pairs are near: both answers, the last question, and what was said before it.

    The last question is a part of its own, or a short one would drown in a long dialogue.
    """
    *before, last = (message.content for message in pair.prompt)
    return pair.chosen, pair.rejected, "\n".join(before), last


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(label, done, total)
