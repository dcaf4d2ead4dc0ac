"""Networks from what is observed straight to the label, and the mixture with the head's own outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omg_graph.predictor.direct import VALENCE_COLUMNS, DirectHead, DirectHeadConfig
from omg_graph.predictor.task import TaskHead, TaskHeadConfig
from omg_graph.seeding import generator, seeded

WIDTHS, SCALES = {"a": 3, "b": 2}, {"a": 2.0, "b": 0.5}
TERMS = 7


def config(**changes: object) -> TaskHeadConfig:
    return TaskHeadConfig.model_validate(
        {
            "kind": "degrees",
            "names": ("low", "middle", "high"),
            "degrees": (-1.0, 0.0, 1.0),
            "widths": WIDTHS,
            "scales": SCALES,
            "shared_width": 5,
            "direct": DirectHeadConfig(members=3, hidden=8, terms=TERMS, components=4),
        }
        | changes
    )


def batch(rows: int = 6) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    source = generator("direct head", rows)
    latents = {name: torch.randn(rows, width, generator=source) for name, width in WIDTHS.items()}
    words = torch.randn(rows, TERMS + VALENCE_COLUMNS, generator=source)
    observed = torch.rand(rows, 2, generator=source) < 0.5
    observed[:, 0] |= ~observed.any(dim=1)
    return torch.randn(rows, 5, generator=source), latents, observed, words


@pytest.fixture
def head() -> TaskHead:
    with seeded("direct"):
        made = TaskHead(config()).eval()
    assert made.direct is not None
    made.direct.fit_directions(batch(40)[3])
    return made


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_probabilities_are_averaged_by_the_share(head: TaskHead, share: float) -> None:
    observation, latents, observed, words = batch()
    head.share.fill_(share)
    made = head.probabilities(head(observation, latents, None, observed, words))
    own = head.probabilities(head(observation, latents))
    assert head.direct is not None
    votes = head.direct(latents, observed, words).softmax(dim=-1).mean(dim=0)
    torch.testing.assert_close(made, (1 - share) * own + share * votes)
    torch.testing.assert_close(made.sum(dim=1), torch.ones(6))


def test_numbers_are_averaged_as_numbers() -> None:
    with seeded("direct"):
        head = TaskHead(config(kind="number", names=(), degrees=())).eval()
    observation, latents, observed, words = batch()
    head.share.fill_(0.25)
    assert head.direct is not None
    votes = head.direct(latents, observed, words).mean(dim=0)
    made = head(observation, latents, None, observed, words)
    torch.testing.assert_close(made, 0.75 * head(observation, latents) + 0.25 * votes)


def test_what_stands_in_an_unobserved_slot_does_not_matter(head: TaskHead) -> None:
    _, latents, observed, words = batch()
    assert head.direct is not None
    before = head.direct(latents, observed, words)
    filled = {
        name: torch.where(observed[:, column : column + 1], latents[name], 99.0)
        for column, name in enumerate(WIDTHS)
    }
    assert torch.equal(head.direct(filled, observed, words), before)
    shown = {name: value + 1 for name, value in latents.items()}
    assert not torch.allclose(head.direct(shown, observed, words), before)


def test_the_directions_are_those_of_the_training_words_and_no_words_are_zero() -> None:
    words = batch(50)[3]
    words[:, 3:TERMS] = 0  # all that varies lies in three columns
    with seeded("direct"):
        head = DirectHead(DirectHeadConfig(members=1, hidden=4, terms=TERMS, components=3), WIDTHS, SCALES, 2)
    head.fit_directions(words)
    terms = words[:, :TERMS]
    torch.testing.assert_close(terms @ head.directions @ head.directions.T, terms, atol=1e-4, rtol=1e-4)
    described = terms @ head.directions * head.word_scale
    torch.testing.assert_close(described.square().mean(), torch.ones(()), atol=1e-4, rtol=1e-4)
