"""Training figures: worked numbers, by source, the same in one process or several, and never in the way."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.dpo.logprobs import PairLogps
from equipoise.dpo.metrics import FIGURES, StepMetrics, data_kl

CPU = torch.device("cpu")
SOURCES = ["a", "b", "c", "a"]


def batch() -> tuple[torch.Tensor, PairLogps, tuple[torch.Tensor, torch.Tensor]]:
    logps = PairLogps(
        torch.tensor([-10.0, -20.0, -30.0, -8.0], requires_grad=True),
        torch.tensor([-14.0, -21.0, -25.0, -9.0], requires_grad=True),
        torch.tensor([5, 10, 3, 2]),
        torch.tensor([4, 7, 5, 1]),
    )
    reference = (torch.tensor([-11.0, -20.0, -27.0, -8.0]), torch.tensor([-12.0, -22.0, -25.0, -9.0]))
    return torch.tensor([0.5, 0.7, 0.9, 0.1]), logps, reference


def fill(rows: list[int], metrics: StepMetrics) -> StepMetrics:
    losses, logps, (chosen, rejected) = batch()
    parts = (logps.chosen, logps.rejected, logps.chosen_tokens, logps.rejected_tokens)
    metrics.add(
        [SOURCES[row] for row in rows], losses[rows], PairLogps(*(part[rows] for part in parts)),
        (chosen[rows], rejected[rows]),
    )  # fmt: skip
    return metrics


def test_by_hand() -> None:
    """Drifts: chosen 1, 0, -3, 0; rejected -2, 1, 0, 0. Margins 3, -1, -3, 0: one of four pairs is right (0 is not)."""
    record = fill([0, 1, 2, 3], StepMetrics(["a", "b", "c", "unused"], CPU)).read(0.1, grad_norm=torch.tensor(1.25))
    assert record["grad_norm"] == 1.25
    assert record["loss"] == pytest.approx(0.55)
    assert record["margin"] == pytest.approx(0.1 * (3 - 1 - 3) / 4)
    assert record["accuracy"] == 0.25
    assert (record["chosen_drift"], record["rejected_drift"]) == (-0.5, -0.25)
    assert (record["chosen_tokens"], record["rejected_tokens"], record["pairs"]) == (5.0, 4.25, 4.0)
    assert list(record["sources"]) == ["a", "b", "c"]  # a source without a pair in this step is not 0, it is absent
    a = record["sources"]["a"]
    assert (a["loss"], a["margin"], a["accuracy"], a["pairs"]) == pytest.approx((0.3, 0.15, 0.5, 2.0))
    # Per token: chosen 1/5, rejected -2/4; the other pair of the source has not moved. exp(d) - 1 - d of each.
    moved = ((math.exp(0.2) - 1 - 0.2) + (math.exp(-0.5) - 1 + 0.5)) / 2
    assert a["data_kl"] == pytest.approx(moved / 2, abs=1e-7)
    assert set(a) == {*FIGURES, "pairs"}


def test_sums_of_two_processes_and_of_micro_batches_are_those_of_one() -> None:
    whole = fill([0, 1, 2, 3], StepMetrics(["a", "b", "c"], CPU))
    one, other = fill([3], StepMetrics(["a", "b", "c"], CPU)), StepMetrics(["a", "b", "c"], CPU)
    fill([2, 0], fill([1], other))
    one.sums += other.sums  # what a reduction over processes does
    assert one.read(0.1) == whole.read(0.1)


def test_a_bad_pair_does_not_touch_other_sources() -> None:
    metrics = StepMetrics(["a", "b"], CPU)
    _, logps, reference = batch()
    two = PairLogps(logps.chosen[:2], logps.rejected[:2], logps.chosen_tokens[:2], logps.rejected_tokens[:2])
    metrics.add(["a", "b"], torch.tensor([math.nan, 0.7]), two, (reference[0][:2], reference[1][:2]))
    record = metrics.read(0.1)
    assert math.isnan(record["loss"])
    assert math.isnan(record["sources"]["a"]["loss"])
    assert record["sources"]["b"]["loss"] == pytest.approx(0.7)


def test_figures_keep_no_graph_and_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One transfer from the device for a whole record: `tolist` once, and no `item` or `float` of a tensor."""
    metrics = fill([0, 1, 2, 3], StepMetrics(["a", "b", "c"], CPU))
    assert not metrics.sums.requires_grad
    transfers = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: transfers.append(1) or real(tensor))
    for name in ("item", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, name=name: pytest.fail(f"a transfer by {name}"))
    metrics.read(0.1, grad_norm=torch.tensor(1.0))
    assert len(transfers) == 1


def test_the_estimate_is_that_of_a_divergence_where_the_reference_sampled() -> None:
    """On tokens drawn from the reference exp(d) - 1 - d has the mean KL(reference || policy): three tokens, summed
    with the reference's own probabilities, give it exactly."""
    reference = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    policy = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    estimates = data_kl((policy / reference).log(), torch.ones(3))
    exact = (reference * (reference / policy).log()).sum()
    assert float((reference * estimates).sum()) == pytest.approx(float(exact))
    # The same drifts as one answer of three tokens: their mean can only give less than the mean of the three.
    drift = (policy / reference).log()
    assert 0 < float(data_kl(drift.sum(), torch.tensor(3))) <= float(estimates.mean())


@settings(deadline=None, max_examples=200)
@given(drift=st.floats(-1e4, 1e4), tokens=st.integers(0, 5000))
def test_the_estimate_is_never_negative_and_always_finite(drift: float, tokens: int) -> None:
    found = float(data_kl(torch.tensor(drift), torch.tensor(tokens)))
    assert math.isfinite(found)
    assert found >= -1e-6 * abs(drift / max(tokens, 1))  # rounding of fp32
