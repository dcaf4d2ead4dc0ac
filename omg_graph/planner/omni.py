"""Plans by a Qwen2.5-Omni thinker on this machine, which reads text, sound and images (section 3.3)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.recordings import Recording, shortened
from omg_graph.errors import ConfigError
from omg_graph.omni.media import MOST_FRAMES, MOST_SECONDS
from omg_graph.omni.prefix import Continuation, Prefix, read_prefix, token_log_probabilities
from omg_graph.omni.thinker import Message, Part, Thinker
from omg_graph.planner.answers import FROM_MODEL
from omg_graph.planner.decoding import (
    Decoding,
    FieldWriter,
    FreeDecoding,
    GrammarDecoding,
    Spelling,
    writable_tokens,
)
from omg_graph.planner.interface import NoValidPlanError, PlannerInput, Sampling
from omg_graph.planner.prompting import (
    Language,
    MediaSetting,
    load_prompt,
    recordings_of,
    sample_text,
    seen,
)
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin
from omg_graph.seeding import generator

UNCONSTRAINED_NOTE = (
    "llguidance isn't installed, so Qwen2.5-Omni wrote its plans freely and they were checked afterwards: "
    "pip install 'omg-graph[qwen]' holds it to the schema"
)


@dataclass
class _Candidate:
    """One plan while it is written."""

    writer: FieldWriter
    random: torch.Generator | None
    """None for the greedy one."""
    plan: Plan = ()
    pending: list[int] = field(default_factory=list)
    """Tokens that the model hasn't read yet."""


