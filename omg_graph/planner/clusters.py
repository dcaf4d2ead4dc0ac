"""Plans for data that has neither text nor labels: which cluster a sample falls in, coarse to fine.

K-means is ours: distances leave out what a sample misses, which scikit-learn's KMeans doesn't do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.codecs.codec import Rows, codec_class
from omg_graph.data.dataset import BoolArray, FloatArray, Split
from omg_graph.errors import DataError
from omg_graph.planner.schema import MAX_VALUE_LENGTH, MAX_VALUE_WORDS, Field, Plan, Schema
from omg_graph.seeding import derived_seed

GROUP = "Group"
VARIANT = "Variant"
ORDINARY = "ordinary"
"""The variant of a group that isn't divided further."""

MIN_VARIANT_ROWS = 5
"""A group is divided only if each variant can have this many samples on average."""

RESTARTS = 4
MAX_ROUNDS = 50

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Table:
    """Standardised features side by side; a missing modality's entries are 0 and weigh nothing."""

    values: Matrix
    """(samples, features)."""
    weights: Matrix
    """(samples, features): weights of observed entries, with equal totals per modality; a row sums to 1."""
    names: tuple[tuple[str, int], ...]
    """Modality and index of each feature."""

    def rows(self, chosen: npt.NDArray[np.int64]) -> _Table:
        return _Table(self.values[chosen], self.weights[chosen], self.names)


def feature_vectors(split: Split) -> dict[str, FloatArray]:
    """One vector a sample for each modality, (samples, features), for clustering: its codec's summary."""
    return {
        spec.name: codec_class(spec.kind).summary(
            Rows(split.arrays[spec.name], split.lengths.get(spec.name), split.lost.get(spec.name))
        )
        for spec in split.modalities
    }


