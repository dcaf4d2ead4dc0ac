"""f_phi(Fusion(u_X, z)): the label from the observation and one latent slot for each modality (Eq. 17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.plugins import component
from omg_graph.predictor.calibration import fit_spread, fit_temperature
from omg_graph.predictor.direct import DirectHead, DirectHeadConfig

GROUP = "omg_graph.predictors"
"""The entry points that register predictors."""

SLOT_NORM = 4.0
"""Typical length of a slot in the head's input."""

READING_NORM = 400.0
"""Scale of the label estimate, so that the head learns from it first."""

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
    """Columns of the label estimate that the head takes; 0 without one."""
    predictor: str = Field(default="head", exclude_if=lambda name: name == "head")
    """The predictor's name among the entry points ``omg_graph.predictors``."""
    direct: DirectHeadConfig | None = None
    """Direct networks from the observation to the label, averaged in; None without them."""

    @property
    def outputs(self) -> int:
        """Number of the head's outputs."""
        return max(len(self.names), 1)


@runtime_checkable
class Predictor(Protocol):
    """A predictor of the label: a torch module, built from a ``TaskHeadConfig``.

    It is trained with the executor (Eq. 18), then again alone on the trained executor's estimates.
    """

    config: TaskHeadConfig
    averages_networks: bool
    """Whether direct networks can be averaged in; ``with_networks`` and ``mixed`` then do so."""

    def __call__(
        self,
        observation: Tensor,
        latents: Mapping[str, Tensor],
        label_estimates: Tensor | None = None,
        observed: Tensor | None = None,
        words: Tensor | None = None,
    ) -> Tensor:
        """(batch, outputs): logits over the names, or the standardised number."""
        ...

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(batch,): L_task of each row (Eq. 17), zero for a label that is NaN; differentiable."""
        ...

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(batch, outputs): probabilities over the names."""
        ...

    def value(self, outputs: Tensor) -> Tensor:
        """(batch,): the predicted number in the label's units."""
        ...

    def calibrate(self, outputs: Tensor, label: Tensor) -> dict[str, float]:
        """Calibrate on labelled validation rows, and return the fitted values by name."""
        ...


