"""The distilled planner: a small causal language model that writes plans from u_X (section 3.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from omg_graph.errors import ConfigError, ModelError, PlanError, SchemaError
from omg_graph.planner.decoding import DecodedPlan, Decoder, TokenChoice, candidate_noise
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.vocabulary import EncodedPlan, Grammar, Vocabulary
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.seeding import derived_seed

SCHEMA_FILE = "schema.json"
VOCABULARY_FILE = "vocabulary.json"
SETTINGS_FILE = "student.json"
PROJECTION_FILE = "projection.safetensors"
LANGUAGE_MODEL_FOLDER = "language_model"

MICRO_BATCH = 128
"""Samples decoded at once; it bounds the memory and changes no result."""


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """For files of a megabyte: transformers draws a bar for each on stderr."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


class LabelBias(nn.Module):
    """A linear map from label estimates to the logits of each field's tokens; zero at the start.

    The estimates know the label better than u_X does, and a linear map needs few rows to learn that.
    """

    def __init__(self, values: int, fields: int, tokens: int) -> None:
        super().__init__()
        self.fields = fields
        self.weight = nn.Parameter(torch.zeros(fields * tokens, values))
        self.register_buffer("deviations", torch.ones(values))
        self.deviations: Tensor
        """Standard deviations over the training rows: every column counts in units of its own spread."""

    def standardise(self, readings: Float[Tensor, "rows values"]) -> None:
        """Take the spread of these."""
        self.deviations.copy_(readings.std(dim=0, correction=0).clamp(min=1e-6))

    def forward(self, reading: Float[Tensor, "samples values"]) -> Float[Tensor, "samples fields tokens"]:
        """Added to the logits."""
        added = nn.functional.linear(reading / self.deviations, self.weight)
        return added.view(len(reading), self.fields, -1)


