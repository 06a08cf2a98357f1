"""Several reward models together: the mean of their rewards, each in its own calibrated units, and how far they differ.

Raw rewards of different models have different units, so each is first put as z = (raw - centre) / scale of its own
map. The value of a conversation is the mean of its z. The spread of the z around it says how far the graders disagree:
where it is as large as the differences that are looked for, the reward is one grader's taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

import torch

from equipoise.model.calibration import Calibration, calibration_set
from equipoise.model.generate import Progress
from equipoise.model.load import classifier_identity
from equipoise.model.reward import VERSION, Conversation, RewardModel
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, chat, content_id
from equipoise.store import Store


class RewardEnsemble:
    """Reward models that grade together; a `Reward`.

    All are loaded at the same time. A conversation that one of them cannot score is unscored, with that one's reason:
    a mean over fewer models would be in other units.

    Raises InputError where two members have the same content.
    """

    def __init__(self, members: Sequence[RewardModel]) -> None:
        self.members = tuple(members)
        for place, member in enumerate(self.members):
            for other in self.members[:place]:
                if member.loaded.identity == other.loaded.identity:
                    raise InputError(
                        f"reward.also: {member.spec.id} is the same model as {other.spec.id}; name it once"
                    )
        self.calibration = Calibration(source="members")
        self._known: dict[str, list[float] | str] = {}

    @property
    def identity(self) -> str:
        """Identity of all members' contents and calibrations."""
        return content_id(["ensemble", *(member.identity for member in self.members)])

    def require_sanity(self) -> None:
        """Check every member, each as its own `sanity` says."""
        for member in self.members:
            member.require_sanity()

    def score(self, conversations: Sequence[Conversation], progress: Progress | None = None) -> list[float | str]:
        """Return for each conversation the mean z of the members, or the reason of the first that cannot score it."""
        every = self._rewards(conversations, progress)
        return [rewards if isinstance(rewards, str) else fmean(self._units(rewards)) for rewards in every]

    def details(self, conversations: Sequence[Conversation]) -> list[dict[str, float]]:
        """Return for each conversation the members' raw rewards and how far they differ; nothing for one without.

        `reward_1`, `reward_2`, ... are in the recipe's order. `disagreement` is the standard deviation of the members'
        z around their mean: of these models (divided by their number), with no claim about others.
        """
        return [
            {}
            if isinstance(rewards, str)
            else {
                **{f"reward_{place}": reward for place, reward in enumerate(rewards, 1)},
                "disagreement": pstdev(self._units(rewards)),
            }
            for rewards in self._rewards(conversations, None)
        ]

    def record(self) -> dict[str, Any]:
        """Return `{"members": [{id, revision, centre, scale, source, version, n}]}`, one for each member."""
        return {"members": [one for member in self.members for one in member.record()["members"]]}

    def _units(self, rewards: Sequence[float]) -> list[float]:
        return [member.calibration.units(reward) for member, reward in zip(self.members, rewards, strict=True)]

    def _rewards(self, conversations: Sequence[Conversation], progress: Progress | None) -> list[list[float] | str]:
        """Raw rewards of all members for each conversation, or a reason; each is asked for once."""
        keys = [content_id([chat(tuple(messages)), answer]) for messages, answer in conversations]
        new = {key: one for key, one in zip(keys, conversations, strict=True) if key not in self._known}
        if new:
            columns = [
                member.score(list(new.values()), _part(progress, place, len(self.members)))
                for place, member in enumerate(self.members)
            ]
            self._known |= {key: _whole(row) for key, row in zip(new, zip(*columns, strict=True), strict=True)}
        return [self._known[key] for key in keys]


def _whole(row: Sequence[float | str]) -> list[float] | str:
    """The rewards of one conversation, or the first reason among them."""
    numbers = [reward for reward in row if not isinstance(reward, str)]
    return numbers if len(numbers) == len(row) else next(reward for reward in row if isinstance(reward, str))


def _part(progress: Progress | None, place: int, parts: int) -> Progress | None:
    """Progress of one of several equal parts, as progress of the whole."""
    return (lambda done, total: progress(place * total + done, parts * total)) if progress else None


def open_reward(
    spec: RewardSpec, *, store: Store | None = None, device: torch.device | None = None
) -> RewardModel | RewardEnsemble:
    """Load the reward model that a recipe names, or all of them where it names several under `also`."""
    members = [RewardModel(member, store=store, device=device) for member in spec.members]
    return RewardEnsemble(members) if len(members) > 1 else members[0]


def calibrate(spec: RewardSpec, *, store: Store | None = None, device: torch.device | None = None) -> Calibration:
    """The map of the one model `spec.id`; the calibration set is scored where there is no map yet."""
    return RewardModel(spec, store=store, device=device).calibration


def reward_identity(spec: RewardSpec, device: torch.device) -> str:
    """Identity of all that rewards and their 0-10 values depend on, without loading a model."""
    version, _ = calibration_set()
    return content_id([VERSION, version, [classifier_identity(member, device) for member in spec.members]])
