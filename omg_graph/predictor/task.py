"""f_phi(Fusion(u_X, z)): the label from the observation and one latent slot for each modality (Eq. 17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.predictor.direct import DirectHead, DirectHeadConfig

SLOT_NORM = 4.0
"""Typical length of a slot in the head's input."""

READING_NORM = 400.0
"""The label regression's estimate is learned from first: its few weights move logits so much faster."""

TargetKind = Literal["degrees", "classes", "number"]


class TaskHeadConfig(BaseModel):
    """What is predicted, and the sizes of the head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: TargetKind
    """``degrees``: ordered words with numbers (sentiment); ``classes``: names; ``number``: a value alone."""
    names: tuple[str, ...] = ()
    degrees: tuple[float, ...] = ()
    """The number that each of ``names`` stands for, ascending, for ``degrees``."""
    target_mean: float = 0.0
    target_deviation: float = 1.0
    widths: dict[str, int]
    scales: dict[str, float]
    shared_width: int = 384
    hidden: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    regression_weight: float = 0.5
    reading: int = Field(default=0, ge=0)
    """Numbers that the label regression gives the head; 0 without one."""
    direct: DirectHeadConfig | None = None
    """Networks from what is observed straight to the label, which are averaged in; None without them."""

    @property
    def outputs(self) -> int:
        """Logits that the head gives."""
        return max(len(self.names), 1)


class TaskHead(nn.Module):
    """Concatenation of u_X and every slot, then a linear map and, beside it, a small perceptron.

    The perceptron's last layer starts at zero: where data are few, what is linear is learned first. The label
    regression's estimate, if there is one, is added by a linear map of its own. A direct head, if there is
    one, has a share in the probabilities (or in the number). At the end a temperature divides the logits,
    and a spread stretches a sentiment's value about the training labels' mean.
    """

    share: Tensor
    temperature: Tensor
    spread: Tensor

    def __init__(self, config: TaskHeadConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.shared_width + sum(config.widths.values())
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(inputs, config.outputs)
        last = nn.Linear(config.hidden, config.outputs)
        self.perceptron = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(inputs, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            last,
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.reading = nn.Linear(config.reading, config.outputs, bias=False) if config.reading else None
        if self.reading is not None:
            nn.init.zeros_(self.reading.weight)
        self.direct = (
            None
            if config.direct is None
            else DirectHead(config.direct, config.widths, config.scales, config.outputs)
        )
        self.register_buffer("share", torch.zeros(()))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(
        self,
        observation: Float[Tensor, "batch shared"],
        latents: Mapping[str, Float[Tensor, "batch _"]],
        reading: Float[Tensor, "batch reading"] | None = None,
        observed: Bool[Tensor, "batch modality"] | None = None,
        words: Float[Tensor, "batch term"] | None = None,
    ) -> Float[Tensor, "batch output"]:
        """Logits over the names, or the standardised number.

        Args:
            observation: u_X.
            latents: One slot for each modality.
            reading: The label regression's estimate; None while the executor itself is trained.
            observed: Which slots are observed, for the direct head; None leaves that out.
            words: What the transcripts say, for the direct head.
        """
        config = self.config
        # each slot at about SLOT_NORM, whatever its width; u_X has length one
        slots = [
            latents[name] * (SLOT_NORM / (config.scales[name] * width**0.5))
            for name, width in config.widths.items()
        ]
        fused = torch.cat([observation, *slots], dim=-1)
        logits: Tensor = self.linear(self.dropout(fused)) + self.perceptron(fused)
        if self.reading is not None and reading is not None:
            logits = logits + self.reading(READING_NORM * reading)
        if self.direct is not None and observed is not None:
            logits = self.mixed(logits, self.direct(latents, observed, words))
        return logits / self.temperature

    def mixed(
        self, outputs: Float[Tensor, "batch output"], votes: Float[Tensor, "member batch output"]
    ) -> Float[Tensor, "batch output"]:
        """The head's own outputs with the direct head's: probabilities are averaged, or numbers.

        Args:
            outputs: The head's own.
            votes: Of each network of the direct head.
        """
        if self.config.kind == "number":
            return torch.lerp(outputs, votes.mean(dim=0), self.share)
        shares = torch.lerp(outputs.softmax(dim=-1), votes.softmax(dim=-1).mean(dim=0), self.share)
        return shares.clamp(min=1e-12).log()

    def probabilities(self, outputs: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Probabilities over the names."""
        return outputs.softmax(dim=-1)

    def value(self, outputs: Float[Tensor, "batch output"]) -> Float[Tensor, " batch"]:
        """The predicted number in the label's units: an expectation over degrees, or the number itself."""
        config = self.config
        if config.kind == "degrees":
            degrees = torch.tensor(config.degrees, dtype=outputs.dtype, device=outputs.device)
            expected = self.probabilities(outputs) @ degrees
            stretched = config.target_mean + self.spread * (expected - config.target_mean)
            return stretched.clamp(min(config.degrees), max(config.degrees))
        return outputs[:, 0] * config.target_deviation + config.target_mean

    def loss(
        self, outputs: Float[Tensor, "batch output"], target: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """L_task of each row (Eq. 17): cross-entropy over words or classes.

        A regression term is added where the label is a number, since sentiment is continuous. Rows whose
        label is NaN cost nothing.
        """
        known = ~target.isnan()
        safe = torch.where(known, target, torch.zeros_like(target))
        if self.config.kind == "number":
            scaled = (safe - self.config.target_mean) / self.config.target_deviation
            cost = (outputs[:, 0] - scaled).square()
        else:
            named = self.class_index(safe)
            cost = F.cross_entropy(outputs, named, reduction="none", label_smoothing=0.02)
            if self.config.kind == "degrees":
                error = (self.value(outputs) - safe) / self.config.target_deviation
                cost = cost + self.config.regression_weight * error.square()
        return torch.where(known, cost, torch.zeros_like(cost))

    def class_index(self, target: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Which of the names each label is."""
        return class_index(self.config, target)


def class_index(config: TaskHeadConfig, target: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The nearest degree's index, or the class index that the target is.

    Half-way between two degrees it is the one an even number of steps from the middle, as in ACC7.
    """
    if config.kind == "classes":
        return target.long()
    degrees = torch.tensor(config.degrees, dtype=target.dtype, device=target.device)
    steps = torch.arange(len(degrees), device=target.device) - (len(degrees) - 1) // 2
    distance = (target[:, None] - degrees[None]).abs() + 1e-5 * (steps % 2)
    return distance.argmin(dim=1)


def label_width(config: TaskHeadConfig) -> int:
    """Columns that a label makes for regression on it."""
    return len(config.names) + (config.kind != "classes")


def label_columns(config: TaskHeadConfig, target: Float[Tensor, " batch"]) -> Float[Tensor, "batch column"]:
    """Labels as columns to regress on, centred: the standardised number, and one for each name.

    Rows whose label is NaN are zero.
    """
    known = ~target.isnan()
    safe = torch.where(known, target, torch.full_like(target, config.target_mean))
    columns = []
    if config.kind != "classes":
        columns.append(((safe - config.target_mean) / config.target_deviation).unsqueeze(1))
    if config.names:
        named = F.one_hot(class_index(config, safe), len(config.names)).float()
        columns.append(named - named[known].mean(dim=0))
    return torch.cat(columns, dim=1) * known.unsqueeze(1)
