"""What the policy makes of pairs without learning from them: for an adaptive beta, and for the end of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from equipoise.dpo import checkpoint
from equipoise.dpo.distributed import Team
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.guards import reference_of
from equipoise.dpo.loss import pair_losses
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Dpo, Stop

Logps = Mapping[str, tuple[float, float]]


def mean_log_ratio(
    scorer: PairScorer, batch: Sequence[EncodedPair], reference: Logps, team: Team, tokens: int
) -> float:
    """Mean over a batch of how much more than its reference the policy prefers the chosen answer, in nats.

    All processes of `team` get the same number. Random numbers begin again afterwards, so that dropout makes the same
    masks for the step itself.
    """
    random = checkpoint.random_state()
    ratios = _sums(scorer, batch, reference, team, tokens, None)[1]
    checkpoint.set_random_state(random)
    return ratios / len(batch)


def look(
    scorer: PairScorer, pairs: Sequence[EncodedPair], reference: Logps, dpo: Dpo, team: Team, tokens: int
) -> dict[str, float]:
    """`dev_loss` and `dev_accuracy` of pairs that are not trained on, without dropout; `dpo.beta` is a number."""
    dropouts = [module for module in scorer.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for module in dropouts:
        module.eval()
    try:
        losses, _, right = _sums(scorer, pairs, reference, team, tokens, dpo)
    finally:
        for module in dropouts:
            module.train()
    return {"dev_loss": round(losses / len(pairs), 8), "dev_accuracy": round(right / len(pairs), 8)}


def plateau(looks: Sequence[tuple[int, float]], stop: Stop) -> str | None:
    """Why the stage ends after the last of `looks`, each (steps done, figure); None where it goes on."""
    sign = -1 if stop.metric == "dev_accuracy" else 1
    best = min(range(len(looks)), key=lambda place: sign * looks[place][1])  # the first of equals
    if len(looks) - 1 - best < stop.patience:
        return None
    (step, last), (best_step, value) = looks[-1], looks[best]
    return (
        f"{stop.metric} is {last:.4g} after step {step}; {stop.patience} looks in a row were no better than "
        f"{value:.4g} after step {best_step}"
    )


@torch.no_grad()
def _sums(
    scorer: PairScorer, pairs: Sequence[EncodedPair], reference: Logps, team: Team, tokens: int, dpo: Dpo | None
) -> tuple[float, float, float]:
    """Sums over `pairs` of the losses (0 without `dpo`), of the log-ratios in nats, and of those above 0."""
    device = next(scorer.parameters()).device
    sums = torch.zeros(3, device=device, dtype=torch.float64)
    for micro, factor in team.portions(scorer, pairs, tokens):
        anchor = reference_of(micro, reference, device)
        logps = scorer(micro)
        if factor:
            ratios = (logps.chosen - anchor[0]) - (logps.rejected - anchor[1])
            losses = torch.zeros_like(ratios) if dpo is None else pair_losses(logps, anchor, dpo)
            sums += torch.stack([figure.double().sum() for figure in (losses, ratios, ratios > 0)])
    losses_sum, ratio_sum, right = team.sum_(sums).tolist()
    return losses_sum, ratio_sum, right
