import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.features import (
    coverage90,
    energy_scores,
    frechet_distance,
    mean_of_known,
    normalised_squared_error,
)

seeds = st.integers(0, 10_000)
tenths = st.integers(-50, 50).map(lambda tenth: tenth / 10)


def test_squared_error_by_hand():
    ratio = normalised_squared_error([[1.0, 0.0], [3.0, 9.0]], [[2.0, 0.0], [1.0, 2.0]])
    assert ratio.numerator.tolist() == [1.0, 4.0 + 49.0]
    assert ratio.denominator.tolist() == [4.0, 5.0]
    assert ratio.value == pytest.approx(54 / 9)
    # A ratio of sums, not the mean of the samples' ratios.
    assert ratio.take([0, 0, 1]).value == pytest.approx((1 + 1 + 53) / (4 + 4 + 5))


@given(arrays(np.float64, (4, 3), elements=tenths), arrays(np.float64, 3, elements=tenths))
def test_the_training_mean_scores_one_and_the_truth_zero(truth, mean):
    filled = normalised_squared_error(np.broadcast_to(mean, truth.shape), truth, training_mean=mean)
    if filled.value is None:
        assert (truth == mean).all()
    else:
        assert filled.value == 1.0
        assert normalised_squared_error(truth, truth, training_mean=mean).value == 0.0


@given(seeds)
def test_what_is_not_scored_changes_nothing(seed):
    random = np.random.default_rng(seed)
    truth, estimate = random.normal(size=(2, 5, 4))
    draws = random.normal(size=(5, 19, 4))
    scored = random.random((5, 4)) < 0.6
    spoilt_truth, spoilt_estimate = (np.where(scored, part, np.nan) for part in (truth, estimate))
    spoilt_draws = np.where(scored[:, None], draws, np.inf)
    clean = normalised_squared_error(estimate, truth, scored)
    spoilt = normalised_squared_error(spoilt_estimate, spoilt_truth, scored)
    np.testing.assert_array_equal(clean.numerator, spoilt.numerator)
    np.testing.assert_array_equal(clean.denominator, spoilt.denominator)
    np.testing.assert_array_equal(
        energy_scores(draws, truth, scored), energy_scores(spoilt_draws, spoilt_truth, scored)
    )
    covered = coverage90(spoilt_draws, spoilt_truth, scored)
    assert covered.denominator.sum() == scored.sum()
    np.testing.assert_array_equal(covered.numerator, coverage90(draws, truth, scored).numerator)


def test_nothing_scored_is_none_and_never_a_number():
    nothing = np.zeros((2, 3), bool)
    draws, truth = np.zeros((2, 19, 3)), np.zeros((2, 3))
    assert normalised_squared_error(truth, truth, nothing).value is None
    assert coverage90(draws, truth, nothing).value is None
    assert np.isnan(energy_scores(draws, truth, nothing)).all()
    assert mean_of_known(energy_scores(draws, truth, nothing)) is None


def test_energy_score_by_hand():
    # Draws at 0, 3 and (0, 4) around a truth at 0: distances 0, 3, 4; between them 3, 4, 5.
    draws = [[[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]]
    scores = energy_scores(draws, [[0.0, 0.0]])
    assert scores == pytest.approx([7 / 3 - 2 * 12 / (2 * 3 * 2)])


@given(seeds, st.integers(2, 6))
def test_energy_score_is_the_published_formula_sample_by_sample(seed, count):
    random = np.random.default_rng(seed)
    draws, truth = random.normal(size=(3, count, 4)), random.normal(size=(3, 4))
    for row, value in enumerate(energy_scores(draws, truth)):
        x, y = draws[row], truth[row]
        near = np.mean([np.linalg.norm(xi - y) for xi in x])
        apart = sum(np.linalg.norm(x[i] - x[j]) for i in range(count) for j in range(count) if i != j)
        assert value == pytest.approx(near - apart / (2 * count * (count - 1)))
    np.testing.assert_allclose(energy_scores(draws[::-1], truth[::-1])[::-1], energy_scores(draws, truth))


def test_energy_score_is_fair_to_few_draws():
    """Its expectation doesn't depend on the number of draws; the unfair one's does, by a third here."""
    random = np.random.default_rng(7)
    truth = random.normal(size=(20_000, 2))
    few = mean_of_known(energy_scores(random.normal(size=(20_000, 2, 2)), truth))
    many = mean_of_known(energy_scores(random.normal(size=(20_000, 12, 2)), truth))
    assert few == pytest.approx(many, rel=0.03)


def test_energy_score_prefers_the_true_spread():
    random = np.random.default_rng(8)
    truth = random.normal(size=(4000, 3))
    by_spread = {
        spread: mean_of_known(energy_scores(spread * random.normal(size=(4000, 19, 3)), truth))
        for spread in (0.3, 1.0, 2.0)
    }
    assert min(by_spread, key=by_spread.__getitem__) == 1.0


def test_exchangeable_draws_cover_nine_tenths():
    random = np.random.default_rng(9)
    ratio = coverage90(random.normal(size=(5000, 19, 4)), random.normal(size=(5000, 4)))
    assert ratio.value == pytest.approx(18 / 20, abs=0.01)


def test_coverage_counts_features_and_includes_the_ends():
    draws = np.zeros((1, 19, 3))
    draws[0, 0] = 1.0
    ratio = coverage90(draws, [[0.0, 1.0, 1.1]])
    assert ratio.numerator.tolist() == [2.0]
    assert ratio.denominator.tolist() == [3.0]


def test_wrong_numbers_of_draws_are_refused():
    with pytest.raises(ConfigError, match="expected 19 draws"):
        coverage90(np.zeros((2, 16, 3)), np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="two or more draws"):
        energy_scores(np.zeros((2, 1, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("estimate", "truth", "scored"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4)), None),
        (np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 1), bool)),
        (np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), None),
        (np.full((2, 3), np.nan), np.zeros((2, 3)), None),
        (np.zeros((2, 3)), np.full((2, 3), np.inf), None),
    ],
)
def test_shapes_that_differ_and_scored_gaps_are_refused(estimate, truth, scored):
    with pytest.raises(DataError, match="expected"):
        normalised_squared_error(estimate, truth, scored)


@pytest.mark.parametrize("shape", [(2, 3), (2, 19, 4), (3, 19, 3)])
def test_draws_of_another_shape_are_refused(shape):
    with pytest.raises(DataError, match="expected"):
        coverage90(np.zeros(shape), np.zeros((2, 3)))


def test_the_frechet_distance_of_equal_sets_is_zero_and_of_a_shift_its_square() -> None:
    rows = np.random.default_rng(0).standard_normal((400, 5))
    shift = np.array([1.0, -2.0, 0.0, 0.5, 0.0])
    assert frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(rows, rows + shift) == pytest.approx(float(shift @ shift), rel=1e-6)
    # of a scaled set: the means' distance, and the squared difference of the deviations
    spread = rows - rows.mean(axis=0)
    scaled = frechet_distance(spread, 3 * spread)
    assert scaled == pytest.approx(4 * np.trace(np.cov(spread, rowvar=False)), rel=1e-6)
