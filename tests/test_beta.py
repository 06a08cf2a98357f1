"""Beta over a stage: worked numbers, and the same steps whatever a run was interrupted by or cut into."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from equipoise.dpo import checkpoint, schedule
from equipoise.dpo.beta import FLOOR, Betas, adaptive, scheduled, updated
from equipoise.dpo.distributed import ALONE
from equipoise.dpo.engine import engine
from equipoise.dpo.guards import reference_of
from equipoise.dpo.look import look, mean_log_ratio, plateau
from equipoise.dpo.reference import reference_logprobs
from equipoise.dpo.train import StageEnd, train_stage
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe import AdaptiveBeta, BetaSchedule, Dpo, Lora, ModelSpec, Optim, Stop
from equipoise.store import Store
from models import make_policy, shake
from test_train import encoded

ADAPTIVE = AdaptiveBeta(kind="adaptive", beta=0.1, strength=2.0, momentum=0.5)


def test_schedules_by_hand() -> None:
    """5 steps from 0.1 to 0.5: the first has the start, the last the end, the middle their mean."""
    values: dict[str, Any] = {"total": 5, "start": 0.1, "end": 0.5}
    assert [scheduled(s, kind="linear", **values) for s in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    quarter = 0.5 + (0.1 - 0.5) * 0.5 * (1 + math.sqrt(0.5))
    assert [scheduled(s, kind="cosine", **values) for s in range(3)] == pytest.approx([0.1, quarter, 0.3])
    assert scheduled(4, kind="cosine", **values) == pytest.approx(0.5)
    assert scheduled(0, total=1, kind="linear", start=0.1, end=0.5) == 0.1


def test_adaptive_beta_by_hand() -> None:
    """A margin 0.25 above the running mean at strength 0.6 is (1 + 0.15) * 0.1; far below it the floor holds."""
    assert adaptive(0.5, 0.25, beta=0.1, strength=0.6) == pytest.approx(0.115)
    assert adaptive(0.25, 0.5, beta=0.1, strength=0.6) == pytest.approx(0.085)
    assert adaptive(-9.0, 1.0, beta=0.1, strength=0.6) == pytest.approx(FLOOR * 0.1)
    assert updated(None, 0.4, momentum=0.9) == 0.4
    assert updated(0.4, 1.4, momentum=0.9) == pytest.approx(0.5)


def test_the_betas_of_three_batches() -> None:
    """Mean log-ratios of 0, 4 and 2 nats are margins of 0, 0.4 and 0.2; the running mean goes 0, 0.2, 0.2."""
    betas = Betas(ADAPTIVE, 3)
    found = []
    for step, nats in enumerate((0.0, 4.0, 2.0)):
        beta, running = betas.of(step, lambda nats=nats: nats)  # type: ignore[misc]
        betas.running = running
        found.append((beta, running))
    assert found == [(0.1, 0.0), (pytest.approx(0.18), pytest.approx(0.2)), (pytest.approx(0.1), pytest.approx(0.2))]
    fixed = BetaSchedule(kind="linear", start=0.1, end=0.3)
    assert Betas(fixed, 3).of(1, lambda: 1 / 0) == (pytest.approx(0.2), None)  # nobody asks for margins
    assert Betas(0.2, 3).of(1, lambda: 1 / 0) == (0.2, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": {"kind": "linear", "start": 0.1}},
        {"beta": {"kind": "constant", "start": 0.1, "end": 0.2}},
        {"beta": {"kind": "adaptive", "beta": 0.1, "momentum": 1.0}},
        {"beta": {"kind": "adaptive", "beta": 0.1}, "loss": "simpo"},
        {"beta": 0},
    ],
)
def test_what_makes_no_schedule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Dpo.model_validate(wrong)


def test_warm_up_at_its_borders() -> None:
    """0.05 of 10 steps is half a step, so one; a single step of warm-up alone has half the peak; 1 is refused."""
    rates = [schedule.learning_rate(s, total=10, peak=1.0, warmup=0.05, schedule="constant") for s in range(10)]
    assert rates == [0.5] + [1.0] * 9
    assert schedule.learning_rate(0, total=1, peak=1.0, warmup=0.05, schedule="cosine") == 0.5
    assert schedule.learning_rate(0, total=1, peak=1.0, warmup=0.0, schedule="linear") == 1.0
    # 0.999 of 10 steps rounds up to all of them: the last comes near to the peak and does not reach it.
    assert schedule.learning_rate(9, total=10, peak=1.1, warmup=0.999, schedule="linear") == pytest.approx(1.0)
    with pytest.raises(ValidationError, match="below 1"):
        Optim(warmup=1.0)


def test_when_a_stage_ends() -> None:
    """Losses 5, 4, 4, 4.1: the best is the second look, and the fourth is the second in a row that is no better."""
    looks = [(10, 5.0), (20, 4.0), (30, 4.0), (40, 4.1)]
    stop = Stop(every=10, patience=2)
    assert [plateau(looks[:count], stop) is not None for count in (1, 2, 3, 4)] == [False, False, False, True]
    assert plateau(looks, stop) == (
        "dev_loss is 4.1 after step 40; 2 looks in a row were no better than 4 after step 20"
    )
    rising = Stop(metric="dev_accuracy", every=10, patience=1)
    assert plateau([(10, 0.5), (20, 0.6)], rising) is None
    assert plateau([(10, 0.5), (20, 0.5)], rising) is not None


@pytest.fixture
def policy(tmp_path: Path) -> Loaded:
    return load_policy(ModelSpec(id=str(make_policy(tmp_path / "policy"))))


def train(
    loaded: Loaded,
    folder: Path,
    dpo: Dpo,
    *,
    dev: int = 0,
    die: int = 0,
    **optim: Any,
) -> tuple[dict[str, torch.Tensor], StageEnd | None, list[dict[str, Any]]]:
    """Train 12 pairs, the last `dev` of them set apart; die after step `die`. Adapter, end and log."""
    folder.mkdir(exist_ok=True)
    pairs = encoded(loaded, 12 + dev)
    values = {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "warmup": 0.1, "checkpoint_every": 2, **optim}
    model = adapters.add(adapters.attach(loaded, []), Lora(rank=4, dropout=0.1), seed=0, base_name="tiny")

    def on_step(progress: Any) -> None:
        if progress.step == die:
            raise KeyboardInterrupt

    end = None
    with engine(model, pairs) as scorer:
        with adapters.reference(model, "previous"):
            reference = reference_logprobs(scorer, "tiny", pairs, Store(folder.parent / "store"))
        try:
            end = train_stage(
                scorer, pairs[:12], reference.logps, dpo=dpo, optim=Optim(**values), seed=0, folder=folder,
                starts_at_reference=False, dev=pairs[12:], on_step=on_step,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert die
    tensors = {name: value.detach().clone() for name, value in adapters.trainable(model).items()}
    adapters.detach(model)
    return tensors, end, [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_schedule_is_what_the_steps_use(policy: Loaded, tmp_path: Path) -> None:
    """6 steps; with the start of 0.1 the first step has the loss of beta 0.1, and the last that of 0.6."""
    dpo = Dpo(beta=BetaSchedule(kind="linear", start=0.1, end=0.6))
    rising, _, log = train(policy, tmp_path / "rising", dpo)
    assert [step["beta"] for step in log] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    nats = log[-1]["chosen_drift"] - log[-1]["rejected_drift"]
    assert log[-1]["margin"] == pytest.approx(0.6 * nats, abs=1e-6)
    flat, _, _ = train(policy, tmp_path / "flat", Dpo(beta=BetaSchedule(kind="constant", start=0.1)))
    plain, _, _ = train(policy, tmp_path / "plain", Dpo(beta=0.1))
    assert same(flat, plain) and not same(flat, rising)


def test_an_adaptive_beta_follows_the_margins(policy: Loaded, tmp_path: Path) -> None:
    """Each step's beta is the formula of its own margins, computed again from the log, dropout and all."""
    _, _, log = train(policy, tmp_path / "a", Dpo(beta=ADAPTIVE))
    running: float | None = None
    for step in log:
        margin = 0.1 * (step["chosen_drift"] - step["rejected_drift"])
        before = margin if running is None else running
        assert step["beta"] == pytest.approx(0.1 * max(0.01, 1 + 2 * (margin - before)), abs=1e-6)
        running = margin if running is None else 0.5 * running + 0.5 * margin
    assert len({step["beta"] for step in log}) > 3


