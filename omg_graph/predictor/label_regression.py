"""What a sample says of its label, in closed form: kernel regression from its features and its words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omg_graph.planner.annotator import english, words_of
from omg_graph.predictor.task import TaskHeadConfig
from omg_graph.predictor.words import WordEncoder
from omg_graph.priors.kernel import KernelConditional

WORDS, VALENCE, LABEL = "\twords", "\tvalence", "\tlabel"
"""Beside the modalities, in the kernel: a modality's name holds no control character."""


@dataclass(frozen=True)
class LabelRegression:
    """Kernel regression of the label on whatever is observed, for any pattern.

    A transcript is read where there is one, and where training found words that come back: by these, and by
    the valence that word lists give it. Rows
    of a sample's own id or group take no part, as in retrieval.
    """

    kernel: KernelConditional
    words: WordEncoder

    @property
    def width(self) -> int:
        """Numbers read of each sample."""
        return self.kernel.widths[LABEL]

    @classmethod
    def untrained(
        cls, widths: Mapping[str, int], task: TaskHeadConfig, words: WordEncoder
    ) -> LabelRegression:
        """A reader of the right widths, to load weights into."""
        beside = {WORDS: words.width, VALENCE: len(_valence(None)), LABEL: task.reading}
        return cls(KernelConditional({**widths, **beside}), words)

    def read(
        self,
        latents: Mapping[str, Float[Tensor, "sample _"]],
        observed: Bool[Tensor, "sample modality"],
        texts: Sequence[str | None] | None,
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> Float[Tensor, "sample width"]:
        """The regression's estimate of the label's columns (``label_columns``).

        Args:
            latents: Every modality's latents.
            observed: What is observed.
            texts: Transcripts that may be read, None where there is none.
            ids: The samples' ids.
            groups: The samples' groups.
        """
        inputs, seen = with_words(latents, observed, texts if self.words.width else None, self.words)
        inputs[LABEL] = observed.new_zeros(len(ids), self.width, dtype=torch.float32)
        seen = torch.cat([seen, torch.zeros_like(seen[:, :1])], dim=1)
        return self.kernel.predict(LABEL, inputs, seen, ids, groups)

    def describe(self, texts: Sequence[str | None] | None, count: int) -> Float[Tensor, "sample term"] | None:
        """The transcripts' words and valence, zeros where there is none; None where no text is read.

        Args:
            texts: Transcripts that may be read.
            count: How many samples there are.
        """
        if not self.words.width:
            return None
        texts = [None] * count if texts is None else texts
        valences = torch.tensor([_valence(text) for text in texts]).reshape(count, -1)
        return torch.cat([torch.from_numpy(self.words.encode(texts)), valences], dim=1)


def with_words(
    latents: Mapping[str, Tensor], observed: Tensor, texts: Sequence[str | None] | None, words: WordEncoder
) -> tuple[dict[str, Tensor], Tensor]:
    """The latents with what the transcripts say, and which of all that is there."""
    texts = [None] * len(observed) if texts is None else list(texts)
    there = torch.tensor([text is not None for text in texts], dtype=torch.bool, device=observed.device)
    encoded = torch.from_numpy(words.encode(texts)).to(observed.device)
    valences = torch.tensor([_valence(text) for text in texts], device=observed.device)
    columns = [observed]
    columns.append((there & encoded.any(dim=1)).unsqueeze(1))
    columns.append(there.unsqueeze(1))
    return {**latents, WORDS: encoded, VALENCE: valences}, torch.cat(columns, dim=1)


def _valence(text: str | None) -> tuple[float, float, float]:
    valence = 0.0 if text is None else english().valence(words_of(text))
    return math.tanh(valence / 2), float(valence > 0), float(valence < 0)
