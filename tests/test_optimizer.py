"""Optimisers and learning rates: worked numbers, the same bits on every run, early words where a package is missing."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.dpo import checkpoint
from equipoise.dpo.distributed import ALONE
from equipoise.dpo.optimizer import BITSANDBYTES, EIGHT_BIT_FROM, make_optimizer, require_optimizer
from equipoise.dpo.schedule import learning_rate, pairs_to_see, steps
from equipoise.recipe import Optim
from equipoise.records import InputError

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (the [quant] extra)"
)
SHAPES = ((EIGHT_BIT_FROM // 32, 32), (8, 8), (7,))
EIGHT_BIT: Any = sorted(BITSANDBYTES)


def walk(optim: Optim, count: int = 5, shapes: tuple[tuple[int, ...], ...] = SHAPES) -> list[torch.Tensor]:
    """Parameters after `count` steps with gradients that depend on nothing else."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    optimizer = make_optimizer(parameters, optim)
    for _ in range(count):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_two_steps_of_adamw_by_hand() -> None:
    """Parameter 1, rate 0.1, decay 0.5, gradients 3 and then -1.

    Step 1: decay to 0.95; m/(1-0.9) = 3 and v/(1-0.999) = 9, so 0.1 * 3/3 is taken away: 0.85.
    Step 2: decay to 0.8075; m = 0.9*0.3 - 0.1 = 0.17, over 1 - 0.81: 0.894737; v = 0.999*0.009 + 0.001 = 0.009991,
    over 1 - 0.998001: 4.997999; so 0.1 * 0.894737 / 2.235621 = 0.0400219 is taken away.
    """
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make_optimizer([parameter], Optim(learning_rate=0.1, weight_decay=0.5))
    for gradient, expected in ((3.0, 0.85), (-1.0, 0.8075 - 0.0400219)):
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        optimizer.step()
        assert parameter.item() == pytest.approx(expected, abs=1e-7)


def test_adamw_gives_the_same_bits_with_any_number_of_threads() -> None:
    optim, shapes = Optim(learning_rate=1e-2, weight_decay=0.01), ((300_001,), (4097,), (7,))
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            runs.append(walk(optim, shapes=shapes))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], run, strict=True))


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_without_the_package_one_line_says_what_to_do(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    require_optimizer(Optim(), "stages.0.optim")
    with pytest.raises(InputError, match=rf"^stages\.0\.optim\.optimizer: {name} needs bitsandbytes: pip install") as e:
        require_optimizer(Optim(optimizer=name), "stages.0.optim")
    assert "\n" not in str(e.value)


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_8_bit_moments_walk_where_adamw_walks_and_always_the_same_way(name: Any) -> None:
    optim = Optim(learning_rate=1e-2, optimizer=name)
    require_optimizer(optim, "stages.0.optim")
    start, there = walk(optim, count=0), walk(optim)
    assert all(torch.equal(one, other) for one, other in zip(there, walk(optim), strict=True))
    full = walk(Optim(learning_rate=1e-2))
    for place, (begin, small, exact) in enumerate(zip(start, there, full, strict=True)):
        off = float((small - exact).norm() / (exact - begin).norm())
        assert off < 1e-4 if place else 1e-4 < off < 0.2  # only the first tensor is large enough for 8 bits


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", EIGHT_BIT)
def test_8_bit_moments_are_in_8_bits(name: Any) -> None:
    large, small = torch.nn.Parameter(torch.ones(EIGHT_BIT_FROM)), torch.nn.Parameter(torch.ones(EIGHT_BIT_FROM - 1))
    optimizer = make_optimizer([large, small], Optim(optimizer=name))
    large.grad, small.grad = torch.ones_like(large), torch.ones_like(small)
    optimizer.step()
    assert [optimizer.state[p]["state1"].dtype for p in (large, small)] == [torch.uint8, torch.float32]


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["adamw", *EIGHT_BIT])
def test_a_checkpoint_holds_what_an_optimiser_keeps(name: Any, tmp_path: Path) -> None:
    """Three steps, a checkpoint, three more: the same bits as from the checkpoint. Tensors share their 8-bit map."""

    def go_on(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(3):
            for parameter in parameters.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    def begin() -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = {str(place): torch.nn.Parameter(torch.ones(SHAPES[0])) for place in range(2)}
        return parameters, make_optimizer(parameters.values(), Optim(learning_rate=1e-2, optimizer=name))

    parameters, optimizer = begin()
    go_on(parameters, optimizer, seed=1)
    checkpoint.save(tmp_path, parameters, optimizer, ALONE, 3, 4096)
    go_on(parameters, optimizer, seed=2)
    resumed, other = begin()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    checkpoint.restore(found, resumed, other)
    go_on(resumed, other, seed=2)
    assert all(torch.equal(parameters[key], resumed[key]) for key in parameters)


def rates(total: int, **options: Any) -> list[float]:
    return [learning_rate(step, total=total, **{"peak": 1.0, "warmup": 0.0, **options}) for step in range(total)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 5 steps, 1 of warm-up: half the peak, then the peak and 3 steps of the way down over 4.
        ("cosine", [0.5, 1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_warm_up_and_the_way_down_by_hand(schedule: str, expected: list[float]) -> None:
    assert rates(5, warmup=0.2, schedule=schedule) == pytest.approx(expected)
    assert rates(5, warmup=0.2, schedule=schedule, peak=3e-6) == pytest.approx([3e-6 * rate for rate in expected])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_edges_of_a_schedule(schedule: str) -> None:
    assert rates(1, schedule=schedule) == [1.0]
    assert rates(1, schedule=schedule, warmup=0.05) == [0.5]  # a share is rounded up: the one step is warm-up
    assert rates(4, schedule=schedule, warmup=1.0) == pytest.approx([0.2, 0.4, 0.6, 0.8])  # never gets there
    last = {"cosine": (1 + math.cos(math.pi * 0.999)) / 2, "linear": 0.001, "constant": 1.0}[schedule]
    assert rates(1000, schedule=schedule)[-1] == pytest.approx(last)  # small, and not 0: no step is wasted


def test_a_share_that_is_a_whole_number_of_steps_is_not_rounded_up() -> None:
    """100 * 0.07 is 7.000000000000001 in floating point; the warm-up has 7 steps and the peak comes at the eighth."""
    assert rates(100, warmup=0.07, schedule="linear")[6:9] == pytest.approx([7 / 8, 1.0, 92 / 93])


@pytest.mark.parametrize(
    ("pairs", "epochs", "batch", "seen", "count"),
    [(10, 1.0, 4, 10, 3), (10, 0.25, 4, 2, 1), (800, 0.25, 64, 200, 4), (10, 2.5, 5, 25, 5), (3, 0.01, 64, 1, 1),
     (7558, 1.0, 64, 7558, 119), (100, 0.3, 10, 30, 3)],
)  # fmt: skip
def test_fractions_of_epochs(pairs: int, epochs: float, batch: int, seen: int, count: int) -> None:
    assert (pairs_to_see(pairs, epochs), steps(pairs, epochs, batch)) == (seen, count)
