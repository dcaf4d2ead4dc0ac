"""Decoding under a grammar: many plans at once, with the model's own log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from omg_graph.planner.schema import Plan
from omg_graph.planner.vocabulary import Grammar, GrammarState
from omg_graph.seeding import generator

DecodedPlan = tuple[Plan, tuple[float, ...], tuple[int, ...]]
"""Values, their log-probabilities in nats, and how many tokens each of these sums over."""


def candidate_noise(
    ids: Sequence[str], candidates: int, *, seed: int, include_greedy: bool, size: tuple[int, int]
) -> Float[Tensor, "rows steps tokens"]:
    """Gumbel noise for every candidate of every sample, candidates of a sample side by side.

    The most likely token of log-probabilities plus this noise is a draw from them, and it depends on
    (seed, id, candidate) alone, whatever else is in the batch. The greedy candidate's noise is zero.
    ``size``: the most tokens of a plan, and the tokens of the vocabulary.
    """
    uniform = torch.full((len(ids) * candidates, *size), 0.5)
    drawn: list[int] = []
    for sample, sample_id in enumerate(ids):
        for candidate in range(int(include_greedy), candidates):
            row = sample * candidates + candidate
            torch.rand(size, generator=generator(seed, sample_id, "plan", candidate), out=uniform[row])
            drawn.append(row)
    tiny = torch.finfo(torch.float32).tiny
    noise = torch.zeros_like(uniform)
    exponential = -torch.log(uniform[drawn].clamp_min(tiny))
    noise[drawn] = -torch.log(exponential.clamp_min(tiny))
    return noise


@dataclass(frozen=True)
class TokenChoice:
    """How the next token of each row is chosen."""

    noise: Float[Tensor, "rows steps tokens"]
    """What ``candidate_noise`` drew."""
    temperature: float = 1.0
    top_p: float = 1.0

    def choose(
        self, log_probs: Float[Tensor, "rows tokens"], steps: Int[Tensor, " rows"]
    ) -> Int[Tensor, " rows"]:
        """The next token of every row: the likeliest with the row's noise, among the likeliest ``top_p``.

        Args:
            log_probs: Minus infinity for what isn't allowed.
            steps: How many tokens each row has.
        """
        noise = self.noise[torch.arange(len(log_probs), device=log_probs.device), steps]
        if self.top_p < 1:
            shares, order = (log_probs / self.temperature).softmax(dim=-1).sort(descending=True, stable=True)
            beyond = shares.cumsum(dim=-1) - shares >= self.top_p  # the likeliest always takes part
            left_out = torch.zeros_like(beyond).scatter(1, order, beyond)
            log_probs = log_probs.masked_fill(left_out, -torch.inf)
        return (log_probs + self.temperature * noise).argmax(dim=-1)


@dataclass
class _Row:
    """One plan while it is written."""

    state: GrammarState
    level: int = 0
    plan: Plan = ()
    words: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    token_counts: list[int] = field(default_factory=list)
    pending: list[tuple[int, int]] = field(default_factory=list)
    """Tokens that the model hasn't read yet, each with the field that its own log-probability counts for."""
    written: int = 0
    done: bool = False


