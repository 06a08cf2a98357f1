"""Tails and quantiles against scipy.stats, which is exact and slow to import."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from equipoise.evaluation import distributions as own

CLOSE = {"rel": 1e-11, "abs": 1e-300}


@pytest.mark.parametrize("x", [-8.0, -1.96, -0.1, 0.0, 0.7, 3.0, 12.0])
def test_normal_and_t(x: float) -> None:
    assert own.normal_above(x) == pytest.approx(stats.norm.sf(x), **CLOSE)
    for df in (1, 2.5, 7, 40, 1e4):
        assert own.t_above(x, df) == pytest.approx(stats.t.sf(x, df), **CLOSE)


@pytest.mark.parametrize("p", [1e-9, 0.025, 0.2, 0.5, 0.8, 0.975, 1 - 1e-9])
def test_quantiles(p: float) -> None:
    assert own.normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-9, abs=1e-12)
    for df in (1, 2.5, 7, 40, 1e4):
        assert own.t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9, abs=1e-12)
    assert own.beta_quantile(p, 6, 15) == pytest.approx(stats.beta.ppf(p, 6, 15), rel=1e-9)


def test_coins() -> None:
    tosses = np.arange(0, 120)
    for share in (-0.1, 0.0, 0.1, 0.4, 0.5, 0.9, 1.0, 1.1):
        heads = np.round(share * tosses).astype(np.int64) + (share > 1) - (share < 0)
        for mine, theirs in (
            (own.coin, stats.binom.pmf), (own.coin_at_most, stats.binom.cdf), (own.coin_above, stats.binom.sf),
        ):  # fmt: skip
            np.testing.assert_allclose(mine(heads, tosses), theirs(heads, tosses, 0.5), rtol=1e-11, atol=1e-300)


@pytest.mark.parametrize("above", [0.0005, 0.005, 0.025, 0.05, 0.25])
def test_the_quantile_of_a_coin(above: float) -> None:
    tosses = np.arange(0, 3000)
    assert own.coin_quantile(above, tosses).tolist() == stats.binom.isf(above, tosses, 0.5).astype(int).tolist()
