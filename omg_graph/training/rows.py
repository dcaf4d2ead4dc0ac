"""Pairs of a row and a visible subset, with the inputs and targets of the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, BoolArray, Split
from omg_graph.data.patterns import PatternPool
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import TextEncoder
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.objective import Targets
from omg_graph.knowledge.entries import plan_vectors
from omg_graph.planner.schema import Plan, Schema
from omg_graph.priors.mixture import Mixture
from omg_graph.priors.prior import Examples, Shown
from omg_graph.seeding import derived_seed
from omg_graph.training.priors import Estimates
from omg_graph.training.raw_states import PairStates

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlannedRows:
    """Rows of one split with the plans to learn, for psi and the student."""

    latents: Mapping[str, Tensor]
    pool: PatternPool
    plans: Sequence[Plan | None]
    plan_embeddings: Tensor
    """(rows, shared): g of each row's plan; zeros where it has none."""
    plan_ids: Tensor
    """(rows,): equal numbers for equal plans."""
    unimodal: Mapping[str, Tensor] = field(default_factory=dict)
    """Modality to (rows,): the label as annotators saw it with that modality alone, standardised, NaN where
    unknown."""
    states: PairStates | None = None
    """A large language model's hidden states of each pair's transcript and recordings, if psi uses them."""
    label_estimates: Tensor | None = None
    """(pairs, values): leave-group-out label estimates, for the student."""

    def embed(self, encoder: ObservationEncoder, pairs: IntArray) -> Tensor:
        """u_X of some pairs, (pairs, shared), with a gradient to psi."""
        latents, visible = self.inputs(pairs)
        raw = None if self.states is None else self.states.of(pairs)
        made: Tensor = encoder(latents, visible, raw)
        return made

    def inputs(self, pairs: IntArray) -> tuple[dict[str, Tensor], Tensor]:
        """Latents and visibility of some pairs."""
        rows = torch.from_numpy(self.pool.rows[pairs])
        visible = torch.from_numpy(self.pool.visible[pairs])
        return {name: value[rows] for name, value in self.latents.items()}, visible

    def estimates_of(self, pairs: IntArray) -> Tensor | None:
        """(pairs, values): the label estimates of some pairs, where there are any."""
        return None if self.label_estimates is None else self.label_estimates[torch.from_numpy(pairs)]

    def with_plan(self, pairs: IntArray, allowed: BoolArray | None = None) -> IntArray:
        """The pairs whose rows have a plan and are allowed."""
        has = np.array([plan is not None for plan in self.plans], dtype=np.bool_)
        if allowed is not None:
            has &= allowed
        return pairs[has[self.pool.rows[pairs]]]

    def checked(self, seed: int) -> IntArray:
        """Pairs to choose an epoch on: three patterns of every row with a plan, the same at every call."""
        return self.with_plan(np.concatenate([self.pool.draw(seed, -1 - turn) for turn in range(3)]))


def planned_rows(
    split: Split,
    plans: Sequence[Plan | None],
    pool: PatternPool,
    latents: Mapping[str, Tensor],
    *,
    schema: Schema,
    text_encoder: TextEncoder,
    states: PairStates | None = None,
    scale: Split | None = None,
    label_estimates: Tensor | None = None,
) -> PlannedRows:
    """Rows of a split with their latents and plans.

    Args:
        split: The rows.
        plans: To learn, for each row; None where it has none.
        pool: Their pairs.
        latents: Theirs.
        schema: Puts plans into words.
        text_encoder: g.
        states: A language model's, of every pair.
        scale: Rows whose statistics standardise the unimodal labels; ``split`` if None.
        label_estimates: Label estimates of every pair.
    """
    embeddings, numbers = plan_vectors(schema, text_encoder, plans)
    unimodal = {}
    for name, values in split.unimodal.items():
        known = (scale or split).unimodal.get(name, np.zeros(0))
        known = known[np.isfinite(known)]
        if len(known) and known.std() > 0:
            standard = (values - known.mean()) / known.std()
            unimodal[name] = torch.from_numpy(np.where(split.observed[name], standard, np.nan)).float()
    return PlannedRows(
        latents,
        pool,
        plans,
        torch.from_numpy(embeddings),
        torch.from_numpy(numbers),
        unimodal,
        states,
        label_estimates,
    )


