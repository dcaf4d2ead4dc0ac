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
from omg_graph.report.figures import (
    Detail,
    bundle,
    changed,
    figures,
    interval,
    look,
    packed,
    principal_directions,
    rounded,
    shortened,
    visible,
)


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


def test_a_path_in_a_plane_keeps_its_distances() -> None:
    random = np.random.default_rng(0)
    flat = random.standard_normal((7, 2))
    turned, _ = np.linalg.qr(random.standard_normal((5, 5)))
    (seen,), shares = principal_directions(flat @ turned[:2])
    distances = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (seen, flat)]
    np.testing.assert_allclose(*distances, atol=1e-12)
    assert sum(shares) == pytest.approx(1.0)


def test_it_points_to_where_the_first_path_ends_whatever_its_sign() -> None:
    path = np.cumsum(np.random.default_rng(1).standard_normal((6, 4)), axis=0)
    (seen,), _ = principal_directions(path)
    (mirrored,), _ = principal_directions(-path)
    np.testing.assert_allclose(seen, mirrored, atol=1e-12)
    assert (seen[-1] >= 0).all()


def test_several_paths_share_their_directions() -> None:
    one, other = np.array([[0.0, 0], [2, 0]]), np.array([[0.0, 1], [2, 1]])
    (first, second), _ = principal_directions(one, other)
    np.testing.assert_allclose(first[1] - first[0], second[1] - second[0])
    np.testing.assert_allclose(np.linalg.norm(first - second, axis=1), 1.0)


def test_one_dimension_and_no_movement_are_no_error() -> None:
    (line,), shares = principal_directions(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(line, [[-0.5, 0], [0.5, 0]])
    assert shares == (1.0, 0.0)
    (still,), shares = principal_directions(np.zeros((3, 2)))
    assert not still.any()
    assert shares == (0.0, 0.0)


@pytest.mark.parametrize(("use", "kind", "top"), [("picture", "<u1", 255), ("curve", "<u2", 65535)])
def test_numbers_come_back_within_half_a_level(use: str, kind: str, top: int) -> None:
    numbers = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    told = bundle({"one": numbers, "two": numbers * 2}, use)
    levels = np.frombuffer(base64.b64decode(told["series"]["one"]), dtype=kind)
    assert told["levels"] == top
    back = told["low"] + (told["high"] - told["low"]) * levels / (top - 1)
    step = (told["high"] - told["low"]) / (top - 1)
    # the ends are told with five digits
    np.testing.assert_allclose(back, numbers.ravel(), atol=step / 2 + 1e-4)


def test_what_is_no_number_has_the_last_level() -> None:
    levels = base64.b64decode(packed(np.array([0.0, np.nan, 1.0, np.inf]), 0.0, 1.0, "picture"))
    assert list(levels) == [0, 255, 254, 255]


def test_a_constant_is_no_division_by_zero() -> None:
    told = bundle({"one": np.full(3, 7.0)}, "curve")
    assert (told["low"], told["high"]) == (7.0, 7.0)
    assert np.frombuffer(base64.b64decode(told["series"]["one"]), "<u2").tolist() == [0, 0, 0]


def test_json_has_no_word_for_infinity() -> None:
    assert rounded(float("inf")) is None
    assert rounded(1234567.0) == 1234600.0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 漢字", "plain, ünïcode, 漢字"),
        ("a\x00b\x1b[31m\x7f", "a␀b␛[31m␡"),
        ("abc\u202edcba", "abc⟨U+202E⟩dcba"),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),
        ("half \ud83d of one", "half \ufffd of one"),
        ("line\nand\ttab", "line\nand\ttab"),
        ("\x85", "⟨U+0085⟩"),
    ],
)
def test_what_cannot_be_seen_gets_a_sign(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_text_is_cut_with_a_sign() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abc defg", 5) == "abc…"