class Decoder:
    """Writes a batch of plans, reading as many tokens in one pass as the grammar leaves no choice about.

    Rows whose values differ in length get ahead of each other: each pass is padded on the left, with the
    padding masked and positions of the rows' own, so that a row's numbers don't depend on its neighbours.
    """

    def __init__(
        self,
        language_model: Any,
        grammar: Grammar,
        choice: TokenChoice,
        candidates: int,
        added: Float[Tensor, "samples fields tokens"] | None = None,
    ) -> None:
        """Prepare to decode a batch.

        Args:
            language_model: A causal one of transformers.
            grammar: Of its tokens.
            choice: How the next token is chosen.
            candidates: Plans for each sample.
            added: To the logits of each field's tokens.
        """
        self._model = language_model
        self._grammar = grammar
        self._vocabulary = grammar.vocabulary
        self._choice = choice
        self._candidates = candidates
        self._allowed = grammar.allowed.to(choice.noise.device)
        self._added = None if added is None else added.repeat_interleave(candidates, dim=0)

    def decode(self, prefix: Float[Tensor, "samples prefix hidden"]) -> list[DecodedPlan]:
        """``candidates`` plans for each sample, a sample's plans side by side."""
        rows = [_Row(self._grammar.root(0, ())) for _ in range(len(prefix) * self._candidates)]
        for row in rows:
            row.pending.append((self._vocabulary.scaffold(0), -1))
            self._follow(row)
        cache = DynamicCache()
        # Before the first choice all rows read the same: run one a sample, and repeat what it left.
        opening = torch.tensor([token for token, _ in rows[0].pending], device=prefix.device)
        words = self._model.get_input_embeddings()(opening).expand(len(prefix), -1, -1)
        output = self._model(
            inputs_embeds=torch.cat([prefix, words], dim=1), past_key_values=cache, use_cache=True
        )
        cache.batch_repeat_interleave(self._candidates)
        logits = output.logits[:, -len(opening) :].repeat_interleave(self._candidates, dim=0)
        mask = torch.ones(len(rows), prefix.shape[1] + len(opening), dtype=torch.bool, device=prefix.device)
        positions = torch.full((len(rows),), mask.shape[1], device=prefix.device)
        while True:
            self._take(rows, logits)
            if all(row.done and not row.pending for row in rows):
                return [(row.plan, tuple(row.log_probabilities), tuple(row.token_counts)) for row in rows]
            tokens, present = self._chunk(rows, prefix.device)
            mask = torch.cat([mask, present], dim=1)
            own = positions[:, None] + present.cumsum(dim=1) - 1
            positions = positions + present.sum(dim=1)
            logits = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=own.clamp_min(0),
                past_key_values=cache,
                use_cache=True,
            ).logits

    def _take(self, rows: list[_Row], logits: Float[Tensor, "rows tokens vocabulary"]) -> None:
        """Count what was forced, choose the next token of every row, and follow it as far as it leads."""
        log_probs = self._with_added(rows, logits.float()).log_softmax(dim=-1)
        last = log_probs[:, -1]
        states = torch.tensor([row.state.index for row in rows], device=last.device)
        steps = torch.tensor([row.written for row in rows], device=last.device)
        choices = self._choice.choose(last.masked_fill(~self._allowed[states], -torch.inf), steps)
        chosen = choices.tolist()
        chosen_log_probs = last.gather(1, choices[:, None]).squeeze(1).tolist()
        forced = self._forced_log_probabilities(rows, log_probs)
        for number, row in enumerate(rows):
            for (_, level), value in zip(row.pending[1:], forced[number], strict=True):
                self._count(row, level, value)
            last_read = bool(row.pending)
            row.pending = []
            if row.done:
                if last_read:
                    self._count(row, len(row.plan) - 1, float(last[number, self._vocabulary.end]))
                continue
            self._count(row, row.level, chosen_log_probs[number])
            self._write(row, chosen[number])
            self._follow(row)

    def _with_added(
        self, rows: list[_Row], logits: Float[Tensor, "rows tokens vocabulary"]
    ) -> Float[Tensor, "rows tokens vocabulary"]:
        """The logits with what is added to those of the field that each place's next token belongs to."""
        if self._added is None:
            return logits
        width = logits.shape[1]
        levels = []
        for row in rows:
            following = [max(level, 0) for _, level in row.pending[1:]] + [row.level]
            levels.append([0] * (width - len(following)) + following)
        places = torch.arange(len(rows), device=logits.device).unsqueeze(1)
        return logits + self._added[places, torch.tensor(levels, device=logits.device)]

    def _forced_log_probabilities(self, rows: list[_Row], log_probs: Tensor) -> list[list[float]]:
        """Of every pending token but the first, which was counted when it was chosen."""
        width = log_probs.shape[1]
        where: list[tuple[int, int, int]] = []
        for number, row in enumerate(rows):
            start = width - len(row.pending)
            where += [(number, start + place, token) for place, (token, _) in enumerate(row.pending[1:])]
        values: list[float] = []
        if where:
            index = torch.tensor(where, device=log_probs.device).unbind(dim=1)
            values = log_probs[index].tolist()
        found: list[list[float]] = [[] for _ in rows]
        for (number, _, _), value in zip(where, values, strict=True):
            found[number].append(value)
        return found

    @staticmethod
    def _count(row: _Row, level: int, log_probability: float) -> None:
        if level < 0:
            return
        if level == len(row.log_probabilities):
            row.log_probabilities.append(0.0)
            row.token_counts.append(0)
        row.log_probabilities[level] += log_probability
        row.token_counts[level] += 1

    def _write(self, row: _Row, token: int) -> None:
        """Put one token down: a word, or the terminator with the next field's scaffold behind it."""
        row.written += 1
        if token != self._vocabulary.end:
            row.pending.append((token, row.level))
            row.words.append(token)
            row.state = row.state.after(token)
            return
        row.plan = (*row.plan, self._vocabulary.text_of(row.words))
        row.words = []
        if len(row.plan) == len(self._vocabulary.schema.fields):
            row.done = True
            return
        row.pending.append((token, row.level))
        row.level += 1
        row.pending.append((self._vocabulary.scaffold(row.level), -1))
        row.state = self._grammar.root(row.level, row.plan)

    def _follow(self, row: _Row) -> None:
        """Write whatever the grammar leaves no choice about."""
        while not row.done and len(row.state.allowed) == 1:
            self._write(row, row.state.allowed[0])

    def _chunk(
        self, rows: list[_Row], device: torch.device
    ) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
        width = max(len(row.pending) for row in rows)
        padded = [[self._vocabulary.pad] * (width - len(row.pending)) for row in rows]
        tokens = [pad + [token for token, _ in row.pending] for pad, row in zip(padded, rows, strict=True)]
        present = [[False] * len(pad) + [True] * (width - len(pad)) for pad in padded]
        return torch.tensor(tokens, device=device), torch.tensor(present, device=device)
