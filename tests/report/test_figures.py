"""What is drawn of a reconstruction: the right kind, the right numbers."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from omg_graph.record.results import SavedArrays, SavedRun
from omg_graph.report.figures import Detail, changed, figures, interval, look


def levels(bundle: dict[str, Any], name: str) -> npt.NDArray[np.float64]:
    kind = "<u1" if bundle["levels"] == 255 else "<u2"
    raw = np.frombuffer(base64.b64decode(bundle["series"][name]), kind).astype(np.float64)
    return (bundle["low"] + (bundle["high"] - bundle["low"]) * raw / (bundle["levels"] - 1)).reshape(
        bundle["shape"]
    )


def drawn(run: SavedRun, name: str, row: int = 0, picture: tuple[int, int] | None = None) -> dict[str, Any]:
    trajectory = run.trajectories[row]
    how = look(run, name, trajectory.reconstruction[name].shape, picture)
    return figures(run, trajectory, name, how, Detail())


def steps_of(run: SavedRun, name: str) -> int:
    return len(run.trajectories[0].denoising[name])


def test_few_features_are_bars_in_deviations(clips_run: SavedRun) -> None:
    data = drawn(clips_run, "audio")
    assert data["kind"] == "bars"
    assert set(data["bars"]["series"]) == {"estimate", "truth", "nearest", "low", "high"}
    scale = clips_run.arrays.scale("audio")
    assert scale is not None
    estimate = clips_run.arrays.get(clips_run.trajectories[0].reconstruction["audio"])
    expected = (estimate - scale[0]) / scale[1]
    np.testing.assert_allclose(data["bars"]["series"]["estimate"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(levels(data["all"], "estimate"), expected, atol=1e-3)


def test_intervals_run_over_the_draws(clips_run: SavedRun) -> None:
    series = drawn(clips_run, "audio")["bars"]["series"]
    assert (np.array(series["low"]) <= np.array(series["high"])).all()
    assert interval(19) == pytest.approx(0.9)


def test_a_sequence_is_a_heat_map_of_the_frames_that_count(plain_run: SavedRun) -> None:
    trajectory = plain_run.trajectories[0]
    data = drawn(plain_run, "a.b")
    assert data["kind"] == "heat"
    assert data["all"]["shape"] == [trajectory.lengths["a.b"], 2]
    assert data["steps"]["shape"] == [steps_of(plain_run, "a.b"), trajectory.lengths["a.b"], 2]


@pytest.mark.parametrize(("name", "shape"), [("grey", [3, 3]), ("photo", [3, 4])])
def test_images_are_images_in_the_units_of_the_input(
    plain_run: SavedRun, name: str, shape: list[int]
) -> None:
    data = drawn(plain_run, name)
    assert data["kind"] == "image"
    estimate = plain_run.arrays.get(plain_run.trajectories[0].reconstruction[name])
    # an image of two channels has no colours: their mean is shown
    expected = estimate.mean(axis=0) if estimate.ndim == 3 else estimate
    assert data["all"]["shape"] == shape
    step = (data["all"]["high"] - data["all"]["low"]) / 254
    np.testing.assert_allclose(levels(data["all"], "estimate"), expected, atol=step)
    assert data["steps"]["shape"][1:] == shape


def test_a_vector_can_be_the_pixels_of_an_image(clips_run: SavedRun) -> None:
    data = drawn(clips_run, "audio", picture=(1, 5))
    assert (data["kind"], data["all"]["shape"], data["steps"]["shape"]) == (
        "image",
        [1, 5],
        [steps_of(clips_run, "audio"), 1, 5],
    )


def test_the_last_step_shows_the_end_of_the_path(clips_run: SavedRun) -> None:
    """The clean estimate of the last step is close to z_0, which is draw 0."""
    data = drawn(clips_run, "audio")
    scale = clips_run.arrays.scale("audio")
    assert scale is not None
    draw = clips_run.arrays.get(clips_run.trajectories[0].arrays["draws/audio"])[0]
    last = levels(data["steps"], "estimate")[-1]
    np.testing.assert_allclose(last, (draw - scale[0]) / scale[1], atol=0.05)


def test_the_path_ends_where_the_clean_estimates_end(clips_run: SavedRun) -> None:
    path = drawn(clips_run, "audio")["path"]
    assert len(path["states"]) == len(path["clean"]) + 1 == steps_of(clips_run, "audio") + 1
    np.testing.assert_allclose(path["states"][-1], path["clean"][-1], atol=0.05)


def test_less_detail_is_smaller(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    how = look(clips_run, "audio", trajectory.reconstruction["audio"].shape, None)
    data = figures(clips_run, trajectory, "audio", how, Detail(cells=3, step_cells=2))
    assert (data["all"]["shape"], data["blocks"], data["steps"]["shape"]) == (
        [3],
        [2],
        [steps_of(clips_run, "audio"), 2],
    )
    assert not data["steps"]["whole"]


def test_what_moved_is_drawn_from_before_to_after(clips_run: SavedRun) -> None:
    first, second = clips_run.trajectories[:2]
    other = replace(clips_run, trajectories=(second.model_copy(update={"id": first.id}),))
    data = changed((clips_run, other), first.id, "audio", Detail())
    assert data is not None
    assert data["words"] == {"truth": "before", "estimate": "after"}
    for key, row in (("truth", 0), ("estimate", 1)):
        expected = drawn(clips_run, "audio", row)["bars"]["series"]["estimate"]
        assert data["bars"]["series"][key] == expected
    bare = replace(other, arrays=SavedArrays(Path("nowhere")))
    assert changed((clips_run, bare), first.id, "audio", Detail()) is None