def test_the_mean_log_ratio_leaves_no_trace(policy: Loaded) -> None:
    """It is that of the pairs one by one, however it is cut; no gradient, and the random numbers begin again."""
    pairs = encoded(policy, 8)
    model = adapters.add(adapters.attach(policy, []), Lora(rank=4), seed=0, base_name="tiny")
    reference = {pair.id: (-10.0 - place, -12.0) for place, pair in enumerate(pairs)}
    with engine(model, pairs) as scorer:
        before = torch.get_rng_state()
        found = [mean_log_ratio(scorer, pairs, reference, ALONE, tokens) for tokens in (1, 200, 100_000)]
        assert torch.equal(before, torch.get_rng_state())
        with torch.no_grad():
            anchors = reference_of(pairs, reference, torch.device("cpu"))
            logps = scorer(pairs)
    expected = ((logps.chosen - anchors[0]) - (logps.rejected - anchors[1])).mean().item()
    assert found == pytest.approx([expected] * 3, abs=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("beta", [ADAPTIVE, BetaSchedule(kind="cosine", start=0.3, end=0.1)])
def test_resumed_is_uninterrupted(policy: Loaded, tmp_path: Path, beta: Any) -> None:
    """Killed after step 5 of 6, with a checkpoint after step 4 that knows the running margin."""
    whole, _, log = train(policy, tmp_path / "whole", Dpo(beta=beta))
    fresh = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    train(fresh, tmp_path / "killed", Dpo(beta=beta), die=5)
    found = checkpoint.latest(tmp_path / "killed" / "checkpoints")
    assert found is not None and found.step == 4 and (found.margin is not None) == (beta is ADAPTIVE)
    fresh = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    resumed, _, again = train(fresh, tmp_path / "killed", Dpo(beta=beta))
    assert same(whole, resumed) and log == again


def test_held_out_pairs_are_looked_at_without_dropout_and_without_learning(policy: Loaded) -> None:
    pairs: list[EncodedPair] = encoded(policy, 6)
    model = adapters.add(adapters.attach(policy, []), Lora(rank=4, dropout=0.5), seed=0, base_name="tiny")
    shake(model, torch.float32)
    with engine(model, pairs) as scorer:
        anchors = {pair.id: (-20.0, -20.0) for pair in pairs}
        one, other = (look(scorer, pairs, anchors, Dpo(beta=0.1), ALONE, tokens) for tokens in (1, 10_000))
    assert one == pytest.approx(other, abs=1e-4)
    assert any(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_a_stage_ends_by_itself_and_says_so(policy: Loaded, tmp_path: Path) -> None:
    """A rate of nearly 0 changes nothing that can be seen: the second look is no better, and the stage ends there."""
    stop = {"every": 2, "patience": 1}
    _, end, log = train(policy, tmp_path / "a", Dpo(), dev=4, learning_rate=1e-30, stop=stop)
    assert end is not None and end.stopped is not None and "after step 4" in end.stopped
    assert [step["step"] for step in log] == [1, 2, 3, 4]
    assert [step["step"] for step in log if "dev_loss" in step] == [2, 4]
    assert sum(end.seen.values()) == 16 and end.unseen == []  # 12 pairs, and 4 of them once more
    _, end, log = train(policy, tmp_path / "b", Dpo(), dev=4, stop={"every": 2, "patience": 9})
    assert end is not None and end.stopped is None and len(log) == 6
    assert log[5]["dev_loss"] < log[1]["dev_loss"] < math.log(2)  # it learns what it does not train on


def test_a_stage_that_would_end_goes_on_from_its_checkpoint_to_the_same_end(policy: Loaded, tmp_path: Path) -> None:
    values: dict[str, Any] = {"dev": 4, "stop": {"every": 1, "patience": 2}, "learning_rate": 1e-30}
    whole, end, log = train(policy, tmp_path / "whole", Dpo(), **values)
    fresh = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    train(fresh, tmp_path / "killed", Dpo(), die=2, **values)
    fresh = load_policy(ModelSpec(id=str(tmp_path / "policy")))
    resumed, again, log_again = train(fresh, tmp_path / "killed", Dpo(), **values)
    assert end == again and end is not None and end.stopped and same(whole, resumed) and log == log_again


def test_pairs_that_never_came_are_named(policy: Loaded, tmp_path: Path) -> None:
    _, end, _ = train(policy, tmp_path / "a", Dpo(), epochs=0.5)
    assert end is not None and len(end.unseen) == 6 and sum(end.seen.values()) == 6
