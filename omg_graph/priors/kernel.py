"""The kernel conditional: missing latents by kernel ridge regression on observed ones, for any pattern."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Bool, Float, Float16, Int
from torch import Tensor, nn

from omg_graph.priors.prior import Shown, SimilarRows, load_sizes, most_similar

HALF_MOST = 60_000.0
"""A bound within the range of half precision."""
MOST_BYTES = 1 << 28
"""Size limit of one model's cache of solved systems: all patterns of six modalities fit."""
BLOCK = 64
"""Rows of a kernel computed at a time, so that intermediate results stay in the processor's cache."""

_SystemKey = tuple[tuple[bool, ...], bytes, float, float, tuple[float, ...]]
"""An observed set, the rows that know the target, length, ridge and relevance."""


class _Kept:
    """A least-recently-used cache of tensors, limited in bytes."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._tensors: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The cached tensor of a key, else the result of ``compute``, which must own its memory."""
        found = self._tensors.pop(key, None)
        if found is None:
            found = compute()
        if found.nbytes <= self.most_bytes:
            self._tensors[key] = found  # at the end: the most recently used
            while self.bytes > self.most_bytes:
                self._tensors.popitem(last=False)
        return found

    @property
    def bytes(self) -> int:
        # copied to a list first: other threads may add and drop tensors meanwhile
        return sum(tensor.nbytes for tensor in list(self._tensors.values()))

    def clear(self) -> None:
        self._tensors.clear()