class LabelHead(nn.Module):
    """Base of predictors: losses, probabilities, values and calibration."""

    averages_networks = False
    temperature: Tensor
    spread: Tensor

    def __init__(self, config: TaskHeadConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("spread", torch.ones(()))

    def logits(
        self,
        observation: Tensor,
        latents: Mapping[str, Tensor],
        label_estimates: Tensor | None,
        observed: Tensor | None,
        words: Tensor | None,
    ) -> Tensor:
        """(batch, outputs), before calibration; the arguments are those of ``forward``."""
        raise NotImplementedError

    def forward(
        self,
        observation: Float[Tensor, "batch shared"],
        latents: Mapping[str, Float[Tensor, "batch _"]],
        label_estimates: Float[Tensor, "batch estimate"] | None = None,
        observed: Bool[Tensor, "batch modality"] | None = None,
        words: Float[Tensor, "batch term"] | None = None,
    ) -> Float[Tensor, "batch output"]:
        """Logits over the names, or the standardised number.

        Args:
            observation: u_X.
            latents: One slot for each modality.
            label_estimates: Those of the label regression; None during the executor's training.
            observed: Which slots are observed, for direct networks; None skips those.
            words: Encoded transcripts, for direct networks.
        """
        logits = self.logits(observation, latents, label_estimates, observed, words)
        return logits / self.temperature

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
        label is NaN have zero loss.
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

    def calibrate(
        self, outputs: Float[Tensor, "batch output"], label: Float[Tensor, " batch"]
    ) -> dict[str, float]:
        """Fit temperature and spread on validation rows.

        The temperature keeps the ranking of classes and degrees. A sentiment's value is an expectation over
        degrees, which shrinks to the mean if the head is unsure; the spread that minimises the absolute error
        corrects this.
        """
        if self.config.kind == "number":
            return {}
        temperature = fit_temperature(outputs, self.class_index(label))
        self.temperature.fill_(temperature)
        fitted = {"temperature": temperature, "spread": 1.0}
        if self.config.kind == "degrees":
            centre = self.config.target_mean
            fitted["spread"] = fit_spread(self.value(outputs / temperature) - centre, label - centre)
            self.spread.fill_(fitted["spread"])
        return fitted


class TaskHead(LabelHead):
    """The sum of a linear map and a small perceptron, both of u_X and all slots concatenated.

    The perceptron's last layer starts at zero, so that few data train the linear part first. The label
    estimate, if there is one, is added by its own linear map. A direct head, if there is one, is averaged in
    with a fitted share (of probabilities, or of the number). Last, a temperature divides the logits, and a
    spread stretches a sentiment's value about the training labels' mean.
    """

    averages_networks = True
    share: Tensor

    def __init__(self, config: TaskHeadConfig) -> None:
        super().__init__(config)
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

    def logits(
        self,
        observation: Tensor,
        latents: Mapping[str, Tensor],
        label_estimates: Tensor | None,
        observed: Tensor | None,
        words: Tensor | None,
    ) -> Tensor:
        """See ``LabelHead``."""
        config = self.config
        # each slot is scaled to a norm of about SLOT_NORM for any width; u_X has norm one
        slots = [
            latents[name] * (SLOT_NORM / (config.scales[name] * width**0.5))
            for name, width in config.widths.items()
        ]
        fused = torch.cat([observation, *slots], dim=-1)
        logits: Tensor = self.linear(self.dropout(fused)) + self.perceptron(fused)
        if self.reading is not None and label_estimates is not None:
            logits = logits + self.reading(READING_NORM * label_estimates)
        if self.direct is not None and observed is not None:
            logits = self.mixed(logits, self.direct(latents, observed, words))
        return logits

    def mixed(
        self, outputs: Float[Tensor, "batch output"], votes: Float[Tensor, "member batch output"]
    ) -> Float[Tensor, "batch output"]:
        """The weighted average of the head's and the direct head's probabilities, or numbers.

        Args:
            outputs: The head's own.
            votes: Outputs of each network of the direct head.
        """
        if self.config.kind == "number":
            return torch.lerp(outputs, votes.mean(dim=0), self.share)
        shares = torch.lerp(outputs.softmax(dim=-1), votes.softmax(dim=-1).mean(dim=0), self.share)
        return shares.clamp(min=1e-12).log()

    def with_networks(self, networks: DirectHeadConfig, weights: Mapping[str, Tensor]) -> TaskHead:
        """The same head with direct networks, at share zero.

        Args:
            networks: Their sizes.
            weights: Theirs.
        """
        head = TaskHead(self.config.model_copy(update={"direct": networks}))
        head.load_state_dict(self.state_dict(), strict=False)
        if head.direct is not None:
            head.direct.load_state_dict(weights)
        return head.to(self.share.device)


def predictor_class(name: str) -> Any:
    """The class that is registered under a name.

    Raises:
        ConfigError: if there is none, or its package can't be imported.
    """
    return component(GROUP, name)


def class_index(config: TaskHeadConfig, target: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """The index of the nearest degree, or the class index itself.

    Ties go to the degree an even number of steps from the middle, as in ACC7.
    """
    if config.kind == "classes":
        return target.long()
    degrees = torch.tensor(config.degrees, dtype=target.dtype, device=target.device)
    steps = torch.arange(len(degrees), device=target.device) - (len(degrees) - 1) // 2
    distance = (target[:, None] - degrees[None]).abs() + 1e-5 * (steps % 2)
    return distance.argmin(dim=1)


def label_width(config: TaskHeadConfig) -> int:
    """Number of columns of a label in the label regression."""
    return len(config.names) + (config.kind != "classes")


def label_columns(config: TaskHeadConfig, target: Float[Tensor, " batch"]) -> Float[Tensor, "batch column"]:
    """Labels as centred regression targets: the standardised number, and one column per name.

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
