"""The denoiser of Eq. 10, conditioned on evidence in shallow layers and on the plan in deep ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.encoders.per_modality import PerModality

Latents = Mapping[str, Float[Tensor, "batch _"]]
"""Modality to (batch, latent); the width is each modality's own."""


@dataclass(frozen=True)
class Conditions:
    """The conditioning inputs of the denoiser for a batch."""

    observation: Float[Tensor, "batch shared"]
    """u_X."""
    plan: Float[Tensor, "batch constraint shared"]
    """c_S: g of the whole plan, then g of each constraint; cross-attention's keys and values."""
    evidence: dict[str, Float[Tensor, "batch _"]]
    """E for each modality (Eq. 8); zeros where there is none."""
    anchor: dict[str, Float[Tensor, "batch _"]]
    """The estimate subtracted from the latents before noising; zeros without an anchor."""
    observed: Bool[Tensor, "batch modality"]
    """Which modalities' latents are clean; all others are denoised."""
    trusted: Bool[Tensor, " batch"]
    """Whose plan is a person's or a teacher's, and so to be followed where the observation disagrees."""
    plan_given: Bool[Tensor, " batch"]
    evidence_given: Bool[Tensor, " batch"]
    """Where False, a learned embedding stands in for it: dropped for guidance, or nothing was found."""

    def take(self, rows: Tensor) -> Conditions:
        """The conditions of some rows, repeats allowed."""
        parts: dict[str, Any] = {part.name: getattr(self, part.name) for part in fields(self)}
        for part, value in parts.items():
            parts[part] = (
                {name: some[rows] for name, some in value.items()} if isinstance(value, dict) else value[rows]
            )
        return Conditions(**parts)

    def given(self, plan: Bool[Tensor, " batch"], evidence: Bool[Tensor, " batch"]) -> Conditions:
        """The same without the plan and the evidence of the rows that are False."""
        return replace(
            self,
            plan_given=self.plan_given & plan,
            evidence_given=self.evidence_given & evidence,
        )