@dataclass(frozen=True, kw_only=True)
class PairData(Examples):
    """What the executor trains on: pairs of one split. Cross-fitted where they come from training rows."""

    label: Tensor | None
    """(rows,): number or class index, NaN where there is none."""
    keys: Tensor
    """(rows, key width): the rows' keys with all their views."""
    view_of_column: Tensor
    """(key width,): which view each column of a key belongs to."""
    observation: Tensor
    """(pairs, shared): u_X."""
    estimates: dict[str, Estimates | None]
    """Each prior's estimates of the pairs, by name; None for a prior that is evaluated per batch."""
    shortlist: dict[str, Tensor]
    """Modality to (pairs, S): candidate entries for evidence, best first, -1 where there are none."""
    label_estimates: Tensor | None = None
    """(pairs, columns): label estimates, if there is a label regression."""
    words: Tensor | None = None
    """(rows, terms): encoded transcripts, if they are used; hidden together with the text."""
    trusted: Tensor | None = None
    """(pairs,): whose plan is the teacher's, and to be trusted; nobody's if None."""
    shows: PatternPool | None = None
    """The pairs whose observations the executor is shown, where those aren't the rows' own."""

    def raw_queries(self, pairs: IntArray) -> tuple[Tensor, Tensor]:
        """The raw query of each pair and the views it has: the row's key, zero in what is hidden."""
        visible = self.visible(pairs)
        return self.keys[self.rows(pairs)] * visible[:, self.view_of_column], visible

    def prior_parts(self, name: str, pairs: IntArray, mixture: Mixture, shown: Shown) -> Tensor:
        """Each prior's estimate of one modality, (batch, latent, priors).

        Args:
            name: The modality.
            pairs: Some pairs.
            mixture: With the priors.
            shown: The same pairs, for priors that are evaluated per batch.
        """
        index, device = torch.from_numpy(pairs), shown.observed.device
        parts = []
        for key in mixture.priors:
            of_pairs = self.estimates[key]
            if of_pairs is None:
                parts.append(mixture.prior(key).predict(name, shown))
            else:
                parts.append(of_pairs[name][index].to(device))
        nothing = shown.latents[name].new_zeros(len(pairs), self.widths[name], 0)
        return torch.stack(parts, dim=-1) if parts else nothing

    def targets(self, pairs: IntArray, device: torch.device) -> Targets:
        """The truth of what each pair hides; a pair that shows another row's observation has no label."""
        rows = self.rows(pairs)
        return Targets(
            {name: value[rows].to(device) for name, value in self.latents.items()},
            self.wanted(pairs).to(device),
            None if self.label is None or self.shows is not None else self.label[rows].to(device),
        )

    def taught(self, plan_index: Tensor) -> PairData:
        """The same pairs under the teacher's plans, as plans to trust; shortlists are still to be found.

        Args:
            plan_index: (pairs,), the teacher's plan as a row of the plan table; -1 where there is none, which
                leaves the pair its own plan.
        """
        trusted = plan_index >= 0
        index = torch.where(trusted, plan_index, self.own_plans)
        return replace(self, plan_index=index, trusted=trusted, shortlist={})

    def showing(self, donors: IntArray) -> PairData:
        """Counterfactual pairs: plan, evidence and truth are their own, what is observed is their donors'.

        They teach that plan and evidence count where the observation disagrees.

        Args:
            donors: (pairs,), a pair of another row with the same modalities; itself where there is none.
        """
        index = torch.from_numpy(donors)
        label_estimates = self.label_estimates
        return replace(
            self,
            shows=replace(self.pool, rows=self.pool.rows[donors]),
            observation=self.observation[index],
            estimates={
                key: made and {name: value[index] for name, value in made.items()}
                for key, made in self.estimates.items()
            },
            label_estimates=None if label_estimates is None else label_estimates[index],
        )

    def donors(self, seed: int, *, same_plan: bool) -> IntArray:
        """(pairs,): for each pair one of another row with the same modalities, drawn at random.

        Args:
            seed: Of the draw.
            same_plan: Whether its plan has to be the same, or any will do.
        """
        random = np.random.default_rng(derived_seed(seed, "donors", int(same_plan)))
        alike = self.pool.visible.astype(np.int64)
        if same_plan:
            alike = np.column_stack([alike, self.own_plans.numpy()])
        _, member = np.unique(alike, axis=0, return_inverse=True)
        donors = self.pool.everything
        for kind in range(int(member.max(initial=-1)) + 1):
            of_kind = random.permutation(np.flatnonzero(member == kind))
            donors[of_kind] = np.roll(of_kind, 1)
        return donors

    def executor_input(
        self, pairs: IntArray, evidence: dict[str, Tensor], device: torch.device
    ) -> ExecutorInput:
        """The executor's input for some pairs."""
        index = torch.from_numpy(pairs)
        shown = (self if self.shows is None else replace(self, pool=self.shows)).shown(pairs)
        return ExecutorInput(
            ids=shown.ids,
            groups=shown.groups,
            latents=send_to_device(shown.latents, device),
            observed=shown.observed.to(device),
            plan=self.plans(pairs).to(device),
            evidence=send_to_device(evidence, device),
            observation=self.observation[index].to(device),
            label_estimates=None if self.label_estimates is None else self.label_estimates[index].to(device),
            words=self.visible_words(pairs, device),
            trusted=torch.zeros(len(pairs), dtype=torch.bool, device=device)
            if self.trusted is None
            else self.trusted[index].to(device),
        )

    def visible_words(self, pairs: IntArray, device: torch.device) -> Tensor | None:
        """(batch, terms): encoded transcripts of some pairs, zeros where the text is hidden."""
        if self.words is None:
            return None
        shown = self.visible(pairs)[:, self.names.index(TEXT_MODALITY)].unsqueeze(1)
        return (self.words[self.rows(pairs)] * shown).to(device)

    @property
    def labels(self) -> Tensor:
        """(rows,): the labels, of rows that have some."""
        if self.label is None:
            raise ValueError("a split without labels has nothing to learn from")
        return self.label

    def labelled(self, pairs: IntArray | None = None) -> IntArray:
        """Those of some pairs, or of all, whose row has a label."""
        pairs = self.pool.everything if pairs is None else pairs
        if self.label is None:
            return pairs[:0]
        return np.asarray(pairs[~self.label.isnan().numpy()[self.pool.rows[pairs]]], dtype=np.int64)

    def checked(self, seed: int, turns: int) -> IntArray:
        """A fixed choice of ``turns`` patterns of every row."""
        return np.unique(np.concatenate([self.pool.draw(seed, -1 - turn) for turn in range(turns)]))
