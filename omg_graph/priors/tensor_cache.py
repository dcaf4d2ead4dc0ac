"""Tensors that can be computed again, kept within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


class TensorCache:
    """Keeps what was computed, and drops what was longest not asked for once there is too much of it."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        """Of what is kept at the moment; never more than ``most_bytes``."""
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """What is kept under a key, or else what ``compute`` gives: kept from now on, if it is small enough.

        Args:
            key: What the tensor was computed for.
            compute: Computes it; a tensor with memory of its own, for a view would keep all that it views.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = compute()
        if made.nbytes <= self.most_bytes:
            self._kept[key] = made
            self.held_bytes += made.nbytes
            while self.held_bytes > self.most_bytes:
                self.held_bytes -= self._kept.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.held_bytes = 0
