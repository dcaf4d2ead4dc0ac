"""The distilled planner: a small causal language model that writes plans from u_X (section 3.3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from omg_graph.errors import ConfigError, ModelError, PlanError, SchemaError
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.vocabulary import EncodedPlan, Vocabulary
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.seeding import derived_seed, generator

SCHEMA_FILE = "schema.json"
VOCABULARY_FILE = "vocabulary.json"
SETTINGS_FILE = "student.json"
PROJECTION_FILE = "projection.safetensors"
LANGUAGE_MODEL_FOLDER = "language_model"
WEIGHTS_FILE = "model.safetensors"

MICRO_BATCH = 128
"""Samples decoded at once; it bounds the memory and changes no result."""

STORED_NAMES = {"label_bias": "reading", "label_width": "reading"}
"""What the files of a model folder call by another name."""

SETTINGS = ("embedding_width", "width", "layers", "heads", "prefix", "dropout", "label_width")
"""What a model folder keeps of ``StudentPlanner``'s arguments."""

Begun = tuple[Plan, tuple[int, ...]]
"""A plan under way: its finished values, and the tokens of the next one so far."""


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

    def standardise(self, estimates: Float[Tensor, "rows values"]) -> None:
        """Take the spread of these."""
        self.deviations.copy_(estimates.std(dim=0, correction=0).clamp(min=1e-6))

    def forward(self, estimates: Float[Tensor, "samples values"]) -> Float[Tensor, "samples fields tokens"]:
        """Added to the logits."""
        added = nn.functional.linear(estimates / self.deviations, self.weight)
        return added.view(len(estimates), self.fields, -1)


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
        label_width: int = 0,
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
            label_width: how many numbers a label estimate has; 0 for a planner without them.
            seed: of the first weights.

        Raises:
            ConfigError: if ``width`` isn't a multiple of twice ``heads``.
            SchemaError: if the schema has free text and ``words`` is empty.
        """
        super().__init__()
        if width % (2 * heads):
            raise ConfigError(f"the planner's width: expected a multiple of {2 * heads}, got {width}")
        self.schema = schema
        given = (embedding_width, width, layers, heads, prefix, dropout, label_width)
        self.settings: dict[str, Any] = dict(zip(SETTINGS, given, strict=True))
        self._masks: dict[tuple[int, Plan, int], Tensor] = {}
        self.vocabulary = Vocabulary(schema, words)
        tokens = len(self.vocabulary)
        self.label_bias = LabelBias(label_width, len(schema.fields), tokens) if label_width else None
        # Constructors of layers draw from the global generator: lend them one, and give it back untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, "student"))
            self.projection = nn.Linear(embedding_width, prefix * width)
            self.prefix_norm = nn.LayerNorm(width)
            self.language_model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=tokens,
                    hidden_size=width,
                    intermediate_size=2 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    num_key_value_heads=heads,
                    max_position_embeddings=prefix + self.vocabulary.longest_plan,
                    tie_word_embeddings=False,
                    pad_token_id=self.vocabulary.pad,
                    bos_token_id=None,
                    eos_token_id=self.vocabulary.end,
                    attn_implementation="eager",
                )
            )

    def loss(
        self,
        embeddings: Float[Tensor, "samples width"],
        plans: Sequence[Plan],
        generator: torch.Generator | None = None,
        *,
        label_estimates: Float[Tensor, "samples values"] | None = None,
        soft_targets: Float[Tensor, "tokens tokens"] | None = None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy, in nats a token, on the values' tokens and their terminators.

        Dropout acts on the prefix and the tokens, in training mode, and draws from ``generator`` alone, so
        that a training step can be repeated; without a generator nothing is dropped. ``soft_targets`` are
        shares of what stands for each of the target's values, as ``soft_degrees`` gives them.

        Raises:
            PlanError: if a plan violates the schema.
        """
        encoded = [self.vocabulary.encode(plan) for plan in plans]
        log_probs, tokens, levels = self._log_probabilities(embeddings, label_estimates, encoded, generator)
        likelihood = log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        if soft_targets is not None:
            softened = (levels == self.schema.target_index) & (tokens != self.vocabulary.end)
            expected = (soft_targets[tokens[softened]] * log_probs[softened]).sum(dim=1)
            likelihood = likelihood.masked_scatter(softened, expected)
        return -likelihood[levels >= 0].mean()

    def soft_degrees(self, spread: float) -> Float[Tensor, "tokens tokens"] | None:
        """Soft targets: for each token of the target's degrees, the shares of its neighbours.

        They fall off as a Gaussian of ``spread`` steps from one degree to the next: a label is an average of
        several opinions, and the next degree is a small mistake. None where the target has no degrees, or
        the spread is 0.
        """
        degrees, level = self.schema.degrees, self.schema.target_index
        if not spread or degrees is None or level is None:
            return None
        ordered = sorted(degrees, key=lambda value: degrees[value])
        tokens = torch.tensor([self.vocabulary.tokens_of(level, value)[0] for value in ordered])
        steps = torch.arange(len(ordered), dtype=torch.float32)
        shares = torch.softmax(-(steps[:, None] - steps[None]).square() / (2 * spread**2), dim=1)
        targets = torch.eye(len(self.vocabulary))
        targets[tokens[:, None], tokens[None]] = shares
        return targets.to(self.projection.weight.device)

    def score(
        self,
        embeddings: Float[Tensor, "samples width"],
        plans: Sequence[Plan],
        *,
        label_estimates: Float[Tensor, "samples values"] | None = None,
    ) -> Float[Tensor, "samples fields"]:
        """The log pi(c_l | X, c_<l) of every constraint, in nats, by teacher forcing (Eq. 5's first term).

        Raises:
            PlanError: if a plan violates the schema.
        """
        encoded = [self.vocabulary.encode(plan) for plan in plans]
        log_probs, tokens, levels = self._log_probabilities(embeddings, label_estimates, encoded)
        likelihood = log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return torch.stack(
            [(likelihood * (levels == level)).sum(dim=1) for level in range(len(self.schema.fields))], dim=1
        )

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[CandidatePlan]]:
        """Candidate plans for each sample; the greedy one comes first, the others are drawn.

        What is drawn depends on (seed, id, candidate) alone; two candidates may be equal.
        """
        proposed = []
        for start in range(0, len(observations.ids), MICRO_BATCH):
            batch = observations.take(range(start, min(start + MICRO_BATCH, len(observations.ids))))
            plans = self._draw(batch, sampling, seed)
            known = self._candidates(
                batch, [(row, plan) for row, own in enumerate(plans) for plan in dict.fromkeys(own)]
            )
            for row, own in enumerate(plans):
                candidates = [known[row, plan] for plan in own]
                if sampling.greedy:
                    candidates[0] = candidates[0].model_copy(update={"greedy": True})
                proposed.append(candidates)
        return proposed

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample, scored by teacher forcing; None where it has words unknown to the model.

        The log-probabilities are those that a drawn plan with the same words has.

        Raises:
            PlanError: if a plan violates the schema.
        """
        known = [(row, tuple(plan)) for row, plan in enumerate(plans) if self.vocabulary.knows(plan)]
        scored = self._candidates(observations, known)
        return [scored.get((row, tuple(plan))) for row, plan in enumerate(plans)]

    def _candidates(
        self, observations: PlannerInput, plans: Sequence[tuple[int, Plan]]
    ) -> dict[tuple[int, Plan], CandidatePlan]:
        """Plans, each with the row of its sample, by both; with their log-probabilities."""
        if not plans:
            return {}
        rows = [row for row, _ in plans]
        with torch.inference_mode():
            embeddings, estimates = self._inputs(observations)
            log_probabilities = self.score(
                embeddings[rows],
                [plan for _, plan in plans],
                label_estimates=None if estimates is None else estimates[rows],
            ).tolist()
        candidates = {}
        for (row, plan), values in zip(plans, log_probabilities, strict=True):
            counts = [len(self.vocabulary.tokens_of(level, value)) + 1 for level, value in enumerate(plan)]
            candidates[row, plan] = self.schema.candidate(plan, values, counts)
        return candidates

    @torch.inference_mode()
    def _draw(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[Plan]]:
        """Plans token by token: the likeliest under noise of those that the grammar lets through.

        Beginnings that are equal are read once. Nothing is kept from one token to the next: a plan is a
        dozen tokens long, and a cache of keys and values costs more than reading them again.
        """
        vocabulary, count = self.vocabulary, sampling.candidates
        embeddings, estimates = self._inputs(observations)
        noise = gumbel_noise(observations.ids, sampling, seed, (vocabulary.longest_plan, len(vocabulary))).to(
            embeddings.device
        )
        begun = [self._forced((), ()) for _ in range(len(embeddings) * count)]
        while rows := [row for row, (plan, _) in enumerate(begun) if len(plan) < len(self.schema.fields)]:
            keys = [(row // count, begun[row]) for row in rows]
            place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            log_probs = self._next_log_probabilities(embeddings, estimates, list(place))
            steps = [self._written(*begun[row]) for row in rows]
            chosen = choose_tokens(
                log_probs[[place[key] for key in keys]], noise[rows, steps], sampling
            ).tolist()
            for row, token in zip(rows, chosen, strict=True):
                begun[row] = self._forced(*self._after(*begun[row], token))
        plans = [plan for plan, _ in begun]
        return [plans[start : start + count] for start in range(0, len(plans), count)]

    def _next_log_probabilities(
        self, embeddings: Tensor, estimates: Tensor | None, begun: Sequence[tuple[int, Begun]]
    ) -> Float[Tensor, "begun tokens"]:
        """Of the token behind each beginning; minus infinity for those that the grammar doesn't let through.

        Args:
            embeddings: (samples, width).
            estimates: (samples, values).
            begun: Rows of samples, and beginnings of their plans.
        """
        vocabulary, encoded = self.vocabulary, []
        for _, (plan, written) in begun:
            level, values = len(plan), vocabulary.encode_values(plan)
            tokens = (*values.tokens, vocabulary.scaffold(level), *written, vocabulary.pad)
            encoded.append(EncodedPlan(tokens, (*values.levels, -1, *(level,) * (len(written) + 1))))
        samples = [sample for sample, _ in begun]
        own = None if estimates is None else estimates[samples]
        log_probs, _, _ = self._log_probabilities(embeddings[samples], own, encoded)
        last = log_probs[range(len(begun)), [len(plan.tokens) - 1 for plan in encoded]]
        allowed = torch.stack([self._allowed(*beginning) for _, beginning in begun])
        return last.masked_fill(~allowed.to(last.device), -torch.inf)

    def _allowed(self, plan: Plan, written: tuple[int, ...]) -> Tensor:
        """(tokens,), which may come next."""
        before = () if self.schema.fields[len(plan)].within is None else plan[-1:]
        key = (len(plan), before, len(written))
        if key not in self._masks:
            mask = torch.zeros(len(self.vocabulary), dtype=torch.bool)
            mask[list(self.vocabulary.following(plan, written))] = True
            self._masks[key] = mask
        return self._masks[key]

    def _written(self, plan: Plan, written: tuple[int, ...]) -> int:
        """How many tokens were written, scaffolds left out."""
        finished = (len(self.vocabulary.tokens_of(level, value)) + 1 for level, value in enumerate(plan))
        return sum(finished) + len(written)

    def _after(self, plan: Plan, written: tuple[int, ...], token: int) -> Begun:
        """A beginning with one more token."""
        if token != self.vocabulary.end:
            return plan, (*written, token)
        return (*plan, self.vocabulary.text_of(written)), ()

    def _forced(self, plan: Plan, written: tuple[int, ...]) -> Begun:
        """A beginning with all tokens behind it that the grammar leaves no choice about."""
        while len(plan) < len(self.schema.fields):
            following = self.vocabulary.following(plan, written)
            if len(following) > 1:
                break
            plan, written = self._after(plan, written, following[0])
        return plan, written

    def _inputs(self, observations: PlannerInput) -> tuple[Tensor, Tensor | None]:
        """u_X and, for a planner that takes them, the label estimates; on its device.

        Raises:
            PlanError: if the planner takes label estimates and none are given.
        """
        device = self.projection.weight.device
        embeddings = torch.as_tensor(observations.embeddings, dtype=torch.float32, device=device)
        if self.label_bias is None:
            return embeddings, None
        if observations.label_estimates is None:
            raise PlanError(
                "the distilled planner: expected label estimates beside u_X, got none: give "
                "PlannerInput.label_estimates, as omg_graph.pipeline.planner_input does"
            )
        return embeddings, torch.as_tensor(observations.label_estimates, dtype=torch.float32, device=device)

    def _log_probabilities(
        self,
        embeddings: Tensor,
        estimates: Tensor | None,
        encoded: Sequence[EncodedPlan],
        generator: torch.Generator | None = None,
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
        prefix = self.prefix_norm(self.projection(embeddings).unflatten(-1, (self.settings["prefix"], -1)))
        inputs = torch.cat([prefix, self.language_model.get_input_embeddings()(tokens[:, :-1])], dim=1)
        inputs = self._dropped(inputs, generator)
        # Padding comes last and attention looks back only, so no mask is needed.
        logits = self.language_model(inputs_embeds=inputs, use_cache=False).logits
        logits = logits[:, prefix.shape[1] - 1 :].float()
        if self.label_bias is not None:
            added = self.label_bias(estimates)
            logits = logits + added[torch.arange(len(added), device=device).unsqueeze(1), levels.clamp(min=0)]
        return logits.log_softmax(dim=-1), tokens, levels

    def _dropped(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        share: float = self.settings["dropout"]
        if generator is None or not self.training or share == 0:
            return inputs
        kept = torch.rand(inputs.shape, generator=generator, device=generator.device) >= share
        return inputs * kept.to(inputs.device) / (1 - share)

    def _parts(self) -> dict[str, nn.Module]:
        """What a model folder holds beside the language model, by its name there."""
        names = ("projection", "prefix_norm", *(() if self.label_bias is None else ("label_bias",)))
        return {STORED_NAMES.get(name, name): self.get_submodule(name) for name in names}

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), schema, vocabulary and settings (JSON) into ``folder``."""
        language_model = folder / LANGUAGE_MODEL_FOLDER
        language_model.mkdir(parents=True, exist_ok=True)
        self.language_model.config.save_pretrained(language_model)
        _save(self.language_model.state_dict(), language_model / WEIGHTS_FILE)
        _save(
            {
                f"{name}.{key}": value
                for name, part in self._parts().items()
                for key, value in part.state_dict().items()
            },
            folder / PROJECTION_FILE,
        )
        settings = {STORED_NAMES.get(name, name): value for name, value in self.settings.items()}
        (folder / SCHEMA_FILE).write_text(self.schema.to_json() + "\n", encoding="utf-8")
        (folder / VOCABULARY_FILE).write_text(self.vocabulary.to_json() + "\n", encoding="utf-8")
        (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> StudentPlanner:
        """What ``save`` wrote, on the CPU and ready to plan.

        Raises:
            ModelError: if a file is missing, damaged or doesn't fit the others.
        """
        try:
            schema = Schema.from_json((folder / SCHEMA_FILE).read_text(encoding="utf-8"))
            stored = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
            settings = {name: stored[STORED_NAMES.get(name, name)] for name in SETTINGS}
            vocabulary = Vocabulary.from_json((folder / VOCABULARY_FILE).read_text(encoding="utf-8"), schema)
            planner = cls(schema, words=vocabulary.words, **settings)
            weights = load_file(folder / PROJECTION_FILE)
            planner.language_model.load_state_dict(load_file(folder / LANGUAGE_MODEL_FOLDER / WEIGHTS_FILE))
            for name, part in planner._parts().items():
                start = f"{name}."
                part.load_state_dict(
                    {
                        key.removeprefix(start): value
                        for key, value in weights.items()
                        if key.startswith(start)
                    }
                )
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            RuntimeError,
            SafetensorError,
            SchemaError,
        ) as error:
            raise ModelError(
                f"{folder}: expected a planner, can't read it ({str(error).splitlines()[0]}): "
                "train the model again, or copy the folder whole"
            ) from error
        return planner.eval()


