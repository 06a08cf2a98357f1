"""Bootstrap and permutation of clusters: by hand, against scipy and statsmodels, and in simulated worlds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as sps

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation import stats_spread as spreads
from equipoise.evaluation.stats import holm
from equipoise.evaluation.stats_resample import bootstrap_bca, permutation_p
from test_stats_simulation import NS, WORLDS

NAMES = ["binary, no effect, 20% change", "skewed scores, no effect", "skewed differences", "clusters of 5, normal"]


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal"])
def test_bootstrap_agrees_with_scipys_bca(draw: str) -> None:
    d = getattr(np.random.default_rng(1), draw)(size=40) - 0.5
    theirs = sps.bootstrap((d,), np.mean, n_resamples=19_999, method="BCa", rng=2).confidence_interval
    # Both ends are quantiles of 20,000 draws: their chance is about 0.03 standard errors.
    assert bootstrap_bca(d, resamples=19_999) == pytest.approx(tuple(theirs), abs=0.12 * d.std() / np.sqrt(40))


def test_bootstrap_of_unequal_clusters_agrees_with_scipys_of_their_sums() -> None:
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(30), rng.integers(1, 7, size=30))
    d = rng.exponential(size=30)[clusters] + rng.normal(size=len(clusters))
    sums, sizes = np.bincount(clusters, weights=d), np.bincount(clusters)

    def mean(s: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return s.sum(axis=axis) / n.sum(axis=axis)

    theirs = sps.bootstrap((sums, sizes), mean, paired=True, n_resamples=19_999, method="BCa", rng=4)
    low, high = theirs.confidence_interval
    ours = bootstrap_bca(d, clusters=clusters.tolist(), resamples=19_999)
    assert ours == pytest.approx((low, high), abs=0.12 * (high - low) / 4)
    alone = bootstrap_bca(d)
    assert ours[1] - ours[0] > 1.3 * (alone[1] - alone[0])


def test_bootstrap_without_spread_is_the_point_and_bad_input_is_refused() -> None:
    assert bootstrap_bca([0.1] * 30) == pytest.approx((0.1, 0.1))
    assert bootstrap_bca([0.0] * 5) == (0.0, 0.0)
    assert bootstrap_bca([1.0, 3.0, 2.0], clusters=["a", "a", "b"]) == (2.0, 2.0)  # both clusters have mean 2
    for wrong in ([1.0], [1.0, float("nan")], [[1.0], [2.0]]):
        with pytest.raises(ValueError):
            bootstrap_bca(wrong)
        with pytest.raises(ValueError):
            permutation_p(wrong)
    with pytest.raises(ValueError, match="one cluster"):
        bootstrap_bca([1.0, 2.0], clusters=["a", "a"])
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_bca([1.0, 2.0], resamples=9)
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_bca([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="permutations"):
        permutation_p([1.0, 2.0], permutations=0)


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    d = np.random.default_rng(5).normal(0.2, size=5000)  # more than one chunk
    assert bootstrap_bca(d, resamples=999) == bootstrap_bca(d, resamples=999)
    assert bootstrap_bca(d, resamples=999) != bootstrap_bca(d, resamples=999, seed=1)
    weak = d[:200] - d[:200].mean() + 0.05
    assert permutation_p(weak) == permutation_p(weak) != permutation_p(weak, seed=1)


def test_permutation_by_hand() -> None:
    # 1, 2, 3: of 8 sums only +6 and -6 are as far as 6
    assert permutation_p([1.0, 2.0, 3.0]) == 2 / 8
    # 3, -1, 1: the sums of +-3 +-1 +-1 with at least 3 away: all but +-1 (two each): 4 of 8
    assert permutation_p([3.0, -1.0, 1.0]) == 6 / 8
    # clusters a: 3, b: 3, c: 0: as far as 6 are 2 of 4
    assert permutation_p([1.0, 2.0, 3.0, -1.0, 1.0], clusters=list("aabcc")) == 2 / 4
    assert permutation_p([0.0, 0.0]) == permutation_p([1.0, -1.0]) == 1.0
    # 40 gains: no draw of 9,999 will have one sign only, and p is never 0
    assert permutation_p([1.0] * 40) == 1 / 10_000


def test_permutation_agrees_with_scipy_and_the_drawn_one_with_the_counted_one() -> None:
    d = np.random.default_rng(6).exponential(size=13) - 0.6
    counted = permutation_p(d)
    theirs = sps.permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert counted == pytest.approx(theirs)
    brute = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-9 for signs in itertools.product((-1, 1), repeat=13)]
    assert counted == pytest.approx(np.mean(brute))
    drawn = permutation_p(d, permutations=8000)  # fewer than 2^13, so they are drawn
    assert drawn != counted
    assert drawn == pytest.approx(counted, abs=4 * np.sqrt(counted * (1 - counted) / 8000))


def test_sign_test_by_hand_and_against_statsmodels() -> None:
    assert exact.sign_test_p(7, 1) == pytest.approx(2 * 9 / 256)  # P(at most 1 of 8) = 9 / 256
    assert exact.sign_test_p(5, 0) == pytest.approx(2 / 32)
    assert exact.sign_test_p(0, 0) == exact.sign_test_p(3, 3) == 1.0
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    descriptive = pytest.importorskip("statsmodels.stats.descriptivestats")
    for gained, lost in ((7, 1), (12, 30), (4, 4), (0, 6)):
        theirs = tables.mcnemar(np.array([[20, gained], [lost, 9]]), exact=True).pvalue
        assert exact.sign_test_p(gained, lost) == pytest.approx(theirs)
        _, by_signs = descriptive.sign_test(np.array([0.3] * gained + [-2.0] * lost + [0.0] * 5))
        assert exact.sign_test_p(gained, lost) == pytest.approx(by_signs)


def test_holm_and_clustered_standard_errors_agree_with_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    models = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(8)
    p = {str(i): float(x) for i, x in enumerate(rng.random(9) ** 3)}
    assert list(holm(p).values()) == pytest.approx(multitest.multipletests(list(p.values()), method="holm")[1])
    clusters = np.repeat(np.arange(20), 4)
    d = rng.normal(size=20)[clusters] + rng.normal(size=80)
    fitted = models.OLS(d, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    # Theirs is CR1, ours CR2: for a mean over clusters of one size both multiply by G / (G - 1).
    assert spreads.spread(d, clusters).standard_error == pytest.approx(fitted.bse[0])


def rates(name: str, n: int, repeats: int) -> tuple[float, float]:
    """Return coverage of the bootstrap and, in worlds without effect, false alarms of the permutation, in percent."""
    world = WORLDS[name]
    rng, codes = np.random.default_rng([9, n]), world.clusters(n)
    inside, alarms = [], []
    for seed in range(repeats):
        before, after = world.draw(rng, codes)
        named = None if world.sizes == "single" else codes.tolist()
        low, high = bootstrap_bca(after - before, clusters=named, seed=seed, resamples=999)
        inside.append(low - 1e-9 <= world.true <= high + 1e-9)
        alarms.append(permutation_p(after - before - world.true, clusters=named, seed=seed, permutations=999) < 0.05)
    return 100 * float(np.mean(inside)), 100 * float(np.mean(alarms))


@pytest.mark.parametrize("name", ["skewed scores, no effect", "clusters of 5, normal"])
def test_coverage_and_false_alarms_in_small(name: str) -> None:
    """400 draws: chance alone moves both rates by 2.2 points (two standard errors). Clusters: 20 of them."""
    covered, alarms = rates(name, 100, 400)
    assert 88 <= covered <= 97.5
    assert alarms <= 7.5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_coverage_and_false_alarms(name: str) -> None:
    """2,000 draws: chance moves a rate by 1 point. The bootstrap covers less than it says: docs/statistics.md."""
    found = [rates(name, n, 2000) for n in NS]
    print(f"\nBCa / permutation  {name:32s} {'   '.join(f'{c:5.1f} /{a:4.1f}' for c, a in found)}")
    covered, alarms = zip(*found, strict=True)
    assert covered[0] >= 82.0
    assert covered[-1] >= 91.0
    if WORLDS[name].true == 0:  # signs are chance there, and the test is exact
        assert max(alarms) <= 6.5
