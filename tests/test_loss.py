"""Losses: worked numbers by hand, and TRL as an oracle."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from equipoise.dpo.loss import LOSSES, PER_TOKEN

PC, PR, RC, RR = (torch.tensor([value], dtype=torch.float64) for value in (-10.0, -14.0, -11.0, -12.0))
LENGTHS = {"chosen_tokens": torch.tensor([5.0]), "rejected_tokens": torch.tensor([4.0])}


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_by_hand() -> None:
    """Chosen ratio = -10 + 11 = 1, rejected ratio = -14 + 12 = -2, difference 3; beta 0.1.

    Per token: chosen 1/5 = 0.2, rejected -2/4 = -0.5, difference 0.7; log-probs -10/5 = -2, -14/4 = -3.5.
    """
    odds = -2 - math.log(1 - math.exp(-2)) - (-3.5 - math.log(1 - math.exp(-3.5)))
    expected = {
        "sigmoid": -log_sigmoid(0.3),
        "hinge": 1 - 0.3,
        "ipo": (0.7 - 5.0) ** 2,
        "robust": (-0.8 * log_sigmoid(0.3) + 0.2 * log_sigmoid(-0.3)) / 0.6,
        "sigmoid_norm": -log_sigmoid(0.07),
        "simpo": -log_sigmoid(0.1 * 1.5 - 0.5),
        "orpo": 2 - 0.1 * log_sigmoid(odds),
        "apo_zero": 1 - 1 / (1 + math.exp(-0.1)) + 1 / (1 + math.exp(0.2)),
        "apo_down": 1 / (1 + math.exp(-0.1)) + 1 - 1 / (1 + math.exp(-0.3)),
        "dpop": -log_sigmoid(0.3),
    }
    assert expected.keys() == LOSSES.keys()
    for name, value in expected.items():
        options = dict(LENGTHS) if name in PER_TOKEN else {}
        if name == "robust":
            options["label_smoothing"] = 0.2
        assert LOSSES[name](PC, PR, RC, RR, beta=0.1, **options).item() == pytest.approx(value, abs=1e-9), name


def test_dpop_punishes_a_falling_chosen_answer() -> None:
    """Chosen fell from -10 to -12: penalty 5 * 2, so the logit is 0.1 * (-2 + 2 - 10) = -1."""
    fell = LOSSES["dpop"](PC - 2, PR, PC, RR, beta=0.1, penalty=5.0).item()
    assert fell == pytest.approx(-log_sigmoid(0.1 * ((-2 - (-2)) - 10)))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"simpo", "orpo", "ipo", "hinge", "apo_zero", "apo_down"}))
def test_where_policy_is_reference_the_loss_is_ln_2(name: str) -> None:
    assert LOSSES[name](PC, PR, PC, PR, beta=0.3).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_signature_and_shape(name: str) -> None:
    parameters = list(inspect.signature(LOSSES[name]).parameters)
    assert parameters[:5] == ["policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected", "beta"]
    batch = [torch.linspace(-9, -1, 7, dtype=torch.float64) for _ in range(4)]
    losses = LOSSES[name](*batch, beta=0.1)
    assert losses.shape == (7,)
    assert bool(torch.isfinite(losses).all())
