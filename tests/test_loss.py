"""Losses: worked numbers by hand, and TRL as an oracle."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from equipoise.dpo.loss import LOSSES, PER_TOKEN, REFERENCE_FREE

PC, PR, RC, RR = (torch.tensor([value], dtype=torch.float64) for value in (-10.0, -14.0, -11.0, -12.0))
LENGTHS = {"chosen_tokens": torch.tensor([5.0]), "rejected_tokens": torch.tensor([4.0])}
OPTIONS: dict[str, dict[str, float]] = {"robust": {"label_smoothing": 0.2}, "simpo": {"margin": 0.5}}


def options(
    name: str, chosen_tokens: Any = LENGTHS["chosen_tokens"], rejected_tokens: Any = LENGTHS["rejected_tokens"]
) -> dict[str, Any]:
    lengths = {"chosen_tokens": chosen_tokens, "rejected_tokens": rejected_tokens} if name in PER_TOKEN else {}
    return {**lengths, **OPTIONS.get(name, {})}


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
        assert LOSSES[name](PC, PR, RC, RR, beta=0.1, **options(name)).item() == pytest.approx(value, abs=1e-9), name


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


def test_slopes_at_the_start_by_hand() -> None:
    """Where the policy is the reference every log-ratio is 0 and every sigmoid 1/2; beta 0.2, 5 and 4 tokens.

    Per token of -10/5 = -2 and -12/4 = -3: simpo's logit is 0.2 * 1 - 0.5 = -0.3. orpo's log-odds l(x) = x -
    log(1 - e^x) have the slope 1 / (1 - e^x), and its likelihood term the slope -1 per mean log-probability.
    """
    down = 1 / (1 + math.exp(-0.3))  # 1 - s(-0.3)
    difference = (-2 - math.log(1 - math.exp(-2))) - (-3 - math.log(1 - math.exp(-3)))
    pull = 0.2 / (1 + math.exp(difference))
    expected = {  # d loss / d log pi(chosen), d loss / d log pi(rejected)
        "sigmoid": (-0.1, 0.1),
        "hinge": (-0.2, 0.2),
        "ipo": (-1 / (0.2 * 5), 1 / (0.2 * 4)),
        "robust": (-0.1 / 0.6, 0.1 / 0.6),
        "sigmoid_norm": (-0.1 / 5, 0.1 / 4),
        "simpo": (-0.2 * down / 5, 0.2 * down / 4),
        "orpo": ((-1 - pull / (1 - math.exp(-2))) / 5, pull / (1 - math.exp(-3)) / 4),
        "apo_zero": (-0.05, 0.05),
        "apo_down": (0.0, 0.05),
        "dpop": (-0.1, 0.1),
    }
    assert expected.keys() == LOSSES.keys()
    for name, slopes in expected.items():
        chosen, rejected = PC.clone().requires_grad_(), RR.clone().requires_grad_()
        loss = LOSSES[name](chosen, rejected, PC, RR, beta=0.2, **options(name))
        found = torch.autograd.grad(loss.sum(), [chosen, rejected])
        assert [slope.item() for slope in found] == pytest.approx(slopes, abs=1e-9), name


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_slopes_are_those_of_finite_differences(name: str) -> None:
    """64 random pairs in fp64, away from the corners of hinge and dpop, of which chance draws none."""
    generator = torch.Generator().manual_seed(0)
    tokens = [torch.randint(1, 9, (64,), generator=generator).double() for _ in range(2)]
    values = [-count * (0.2 + 3 * torch.rand(64, generator=generator, dtype=torch.float64)) for count in tokens * 2]
    policy = [value.requires_grad_() for value in values[:2]]

    def loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](chosen, rejected, *values[2:], beta=0.3, **options(name, *tokens))

    assert torch.autograd.gradcheck(loss, policy, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_nothing_overflows_however_far_the_policy_is(name: str, dtype: torch.dtype) -> None:
    """Margins of 0 and of up to 2e4 nats, probabilities of 1 and of nothing; one token or a thousand."""
    ends = torch.tensor([0.0, -1e-8, -1.0, -1e4], dtype=dtype)
    grid = [axis.flatten() for axis in torch.meshgrid(ends, ends, ends, ends, indexing="ij")]
    for tokens in (1, 1000):
        chosen, rejected = grid[0].clone().requires_grad_(), grid[1].clone().requires_grad_()
        counts = torch.full_like(grid[0], tokens)
        loss = LOSSES[name](chosen, rejected, grid[2], grid[3], beta=1.0, **options(name, counts, counts))
        slopes = torch.autograd.grad(loss.sum(), [chosen, rejected])
        assert all(bool(torch.isfinite(value).all()) for value in (loss, *slopes))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_reference_matters_where_it_should(name: str) -> None:
    here, moved = (LOSSES[name](PC, PR, RC + shift, RR, beta=0.1, **options(name)).item() for shift in (0.0, 1.0))
    assert (here == moved) == (name in REFERENCE_FREE)


def test_robust_is_unbiased_under_flipped_labels() -> None:
    """A fifth of the labels flipped: the mean of the robust loss is the clean loss, and that of `sigmoid` is not."""
    robust, plain = LOSSES["robust"], LOSSES["sigmoid"]
    clean = plain(PC, PR, RC, RR, beta=0.1).item()
    mixed = 0.8 * robust(PC, PR, RC, RR, beta=0.1, label_smoothing=0.2)
    mixed += 0.2 * robust(PR, PC, RR, RC, beta=0.1, label_smoothing=0.2)
    assert mixed.item() == pytest.approx(clean, abs=1e-12)
    assert abs(0.8 * clean + 0.2 * plain(PR, PC, RR, RC, beta=0.1).item() - clean) > 0.01


@pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'")
def test_simpo_and_orpo_equal_trl() -> None:
    """TRL's trainers average the log-probabilities before; its ORPO adds the likelihood term outside."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = -torch.linspace(0.1, 4, 16), -torch.linspace(3, 0.2, 16)
    tokens = torch.arange(1, 17)
    sums = (chosen * tokens, rejected * tokens, chosen, chosen)
    counts = {"chosen_tokens": tokens, "rejected_tokens": tokens}
    settings = SimpleNamespace(
        beta=2.0,
        alpha=0.0,
        simpo_gamma=0.7,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    theirs = CPOTrainer.cpo_loss(settings, chosen, rejected)[0]
    assert torch.allclose(LOSSES["simpo"](*sums, beta=2.0, margin=0.7, **counts), theirs, atol=1e-5)
    theirs = -chosen - ORPOTrainer.odds_ratio_loss(settings, chosen, rejected)[0]
    assert torch.allclose(LOSSES["orpo"](*sums, beta=2.0, **counts), theirs, atol=1e-5)
