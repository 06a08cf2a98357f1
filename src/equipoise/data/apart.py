"""Which pairs of a stage are set apart, to see by them when it should end. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.records import Pair, content_id


def set_apart(pairs: Sequence[Pair], share: float, *, seed: int, stage: str) -> set[int]:
    """Places of the pairs that are not trained on: `share` of the groups of each source, to the nearest group.

    Groups are ranked by a hash of the seed, the stage and their name. A group is never divided, and both sides have one
    of every source that has two. Empty where no source has two groups.
    """
    chosen: set[str] = set()
    for source in sorted({pair.source for pair in pairs}):
        groups = sorted(
            {pair.group for pair in pairs if pair.source == source},
            key=lambda group: (content_id(["set apart", seed, stage, group]), group),
        )
        if len(groups) > 1:
            chosen.update(groups[: min(max(1, round(share * len(groups))), len(groups) - 1)])
    return {place for place, pair in enumerate(pairs) if pair.group in chosen}
