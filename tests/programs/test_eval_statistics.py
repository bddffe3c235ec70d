"""Intervals cover what they say, on clusters and repeats, and never pretend to know more."""

import numpy as np
import pytest

from programs.eval import statistics

DOCUMENTS, PER_DOCUMENT, REPEATS, DRAWS = 6, 5, 10, 4000
CLUSTERS = np.repeat(np.arange(DOCUMENTS), PER_DOCUMENT)


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Item means over the repeats at two efforts, [draws, items] each, and the true accuracies.

    The chance of a right reply has a part of the document, a part of the item and, at high, a gain that varies by
    document. Documents are drawn anew each time, so the truth is the mean over all documents there could be.
    """
    random = np.random.default_rng(seed)

    def chances(count: int, items: int) -> tuple[np.ndarray, np.ndarray]:
        document = random.normal(0.5, 0.8, (count, DOCUMENTS))[:, CLUSTERS][:, :items]
        gain = random.normal(0.8, 0.5, (count, DOCUMENTS))[:, CLUSTERS][:, :items]
        own = document + random.normal(0, 0.8, (count, items))
        return 1 / (1 + np.exp(-own)), 1 / (1 + np.exp(-own - gain))

    none, high = chances(DRAWS, len(CLUSTERS))
    far_none, far_high = chances(400_000, 1)
    replies = [random.binomial(REPEATS, chance) / REPEATS for chance in (none, high)]
    return *replies, float(far_none.mean()), float(far_high.mean())


def test_accuracy_intervals_cover_about_95_percent_with_six_documents_and_ten_repeats():
    for scores, truth in (simulated(1)[::2], simulated(1)[1::2]):
        low, high, _ = statistics.share_bounds(scores, np.ones_like(scores), CLUSTERS, len(CLUSTERS) * REPEATS)
        cover = np.mean((low <= truth) & (truth <= high))
        assert 0.93 <= cover <= 0.98
        assert np.mean(high - low) < 0.5


def test_paired_differences_cover_about_95_percent():
    none, high, truth_none, truth_high = simulated(2)
    low, up, _ = statistics.difference_bounds(high - none, CLUSTERS)
    assert 0.935 <= np.mean((low <= truth_high - truth_none) & (truth_high - truth_none <= up)) <= 0.965


def test_taking_replies_as_independent_would_cover_far_less():
    """What the rule is for: the interval that ignores documents and repeats claims much more than it knows."""
    none, _, truth, _ = simulated(3)
    mean = none.mean(1)
    half = 1.96 * np.sqrt(mean * (1 - mean) / (len(CLUSTERS) * REPEATS))
    assert np.mean(np.abs(mean - truth) <= half) < 0.7


def test_pairing_makes_a_difference_narrower_than_the_efforts_alone_would():
    none, high, *_ = simulated(4)
    low, up, _ = statistics.difference_bounds(high - none, CLUSTERS)
    ones = np.ones_like(none)
    each = [statistics.share_bounds(scores, ones, CLUSTERS, 300) for scores in (none, high)]
    unpaired = np.sqrt(sum((bounds[1] - bounds[0]) ** 2 for bounds in each))
    assert np.mean(up - low) < 0.7 * np.mean(unpaired)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_has_an_interval_that_counts_documents(value: float):
    points, weights = np.full(30, value), np.ones(30)
    narrow = statistics.share(points, weights, np.arange(30), 300)
    wide = statistics.share(points, weights, CLUSTERS, 300)
    assert narrow and wide and wide.low is not None and wide.high is not None
    assert narrow.low is not None and narrow.high is not None
    assert 0.05 < narrow.high - narrow.low < wide.high - wide.low < 0.7
    assert wide.low <= wide.estimate <= wide.high


def test_no_interval_is_of_no_width_where_no_spread_shows():
    alike = np.tile([1.0, 0.0, 1.0, 0.0, 1.0], DOCUMENTS)  # three of five right in every document
    share = statistics.share(alike, np.ones(30), CLUSTERS, 30)
    assert share and share.low is not None and share.high is not None and share.high - share.low > 0.2
    for difference in (np.zeros(30), np.ones(30)):
        pair = statistics.difference(np.zeros(30), difference, CLUSTERS)
        assert pair and pair.low is not None and pair.high is not None and pair.high - pair.low > 0.2
        assert -1 <= pair.low <= pair.estimate <= pair.high <= 1


def test_fewer_than_five_documents_are_not_trusted_and_one_tells_no_interval():
    scores, weights = np.array([1.0, 0, 1, 1, 0, 1, 1, 0]), np.ones(8)
    trusted = {}
    for count in (1, 4, 5):
        share = statistics.share(scores, weights, np.arange(8) % count, 8)
        assert share
        trusted[count] = (share.trusted, share.low is not None)
    assert trusted == {1: (False, False), 4: (False, True), 5: (True, True)}


def test_a_share_of_answered_leaves_items_without_an_answer_out():
    points = np.array([1.0, 0.0, 0.5, 0.0])
    weights = np.array([1.0, 1.0, 0.5, 0.0])
    share = statistics.share(points, weights, np.arange(4), 25)
    assert share and share.estimate == pytest.approx(1.5 / 2.5) and share.items == 3
    assert statistics.share(np.zeros(4), np.zeros(4), np.arange(4), 0) is None


def test_the_estimate_does_not_depend_on_the_order_of_items():
    random = np.random.default_rng(5)
    scores, order = random.random(30), random.permutation(30)
    one = statistics.share(scores, np.ones(30), CLUSTERS, 300)
    other = statistics.share(scores[order], np.ones(30), CLUSTERS[order], 300)
    assert one and other and one.low == pytest.approx(other.low) and one.high == pytest.approx(other.high)