class OmniPlanner:
    """Asks a thinker for plans; nothing leaves the machine.

    A sample's prompt is read once, and all its candidates go on from there; the part that all samples share
    is read once altogether. Candidates are drawn from the model's distribution over what the schema allows,
    as ``Sampling`` says. Their log-probabilities are the unmodified model's: teacher-forced, at
    temperature 1 and over the whole vocabulary, of each value's tokens and its terminator.
    """

    follows_sampling: ClassVar[bool] = True

    def __init__(
        self,
        thinker: Thinker,
        schema: Schema,
        *,
        language: Language = "en",
        media: MediaSetting = "auto",
        constrained: bool | None = None,
        name: str = "qwen-omni",
    ) -> None:
        """Make a planner.

        Args:
            thinker: What ``load_thinker`` gave.
            schema: What plans obey; the model's own schema, ``model.schema``.
            language: Of the prompt.
            media: Whether recordings are read: all are, unless ``off``.
            constrained: Whether plans are held to the schema while they are written, which needs llguidance;
                None where it is installed.
            name: What trajectories call it.

        Raises:
            ConfigError: if llguidance is asked for and isn't there.
        """
        self.name = name
        self.schema = schema
        self.prompt = load_prompt(language)
        self._thinker = thinker
        self._media = media
        self._spelling = Spelling(schema, thinker.encode)
        self._decoding = self._decoding_for(constrained)
        self._origin = PlanOrigin(
            planner=name,
            prompt_version=self.prompt.version,
            prompt_sha256=self.prompt.sha256,
            confidence=FROM_MODEL,
            decoding=self._decoding.name,
            note=UNCONSTRAINED_NOTE if self._decoding.name == FreeDecoding.name else None,
        )
        self._system = Message("system", (self.prompt.system_message(schema),))
        self._shared: Prefix | None = None
        self._busy = threading.Lock()

    def _decoding_for(self, constrained: bool | None) -> Decoding:
        thinker = self._thinker
        if constrained is not False:
            try:
                return GrammarDecoding(
                    self._spelling, thinker.tokenizer, thinker.vocabulary_size, thinker.end_token
                )
            except ImportError:
                if constrained:
                    raise ConfigError(
                        "plans held to the schema need llguidance: pip install 'omg-graph[qwen]'"
                    ) from None
        special = (*thinker.tokenizer.all_special_ids, *thinker.media_tokens)
        writable = writable_tokens(thinker.vocabulary_size, len(thinker.tokenizer), special)
        return FreeDecoding(self._spelling, thinker.decode, writable)

    def propose(
        self, observations: PlannerInput, sampling: Sampling, seed: int
    ) -> list[list[CandidatePlan] | NoValidPlanError]:
        """Candidate plans for each sample; what is drawn depends on (seed, id, candidate) alone.

        Only free writing can end without a plan that obeys the schema.

        Raises:
            DataError: if a recording can't be read.
        """
        with self._busy:
            return [
                self._propose_one(observations, row, sampling, seed) for row in range(len(observations.ids))
            ]

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample, scored by teacher forcing.

        The log-probabilities are those that a drawn plan with the same words has.

        Raises:
            DataError: if a recording can't be read.
            PlanError: if a plan violates the schema.
        """
        for plan in plans:
            self.schema.check(plan)
        with self._busy:
            return [
                self._scored(self._prefix(observations, row), [tuple(plan)])[tuple(plan)]
                for row, plan in enumerate(plans)
            ]

    def _propose_one(
        self, observations: PlannerInput, row: int, sampling: Sampling, seed: int
    ) -> list[CandidatePlan] | NoValidPlanError:
        sample_id = observations.ids[row]
        prefix = self._prefix(observations, row)
        greedy = sampling.greedy
        randoms = [
            None if greedy and number == 0 else generator(seed, sample_id, "plan", number)
            for number in range(sampling.candidates)
        ]
        plans = self._written(prefix, randoms, sampling)
        if all(self.schema.violations(plan) for plan in plans):
            reason = f"none of its {len(plans)} plans obeys schema {self.schema.name!r}"
            return NoValidPlanError(sample_id, self.name, reason)
        scored = self._scored(prefix, plans)
        origin = self._origin_of(observations, row)
        return [
            scored[plan].model_copy(update={"greedy": greedy and number == 0, "origin": origin})
            for number, plan in enumerate(plans)
        ]

    def _origin_of(self, observations: PlannerInput, row: int) -> PlanOrigin:
        """Where a sample's plans come from, and what the thinker was given beside text."""
        given = self._given(observations, row)
        notes = [] if self._origin.note is None else [self._origin.note]
        for name, recording in given.items():
            cut = shortened(name, recording, most_seconds=MOST_SECONDS, most_frames=MOST_FRAMES)
            notes += [] if cut is None else [f"planner {self.name} was given {cut}"]
        return self._origin.model_copy(
            update={
                "recordings": tuple(seen(name, recording) for name, recording in given.items()),
                "note": "; ".join(notes) or None,
            }
        )

    def _given(self, observations: PlannerInput, row: int) -> dict[str, Recording]:
        return {} if self._media == "off" else recordings_of(observations, row)

    def _prefix(self, observations: PlannerInput, row: int) -> Prefix:
        """What the thinker keeps of a sample's prompt, up to where the first value begins."""
        thinker = self._thinker
        if self._shared is None:
            self._shared = read_prefix(thinker, thinker.inputs([[self._system]], answer=False))
        message = Message("user", self._parts(observations, row))
        inputs = thinker.inputs([[self._system, message]])
        return read_prefix(thinker, inputs, after=self._shared, then=self._spelling.scaffold(0))

    def _parts(self, observations: PlannerInput, row: int) -> tuple[Part, ...]:
        parts: list[Part] = [sample_text(observations, row)]
        for name, recording in self._given(observations, row).items():
            parts += [f"\n{name}: ", recording]
        return tuple(parts)

    def _written(
        self, prefix: Prefix, randoms: Sequence[torch.Generator | None], sampling: Sampling
    ) -> list[Plan]:
        """One plan for each generator, all of them going on from one prefix."""
        rows = [_Candidate(self._decoding.start(0, ()), random) for random in randoms]
        for row in rows:
            self._put(row, row.writer.opening())
        going = Continuation(self._thinker, prefix, len(rows))
        logits = prefix.logits.expand(len(rows), -1)
        active = rows
        while True:
            for row, distribution in zip(active, logits, strict=True):
                if not row.pending and not self._done(row):
                    self._put(row, row.writer.write(self._choice(row, distribution, sampling)))
            kept = [number for number, row in enumerate(active) if not self._done(row)]
            if not kept:
                return [row.plan for row in rows]
            going.keep(kept)
            active = [active[number] for number in kept]
            logits = going.read([row.pending for row in active])
            for row in active:
                row.pending = []

    def _done(self, row: _Candidate) -> bool:
        return len(row.plan) == len(self.schema.fields)

    def _put(self, row: _Candidate, tokens: Sequence[int]) -> None:
        """Put tokens down, and open the next field where a value is finished."""
        row.pending += tokens
        while (value := row.writer.value) is not None:
            row.plan = (*row.plan, value)
            if self._done(row):
                return
            level = len(row.plan)
            row.writer = self._decoding.start(level, row.plan)
            row.pending += [*self._spelling.scaffold(level), *row.writer.opening()]

    def _choice(self, row: _Candidate, logits: Tensor, sampling: Sampling) -> int:
        """The next token: the likeliest one that may come, or a draw among these."""
        allowed = torch.from_numpy(np.flatnonzero(row.writer.allowed())).to(logits.device)
        likely = logits[allowed]
        if row.random is None:
            return int(allowed[likely.argmax()])
        return int(allowed[drawn(likely.cpu().numpy(), row.random, sampling.temperature, sampling.top_p)])

    def _scored(self, prefix: Prefix, plans: Sequence[Plan]) -> dict[Plan, CandidatePlan]:
        """Each different plan with its log-probabilities, as the schema's spelling has it."""
        different = list(dict.fromkeys(plans))
        encoded = [self._spelling.encode(plan) for plan in different]
        found = token_log_probabilities(self._thinker, prefix, [one.tokens for one in encoded])
        scored = {}
        for plan, one, values in zip(different, encoded, found, strict=True):
            levels = torch.tensor(one.levels, device=values.device)
            sums = [float(values[levels == level].sum()) for level in range(len(plan))]
            counts = [one.levels.count(level) for level in range(len(plan))]
            scored[plan] = self.schema.candidate(plan, sums, counts, origin=self._origin)
        return scored


def drawn(logits: npt.NDArray[np.float32], random: torch.Generator, temperature: float, top_p: float) -> int:
    """A draw from a distribution, by one uniform number; an index into ``logits``.

    Args:
        logits: (tokens,), unnormalised log-probabilities.
        random: Where the number comes from.
        temperature: What the logits are divided by.
        top_p: Only the likeliest tokens take part, as few as together have this share.
    """
    scaled = logits.astype(np.float64) / temperature
    shares = np.exp(scaled - scaled.max())
    order = np.argsort(-shares, kind="stable")
    cumulative = np.cumsum(shares[order])
    cumulative /= cumulative[-1]
    taking_part = int(np.searchsorted(cumulative, top_p)) + 1
    limit = cumulative[min(taking_part, len(cumulative)) - 1]
    number = float(torch.rand((), generator=random, dtype=torch.float64)) * limit
    return int(order[np.searchsorted(cumulative, number, side="right")])
