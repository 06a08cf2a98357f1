"""Worked numbers by hand, checks against scipy, and the edges of `paired`, `holm` and `needed_n`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation import stats_spread as spreads
from equipoise.evaluation.stats import holm, needed_n, paired, smallest_effect


def test_worked_example_by_hand() -> None:
    # 5 differences 1, 2, 3, 4, 5 next to 15 of the same mirrored around 3: mean 3, no skewness.
    differences = [1.0, 2.0, 3.0, 4.0, 5.0] * 4
    result = paired([10.0] * 20, [10.0 + d for d in differences])
    assert result.difference == pytest.approx(3.0)
    assert (result.before, result.after) == pytest.approx((10.0, 13.0))
    # sum of squares 4 * (4 + 1 + 0 + 1 + 4) = 40, variance 40 / 19, standard error sqrt(40 / 19 / 20)
    assert result.standard_error == pytest.approx(math.sqrt(40 / 19 / 20))
    # t quantile at 19 degrees of freedom: 2.0930 (tables)
    assert result.ci == pytest.approx((3 - 2.0930 * 0.324443, 3 + 2.0930 * 0.324443), abs=1e-4)
    # (2.0930 + 0.8610) * standard error
    assert result.detectable == pytest.approx(2.9540 * 0.324443, abs=1e-3)


def test_symmetric_differences_agree_with_scipys_t_test() -> None:
    half = np.random.default_rng(0).normal(size=20)
    differences = np.concatenate([half, -half]) + 0.3
    result = paired(np.zeros(40), differences)
    t = sps.ttest_1samp(differences, 0.0)
    assert result.p_value == pytest.approx(t.pvalue)
    assert result.ci == pytest.approx(tuple(t.confidence_interval(0.95)))


def test_agrees_with_scipys_permutation_test_and_bootstrap_on_plain_data() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.normal(size=80), rng.normal(0.25, size=80)
    result = paired(before, after)
    permuted = sps.permutation_test(
        (after - before,), np.mean, permutation_type="samples", n_resamples=9999, random_state=0
    )
    assert result.p_value == pytest.approx(permuted.pvalue, abs=0.02)
    drawn = sps.bootstrap((after - before,), np.mean, n_resamples=4999, method="BCa", rng=0)
    low, high = drawn.confidence_interval
    assert result.ci == pytest.approx((low, high), abs=0.06)


def test_skewed_differences_move_both_ends_towards_the_long_tail_only_outwards() -> None:
    differences = np.random.default_rng(1).lognormal(size=30)
    result, t = paired(np.zeros(30), differences), sps.ttest_1samp(differences, 0.0)
    low, high = t.confidence_interval(0.95)
    assert result.ci[0] == pytest.approx(low)
    assert result.ci[1] > high


@given(st.floats(-8, 8), st.floats(-1.5, 1.5))
def test_skewness_correction_can_be_undone(t: float, skew: float) -> None:
    assert spreads.uncorrected(spreads.corrected(t, skew), skew) == pytest.approx(t, abs=1e-4)


def test_clusters_of_equal_size_are_a_t_test_of_their_means() -> None:
    rng = np.random.default_rng(2)
    means = rng.normal(size=10)
    means = np.concatenate([means, -means]) + 0.2  # symmetric: skewness 0
    differences = np.repeat(means, 3)
    result = paired(np.zeros(60), differences, clusters=np.repeat(np.arange(20), 3).tolist())
    t = sps.ttest_1samp(means, 0.0)
    assert result.clusters == 20
    assert result.p_value == pytest.approx(t.pvalue)
    assert result.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(20))


def test_clusters_by_hand() -> None:
    # Clusters a: 1, 3; b: 0; c: 2, 2, 4: mean 2; residual sums 0, -2, 2; n = 6.
    seen = spreads.spread(np.array([1.0, 3, 0, 2, 2, 4]), spreads.cluster_codes(list("aabccc"), 6))
    assert seen.mean == 2.0
    # CR2: 0 + 4 / (1 - 1/6) + 4 / (1 - 3/6) = 12.8; sqrt(12.8) / 6
    assert seen.standard_error == pytest.approx(math.sqrt(12.8) / 6)
    assert seen.units == 3


def test_degrees_of_freedom_agree_with_the_matrix_form() -> None:
    sizes = np.array([1.0, 2, 7, 3, 3])
    n, units = sizes.sum(), len(sizes)
    for variances in (sizes, sizes**2):
        residual_maker = np.eye(units) - np.outer(sizes, np.ones(units)) / n
        product = np.diag(1 / (1 - sizes / n)) @ residual_maker @ np.diag(variances) @ residual_maker.T
        wanted = np.trace(product) ** 2 / np.trace(product @ product)
        assert spreads._satterthwaite(sizes, variances) == pytest.approx(wanted)
    assert spreads._degrees_of_freedom(np.full(9, 4.0)) == pytest.approx(8.0)


def test_repeating_each_item_in_its_cluster_adds_no_evidence() -> None:
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=30), rng.normal(0.5, size=30)
    alone = paired(before, after)
    tripled = paired(np.repeat(before, 3), np.repeat(after, 3), clusters=np.repeat(np.arange(30), 3).tolist())
    assert tripled.ci == pytest.approx(alone.ci)
    assert tripled.p_value == pytest.approx(alone.p_value)


def test_mcnemar_by_hand() -> None:
    # 8 changes, 7 of them gains: P(at most 1 of 8) = 9 / 256, half of P(1) = 4 / 256; twice 5 / 256.
    assert exact.mcnemar_mid_p(7, 1) == pytest.approx(10 / 256)
    assert exact.mcnemar_mid_p(1, 7) == exact.mcnemar_mid_p(7, 1)
    assert exact.mcnemar_mid_p(3, 3) == 1.0
    assert exact.mcnemar_mid_p(4, 0) == pytest.approx(0.0625)
    assert exact.mcnemar_mid_p(5, 0) == pytest.approx(0.03125)
    exact_p = sps.binomtest(9, 30, 0.5).pvalue
    assert exact.mcnemar_mid_p(9, 21) == pytest.approx(exact_p - sps.binom.pmf(9, 30, 0.5))


def test_the_ends_of_the_score_interval_solve_its_equation() -> None:
    for gained, lost, n in ((7, 1, 25), (0, 5, 30), (12, 30, 250)):
        z = float(sps.norm.ppf(0.975))
        for end in exact.score_interval(gained, lost, n, 0.95):
            assert abs(_score_statistic(gained, lost, n, end)) == pytest.approx(z, abs=1e-4)


def _score_statistic(gained: int, lost: int, n: int, d: float) -> float:
    """Maximise the likelihood under difference d by brute force, and standardise."""
    q = np.linspace(max(0, -d), (1 - d) / 2, 2_000_001)[1:-1]  # share that turns wrong
    likelihood = gained * np.log(q + d) + lost * np.log(q) + (n - gained - lost) * np.log1p(-2 * q - d)
    best = q[int(np.argmax(likelihood))]
    return float((gained - lost - n * d) / math.sqrt(n * (2 * best + d - d * d)))


def test_sign_flips_agree_with_mcnemar_and_with_scipy() -> None:
    assert exact.sign_flip_mid_p(np.array([1.0] * 7 + [-1.0])) == pytest.approx(exact.mcnemar_mid_p(7, 1))
    changes = np.array([0.3, -0.2, 1.5, 2.0, 0.7, -0.4])
    plain = sps.permutation_test((changes,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert exact.sign_flip_mid_p(changes) == pytest.approx(plain - 1 / 2**6)  # the outcome and its mirror, half


def test_no_change_at_all_is_not_certainty() -> None:
    scores = [0.0, 1.0] * 50
    result = paired(scores, scores)
    assert (result.difference, result.p_value, result.standard_error) == (0.0, 1.0, 0.0)
    # 0.025 = (1 - x) ** 100: x = 0.0362
    assert result.ci == pytest.approx((-0.0362, 0.0362), abs=1e-4)
    # at least 5 of 100 must change, which happens with 80 % power when 6.6 % do
    assert sps.binom.sf(4, 100, result.detectable) == pytest.approx(0.8)
    assert result.detectable == pytest.approx(0.066, abs=0.001)


def test_no_change_bound_is_scaled_by_what_one_item_can_move() -> None:
    assert paired([-3.0, 5.0] * 50, [-3.0, 5.0] * 50).ci[1] == pytest.approx(8 * 0.0362, abs=1e-3)
    assert paired([1.0] * 100, [1.0] * 100).ci[1] == pytest.approx(0.0362, abs=1e-4)
    clustered = paired([0.0, 1.0] * 50, [0.0, 1.0] * 50, clusters=[i // 10 for i in range(100)])
    assert clustered.ci[1] == pytest.approx(1 - 0.025 ** (1 / 10))  # ten documents, not a hundred questions


def test_a_constant_shift_is_significant_but_not_known_exactly() -> None:
    result = paired(np.arange(20.0), np.arange(20.0) + 0.1)  # 0.1 is rounded differently in each difference
    assert result.p_value < 1e-4
    assert result.ci[0] < 0.1 < result.ci[1]
    assert result.ci[0] > 0


def test_four_changes_prove_nothing_and_five_do() -> None:
    four = paired([0.0] * 30, [1.0] * 4 + [0.0] * 26)
    five = paired([0.0] * 30, [1.0] * 5 + [0.0] * 25)
    assert (four.p_value, four.ci[0]) == pytest.approx((0.0625, 0.0))
    assert five.p_value == pytest.approx(0.03125)
    assert five.ci[0] > 0


def test_detectable_share_is_the_80_percent_point_of_the_exact_power() -> None:
    gained, lost, n = 10, 14, 100
    found = exact.detectable_share(gained, lost, n, 0.95)
    power = 0.0
    for changed in range(n + 1):
        chance = sps.binom.pmf(changed, n, 0.24)
        wins = np.arange(changed + 1)
        seen = np.array([exact.mcnemar_mid_p(int(w), changed - int(w)) < 0.05 for w in wins])
        power += chance * sps.binom.pmf(wins[seen], changed, (1 + found / 0.24) / 2).sum()
    assert power == pytest.approx(0.8, abs=1e-4)


def test_detectable_near_the_textbook_formula_for_many_pairs() -> None:
    # (1.96 + 0.84) * sqrt(0.2 / 1000) = 0.0396
    assert exact.detectable_share(100, 100, 1000, 0.95) == pytest.approx(0.0396, abs=5e-4)


def test_smallest_effect_and_needed_n() -> None:
    # t quantiles at 99 degrees of freedom: 1.9842 + 0.8453
    assert smallest_effect(2.0, 100) == pytest.approx(2.8295 * 0.2, abs=1e-3)
    assert needed_n(48, 0.31, 0.15) == 206  # 48 * (0.31 / 0.15)^2 = 205.01
    assert needed_n(100, 0.2, 0.1) == 400
    assert needed_n(100, 0.2, 5.0) == 2
    for wrong in ((0, 0.2, 0.1), (10, 0.0, 0.1), (10, 0.2, 0.0), (10, 0.2, math.nan)):
        with pytest.raises(ValueError, match="above 0"):
            needed_n(*wrong)
    for spread, n in ((0.0, 10), (math.nan, 10), (1.0, 1)):
        with pytest.raises(ValueError, match="needed are at least 2 items"):
            smallest_effect(spread, n)


def test_holm_by_hand() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(corrected) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"outside 0\.\.1: b"):
        holm({"a": 0.1, "b": math.nan})


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values: dict[str, float]) -> None:
    corrected = holm(p_values)
    assert corrected.keys() == p_values.keys()
    assert all(p <= corrected[name] <= min(1.0, len(p_values) * p) for name, p in p_values.items())


@pytest.mark.parametrize(
    ("before", "after", "clusters", "message"),
    [
        ([], [], None, "0 items"),
        ([1.0], [2.0], None, "1 item: a comparison needs at least 2"),
        ([1.0, 2.0], [1.0], None, "one value per item"),
        ([[1.0, 2.0]], [[1.0, 2.0]], None, "one value per item"),
        (
            [1.0, math.nan],
            [1.0, 2.0],
            None,
            "before has values that are not finite .1 values, first at position 1",
        ),
        ([1.0, 2.0], [math.inf, 2.0], None, "after has values that are not finite"),
        ([1.0, 2.0], [1.0, 2.0], ["a"], "1 clusters for 2 items"),
        ([1.0, 2.0], [1.0, 3.0], ["a", "a"], "one cluster"),
    ],
)
def test_refuses_what_cannot_be_compared(
    before: list[float], after: list[float], clusters: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired(before, after, clusters=clusters)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0, 95.0, math.nan])
def test_refuses_a_confidence_that_is_none(confidence: float) -> None:
    with pytest.raises(ValueError, match=r"between 0\.5 and 1"):
        paired([1.0, 2.0], [2.0, 4.0], confidence=confidence)


SCORES = st.one_of(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40),
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=40),
    st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=2, max_size=40),
)


@settings(deadline=None, max_examples=300)
@given(SCORES, st.integers(1, 6), st.sampled_from([0.9, 0.95, 0.99]))
def test_interval_and_p_never_contradict_each_other(
    pairs: list[tuple[float, float]], per_cluster: int, confidence: float
) -> None:
    before, after = zip(*pairs, strict=True)
    clusters = [i // per_cluster for i in range(len(pairs))]
    assume(len(set(clusters)) > 1)
    result = paired(before, after, clusters=clusters, confidence=confidence)
    mirrored = paired(after, before, clusters=clusters, confidence=confidence)
    low, high = result.ci
    assert low <= result.difference <= high
    assert low < high
    assert (result.p_value >= 1 - confidence) == (low <= 0 <= high)
    assert result.detectable > 0
    assert 0 <= result.p_value <= 1
    assert all(map(math.isfinite, (low, high, result.detectable, result.standard_error)))
    # Before and after are treated alike.
    assert mirrored.ci == pytest.approx((-high, -low), rel=1e-6, abs=1e-9)
    assert mirrored.p_value == pytest.approx(result.p_value, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.booleans())
def test_units_and_order_do_not_matter(seed: int, scale: float, two_levels: bool) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(2, 30))
    if two_levels:
        before, after = (before > 0).astype(float), (after > 0.5).astype(float)
    clusters = rng.integers(0, 8, size=30)
    result = paired(before, after, clusters=clusters.tolist())
    order = rng.permutation(30)
    again = paired(scale * before[order], scale * after[order], clusters=clusters[order].tolist(), seed=1)
    assert np.array(again.ci) == pytest.approx(scale * np.array(result.ci), rel=1e-6, abs=1e-9 * scale)
    assert again.p_value == pytest.approx(result.p_value, rel=1e-6)
    assert again.detectable == pytest.approx(scale * result.detectable, rel=1e-4)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    rng = np.random.default_rng(8)
    before, after = rng.normal(size=40), rng.normal(0.3, size=40)
    narrow, wide = paired(before, after, confidence=0.8), paired(before, after, confidence=0.99)
    assert wide.ci[0] < narrow.ci[0] < narrow.ci[1] < wide.ci[1]
    assert wide.p_value == narrow.p_value


def test_constant_rewards_on_both_sides_are_not_right_or_wrong() -> None:
    shifted = paired([-8.0] * 20, [-2.0] * 20)
    assert shifted.ci == pytest.approx((6 * (1 - 0.1684), 6 * (1 + 0.1684)), abs=1e-3)  # 1 - 0.025^(1/20)
    flipped = paired([0.0] * 20, [1.0] * 20)
    assert flipped.ci[1] == 1.0  # a share cannot gain more than 1


def test_the_method_is_named() -> None:
    rng = np.random.default_rng(4)
    scores, right = rng.normal(size=(2, 40)), rng.integers(0, 2, size=(2, 40))
    documents = [i // 2 for i in range(40)]
    assert paired(*scores).method == "t and skewness-corrected t"
    assert "20 clusters" in paired(*scores, clusters=documents).method
    assert paired(*right).method == "score interval (Tango) and McNemar's mid-p"
    assert "McNemar" in (both := paired(*right, clusters=documents).method)
    assert "20 clusters" in both


def test_clusters_only_ever_widen_the_interval_of_right_or_wrong() -> None:
    rng = np.random.default_rng(6)
    before, after = rng.integers(0, 2, size=(2, 60))
    alone = paired(before, after)
    clustered = paired(before, after, clusters=[i // 3 for i in range(60)])
    assert clustered.ci[0] <= alone.ci[0]
    assert clustered.ci[1] >= alone.ci[1]
