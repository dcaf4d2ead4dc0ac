"""What people see and hear of a sample: a file that they can open, and a picture of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rendering:
    """One sample of one modality, to be looked at or listened to."""

    suffix: Literal[".png", ".wav"]
    """Of the file's name."""
    data: bytes
    """The file's content."""
    picture: Pixels
    """(height, width) grey or (height, width, 3) in colour; of a sound, its spectrogram, low tones below."""
