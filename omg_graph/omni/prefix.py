"""A conversation read once, and many continuations of it: the key-value cache of a thinker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omg_graph.omni.thinker import Thinker


@dataclass(frozen=True)
class Prefix:
    """What a thinker keeps of tokens that it has read, one row; it is never changed."""

    keys: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of each layer, (1, heads, tokens, width)."""
    position: int
    """Of the next token."""
    logits: Tensor
    """Of the next token, (vocabulary,), single precision."""

    @property
    def length(self) -> int:
        """Tokens read."""
        return int(self.keys[0][0].shape[2])

    def cache(self, rows: int) -> Any:
        """A cache of the model's own kind that holds it in every row, to be written on."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (key, value) in enumerate(self.keys):
            cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), layer)
        return cache


def read_prefix(
    thinker: Thinker, inputs: Mapping[str, Tensor], after: Prefix | None = None, then: Sequence[int] = ()
) -> Prefix:
    """Read one conversation.

    Args:
        thinker: Who reads.
        inputs: ``thinker.inputs`` of one conversation.
        after: Its beginning, where that was read already; the media lie behind it.
        then: Tokens that follow it.
    """
    tokens = inputs["input_ids"]
    start = 0 if after is None else after.length
    following = int(inputs["position_ids"].max()) + 1
    more = torch.tensor([list(then)], dtype=torch.long, device=tokens.device)
    positions = torch.arange(following, following + len(then), device=tokens.device).expand(3, 1, -1)
    media = {
        name: value
        for name, value in inputs.items()
        if name not in ("input_ids", "attention_mask", "position_ids")
    }
    with torch.inference_mode():
        output = thinker.model.model(
            input_ids=torch.cat([tokens, more], dim=1)[:, start:],
            position_ids=torch.cat([inputs["position_ids"], positions], dim=2)[:, :, start:],
            attention_mask=torch.ones(1, tokens.shape[1] + len(then), dtype=torch.long, device=tokens.device),
            past_key_values=None if after is None else after.cache(1),
            use_cache=True,
            **media,
        )
        # of the last token only: logits of all of them would take more memory than the model itself
        logits = thinker.model.lm_head(output.last_hidden_state[0, -1])
    layers = output.past_key_values.layers
    keys = tuple((layer.keys, layer.values) for layer in layers)
    return Prefix(keys, following + len(then), logits.float())


class Continuation:
    """Texts that grow from one prefix, each at its own pace.

    A pass is padded on the left, with the padding masked and positions of each row's own.
    """

    def __init__(self, thinker: Thinker, prefix: Prefix, rows: int) -> None:
        self._thinker = thinker
        self._cache = prefix.cache(rows)
        device = prefix.logits.device
        self._seen = torch.ones(rows, prefix.length, dtype=torch.long, device=device)
        self._positions = torch.full((rows,), prefix.position, dtype=torch.long, device=device)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows only, by their present numbers."""
        if len(rows) == len(self._seen):
            return
        index = torch.tensor(list(rows), device=self._seen.device)
        self._cache.batch_select_indices(index)
        self._seen, self._positions = self._seen[index], self._positions[index]

    def read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Put tokens, one or more, behind each row; logits of the next one, (rows, vocabulary)."""
        hidden = self._forward(rows)[:, -1]
        with torch.inference_mode():
            logits: Tensor = self._thinker.model.lm_head(hidden).float()
        return logits

    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The last hidden states, (rows, tokens, width), padded on the left."""
        width = max(len(row) for row in rows)
        device = self._seen.device
        tokens = torch.tensor([[*[0] * (width - len(row)), *row] for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        steps = torch.arange(width, device=device) - (width - lengths)[:, None]
        self._seen = torch.cat([self._seen, (steps >= 0).long()], dim=1)
        with torch.inference_mode():
            output = self._thinker.model.model(
                input_ids=tokens,
                attention_mask=self._seen,
                position_ids=(self._positions[:, None] + steps.clamp(min=0)).expand(3, -1, -1),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._positions = self._positions + lengths
        hidden: Tensor = output.last_hidden_state
        return hidden


def token_log_probabilities(thinker: Thinker, prefix: Prefix, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities of tokens that are put behind a prefix: teacher forcing, all rows in one pass.

    Returns:
        For each row, of each token given those before it, (tokens,), nats, temperature 1, over the whole
        vocabulary.
    """
    heads = [row[:-1] for row in rows]
    hidden = Continuation(thinker, prefix, len(rows))._forward(heads) if any(heads) else None
    found = []
    for number, row in enumerate(rows):
        logits = prefix.logits[None]
        with torch.inference_mode():
            if hidden is not None and heads[number]:
                own = thinker.model.lm_head(hidden[number, -len(heads[number]) :]).float()
                logits = torch.cat([logits, own])
            tokens = torch.tensor(row, device=logits.device)
            found.append(logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0])
    return found
