from __future__ import annotations

import numpy as np
import pytest

from omg_graph.errors import DataError
from omg_graph.simulator import AffectSimulator, measure_bounds, normalised_squared_error


def test_more_is_never_worse_and_each_modality_tells_its_part(simulator: AffectSimulator) -> None:
    split = simulator.sample(1500, 1, seed=0).split
    found = {bounds.observed: bounds for bounds in measure_bounds(simulator, split)}
    assert len(found) == 7
    text, audio, vision = found[("text",)], found[("audio",)], found[("vision",)]
    everything = found[("text", "audio", "vision")]
    assert text.accuracy2 == pytest.approx(0.86, abs=0.04)
    assert audio.strength_explained > vision.strength_explained
    assert vision.polarity_explained > audio.polarity_explained
    assert all(everything.accuracy2 > bounds.accuracy2 - 0.01 for bounds in found.values())
    assert everything.mae < min(text.mae, audio.mae, vision.mae)
    assert everything.nmse == {}
    for name, other in (("audio", "vision"), ("vision", "audio")):
        both, alone = found[("text", other) if other == "audio" else ("text", "vision")], found[(other,)]
        assert 0.4 < both.nmse[name] < alone.nmse[name] < 0.8
    assert all(error < 1 for bounds in found.values() for error in bounds.nmse.values())


def test_predicting_the_mean_has_error_one(simulator: AffectSimulator) -> None:
    truth = simulator.sample(3, 1, seed=0).split.arrays["audio"]
    constant = np.tile(simulator.moments["audio"][0], (3, 1))
    assert normalised_squared_error(simulator, "audio", constant, truth) == pytest.approx(1.0)
    assert normalised_squared_error(simulator, "audio", truth.astype(np.float64), truth) == 0.0


def test_incomplete_clips_are_refused(simulator: AffectSimulator) -> None:
    split = simulator.sample(1, 2, seed=0).split
    with pytest.raises(DataError, match="complete clips with labels"):
        measure_bounds(simulator, split.without_labels())
    with pytest.raises(DataError, match="complete clips with labels"):
        measure_bounds(simulator, split.hide(np.array([[True, False, False], [False, False, False]])))
