"""What the executor trains on: pairs of a row and a visible subset, with everything that steers them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.objective import Targets
from omg_graph.model.conditions import PlanCondition, planned
from omg_graph.training.patterns import PatternPool

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairData:
    """Pairs of one split, ready for batches. Cross-fitted where they come from training rows."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    latents: dict[str, Tensor]
    """Modality to (rows, latent): the truth, zeros where it isn't known."""
    known: Tensor
    """(rows, modalities): what the data really hold."""
    label: Tensor | None
    """(rows,): number or class index, NaN where there is none."""
    keys: Tensor
    """(rows, key width): the rows' keys with all their views."""
    view_of_column: Tensor
    """(key width,): which view each column of a key belongs to."""
    pool: PatternPool
    observation: Tensor
    """(pairs, shared): u_X."""
    plan_index: Tensor
    """(pairs,): the chosen plan, as a row of the plan table."""
    gaussian: dict[str, Tensor]
    """Modality to (pairs, latent): the Gaussian conditional."""
    kernel: dict[str, Tensor]
    """Modality to (pairs, latent): the kernel conditional."""
    shortlist: dict[str, Tensor]
    """Modality to (pairs, S): candidate entries for evidence, best first, -1 where there are none."""
    reading: Tensor | None = None
    """(pairs, columns): what the label reader says, where there is one."""
    words: Tensor | None = None
    """(rows, terms): what the transcripts say, where they are read; they are hidden with the text."""
    condition: PlanCondition = planned
    """What stands for c_S."""

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in order."""
        return tuple(self.latents)

    def visible(self, pairs: IntArray) -> Tensor:
        """(batch, modalities): what each pair shows."""
        return torch.from_numpy(self.pool.visible[pairs])

    def rows(self, pairs: IntArray) -> Tensor:
        """(batch,): the row of each pair."""
        return torch.from_numpy(self.pool.rows[pairs])

    def shown(self, pairs: IntArray) -> dict[str, Tensor]:
        """Modality to (batch, latent): what each pair shows, zero in what is hidden."""
        rows, visible = self.rows(pairs), self.visible(pairs)
        return {
            name: value[rows] * visible[:, column : column + 1]
            for column, (name, value) in enumerate(self.latents.items())
        }

    def raw_queries(self, pairs: IntArray) -> tuple[Tensor, Tensor]:
        """The raw query of each pair and the views it has: the row's key, zero in what is hidden."""
        visible = self.visible(pairs)
        return self.keys[self.rows(pairs)] * visible[:, self.view_of_column], visible

    def plans(self, pairs: IntArray, plan_table: Tensor) -> Tensor:
        """c_S of each pair, (batch, constraints + 1, shared): what steers, and what L_plan asks for."""
        rows = plan_table[self.plan_index[torch.from_numpy(pairs)]]
        # what is drawn for a pair is drawn anew with every batch: else the network would know it by its noise
        batch = int(pairs[0]) if len(pairs) else 0
        return self.condition(rows, [f"{batch} {pair}" for pair in pairs.tolist()])

    def anchor_parts(self, name: str, pairs: IntArray, evidence: Tensor) -> Tensor:
        """What the anchor of one modality is put together from, (batch, latent, parts)."""
        index = torch.from_numpy(pairs)
        closed = (part[name][index].to(evidence.device) for part in (self.gaussian, self.kernel))
        return torch.stack([evidence, *closed], dim=-1)

    def targets(self, pairs: IntArray, device: torch.device) -> Targets:
        """The truth of what each pair hides."""
        rows = self.rows(pairs)
        return Targets(
            {name: value[rows].to(device) for name, value in self.latents.items()},
            (self.known[rows] & ~self.visible(pairs)).to(device),
            None if self.label is None else self.label[rows].to(device),
        )

    def executor_input(
        self, pairs: IntArray, plan_table: Tensor, evidence: dict[str, Tensor], device: torch.device
    ) -> ExecutorInput:
        """The executor's input for some pairs."""
        index = torch.from_numpy(pairs)
        return ExecutorInput(
            tuple(self.ids[row] for row in self.pool.rows[pairs]),
            {name: value.to(device) for name, value in self.shown(pairs).items()},
            self.visible(pairs).to(device),
            self.observation[index].to(device),
            self.plans(pairs, plan_table).to(device),
            {name: value.to(device) for name, value in evidence.items()},
            tuple(self.groups[row] for row in self.pool.rows[pairs]),
            None if self.reading is None else self.reading[index].to(device),
            self.visible_words(pairs, device),
        )

    def visible_words(self, pairs: IntArray, device: torch.device) -> Tensor | None:
        """(batch, terms): what the transcripts of some pairs say, zeros where the text is hidden."""
        if self.words is None:
            return None
        shown = self.visible(pairs)[:, self.names.index(TEXT_MODALITY)].unsqueeze(1)
        return (self.words[self.rows(pairs)] * shown).to(device)


def labels_of(data: PairData) -> Tensor:
    """(rows,): the labels of rows that have some."""
    if data.label is None:
        raise ValueError("a split without labels has nothing to learn from")
    return data.label


def labelled_pairs(data: PairData) -> IntArray:
    """Pairs whose row has a label, every pattern."""
    if data.label is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(~data.label.isnan().numpy()[data.pool.rows])


def chosen_pairs(data: PairData, seed: int, turns: int) -> IntArray:
    """A fixed choice of ``turns`` patterns of every row, those that hide something known among them."""
    drawn = np.concatenate([data.pool.draw(seed, -1 - turn) for turn in range(turns)])
    return np.unique(drawn)
