"""g for a training run: a sentence encoder, or a Qwen2.5-Omni thinker's states about the plans' centre."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from omg_graph.data.dataset import Split
from omg_graph.encoders.hidden_states import HiddenStates, ThinkerTextEncoder
from omg_graph.encoders.raw_parts import raw_parts
from omg_graph.encoders.text import SentenceEncoder, TextEncoder, locate_text_encoder
from omg_graph.errors import DataError
from omg_graph.model.thinkers import new_states, thinker_named
from omg_graph.planner.choosing import SchemaChoice
from omg_graph.training.config import EncoderSettings
from omg_graph.training.run import Progress
from omg_graph.training.workspace import Workspace

CENTRE = "text-centre"


def thinker_states(settings: EncoderSettings, given: str | None, device: torch.device) -> HiddenStates | None:
    """The hidden states that the settings ask for, if they do.

    Args:
        settings: Of g and psi.
        given: Folder or hub name of the thinker; else the environment names it.
        device: Where the run's networks are.

    Raises:
        EncoderError: if no thinker is named, or none is there.
    """
    if settings.kind == "sentence":
        return None
    cuda = device.type == "cuda"
    return new_states(thinker_named(given), depth=settings.depth, four_bit=settings.four_bit, cuda=cuda)


def require_raw_parts(states: HiddenStates | None, train: Split) -> None:
    """See that a thinker has something to read.

    Raises:
        DataError: if no training row has a transcript or a recording.
    """
    if states is not None and not any(raw_parts(train)):
        raise DataError(
            "--encoder qwen-omni: transcripts or recordings were expected in the training rows, there are "
            "none: give raw_text or raw_MODALITY, or use --encoder sentence"
        )


def text_encoder_maker(
    settings: EncoderSettings, given: str | None, states: HiddenStates | None, progress: Progress
) -> Callable[[SchemaChoice, Workspace], TextEncoder]:
    """What makes g once the plans are known; a sentence encoder is looked for at once.

    Raises:
        EncoderError: if a sentence encoder isn't there.
    """
    if states is not None:
        return partial(_thinker_text_encoder, states, progress)
    folder = locate_text_encoder(settings.text_encoder, given)
    found = SentenceEncoder(folder, settings.text_encoder)
    return lambda _choice, _workspace: found


def _thinker_text_encoder(
    states: HiddenStates, progress: Progress, choice: SchemaChoice, workspace: Workspace
) -> ThinkerTextEncoder:
    """The thinker's g, about the centre of all texts of the training plans, which is made once, then kept."""
    if not workspace.has(CENTRE):
        schema, plans = choice.schema, {plan for plan in choice.plans if plan is not None}
        texts = {text for plan in plans for text in (schema.text(plan), *schema.constraint_texts(plan))}
        made = ThinkerTextEncoder.centred_on(
            states, sorted(texts), lambda done, of: progress("hidden states of plans", done, of, None)
        )
        workspace.save(CENTRE, {"centre": torch.from_numpy(made.centre)}, {})
    return ThinkerTextEncoder(states, workspace.load(CENTRE)[0]["centre"].numpy())
