"""The kernel conditional: missing latents by kernel ridge regression on observed ones, for any pattern."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor, nn

from omg_graph.executor.anchor import load_sizes

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Candidates for the kernel's length, in units of a modality's own spread."""
HALF_MOST = 60_000.0
"""Within half precision's range."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class KernelConditional(nn.Module):
    """Kernel ridge regression (the mean of a Gaussian process) over kept training rows.

    The kernel of a pattern is half a Matérn kernel of the distance over all observed modalities, half the
    mean of one such kernel for each: rows may be alike as a whole, or in a single modality. Each target has a
    length and a ridge for every observed set. A row is never predicted from kept rows of
    its own id or group: those are left out by the closed form for leaving out rows, so predictions of
    training rows are cross-fitted exactly.
    """

    def __init__(self, widths: Mapping[str, int], rows: int = 0) -> None:
        super().__init__()
        self.widths = dict(widths)
        modalities = len(self.widths)
        self.register_buffer("latents", torch.zeros(rows, sum(self.widths.values()), dtype=torch.float16))
        self.register_buffer("known", torch.zeros(rows, modalities, dtype=torch.bool))
        self.register_buffer("ids", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("groups", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("spreads", torch.ones(modalities))
        self.register_buffer("patterns", torch.zeros(0, modalities, dtype=torch.bool))
        self.register_buffer("lengths", torch.ones(0, modalities))
        self.register_buffer("ridges", torch.ones(0, modalities))
        self.latents: Tensor
        """Kept in half precision: they are most of what is stored, and inputs are rounded alike."""
        self.known: Tensor
        self.ids: Tensor
        self.groups: Tensor
        self.spreads: Tensor
        """Total variance of each modality's latents."""
        self.patterns: Tensor
        """Observed sets that lengths and ridges were chosen for, (patterns, modalities)."""
        self.lengths: Tensor
        """(patterns, targets)."""
        self.ridges: Tensor
        self._solved: dict[tuple[tuple[bool, ...], str], Tensor] = {}
        self._residuals: dict[tuple[tuple[bool, ...], str], Tensor] = {}
        self._last_references: tuple[bytes, _Rows] | None = None
        """One at a time: they are read for every batch, and most targets share theirs."""
        self._last_inverse: tuple[tuple[tuple[bool, ...], int], Tensor] | None = None
        """One at a time: samples of kept groups need it, block after block of the same observed set."""

    @classmethod
    def keep(
        cls,
        latents: Mapping[str, Float[Tensor, "row _"]],
        known: Bool[Tensor, "row modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> KernelConditional:
        """Keep rows to regress on.

        Args:
            latents: Latents of every modality; what isn't known should hold its best guess.
            known: Rows that don't know a modality serve as inputs, never as targets of it.
            ids: The rows' ids.
            groups: The rows' groups.
        """
        model = cls({name: value.shape[1] for name, value in latents.items()}, len(known))
        model.latents.copy_(_rounded(torch.cat(list(latents.values()), dim=1)))
        model.known.copy_(known)
        model.ids.copy_(_codes(ids))
        model.groups.copy_(_codes(groups))
        for column, value in enumerate(latents.values()):
            rows = value[known[:, column]]
            if len(rows):
                model.spreads[column] = rows.var(dim=0, correction=0).sum().clamp(min=1e-9)
        return model

    def tune(self, patterns: Bool[Tensor, "pattern modality"], targets: Sequence[str] | None = None) -> None:
        """Choose lengths and ridges: the ones that predict kept rows best without their own groups.

        Args:
            patterns: Observed sets to choose for; another set takes what was chosen for the one most like it.
            targets: Modalities to choose for; all of them if None.
        """
        wanted = [list(self.widths).index(name) for name in targets or self.widths]
        self.patterns = patterns.clone()
        self.lengths = torch.ones(patterns.shape)
        self.ridges = torch.ones(patterns.shape)
        for row, pattern in enumerate(patterns):
            for columns in self._targets_alike(pattern, wanted):
                errors = self._own_group_errors(pattern, columns)
                best = errors.flatten(1).argmin(dim=1)
                self.lengths[row, columns] = torch.tensor(LENGTHS)[best // len(RIDGES)]
                self.ridges[row, columns] = torch.tensor(RIDGES)[best % len(RIDGES)]
        self.forget()

    def _targets_alike(self, pattern: Tensor, wanted: Sequence[int]) -> list[list[int]]:
        """Those that a pattern misses and the same rows know together: they share their kernels."""
        alike: dict[bytes, list[int]] = {}
        for column in wanted:
            if not pattern[column] and pattern.any() and self.known[:, column].any():
                alike.setdefault(self.known[:, column].numpy().tobytes(), []).append(column)
        return list(alike.values())

    def _own_group_errors(self, pattern: Tensor, columns: list[int]) -> Tensor:
        """Squared errors of predicting every row without its group, (targets, lengths, ridges)."""
        known = self.known[:, columns[0]]
        rows, names = self._references(known), list(self.widths)
        truths = [rows.parts[names[column]] for column in columns]
        groups = _members(self.groups[known])
        distances = self._distances(rows, rows, pattern)
        errors = torch.zeros(len(columns), len(LENGTHS), len(RIDGES), dtype=torch.float64)
        for place, length in enumerate(LENGTHS):
            values, vectors = torch.linalg.eigh(_kernel(distances, length))
            turned = [vectors.T @ truth for truth in truths]
            for index, ridge in enumerate(RIDGES):
                inverse = 1 / (values.clamp(min=0) + ridge)
                duals = [vectors @ (inverse.unsqueeze(1) * part) for part in turned]
                left = _left_out(vectors, inverse, torch.cat(duals, dim=1), groups)
                parts = torch.split(left, [dual.shape[1] for dual in duals], dim=1)
                errors[:, place, index] = torch.stack([part.square().sum() for part in parts])
        return errors

    def _chosen(self, column: int, pattern: Tensor) -> tuple[float, float]:
        """Length and ridge of a target for an observed set, or for the most alike of those chosen for."""
        if not len(self.patterns):
            return 1.0, 1.0
        alike = (self.patterns == pattern).sum(dim=1) - len(self.widths) * self.patterns[:, column].long()
        row = int(alike.argmax())
        return float(self.lengths[row, column]), float(self.ridges[row, column])

    def predict(
        self,
        target: str,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> Float[Tensor, "batch latent"]:
        """The target's latents given the observed ones; rows that observe the target go by the others.

        Args:
            target: The modality.
            latents: Every modality's latents; what isn't observed is not read.
            observed: What is.
            ids: The samples' ids: a kept row of the same id takes no part.
            groups: The samples' groups: nor does one of the same group.
        """
        out = torch.zeros_like(latents[target])
        for pattern, rows, near, own in self._near(target, latents, observed, ids, groups):
            out[rows] = self._regress(target, pattern, near, own)
        return out

    def alike_rows(
        self,
        target: str,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> AlikeRows:
        """The kept rows in the order in which they are like each sample, for the residuals of any rank.

        Args:
            target: The modality.
            latents: Every modality's latents.
            observed: What is observed.
            ids: The samples' ids: no kept row of the same id is taken.
            groups: The samples' groups: nor one of the same group.
        """
        parts = []
        for pattern, rows, near, own in self._near(target, latents, observed, ids, groups):
            # rounded: rows alike to the last digits must rank alike in any batch
            order = near.round(decimals=9).masked_fill(own, -1.0).argsort(dim=1, descending=True, stable=True)
            parts.append((rows, order, (~own).sum(dim=1), self._left(target, pattern)))
        return AlikeRows(torch.zeros_like(latents[target]), tuple(parts))

    def _near(
        self,
        target: str,
        latents: Mapping[str, Tensor],
        observed: Tensor,
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each observed set: itself, its samples, their kernel with the kept rows, which are their own.

        Of the kept rows only those that know the target; nothing where there is none, and nothing for samples
        that observe nothing else.
        """
        column = list(self.widths).index(target)
        known = self.known[:, column]
        if not bool(known.any()):
            return
        given = observed.clone()
        given[:, column] = False
        x = _rounded(torch.cat(list(latents.values()), dim=1)).double()
        own = self._own(ids, groups)[:, known]
        references = self._references(known)
        patterns, member = torch.unique(given, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if bool(pattern.any()):
                rows = (member == index).nonzero().squeeze(1)
                length, _ = self._chosen(column, pattern)
                distances = self._distances(_Rows(x[rows], self.widths), references, pattern)
                yield pattern, rows, _kernel(distances, length), own[rows]

    def _left(self, target: str, pattern: Tensor) -> Tensor:
        """What the regression leaves of every kept row without its group, at unit mean square."""
        key = (tuple(pattern.tolist()), target)
        if key not in self._residuals:
            column = list(self.widths).index(target)
            inverse, dual = self._inverse(column, pattern), self._dual(target, pattern)
            left = torch.zeros_like(dual)
            for rows in _members(self.groups[self.known[:, column]]):
                left[rows] = torch.linalg.solve(inverse[rows][:, rows], dual[rows])
            self._residuals[key] = (left / left.square().mean().sqrt().clamp(min=1e-9)).float()
        return self._residuals[key]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        names = ("latents", "known", "ids", "groups", "patterns", "lengths", "ridges")
        load_sizes(self, names, state_dict, prefix)
        self.forget()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _references(self, known: Tensor) -> _Rows:
        """The kept rows that know a target."""
        key, kept = known.cpu().numpy().tobytes(), self._last_references
        if kept is not None and kept[0] == key:
            return kept[1]
        references = _Rows(self.latents[known].double(), self.widths)
        self._last_references = (key, references)
        return references

    def _own(self, ids: Sequence[str], groups: Sequence[str]) -> Tensor:
        """(samples, kept rows): rows that are the sample itself or of its group."""
        same_id = _codes(ids).to(self.ids.device).unsqueeze(1) == self.ids
        return same_id | (_codes(groups).to(self.groups.device).unsqueeze(1) == self.groups)

    def _regress(self, target: str, pattern: Tensor, near: Tensor, own: Tensor) -> Tensor:
        dual = self._dual(target, pattern)
        predicted: Tensor = near @ dual
        if bool(own.any()):
            inverse = self._inverse(list(self.widths).index(target), pattern)
            predicted = predicted - _own_share(near @ inverse, inverse, dual, own)
        return predicted.float()

    def _dual(self, target: str, pattern: Tensor) -> Tensor:
        """K^-1 y of the kept rows that know the target."""
        key = (tuple(pattern.tolist()), target)
        if key not in self._solved:
            column = list(self.widths).index(target)
            truth = self._references(self.known[:, column]).parts[target]
            self._solved[key] = self._inverse(column, pattern) @ truth
        return self._solved[key]

    def _inverse(self, column: int, pattern: Tensor) -> Tensor:
        key = (tuple(pattern.tolist()), column)
        kept = self._last_inverse
        if kept is not None and kept[0] == key:
            return kept[1]
        references = self._references(self.known[:, column])
        length, ridge = self._chosen(column, pattern)
        kernel = _kernel(self._distances(references, references, pattern), length)
        kernel.diagonal().add_(ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
        self._last_inverse = (key, inverse)
        return inverse

    def forget(self) -> None:
        """Forget what was solved: for other rows, other settings, or on another device."""
        self._solved.clear()
        self._residuals.clear()
        self._last_references = None
        self._last_inverse = None

    def _apply(self, *arguments: Any, **settings: Any) -> KernelConditional:
        self.forget()
        super()._apply(*arguments, **settings)  # type: ignore[no-untyped-call]
        return self

    def _distances(self, left: _Rows, right: _Rows, pattern: Tensor) -> Tensor:
        """Squared distances in each observed modality, over its spread: (modalities, left, right)."""
        parts = []
        for column, name in enumerate(self.widths):
            if bool(pattern[column]):
                a, b = left.parts[name], right.parts[name]
                squares = left.squares(name).unsqueeze(1) + right.squares(name) - 2 * a @ b.T
                parts.append(squares.clamp(min=0) / self.spreads[column])
        return torch.stack(parts)


class _Rows:
    """Latents by modality; the squares that distances take of them are summed once."""

    def __init__(self, latents: Float[Tensor, "row latent"], widths: Mapping[str, int]) -> None:
        self.parts = dict(zip(widths, torch.split(latents, list(widths.values()), dim=1), strict=True))
        self._squares: dict[str, Tensor] = {}

    def squares(self, name: str) -> Float[Tensor, " row"]:
        """The squared length of every row."""
        if name not in self._squares:
            self._squares[name] = self.parts[name].square().sum(1)
        return self._squares[name]


@dataclass(frozen=True)
class AlikeRows:
    """Which kept rows each sample of a batch is like: found once, however many draws there are."""

    nothing: Float[Tensor, "batch latent"]
    parts: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    """For each observed set its samples, their kept rows from the most alike on, how many of these may serve,
    and what the regression left of every kept row."""

    def residuals(self, ranks: Int[Tensor, " batch"]) -> Float[Tensor, "batch latent"]:
        """What the regression left of one kept row for each sample, at unit mean square over all rows.

        The row's own group took no part in predicting it. Samples that observe nothing get zeros, and so do
        those whose own group all kept rows are of.

        Args:
            ranks: Which row, 0 the most alike; beyond the last it starts again.
        """
        out = self.nothing.clone()
        for rows, order, allowed, left in self.parts:
            place = order.gather(1, (ranks[rows] % allowed.clamp(min=1)).unsqueeze(1)).squeeze(1)
            out[rows] = left[place] * (allowed > 0).unsqueeze(1)
        return out


def _kernel(distances: Float[Tensor, "modality left right"], length: float) -> Float[Tensor, "left right"]:
    """Matérn, smoothness 3/2: of all modalities together, and of each alone."""
    together = _matern(distances.mean(0), length)
    return together if len(distances) == 1 else (together + _matern(distances, length).mean(0)) / 2


def _matern(squared: Tensor, length: float) -> Tensor:
    scaled = (3 * squared).sqrt() / length
    return (1 + scaled) * torch.exp(-scaled)


def _members(groups: Int[Tensor, " row"]) -> list[Int[Tensor, " member"]]:
    """The rows of each group."""
    order = groups.argsort(stable=True)
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    return list(torch.split(order, counts.tolist()))


def _left_out(
    vectors: Float[Tensor, "row row"],
    inverse: Float[Tensor, " row"],
    dual: Float[Tensor, "row target"],
    groups: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, "row target"]:
    """What is left of every row when its group is predicted from the others: (K^-1_GG)^-1 (K^-1 y)_G."""
    if len(groups) == len(dual):
        return dual / (vectors.square() @ inverse).unsqueeze(1)
    left = torch.zeros_like(dual)
    for rows in groups:
        block = (vectors[rows] * inverse) @ vectors[rows].T
        left[rows] = torch.linalg.solve(block, dual[rows])
    return left


def _own_share(
    weights: Float[Tensor, "batch row"],
    inverse: Float[Tensor, "row row"],
    dual: Float[Tensor, "row latent"],
    own: Bool[Tensor, "batch row"],
) -> Float[Tensor, "batch latent"]:
    """What a sample's own rows add to its prediction: w_G (K^-1_GG)^-1 (K^-1 y)_G.

    K^-1 restricted to rows G is the inverse of their covariance given all others, so what is left after
    subtracting this is the regression without them.
    """
    share = torch.zeros(len(weights), dual.shape[1], dtype=dual.dtype, device=dual.device)
    counts = own.sum(dim=1)
    batch, row = own[counts == 1].nonzero().unbind(1)
    batch = (counts == 1).nonzero().squeeze(1)[batch]
    share[batch] = (weights[batch, row] / inverse[row, row]).unsqueeze(1) * dual[row]
    several = (counts > 1).nonzero().squeeze(1)
    sets, member = torch.unique(own[several], dim=0, return_inverse=True)
    for index, of_set in enumerate(sets):
        rows = of_set.nonzero().squeeze(1)
        batch = several[member == index]
        left = torch.linalg.solve(inverse[rows][:, rows], dual[rows])
        share[batch] = weights[batch][:, rows] @ left
    return share


def _rounded(latents: Float[Tensor, "row latent"]) -> Float16[Tensor, "row latent"]:
    return latents.clamp(-HALF_MOST, HALF_MOST).half()


def _codes(names: Sequence[str]) -> Tensor:
    """A number for each name, the same everywhere: 63 bits of a hash."""
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests], dtype=torch.int64)