def cluster_schema(
    features: Mapping[str, FloatArray],
    observed: Mapping[str, BoolArray],
    *,
    groups: int = 6,
    variants: int = 3,
    seed: int = 0,
) -> tuple[Schema, list[Plan]]:
    """A schema of two fields, Group and Variant, and the plan of every sample.

    Groups come from k-means on standardised features, variants from k-means within each group. Distances
    run over what is observed, each modality with the same weight. A cluster's name is its most telling
    features, of different modalities where there are several: "fou 12 high, zer 3 low".

    Args:
        features: modality name to (samples, features).
        observed: modality name to (samples,).
        groups: the most groups.
        variants: the most variants of a group.
        seed: of the first centres.

    Raises:
        DataError: if there are no samples, or none of the features varies.
    """
    table = _table(features, observed)
    group_of, group_centres = _k_means(table, groups, np.random.default_rng(derived_seed(seed, "groups")))
    group_names = _names(table, group_centres, np.zeros(len(table.names)))
    plans: list[Plan] = [()] * len(table.values)
    within: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(group_names):
        rows = np.flatnonzero(group_of == number)
        part = table.rows(rows)
        count = min(variants, len(rows) // MIN_VARIANT_ROWS)
        if count > 1:
            rng = np.random.default_rng(derived_seed(seed, "variants", number))
            variant_of, centres = _k_means(part, count, rng)
        else:
            variant_of, centres = np.zeros(len(rows), dtype=np.int64), part.values[:0]
        variant_names = _names(part, centres, group_centres[number]) if len(centres) > 1 else (ORDINARY,)
        within[name] = variant_names
        for row, variant in zip(rows, variant_of, strict=True):
            plans[row] = (name, variant_names[variant])
    schema = Schema(
        name="clusters",
        description="A plan that says which cluster of the training data a sample resembles.",
        fields=(
            Field(
                name=GROUP,
                description="The cluster, named by the features that set it apart from the average.",
                values=tuple(group_names),
            ),
            Field(
                name=VARIANT,
                description="The part of the cluster, named by what sets it apart from the cluster.",
                values=tuple(dict.fromkeys(name for names in within.values() for name in names)),
                within=within,
            ),
        ),
        text_form=f"{{{GROUP}}}; {{{VARIANT}}}",
    )
    return schema, plans


def _table(features: Mapping[str, FloatArray], observed: Mapping[str, BoolArray]) -> _Table:
    values, weights, names = [], [], []
    for name, array in features.items():
        there = observed[name]
        if not there.any():
            continue
        rows = np.asarray(array, dtype=np.float64)
        mean, deviation = rows[there].mean(axis=0), rows[there].std(axis=0)
        varies = deviation > 1e-8 * np.maximum(1.0, np.abs(mean))
        if not varies.any():
            continue
        kept = (rows[:, varies] - mean[varies]) / deviation[varies] * there[:, None]
        values.append(kept)
        weights.append(np.repeat(there[:, None] / varies.sum(), varies.sum(), axis=1))
        names += [(name, int(index)) for index in np.flatnonzero(varies)]
    if not values:
        raise DataError(
            "plans by clusters need features that differ between samples, and none does: "
            "give labels, or a schema with --schema"
        )
    joint = np.concatenate(weights, axis=1)
    joint /= np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
    return _Table(np.concatenate(values, axis=1), joint, tuple(names))


def _distances(table: _Table, centres: Matrix) -> Matrix:
    """Weighted squared distances over observed features, (samples, centres)."""
    weighted = table.weights * table.values
    squares = (weighted * table.values).sum(axis=1, keepdims=True)
    found = squares - 2 * weighted @ centres.T + table.weights @ (centres**2).T
    return np.asarray(np.maximum(found, 0.0))


def _centres(table: _Table, assigned: npt.NDArray[np.int64], count: int) -> Matrix:
    """Means over observed entries; a feature that nobody of a cluster has stays at the average, 0."""
    member = (assigned[None, :] == np.arange(count)[:, None]).astype(np.float64)
    there = member @ (table.weights > 0)
    return np.asarray(member @ table.values / np.maximum(there, 1.0))


def _k_means(table: _Table, count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Lloyd's rounds from k-means++ centres, the best of a few starts; clusters in order of size."""
    best: tuple[float, npt.NDArray[np.int64]] | None = None
    for _ in range(RESTARTS):
        centres = _first_centres(table, count, rng)
        assigned = np.zeros(len(table.values), dtype=np.int64)
        for _ in range(MAX_ROUNDS):
            nearest = _distances(table, centres).argmin(axis=1)
            # Clusters that lost all their samples go.
            _, nearest = np.unique(nearest, return_inverse=True)
            centres = _centres(table, nearest, int(nearest.max()) + 1)
            if np.array_equal(nearest, assigned):
                break
            assigned = nearest
        cost = float(_distances(table, centres)[np.arange(len(assigned)), assigned].sum())
        if best is None or cost < best[0] - 1e-9:
            best = (cost, assigned)
    assert best is not None
    sizes = np.bincount(best[1])
    order = np.argsort(-sizes, kind="stable")
    assigned = np.argsort(order)[best[1]]
    return assigned, _centres(table, assigned, len(sizes))


def _first_centres(table: _Table, count: int, rng: np.random.Generator) -> Matrix:
    """k-means++: each further centre is a sample drawn in proportion to its squared distance."""
    chosen = [int(rng.integers(len(table.values)))]
    while len(chosen) < count:
        nearest = _distances(table, table.values[chosen]).min(axis=1)
        nearest[nearest < 1e-12] = 0.0
        if not nearest.any():
            break
        chosen.append(int(rng.choice(len(nearest), p=nearest / nearest.sum())))
    return table.values[chosen]


def _names(table: _Table, centres: Matrix, average: Matrix) -> tuple[str, ...]:
    """A phrase for each centre: what differs most from the average, in as few features as tell it apart."""
    phrases = [_telling(table.names, centre - average) for centre in centres]
    most = len(phrases[0])
    for length in range(min(2, most), most + 1):
        names = [", ".join(phrase[:length]) for phrase in phrases]
        if len(set(names)) == len(names) and all(map(_fits, names)):
            return tuple(names)
    for length in range(most, 0, -1):
        names = [f"{', '.join(phrase[:length])}, kind {n + 1}" for n, phrase in enumerate(phrases)]
        if all(map(_fits, names)):
            return tuple(names)
    # not even one feature's name is short enough for a plan
    return tuple(f"kind {number + 1}" for number in range(len(phrases)))


def _fits(name: str) -> bool:
    return len(name) <= MAX_VALUE_LENGTH and len(name.split()) <= MAX_VALUE_WORDS


def _telling(names: Sequence[tuple[str, int]], difference: Matrix) -> list[str]:
    """Up to four features as words, those of different modalities first."""
    order = [int(index) for index in np.argsort(-np.abs(difference), kind="stable")]
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(names[index][0], index)
    leading = list(first.values())[:2]
    rest = [index for index in order[:6] if index not in leading]
    telling = [
        (*names[index][0].split(), str(names[index][1]), "high" if difference[index] > 0 else "low")
        for index in [*leading, *rest][:4]
    ]
    return [" ".join(words) for words in telling]