class PlanCrossAttention(nn.Module):
    """CA_l of Eq. 12: each token's features attend to the plan's constraints."""

    def __init__(self, width: int, shared_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(shared_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, hidden: Float[Tensor, "batch token width"], plan: Float[Tensor, "batch constraint shared"]
    ) -> Float[Tensor, "batch token width"]:
        """CA(h, c_S), to be added to h (Eq. 12)."""
        query = _split_heads(self.query(self.norm(hidden)), self.heads)
        key, value = self.key_value(plan).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(
            query, _split_heads(key, self.heads), _split_heads(value, self.heads)
        )
        out: Tensor = self.out(_join_heads(attended))
        return out


class EvidenceAdapter(nn.Module):
    """ZA_l of Eq. 13: a bottleneck over features and evidence whose output layer starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.evidence = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, hidden: Float[Tensor, "batch token width"], evidence: Float[Tensor, "batch token width"]
    ) -> Float[Tensor, "batch token width"]:
        """ZA(h, E), to be added to h (Eq. 13)."""
        mixed: Tensor = self.out(F.silu(self.hidden(self.norm(hidden)) + self.evidence(evidence)))
        return mixed


class TokenBlock(nn.Module):
    """Self-attention over the tokens of all modalities and a perceptron, under time and observation.

    Both are modulated by adaLN-zero (Peebles and Xie 2023, arXiv:2212.09748): a new block is the identity.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(3 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        for parameter in self.modulation[1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        hidden: Float[Tensor, "batch token width"],
        condition: Float[Tensor, "batch width"],
    ) -> Float[Tensor, "batch token width"]:
        """The tokens' features after one layer; ``condition`` is time and observation together."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (
            self.modulation(condition).unsqueeze(1).chunk(6, dim=-1)
        )
        query, key, value = self.qkv(self.attention_norm(hidden) * (1 + scale_a) + shift_a).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(
            _split_heads(query, self.heads),
            _split_heads(key, self.heads),
            _split_heads(value, self.heads),
        )
        hidden = hidden + gate_a * self.dropout(self.attention_out(_join_heads(mixed)))
        update = self.mlp(self.mlp_norm(hidden) * (1 + scale_m) + shift_m)
        out: Tensor = hidden + gate_m * self.dropout(update)
        return out


class Denoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """eps_theta (or v_theta) over the tokens of all modalities in one sequence, all missing ones jointly.

    Observed modalities hold their clean latents, so the network sees details of X that u_X lacks.
    ``observed_slots=False`` feeds u_X alone, the literal Eq. 10.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_widths: dict[str, int],
        shared_width: int = 384,
        width: int = 192,
        layers: int = 4,
        shallow_layers: Sequence[int] = (0, 1),
        deep_layers: Sequence[int] = (2, 3),
        heads: int = 4,
        dropout: float = 0.1,
        observed_slots: bool = True,
        names: Sequence[str] | None = None,
        tokens: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        # saved beside the widths: weights depend on the order of the modalities, and diffusers sorts a
        # dictionary's keys when it writes JSON
        self.names = tuple(names or latent_widths)
        self.register_to_config(names=self.names)
        self.tokens = {name: (tokens or {}).get(name, 1) for name in self.names}
        token_widths = {name: latent_widths[name] // self.tokens[name] for name in self.names}
        self.shallow = tuple(shallow_layers)
        self.deep = tuple(deep_layers)
        self.observed_slots = observed_slots
        self.width = width
        self.state_in = PerModality({name: nn.Linear(size, width) for name, size in token_widths.items()})
        self.clean_in = PerModality({name: nn.Linear(size, width) for name, size in token_widths.items()})
        self.anchor_in = PerModality({name: nn.Linear(size, width) for name, size in token_widths.items()})
        self.evidence_in = PerModality({name: nn.Linear(size, width) for name, size in token_widths.items()})
        self.slot = nn.Parameter(torch.randn(len(self.names), 2, width) * 0.02)
        self.position = nn.Parameter(torch.randn(sum(self.tokens.values()), width) * 0.02)
        self.no_evidence = nn.Parameter(torch.randn(sum(self.tokens.values()), width) * 0.02)
        self.no_plan = nn.Parameter(torch.randn(shared_width) * 0.02)
        # zero, so that who made a plan counts only where training was told
        self.trusted_plan = nn.Parameter(torch.zeros(shared_width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.mean_token = nn.Parameter(torch.randn(width) * 0.02)
        self.observation_in = nn.Linear(shared_width, width)
        self.blocks = nn.ModuleList(TokenBlock(width, heads, dropout) for _ in range(layers))
        self.adapters = nn.ModuleDict({str(layer): EvidenceAdapter(width) for layer in self.shallow})
        self.cross = nn.ModuleDict(
            {str(layer): PlanCrossAttention(width, shared_width, heads) for layer in self.deep}
        )
        self.final_norm = nn.LayerNorm(width)
        self.out = PerModality({name: nn.Linear(width, size) for name, size in token_widths.items()})
        for _, head in self.out.items():
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        self.register_buffer("guidable", torch.tensor(True))
        self.guidable: Tensor
        """Whether plan and evidence were dropped in training, as guidance needs."""

    def forward(
        self,
        states: Latents,
        clean: Latents,
        time: Float[Tensor, " batch"],
        conditions: Conditions,
        mean: Bool[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """Predicted v or eps of every modality; the output of observed ones is meaningless.

        Args:
            states: z_t for each modality, in residual units; ignored where observed.
            clean: Latents of observed modalities; ignored where not observed.
            time: Time step of each row, in [0, T).
            conditions: u_X, plan, evidence and masks.
            mean: Rows to estimate the mean for instead: their states are ignored, and their output is the
                expected residual. They have their own time code, so that the last time step is not disturbed.
        """
        code = self.time(_sinusoid(time, self.width))
        if mean is not None:
            code = torch.where(mean[:, None], self.mean_token.to(code.dtype), code)
        condition = code + self.observation_in(conditions.observation)
        sequence = [
            self._tokens(column, name, states[name], clean[name], conditions, mean)
            for column, name in enumerate(self.names)
        ]
        hidden = torch.cat(sequence, dim=1) + self.position
        evidence = torch.where(
            conditions.evidence_given[:, None, None],
            torch.cat(
                [self.evidence_in[name](self._split(name, conditions.evidence[name])) for name in self.names],
                dim=1,
            ),
            self.no_evidence.to(hidden.dtype),
        )
        plan = torch.where(
            conditions.plan_given[:, None, None],
            conditions.plan + conditions.trusted[:, None, None] * self.trusted_plan,
            self.no_plan,
        )
        counts = [self.tokens[name] for name in self.names]
        columns = [column for column, count in enumerate(counts) for _ in range(count)]
        missing = (~conditions.observed[:, columns]).unsqueeze(-1).to(hidden.dtype)
        for layer, block in enumerate(self.blocks):
            hidden = self.inject(layer, block(hidden, condition), plan, evidence, missing)
        parts = self.final_norm(hidden).split(counts, dim=1)
        return {name: self.out[name](part).flatten(1) for name, part in zip(self.names, parts, strict=True)}

    def inject(
        self,
        layer: int,
        hidden: Float[Tensor, "batch token width"],
        plan: Float[Tensor, "batch constraint shared"],
        evidence: Float[Tensor, "batch token width"],
        missing: Float[Tensor, "batch token 1"],
    ) -> Float[Tensor, "batch token width"]:
        """A layer's features plus the terms of plan (all tokens) and evidence (missing ones)."""
        if layer in self.shallow:
            hidden = hidden + missing * self.adapters[str(layer)](hidden, evidence)
        if layer in self.deep:
            hidden = hidden + self.cross[str(layer)](hidden, plan)
        return hidden

    @classmethod
    def from_folder(cls, folder: Path) -> Denoiser:
        """The denoiser that ``save_pretrained`` wrote, by this version or by 0.1.0."""
        made: Denoiser = cls.from_config(cls.load_config(folder, local_files_only=True))
        made.load_state_dict(_current(load_file(folder / SAFETENSORS_WEIGHTS_NAME), made.state_dict()))
        return made

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **given: Any) -> Any:
        """Like Diffusers, but drops ``joint_layers``, which version 0.1.0 wrote and were always empty."""
        kept = {name: value for name, value in config_dict.items() if name != "joint_layers"}
        return super().extract_init_dict(kept, **given)

    def _split(self, name: str, latents: Tensor) -> Tensor:
        """Flat latents as tokens, (batch, tokens, token width)."""
        return latents.reshape(len(latents), self.tokens[name], -1)

    def _tokens(
        self,
        column: int,
        name: str,
        state: Tensor,
        clean: Tensor,
        conditions: Conditions,
        mean: Tensor | None,
    ) -> Tensor:
        observed = conditions.observed[:, column, None, None]
        if mean is not None:
            state = torch.where(mean[:, None], torch.zeros_like(state), state)
        anchor = self.anchor_in[name](self._split(name, conditions.anchor[name]))
        missing_in = self.state_in[name](self._split(name, state)) + anchor
        shown = clean if self.observed_slots else torch.zeros_like(clean)
        observed_in = self.clean_in[name](self._split(name, shown))
        return torch.where(observed, observed_in + self.slot[column, 1], missing_in + self.slot[column, 0])


def _current(weights: dict[str, Tensor], made: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of version 0.1.0 in the current form, which gives the same; others as they are.

    Its gates were one plus the modulation's; its plans and evidence were always given, and of nobody.
    """
    if "guidable" in weights:
        return weights
    width = weights["mean_token"].shape[0]
    gates = torch.zeros(6, width)
    gates[[2, 5]] = 1.0
    weights = {
        name: value + gates.flatten() if name.endswith("modulation.1.bias") else value
        for name, value in weights.items()
    }
    return {name: torch.zeros_like(value) for name, value in made.items()} | weights


def _split_heads(x: Tensor, heads: int) -> Tensor:
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).reshape(batch, length, heads * width)


def _sinusoid(time: Tensor, width: int) -> Tensor:
    half = width // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=time.device) / half)
    angles = time.to(torch.float32)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
