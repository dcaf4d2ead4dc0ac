"""Plans by clusters: right on clusters that are plain to see, the same from the same seed, honest names."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.errors import DataError
from omg_graph.planner.clusters import cluster_schema, feature_vectors

TRUTH = np.repeat(np.arange(3), 40)


def separated() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Three clusters, told apart by one feature of each modality; of the others one is noise."""
    first = np.full((120, 4), 7.0)
    second = np.full((120, 3), -2.0)
    rng = np.random.default_rng(1)
    first[:, 2] = np.array([5.0, 0.0, -5.0])[TRUTH] + 0.1 * rng.standard_normal(120)
    second[:, 1] = np.array([0.0, 5.0, -5.0])[TRUTH] + 0.1 * rng.standard_normal(120)
    second[:, 2] = rng.standard_normal(120)
    features = {"alpha": first.astype(np.float32), "beta": second.astype(np.float32)}
    return features, {name: np.ones(120, dtype=bool) for name in features}


def partition(plans: list[tuple[str, ...]]) -> list[set[int]]:
    groups: dict[str, set[int]] = {}
    for row, plan in enumerate(plans):
        groups.setdefault(plan[0], set()).add(row)
    return sorted(groups.values(), key=min)


TRUE_PARTITION = [set(range(40)), set(range(40, 80)), set(range(80, 120))]


def test_plain_clusters_are_found_and_named_by_the_features_that_tell_them_apart() -> None:
    schema, plans = cluster_schema(*separated(), groups=3, seed=0)
    assert partition(plans) == TRUE_PARTITION
    assert "alpha 2 high" in plans[0][0]
    assert "beta 1 high" in plans[40][0]
    assert "alpha 2 low" in plans[80][0]
    assert "beta 1 low" in plans[80][0]
    assert all(schema.violations(plan) == () for plan in plans)
    assert schema.target is None


def test_rows_that_miss_a_modality_are_placed_by_the_other() -> None:
    features, observed = separated()
    hidden = np.arange(120) % 3 == 0
    observed["beta"] = ~hidden
    features["beta"] = np.where(hidden[:, None], 999.0, features["beta"]).astype(np.float32)
    _, plans = cluster_schema(features, observed, groups=3, seed=0)
    found = partition(plans)
    assert sum(len(best & true) for best, true in zip(found, TRUE_PARTITION, strict=True)) == 120


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_handful_of_rows_still_gets_plans(rows: int) -> None:
    values = np.arange(rows, dtype=np.float32)[:, None] + np.zeros((1, 2), dtype=np.float32)
    if rows == 1:
        with pytest.raises(DataError, match="differ"):
            cluster_schema({"a": values}, {"a": np.ones(1, dtype=bool)})
        return
    schema, plans = cluster_schema({"a": values}, {"a": np.ones(rows, dtype=bool)})
    assert len({plan[0] for plan in plans}) == rows
    assert all(schema.violations(plan) == () for plan in plans)


def test_the_names_stay_distinct_when_features_do_not_tell() -> None:
    line = np.repeat(np.array([0.0, 1.0, 2.0, 10.0, 20.0, 40.0]), 20)[:, None].astype(np.float32)
    schema, plans = cluster_schema({"only": line}, {"only": np.ones(120, dtype=bool)}, groups=6)
    assert cluster_schema({"only": line}, {"only": np.ones(120, dtype=bool)}, groups=6) == (schema, plans)
    groups = schema.fields[0].values or ()
    assert len(groups) == len(set(groups)) == len({plan[0] for plan in plans}) > 3


def test_sequences_are_averaged_over_true_frames_and_images_over_a_grid() -> None:
    sequence = np.array([[[2.0], [4.0], [100.0]]], dtype=np.float32)
    image = np.ones((1, 8, 8), dtype=np.float32)
    image[0, :2, :2] = 5.0
    split = Split(
        name="train",
        ids=("a",),
        groups=("a",),
        modalities=(
            ModalitySpec(name="s", kind="sequence", shape=(3, 1)),
            ModalitySpec(name="i", kind="image", shape=(8, 8)),
        ),
        arrays={"s": sequence, "i": image},
        observed={"s": np.ones(1, dtype=bool), "i": np.ones(1, dtype=bool)},
        lengths={"s": np.array([2])},
    )
    vectors = feature_vectors(split)
    assert vectors["s"].tolist() == [[3.0]]
    assert vectors["i"].shape == (1, 16)
    assert vectors["i"][0].tolist() == [5.0] + [1.0] * 15


@pytest.mark.parametrize(
    "names",
    [
        ("acoustic features by librosa 2", "vision  of a camera", " odd\tname "),
        ("a_rather_long_name_of_a_field_of_features", "another_rather_long_name_of_a_field", "third"),
        ("x" * 300, "y" * 300, "z" * 300),
    ],
)
def test_names_too_long_for_a_plan_are_cut(names: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)
    features = {name: random.normal(size=(40, 3)).astype(np.float32) for name in names}
    schema, plans = cluster_schema(features, {name: np.ones(40, dtype=bool) for name in names})
    assert all(schema.violations(plan) == () for plan in plans)
    assert len(set(schema.fields[0].values or ())) > 1