class KernelConditional(nn.Module):
    """Kernel ridge regression (the mean of a Gaussian process) over kept training rows.

    The kernel of a pattern is the average of two parts: a Matérn kernel of the distance over all observed
    modalities, and the mean of one such kernel per modality. So rows may be similar overall or in a single
    modality. Each target has a length and a ridge for every observed set, and a relevance for each modality
    if modalities differ in relevance (automatic relevance determination). Kept rows of a sample's own id or
    group are never used to predict it: leave-group-out predictions have a closed form, so predictions of
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
        self.register_buffer("relevance", torch.ones(0, modalities, modalities))
        self.latents: Tensor
        """In half precision, because they take up most of the storage; inputs are rounded in the same way."""
        self.known: Tensor
        self.ids: Tensor
        self.groups: Tensor
        self.spreads: Tensor
        """Total variance of each modality's latents."""
        self.patterns: Tensor
        """Observed sets with a tuned length and ridge, (patterns, modalities)."""
        self.lengths: Tensor
        """(patterns, targets)."""
        self.ridges: Tensor
        self.relevance: Tensor
        """(patterns, targets, modalities): weight of the distance in each modality, at most 1."""
        self._solved = _Kept(MOST_BYTES)
        """Cached solutions and residuals, by observed set and target."""
        self._last_references: tuple[bytes, Rows] | None = None
        """Only the last one: it is needed for every batch, and most targets share it."""
        self._last_factor: tuple[_SystemKey, Tensor] | None = None
        """Only the last one: targets with the same rows, length and ridge share it."""
        self._last_inverse: tuple[_SystemKey, Tensor] | None = None
        """Only the last one: successive batches of one observed set need it for samples of kept groups."""

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
            latents: Latents of every modality; unknown ones should hold an estimate.
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

    def extended(
        self,
        latents: Mapping[str, Float[Tensor, "row _"]],
        known: Bool[Tensor, "row modality"],
        ids: Sequence[str],
        groups: Sequence[str],
        most: int = 2000,
    ) -> KernelConditional:
        """The same regression with more rows kept; itself if it keeps all of them already.

        Args:
            latents: As ``keep`` takes them.
            known: Which of it is known.
            ids: The rows' ids: those of kept rows are left out.
            groups: The rows' groups.
            most: Rows to add at most: those with the smallest hash codes.
        """
        codes = _codes(ids)
        new = (~torch.isin(codes, self.ids.cpu())).nonzero().squeeze(1)
        new = new[codes[new].argsort()[:most]].sort().values
        if not len(new) or not len(self.known):
            return self
        device = self.latents.device
        added = _rounded(torch.cat([value[new.to(value.device)] for value in latents.values()], dim=1))
        model = KernelConditional(self.widths, len(self.known) + len(new))
        model.latents = torch.cat([self.latents, added.to(device)])
        model.known = torch.cat([self.known, known[new].to(device)])
        model.ids = torch.cat([self.ids, codes[new].to(device)])
        model.groups = torch.cat([self.groups, _codes(groups)[new].to(device)])
        model.spreads = self.spreads
        model.patterns, model.lengths = self.patterns, self.lengths
        model.ridges, model.relevance = self.ridges, self.relevance
        return model.train(self.training)

    def _chosen(self, column: int, pattern: Tensor) -> tuple[float, float, Tensor]:
        """Length, ridge and relevance of a target for an observed set, or for the most similar tuned set."""
        if not len(self.patterns):
            return 1.0, 1.0, self.spreads.new_ones(int(pattern.sum())).double()
        row = int(most_similar(self.patterns, pattern.unsqueeze(0), column))
        relevance = self.relevance[row, column, pattern].double()
        return float(self.lengths[row, column]), float(self.ridges[row, column]), relevance

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """The target's latents given the observed ones; zeros for samples that observe the target itself.

        Kept rows of a sample's own id or group are not used for its estimate.
        """
        out = torch.zeros_like(shown.latents[target])
        for pattern, rows, near, own in self._near(target, shown):
            out[rows] = self._regress(target, pattern, near, own)
        return out

    def similar_rows(self, target: str, shown: Shown) -> SimilarRows:
        """The kept rows of each sample, nearest first, with their residuals.

        Samples that observe the target get none; rows of a sample's own id or group are left out.
        """
        parts = []
        for pattern, rows, near, own in self._near(target, shown):
            # rounded: rows that differ in the last digits alone must rank the same in any batch
            order = near.round(decimals=9).masked_fill(own, -1.0).argsort(dim=1, descending=True, stable=True)
            parts.append((rows, order, (~own).sum(dim=1), self._left(target, pattern)))
        return SimilarRows(torch.zeros_like(shown.latents[target]), tuple(parts))

    def _near(self, target: str, shown: Shown) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each observed set: itself, its samples, their kernel with kept rows, and which rows are own.

        Only kept rows that know the target take part; without any, nothing is yielded. Samples that observe
        the target, or nothing at all, are skipped.
        """
        column = list(self.widths).index(target)
        known = self.known[:, column]
        if not bool(known.any()):
            return
        x = _rounded(torch.cat(list(shown.latents.values()), dim=1)).double()
        own = self._own(shown.ids, shown.groups)[:, known]
        references = self.references(known)
        patterns, member = torch.unique(shown.observed, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if bool(pattern.any()) and not bool(pattern[column]):
                rows = (member == index).nonzero().squeeze(1)
                length, _, relevance = self._chosen(column, pattern)
                near = self._kernel(Rows(x[rows], self.widths), references, pattern, length, relevance)
                yield pattern, rows, near, own[rows]

    def _left(self, target: str, pattern: Tensor) -> Tensor:
        """The leave-group-out residual of each kept row, scaled to unit mean square."""

        def compute() -> Tensor:
            column = list(self.widths).index(target)
            inverse, dual = self._inverse(column, pattern), self._dual(target, pattern)
            groups = groups_by_size(self.groups[self.known[:, column]])
            left = leave_group_out(dual, groups, inverse.diagonal(), partial(blocks_of, inverse))
            return (left / left.square().mean().sqrt().clamp(min=1e-9)).float()

        return self._solved.get(("left", target, *pattern.tolist()), compute)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        names = ("latents", "known", "ids", "groups", "patterns", "lengths", "ridges", "relevance")
        load_sizes(self, names, state_dict, prefix)
        self.forget()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def references(self, known: Tensor) -> Rows:
        """The kept rows that know a target."""
        key, kept = known.cpu().numpy().tobytes(), self._last_references
        if kept is not None and kept[0] == key:
            return kept[1]
        references = Rows(self.latents[known].double(), self.widths)
        self._last_references = (key, references)
        return references

    def _own(self, ids: Sequence[str], groups: Sequence[str]) -> Tensor:
        """(samples, kept rows): True where the row has the sample's id or group."""
        same_id = _codes(ids).to(self.ids.device).unsqueeze(1) == self.ids
        return same_id | (_codes(groups).to(self.groups.device).unsqueeze(1) == self.groups)

    def _regress(self, target: str, pattern: Tensor, near: Tensor, own: Tensor) -> Tensor:
        if not bool(own.any()):
            predicted: Tensor = near @ self._dual(target, pattern)
            return predicted.float()
        inverse = self._inverse(list(self.widths).index(target), pattern)
        dual = self._dual(target, pattern)
        predicted = near @ dual - own_share(near @ inverse, inverse, dual, own)
        return predicted.float()

    def _dual(self, target: str, pattern: Tensor) -> Tensor:
        """K^-1 y of the kept rows that know the target."""

        def compute() -> Tensor:
            column = list(self.widths).index(target)
            truth = self.references(self.known[:, column]).parts[target]
            key, kept = self._system(column, pattern), self._last_inverse
            # in training the kept rows themselves are predicted, which needs the inverse anyway
            if self.training or (kept is not None and kept[0] == key):
                return self._inverse(column, pattern) @ truth
            return torch.cholesky_solve(truth, self._factor(column, pattern))

        return self._solved.get(("dual", target, *pattern.tolist()), compute)

    def _system(self, column: int, pattern: Tensor) -> _SystemKey:
        known = self.known[:, column].cpu().numpy().tobytes()
        length, ridge, relevance = self._chosen(column, pattern)
        return tuple(pattern.tolist()), known, length, ridge, tuple(relevance.tolist())

    def _factor(self, column: int, pattern: Tensor) -> Tensor:
        """The Cholesky factor of K, the kernel of the kept rows with the ridge."""
        key, kept = self._system(column, pattern), self._last_factor
        if kept is not None and kept[0] == key:
            return kept[1]
        references = self.references(self.known[:, column])
        length, ridge, relevance = self._chosen(column, pattern)
        kernel = self._kernel(references, references, pattern, length, relevance)
        kernel.diagonal().add_(ridge)
        factor: Tensor = torch.linalg.cholesky(kernel)
        self._last_factor = (key, factor)
        return factor

    def _inverse(self, column: int, pattern: Tensor) -> Tensor:
        key, kept = self._system(column, pattern), self._last_inverse
        if kept is not None and kept[0] == key:
            return kept[1]
        inverse = torch.cholesky_inverse(self._factor(column, pattern))
        self._last_inverse = (key, inverse)
        return inverse

    def forget(self) -> None:
        """Clear the caches, after a change of rows, settings or device."""
        self._solved.clear()
        self._last_references = None
        self._last_factor = None
        self._last_inverse = None

    def _apply(self, *arguments: Any, **settings: Any) -> KernelConditional:
        self.forget()
        super()._apply(*arguments, **settings)  # type: ignore[no-untyped-call]
        return self

    def _kernel(self, left: Rows, right: Rows, pattern: Tensor, length: float, relevance: Tensor) -> Tensor:
        """The kernel between two sets of rows, (left, right)."""
        parts = (squared_distances(block, right, pattern, self.spreads) for block in left.blocks(BLOCK))
        return torch.cat([matern_kernel(part, length, relevance) for part in parts])


