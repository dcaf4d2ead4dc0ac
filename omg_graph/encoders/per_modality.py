"""One layer for each modality, whatever the modalities are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn


class PerModality(nn.Module):
    """Like ``nn.ModuleDict``, for any names: data may well call a modality ``keys`` or ``b.1``."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.index = {name: position for position, name in enumerate(layers)}
        self.layers = nn.ModuleList(layers.values())

    def __getitem__(self, name: str) -> nn.Module:
        return self.layers[self.index[name]]

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and layers, in order."""
        return zip(self.index, self.layers, strict=True)