class StudentPlanner(nn.Module):
    """A causal language model over a schema's values, with psi(X) as its prefix: the default planner.

    The projected embedding takes the first ``prefix`` positions; then come, for each field, one scaffold
    token, the value and a terminator, so that c_l ~ pi(. | X, c_<l). Where the model has a label regression,
    a linear map adds its estimates to the logits. Decoding is held to the schema's grammar;
    log-probabilities are those of the model itself over its whole vocabulary.
    """

    name: ClassVar[str] = "distilled"
    follows_sampling: ClassVar[bool] = True

    def __init__(
        self,
        schema: Schema,
        embedding_width: int,
        *,
        words: Sequence[str] = (),
        width: int = 96,
        layers: int = 2,
        heads: int = 4,
        prefix: int = 2,
        dropout: float = 0.1,
        reading: int = 0,
        whole_values: bool = True,
        seed: int = 0,
    ) -> None:
        """Build a student with random weights that depend on ``seed`` alone.

        Args:
            schema: the plans it writes.
            embedding_width: the width of u_X.
            words: the words of free-text fields, e.g. the training plans' texts.
            width: the language model's width.
            layers: its number of layers.
            heads: its attention heads.
            prefix: how many positions u_X takes.
            dropout: the share of prefix and token features dropped by ``loss``.
            reading: how many numbers a label estimate has; 0 for a planner without them.
            whole_values: whether a value is one token, however many words it has.
            seed: of the first weights.

        Raises:
            ConfigError: if ``width`` isn't a multiple of twice ``heads``.
            SchemaError: if the schema has free text and ``words`` is empty.
        """
        super().__init__()
        if width % (2 * heads):
            raise ConfigError(f"the planner's width is a multiple of {2 * heads}, {width} came")
        self.schema = schema
        self.settings: dict[str, Any] = {
            "embedding_width": embedding_width,
            "width": width,
            "layers": layers,
            "heads": heads,
            "prefix": prefix,
            "dropout": dropout,
            "reading": reading,
        }
        self.vocabulary = Vocabulary(schema, words, whole_values=whole_values)
        self.grammar = Grammar(self.vocabulary)
        self.reading = LabelBias(reading, len(schema.fields), len(self.vocabulary)) if reading else None
        # Constructors of layers draw from the global generator: lend them one, and give it back untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "student"))
            self.projection = nn.Linear(embedding_width, prefix * width)
            self.prefix_norm = nn.LayerNorm(width)
            self.language_model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(self.vocabulary),
                    hidden_size=width,
                    intermediate_size=2 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    num_key_value_heads=heads,
                    max_position_embeddings=prefix + self._longest_plan(),
                    tie_word_embeddings=False,
                    pad_token_id=self.vocabulary.pad,
                    bos_token_id=None,
                    eos_token_id=self.vocabulary.end,
                    attn_implementation="eager",
                )
            )

    def _longest_plan(self) -> int:
        longest = 0
        for entry in self.schema.fields:
            whole = self.vocabulary.whole_values
            words = entry.max_words or max(
                1 if whole else len(value.split()) for value in entry.values or ("",)
            )
            longest += words + 2
        return longest

    def prefix_of(self, embeddings: Float[Tensor, "samples width"]) -> Float[Tensor, "samples prefix hidden"]:
        """u_X as the language model's first positions."""
        projected = self.projection(embeddings)
        prefix: Tensor = self.prefix_norm(projected.unflatten(-1, (self.settings["prefix"], -1)))
        return prefix

    def added_by(
        self, reading: Float[Tensor, "samples values"] | None
    ) -> Float[Tensor, "samples fields tokens"] | None:
        """What the label estimates add to the logits; None for a planner without them.

        Raises:
            PlanError: if the planner takes label estimates and none are given.
        """
        if self.reading is None:
            return None
        if reading is None:
            raise PlanError(
                "the distilled planner: expected label estimates beside u_X, got none: give "
                "PlannerInput.label_estimates, as omg_graph.pipeline.planner_input does"
            )
        added: Tensor = self.reading(reading)
        return added

    def loss(
        self,
        embeddings: Float[Tensor, "samples width"],
        plans: Sequence[Plan],
        generator: torch.Generator | None = None,
        *,
        reading: Float[Tensor, "samples values"] | None = None,
        taught: Float[Tensor, "tokens tokens"] | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, in nats a token, on the values' tokens and their terminators.

        Dropout acts on the prefix and the tokens, in training mode, and draws from ``generator`` alone, so
        that a training step can be repeated; without a generator nothing is dropped. ``taught`` is what
        stands for each of the target's values, such as ``blurred_degrees`` gives.

        Raises:
            PlanError: if a plan violates the schema.
        """
        encoded = [self.vocabulary.encode(plan) for plan in plans]
        log_probs, tokens, levels = self._token_log_probabilities(embeddings, reading, encoded, generator)
        taken = log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        if taught is not None:
            told = (levels == self.schema.target_index) & (tokens != self.vocabulary.end)
            taken = taken.masked_scatter(told, (taught[tokens[told]] * log_probs[told]).sum(dim=1))
        return -taken[levels >= 0].mean()

    def blurred_degrees(self, spread: float) -> Float[Tensor, "tokens tokens"] | None:
        """For each token of the target's degrees, the shares of its neighbours in what is taught.

        They fall off as a Gaussian of ``spread`` steps from one degree to the next: a label is
        an average of several opinions, and the next degree is a small mistake. None where the target has no
        degrees, its values aren't tokens, or the spread is 0.
        """
        degrees, level = self.schema.degrees, self.schema.target_index
        if not spread or degrees is None or level is None or not self.vocabulary.whole_values:
            return None
        ordered = sorted(degrees, key=lambda value: degrees[value])
        tokens = torch.tensor([self.vocabulary.words_of(level, value)[0] for value in ordered])
        steps = torch.arange(len(ordered), dtype=torch.float32)
        shares = torch.softmax(-(steps[:, None] - steps[None]).square() / (2 * spread**2), dim=1)
        taught = torch.eye(len(self.vocabulary))
        taught[tokens[:, None], tokens[None]] = shares
        return taught.to(self.projection.weight.device)

    def score(
        self,
        embeddings: Float[Tensor, "samples width"],
        plans: Sequence[Plan],
        *,
        reading: Float[Tensor, "samples values"] | None = None,
    ) -> Float[Tensor, "samples fields"]:
        """The log pi(c_l | X, c_<l) of every constraint, in nats, by teacher forcing (Eq. 5's first term).

        Raises:
            PlanError: if a plan violates the schema.
        """
        encoded = [self.vocabulary.encode(plan) for plan in plans]
        log_probs, tokens, levels = self._token_log_probabilities(embeddings, reading, encoded, None)
        taken = log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return torch.stack(
            [(taken * (levels == level)).sum(dim=1) for level in range(len(self.schema.fields))], dim=1
        )

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[CandidatePlan]]:
        """Candidate plans for each sample; the greedy one comes first, the others are drawn.

        What is drawn depends on (seed, id, candidate) alone; two candidates may be equal.
        """
        candidates, size = sampling.candidates, (self._longest_plan(), len(self.vocabulary))
        plans: list[DecodedPlan] = []
        with torch.inference_mode():
            for start in range(0, len(observations.ids), MICRO_BATCH):
                rows = slice(start, start + MICRO_BATCH)
                noise = candidate_noise(
                    observations.ids[rows], candidates, seed=seed, include_greedy=sampling.greedy, size=size
                )
                choice = TokenChoice(noise, sampling.temperature, sampling.top_p)
                plans += self._decode(*self._read(observations, rows), choice, candidates)
        return [
            [
                self.schema.candidate(*plan, greedy=sampling.greedy and number == 0)
                for number, plan in enumerate(plans[row : row + candidates])
            ]
            for row in range(0, len(plans), candidates)
        ]

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample, scored by teacher forcing; None where it has words unknown to the model.

        The log-probabilities are those that a drawn plan with the same words has.

        Raises:
            PlanError: if a plan violates the schema.
        """
        known = [row for row, plan in enumerate(plans) if self.vocabulary.knows(plan)]
        scored: list[CandidatePlan | None] = [None] * len(plans)
        if not known:
            return scored
        embeddings, reading = self._read(observations, known)
        with torch.inference_mode():
            taught = [plans[row] for row in known]
            log_probabilities = self.score(embeddings, taught, reading=reading).tolist()
        for row, values in zip(known, log_probabilities, strict=True):
            levels = self.vocabulary.encode(plans[row]).levels
            tokens = tuple(levels.count(level) for level in range(len(self.schema.fields)))
            scored[row] = self.schema.candidate(plans[row], values, tokens)
        return scored

    def _read(self, observations: PlannerInput, rows: slice | list[int]) -> tuple[Tensor, Tensor | None]:
        """What the student reads of some samples."""
        device = self.projection.weight.device
        embeddings = torch.as_tensor(observations.embeddings[rows], dtype=torch.float32, device=device)
        if observations.label_estimates is None:
            return embeddings, None
        return embeddings, torch.as_tensor(
            observations.label_estimates[rows], dtype=torch.float32, device=device
        )

    def _decode(
        self, embeddings: Tensor, reading: Tensor | None, choice: TokenChoice, candidates: int
    ) -> list[DecodedPlan]:
        choice = replace(choice, noise=choice.noise.to(embeddings.device))
        decoder = Decoder(self.language_model, self.grammar, choice, candidates, self.added_by(reading))
        return decoder.decode(self.prefix_of(embeddings))

    def _token_log_probabilities(
        self,
        embeddings: Tensor,
        reading: Tensor | None,
        encoded: Sequence[EncodedPlan],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of every token at each place, (samples, places, tokens); which is there, and for which field."""
        device = self.projection.weight.device
        longest = max(len(plan.tokens) for plan in encoded)
        pad = self.vocabulary.pad
        tokens = torch.tensor(
            [plan.tokens + (pad,) * (longest - len(plan.tokens)) for plan in encoded], device=device
        )
        levels = torch.tensor(
            [plan.levels + (-1,) * (longest - len(plan.levels)) for plan in encoded], device=device
        )
        prefix = self.prefix_of(embeddings)
        inputs = torch.cat([prefix, self.language_model.get_input_embeddings()(tokens[:, :-1])], dim=1)
        inputs = self._dropped(inputs, generator)
        # Padding comes last and attention looks back only, so no mask is needed.
        logits = self.language_model(inputs_embeds=inputs, use_cache=False).logits
        logits = logits[:, prefix.shape[1] - 1 :].float()
        added = self.added_by(reading)
        if added is not None:
            logits = logits + added[torch.arange(len(added), device=device).unsqueeze(1), levels.clamp(min=0)]
        return logits.log_softmax(dim=-1), tokens, levels

    def _dropped(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        share: float = self.settings["dropout"]
        if generator is None or not self.training or share == 0:
            return inputs
        kept = torch.rand(inputs.shape, generator=generator, device=generator.device) >= share
        return inputs * kept.to(inputs.device) / (1 - share)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), schema, vocabulary and settings (JSON) into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        with _without_progress_bars():
            self.language_model.save_pretrained(folder / LANGUAGE_MODEL_FOLDER)
        weights = {f"projection.{name}": value for name, value in self.projection.state_dict().items()}
        weights |= {f"prefix_norm.{name}": value for name, value in self.prefix_norm.state_dict().items()}
        if self.reading is not None:
            weights |= {f"reading.{name}": value for name, value in self.reading.state_dict().items()}
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / PROJECTION_FILE)
        (folder / SCHEMA_FILE).write_text(self.schema.to_json() + "\n", encoding="utf-8")
        (folder / VOCABULARY_FILE).write_text(self.vocabulary.to_json() + "\n", encoding="utf-8")
        (folder / SETTINGS_FILE).write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StudentPlanner:
        """What ``save`` wrote, on the CPU and ready to plan.

        Raises:
            ModelError: if a file is missing, damaged or doesn't fit the others.
        """
        try:
            schema = Schema.from_json((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
            settings = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            vocabulary = Vocabulary.from_json((folder / VOCABULARY_FILE).read_text(encoding="utf-8"), schema)
            planner = cls(schema, words=vocabulary.words, whole_values=vocabulary.whole_values, **settings)
            weights = load_file(folder / PROJECTION_FILE)
            with _without_progress_bars():
                language_model = LlamaForCausalLM.from_pretrained(
                    folder / LANGUAGE_MODEL_FOLDER,
                    local_files_only=True,
                    use_safetensors=True,
                    attn_implementation="eager",
                    dtype=torch.float32,
                )
            planner.language_model.load_state_dict(language_model.state_dict())
            for name in ("projection", "prefix_norm", *(("reading",) if planner.reading else ())):
                part = {key.split(".", 1)[1]: value for key, value in weights.items() if key.startswith(name)}
                planner.get_submodule(name).load_state_dict(part)
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, SchemaError) as error:
            raise ModelError(
                f"a planner was expected in {folder} and can't be read ({str(error).splitlines()[0]}): "
                "train the model again, or copy the folder whole"
            ) from error
        return planner.eval()