def _rounded(latents: Float[Tensor, "row latent"]) -> Float16[Tensor, "row latent"]:
    return latents.clamp(-HALF_MOST, HALF_MOST).half()


def _codes(names: Sequence[str]) -> Tensor:
    """A number for each name, the same on every machine: 63 bits of a hash."""
    digests = (blake2b(name.encode(), digest_size=8).digest() for name in names)
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests], dtype=torch.int64)


class Rows:
    """Latents by modality; the squared lengths that distances need are computed once."""

    def __init__(self, latents: Float[Tensor, "row latent"], widths: Mapping[str, int]) -> None:
        self.latents, self.widths = latents, widths
        self.parts = dict(zip(widths, torch.split(latents, list(widths.values()), dim=1), strict=True))
        self._squares: dict[str, Tensor] = {}

    def blocks(self, size: int) -> Iterator[Rows]:
        """Consecutive rows, at most ``size`` at a time."""
        return (Rows(part, self.widths) for part in torch.split(self.latents, size))

    def squares(self, name: str) -> Float[Tensor, " row"]:
        """The squared length of every row."""
        if name not in self._squares:
            self._squares[name] = self.parts[name].square().sum(1)
        return self._squares[name]


def squared_distances(
    left: Rows, right: Rows, pattern: Bool[Tensor, " modality"], spreads: Float[Tensor, " modality"]
) -> Float[Tensor, "observed left right"]:
    """Squared distances in each observed modality, over its total variance.

    Args:
        left: Rows.
        right: Other rows.
        pattern: What is observed.
        spreads: Total variance of each modality's latents.
    """
    parts = []
    for column, name in enumerate(left.widths):
        if bool(pattern[column]):
            a, b = left.parts[name], right.parts[name]
            squares = left.squares(name).unsqueeze(1) + right.squares(name)
            squares -= (2 * a) @ b.T
            parts.append(squares.clamp_(min=0).div_(spreads[column]))
    return torch.stack(parts)


