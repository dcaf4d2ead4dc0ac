"""The prior protocol: an estimate of missing latents from observed ones, for any missing pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.data.patterns import PatternPool
from omg_graph.plugins import component

GROUP = "omg_graph.priors"
"""The entry points that register priors."""
ENOUGH = 20
"""Rows that an observed set needs for its own weights or moments."""
CrossFitting = Literal["folds", "exact", "live"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A batch of samples as estimators see it."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    latents: dict[str, Float[Tensor, "batch _"]]
    """Modality to latents; unobserved ones are never used."""
    observed: Bool[Tensor, "batch modality"]
    plan: Float[Tensor, "batch constraint shared"] | None = None
    """c_S: the whole plan's embedding first, then each constraint's."""
    evidence: dict[str, Float[Tensor, "batch _"]] | None = None
    """E of Eq. 8; zeros where a modality is observed or nothing was found."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training rows, and pairs of a row and a visible subset of what it has."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    latents: dict[str, Tensor]
    """Modality to (rows, latent): an estimate where unknown."""
    known: Tensor
    """(rows, modalities): True where the data hold the modality."""
    pool: PatternPool
    folds: IntArray
    """(rows,): for choices by cross-validation; a group is in one fold."""
    plan_index: Tensor | None = None
    """(pairs,): the chosen plan, as a row of the plan table; None before plans are chosen."""
    plan_table: Tensor | None = None
    """(plans, constraints + 1, shared): c_S of each."""
    condition: Callable[[Tensor, Sequence[str]], Tensor] = lambda plans, _: plans
    """Maps plan embeddings and a name for each pair to c_S."""
    most_rows: int = 2000
    """Rows that an estimator may keep at most."""

    @classmethod
    def of(
        cls,
        split: Split,
        latents: Mapping[str, Tensor],
        pool: PatternPool,
        folds: IntArray | None = None,
        most_rows: int = 2000,
    ) -> Examples:
        """Rows of a split, before plans are chosen.

        Args:
            split: The rows.
            latents: Theirs.
            pool: Their pairs.
            folds: Theirs; all rows in one fold if None.
            most_rows: Rows to keep at most.
        """
        return Examples(
            ids=split.ids,
            groups=split.groups,
            latents=dict(latents),
            known=torch.from_numpy(split.mask()),
            pool=pool,
            folds=np.zeros(len(split), dtype=np.int64) if folds is None else folds,
            most_rows=most_rows,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in order."""
        return tuple(self.latents)

    @property
    def widths(self) -> dict[str, int]:
        """Latent width of each modality."""
        return {name: value.shape[1] for name, value in self.latents.items()}

    def visible(self, pairs: IntArray) -> Tensor:
        """(batch, modalities): what each pair shows."""
        return torch.from_numpy(self.pool.visible[pairs])

    def rows(self, pairs: IntArray) -> Tensor:
        """(batch,): the row of each pair."""
        return torch.from_numpy(self.pool.rows[pairs])

    def wanted(self, pairs: IntArray) -> Tensor:
        """(batch, modalities): what each pair hides and the data hold."""
        return self.known[self.rows(pairs)] & ~self.visible(pairs)

    @property
    def own_plans(self) -> Tensor:
        """(pairs,): the chosen plans, of pairs that have some."""
        if self.plan_index is None:
            raise ValueError("expected pairs whose plans have been chosen")
        return self.plan_index

    def plans(self, pairs: IntArray) -> Tensor:
        """c_S of each pair, (batch, constraints + 1, shared), for conditioning and for L_plan."""
        if self.plan_table is None:
            raise ValueError("expected pairs whose plans have been chosen")
        rows = self.plan_table[self.own_plans[torch.from_numpy(pairs)]]
        # a pair's draws differ between batches: else the network could recognise the pair by its noise
        batch = int(pairs[0]) if len(pairs) else 0
        return self.condition(rows, [f"{batch} {pair}" for pair in pairs.tolist()])

    def shown(self, pairs: IntArray) -> Shown:
        """Pairs as estimators see them, without evidence."""
        rows = self.pool.rows[pairs].tolist()
        return Shown(
            ids=tuple(self.ids[row] for row in rows),
            groups=tuple(self.groups[row] for row in rows),
            latents=self.pool.shown(self.latents, pairs),
            observed=self.visible(pairs),
            plan=None if self.plan_index is None else self.plans(pairs),
        )

    def take(self, kept: BoolArray) -> Examples:
        """Some of the rows, with all of their pairs.

        Args:
            kept: (rows,), which.
        """
        chosen = torch.from_numpy(np.flatnonzero(kept))
        pool, pairs = self.pool.take(kept)
        return Examples(
            ids=tuple(self.ids[row] for row in chosen),
            groups=tuple(self.groups[row] for row in chosen),
            latents={name: value[chosen] for name, value in self.latents.items()},
            known=self.known[chosen],
            pool=pool,
            folds=self.folds[kept],
            plan_index=None if self.plan_index is None else self.plan_index[torch.from_numpy(pairs)],
            plan_table=self.plan_table,
            condition=self.condition,
            most_rows=self.most_rows,
        )


@runtime_checkable
class Prior(Protocol):
    """An estimate of each missing modality's latents: a torch module of the modalities' latent widths.

    Its buffers and parameters are saved with the model. ``cross_fitting`` says how training rows get
    estimates that never saw their own group. ``folds``: the prior is refitted without each fold. ``exact``:
    ``predict`` itself leaves out kept rows of a sample's own group. ``live``: like ``exact``, but computed
    again for every batch, for a prior that uses evidence. Plans are passed only if ``reads_plans`` is True.
    """

    cross_fitting: CrossFitting
    reads_plans: bool

    @classmethod
    def fit(cls, rows: Examples, seed: int) -> Prior:
        """A prior fitted on training rows, with its settings chosen on them too."""
        ...

    def refit(self, rows: Examples) -> Prior:
        """A prior fitted on other rows with the same settings; only called for ``folds``."""
        ...

    def predict(self, target: str, shown: Shown) -> Tensor:
        """(batch, latent): the target's latents; rows that observe it may hold anything finite."""
        ...


@runtime_checkable
class KeepsRows(Protocol):
    """Further methods of a prior that keeps training rows."""

    @property
    def keeps_rows(self) -> bool:
        """Whether it has kept any."""
        ...

    def with_rows(
        self, latents: Mapping[str, Tensor], known: Tensor, ids: Sequence[str], groups: Sequence[str]
    ) -> nn.Module:
        """The same prior with more rows kept; itself if it keeps all of them already."""
        ...

    def similar_rows(self, target: str, shown: Shown) -> SimilarRows:
        """The nearest kept rows of each sample, whose residuals draws can start from."""
        ...


@dataclass(frozen=True)
class SimilarRows:
    """The nearest kept rows of each sample in a batch, found once for any number of draws."""

    nothing: Float[Tensor, "batch latent"]
    parts: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    """For each observed set: its samples, their kept rows (nearest first), how many of these may be used, and
    the regression's leave-group-out residual of each kept row."""

    def residuals(self, ranks: Int[Tensor, " batch"]) -> Float[Tensor, "batch latent"]:
        """The leave-group-out residual of one kept row for each sample, at unit mean square over all rows.

        A sample gets zeros if it observes nothing, or if all kept rows are of its own group.

        Args:
            ranks: Rank of the row, 0 for the nearest; ranks beyond the last wrap around.
        """
        out = self.nothing.clone()
        for rows, order, allowed, left in self.parts:
            place = order.gather(1, (ranks[rows] % allowed.clamp(min=1)).unsqueeze(1)).squeeze(1)
            out[rows] = left[place] * (allowed > 0).unsqueeze(1)
        return out


def prior_class(name: str) -> Any:
    """The class that is registered under a name.

    Raises:
        ConfigError: if there is none, or its package can't be imported.
    """
    return component(GROUP, name)


class EvidencePrior(nn.Module):
    """E, the evidence itself (Eq. 8)."""

    cross_fitting: CrossFitting = "live"
    reads_plans = False

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)

    @classmethod
    def fit(cls, rows: Examples, seed: int) -> EvidencePrior:  # noqa: ARG003
        """Learns nothing: a sample's evidence never includes entries of its own group."""
        return cls(rows.widths)

    def refit(self, rows: Examples) -> EvidencePrior:
        """Another one like it."""
        return EvidencePrior(rows.widths)

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """E of the target; zeros without evidence."""
        if shown.evidence is None:
            return torch.zeros_like(shown.latents[target])
        return shown.evidence[target]


def filled(prior: Prior, rows: Shown) -> dict[str, Tensor]:
    """Modality to latents, with the prior's prediction of what isn't observed."""
    return {
        name: torch.where(rows.observed[:, column : column + 1], value, prior.predict(name, rows))
        for column, (name, value) in enumerate(rows.latents.items())
    }


def most_similar(
    patterns: Bool[Tensor, "pattern modality"], observed: Bool[Tensor, "batch modality"], target: int
) -> Int[Tensor, " batch"]:
    """The pattern most similar to what each row observes, among those without the target.

    Args:
        patterns: Observed sets that something was fitted for.
        observed: What each row observes.
        target: The target's column.
    """
    holds = patterns[:, target].long() * patterns.shape[1]
    return ((observed.unsqueeze(1) == patterns).sum(dim=2) - holds).argmax(dim=1)


def load_sizes(module: nn.Module, names: Sequence[str], state_dict: dict[str, Any], prefix: str) -> None:
    """Resize buffers to the sizes in the state dict, since training determined them."""
    for name in names:
        loaded, current = state_dict.get(prefix + name), getattr(module, name)
        if isinstance(loaded, Tensor) and loaded.ndim == current.ndim:
            setattr(module, name, torch.empty_like(loaded, device=current.device))