def _save(weights: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in weights.items()}, path, metadata={"format": "pt"})


def gumbel_noise(
    ids: Sequence[str], sampling: Sampling, seed: int, size: tuple[int, int]
) -> Float[Tensor, "rows steps tokens"]:
    """Noise for every candidate of every sample, candidates of a sample side by side.

    The likeliest token of log-probabilities plus this noise is a draw from them, and it depends on (seed, id,
    candidate) alone, whatever else is in the batch. The greedy candidate's noise is zero. ``size``: the most
    tokens of a plan, and the tokens of the vocabulary.
    """
    first = int(sampling.greedy)
    noise = torch.zeros(len(ids), sampling.candidates, *size)
    uniform = [
        torch.rand(size, generator=generator(seed, sample_id, "plan", candidate))
        for sample_id in ids
        for candidate in range(first, sampling.candidates)
    ]
    if uniform:
        tiny = torch.finfo(torch.float32).tiny
        exponential = -torch.log(torch.stack(uniform).clamp_min(tiny))
        noise[:, first:] = -torch.log(exponential.clamp_min(tiny)).view(len(ids), -1, *size)
    return noise.flatten(0, 1)


def choose_tokens(
    log_probs: Float[Tensor, "rows tokens"], noise: Float[Tensor, "rows tokens"], sampling: Sampling
) -> Tensor:
    """The next token of every row: the likeliest with the row's noise, among the likeliest ``top_p``.

    Args:
        log_probs: Minus infinity for what isn't allowed.
        noise: Of ``gumbel_noise``.
        sampling: Temperature and ``top_p``.
    """
    if sampling.top_p < 1:
        shares, order = (log_probs / sampling.temperature).softmax(dim=-1).sort(descending=True, stable=True)
        beyond = shares.cumsum(dim=-1) - shares >= sampling.top_p  # the likeliest always takes part
        left_out = torch.zeros_like(beyond).scatter(1, order, beyond)
        log_probs = log_probs.masked_fill(left_out, -torch.inf)
    return (log_probs + sampling.temperature * noise).argmax(dim=-1)