def matern_kernel(
    distances: Float[Tensor, "modality left right"],
    length: float,
    relevance: Float[Tensor, " modality"] | None = None,
) -> Float[Tensor, "left right"]:
    """Matérn kernel, smoothness 3/2, overall and per modality; equal weights if relevance is None."""
    if len(distances) == 1:
        return _matern(distances[0], length)
    if relevance is None or bool((relevance == relevance[0]).all()):
        return _matern(distances.mean(0), length).add_(_matern(distances, length).mean(0)).div_(2)
    shares = (relevance / relevance.sum())[:, None, None]
    alone = _matern(distances, length).mul_(shares).sum(0)
    together: Tensor = _matern((distances * shares).sum(0), length)
    return together.add_(alone).div_(2)


def _matern(squared: Tensor, length: float) -> Tensor:
    scaled = (3 * squared).sqrt_().div_(length)
    decay: Tensor = torch.exp(-scaled)
    return decay.mul_(scaled.add_(1))


def groups_by_size(groups: Int[Tensor, " row"]) -> list[Int[Tensor, "group member"]]:
    """The rows of each group; groups of one size are solved together."""
    order = groups.argsort(stable=True)
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    by_size: dict[int, list[Tensor]] = {}
    for rows in torch.split(order, counts.tolist()):
        by_size.setdefault(len(rows), []).append(rows)
    return [torch.stack(rows) for rows in by_size.values()]


def blocks_of(
    matrix: Float[Tensor, "row row"], rows: Int[Tensor, "group member"]
) -> Float[Tensor, "group member member"]:
    """A matrix restricted to the rows of each group."""
    block: Tensor = matrix[rows.unsqueeze(2), rows.unsqueeze(1)]
    return block


def leave_group_out(
    dual: Float[Tensor, "row target"],
    groups: Sequence[Int[Tensor, "_ _"]],
    diagonal: Float[Tensor, " row"],
    blocks: Callable[[Tensor], Tensor],
) -> Float[Tensor, "row target"]:
    """Leave-group-out residuals of all rows: (K^-1_GG)^-1 (K^-1 y)_G.

    Our own, because no library has this closed form: they refit the regression without each group.

    Args:
        dual: K^-1 y.
        groups: The rows of each group, those of one size together.
        diagonal: Of K^-1.
        blocks: K^-1 restricted to the rows of each group.
    """
    residuals = dual / diagonal.unsqueeze(1)
    for rows in groups:
        if rows.shape[1] > 1:
            residuals[rows] = torch.linalg.solve(blocks(rows), dual[rows])
    return residuals


def own_share(
    weights: Float[Tensor, "batch row"],
    inverse: Float[Tensor, "row row"],
    dual: Float[Tensor, "row latent"],
    own: Bool[Tensor, "batch row"],
) -> Float[Tensor, "batch latent"]:
    """The contribution of a sample's own group to its prediction: w_G (K^-1_GG)^-1 (K^-1 y)_G.

    K^-1 restricted to rows G is the inverse of their covariance given all others. So subtracting this
    contribution gives the leave-group-out prediction.
    """
    share = torch.zeros(len(weights), dual.shape[1], dtype=dual.dtype, device=dual.device)
    counts = own.sum(dim=1)
    batch, row = own[counts == 1].nonzero().unbind(1)
    batch = (counts == 1).nonzero().squeeze(1)[batch]
    share[batch] = (weights[batch, row] / inverse[row, row]).unsqueeze(1) * dual[row]
    shared = (counts > 1).nonzero().squeeze(1)
    sets, member = torch.unique(own[shared], dim=0, return_inverse=True)
    for index, of_set in enumerate(sets):
        rows = of_set.nonzero().squeeze(1)
        batch = shared[member == index]
        left = torch.linalg.solve(inverse[rows][:, rows], dual[rows])
        share[batch] = weights[batch][:, rows] @ left
    return share
