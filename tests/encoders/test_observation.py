from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omg_graph.encoders.observation import (
    ObservationEncoder,
    ObservationEncoderConfig,
    RawStates,
    contrastive_loss,
)
from omg_graph.encoders.per_modality import PerModality
from omg_graph.seeding import generator, seeded

WIDTHS = {"keys": 4, "a.b": 3, "items": 2}
OBSERVED = torch.tensor([[bool(code >> column & 1) for column in range(3)] for code in range(1, 8)])


def encoder() -> ObservationEncoder:
    config = ObservationEncoderConfig(
        widths=WIDTHS, scales={"keys": 2.0, "a.b": 1.0, "items": 0.5}, shared_width=10, hidden=16
    )
    with seeded("psi"):
        return ObservationEncoder(config).eval()


def latents(rows: int = 7) -> dict[str, Tensor]:
    return {name: torch.randn(rows, width, generator=generator(name)) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("garbage", [0.0, 1e6, torch.nan, torch.inf])
def test_a_hidden_modality_has_no_effect(garbage: float) -> None:
    """u_X = psi(X) is of what is observed, whatever stands in the other places."""
    psi, given = encoder(), latents()
    spoiled = {
        name: torch.where(OBSERVED[:, column : column + 1], value, garbage)
        for column, (name, value) in enumerate(given.items())
    }
    embedded = psi(given, OBSERVED)
    assert torch.equal(embedded, psi(spoiled, OBSERVED))
    assert torch.allclose(embedded.norm(dim=1), torch.ones(7), atol=1e-5)


def test_a_hidden_modality_leaves_no_trace_in_gradients() -> None:
    psi, given = encoder(), latents()
    given["items"] = torch.full_like(given["items"], torch.nan)
    observed = torch.tensor([[True, True, False]]).expand(7, 3)
    psi(given, observed).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in psi.parameters())


def test_every_observed_modality_has_an_effect() -> None:
    psi, given = encoder(), latents()
    before = psi(given, OBSERVED)
    for column, name in enumerate(WIDTHS):
        after = psi(given | {name: given[name] + 1.0}, OBSERVED)
        assert torch.equal((before != after).any(dim=1), OBSERVED[:, column])


def test_which_modalities_are_there_is_known() -> None:
    """A zero latent that was measured is not the same as none."""
    psi = encoder()
    zeros = {name: torch.zeros(1, width) for name, width in WIDTHS.items()}
    one, both = torch.tensor([[True, False, False]]), torch.tensor([[True, True, False]])
    assert not torch.allclose(psi(zeros, one), psi(zeros, both), atol=1e-4)


def test_a_reconstruction_is_embedded_by_its_own_branch() -> None:
    """g(Y^) of Eq. 14 is psi with that modality alone."""
    psi, given = encoder(), latents()
    for column, name in enumerate(WIDTHS):
        alone = torch.zeros(7, 3, dtype=torch.bool)
        alone[:, column] = True
        assert torch.equal(psi.embed_one(name, given[name]), psi(given, alone))


def test_a_row_alone_is_the_row_in_its_batch() -> None:
    psi, given = encoder(), latents()
    together = psi(given, OBSERVED)
    for row in range(7):
        alone = psi({name: value[row : row + 1] for name, value in given.items()}, OBSERVED[row : row + 1])
        assert torch.allclose(alone[0], together[row], rtol=1e-4, atol=1e-6)


def test_equal_plans_attract_all_their_rows() -> None:
    """With rows 0 and 1 of one plan, neither is the other's negative."""
    plans = torch.eye(3)[[0, 0, 1]]
    ids = torch.tensor([5, 5, 9])
    aligned = contrastive_loss(plans, plans, ids)
    # the best that a loss over two equal positives can do: both share the probability
    assert aligned.item() == pytest.approx(2 / 3 * torch.log(torch.tensor(2.0)).item(), abs=1e-3)
    distinct = contrastive_loss(plans, plans, torch.tensor([0, 1, 2]))
    assert aligned.item() == pytest.approx(distinct.item(), abs=1e-3)
    mixed = contrastive_loss(torch.eye(3)[[0, 1, 0]], plans, ids)
    assert mixed.item() > 5 * aligned.item()


def test_the_loss_is_symmetric_infonce_by_hand() -> None:
    source = generator("infonce")
    u, c = F.normalize(torch.randn(2, 4, 5, generator=source), dim=-1)
    logits = u @ c.T / 0.5
    expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
    assert torch.allclose(contrastive_loss(u, c, torch.arange(4), 0.5), expected)


def test_layers_are_found_by_any_name() -> None:
    names = ("keys", "values", "items", "a.b", "forward", "")
    layers = PerModality({name: torch.nn.Linear(1, width) for width, name in enumerate(names, start=1)})
    assert [name for name, _ in layers.items()] == list(names)
    assert [layers[name].out_features for name in names] == [1, 2, 3, 4, 5, 6]
    assert set(layers.state_dict()) == {f"layers.{i}.{part}" for i in range(6) for part in ("weight", "bias")}


RAW = RawStates(torch.randn(7, 6, generator=generator("raw")), OBSERVED[:, 0])


def reading_encoder(raw_dropout: float = 0.3) -> ObservationEncoder:
    config = ObservationEncoderConfig(
        widths=WIDTHS,
        scales=dict.fromkeys(WIDTHS, 1.0),
        shared_width=10,
        hidden=16,
        dropout=0.0,
        raw_width=6,
        raw_dropout=raw_dropout,
    )
    with seeded("psi that reads"):
        return ObservationEncoder(config).eval()


def test_hidden_states_count_where_they_are_there_and_nowhere_else() -> None:
    psi, given = reading_encoder(), latents()
    made = psi(given, OBSERVED, RAW)
    other = psi(given, OBSERVED, RawStates(-RAW.vectors, RAW.there))
    changed = ~torch.isclose(made, other, atol=1e-6).all(dim=1)
    assert torch.equal(changed, RAW.there)
    assert torch.allclose(made.norm(dim=1), torch.ones(7), atol=1e-5)


def test_hidden_states_are_taken_in_units_of_the_training_rows() -> None:
    psi, given = reading_encoder(), latents()
    before = psi(given, OBSERVED, RAW)
    vectors = RAW.vectors[RAW.there]
    psi.standardise_raw(vectors * 40 + 1000)
    again = psi(given, OBSERVED, RawStates(RAW.vectors * 40 + 1000, RAW.there))
    psi.standardise_raw(vectors)
    assert torch.allclose(again, psi(given, OBSERVED, RAW), atol=1e-4)
    assert not torch.allclose(again, before, atol=1e-3)
    assert {"raw_mean", "raw_deviation"} <= psi.state_dict().keys()


def test_hidden_states_of_one_row_or_none_leave_usable_units() -> None:
    for count in (0, 1):
        psi = reading_encoder()
        psi.standardise_raw(RAW.vectors[:count])
        assert torch.equal(psi.raw_deviation, torch.ones(6))
        assert psi(latents(), OBSERVED, RAW).isfinite().all()


def test_some_training_rows_go_without_their_hidden_states() -> None:
    """So that a reconstruction, which has none, is embedded by what was trained for that (Eq. 14)."""
    given = latents()
    without = RawStates(RAW.vectors, torch.zeros_like(RAW.there))
    for share, kept in ((0.0, True), (0.999999, False)):
        psi = reading_encoder(share).train()
        with seeded("dropped"):
            made = psi(given, OBSERVED, RAW)
        expected = psi.eval()(given, OBSERVED, RAW if kept else without)
        assert torch.allclose(made, expected, atol=1e-6)


def test_a_single_modality_needs_no_hidden_states() -> None:
    psi, given = reading_encoder(), latents()
    only = torch.tensor([[True, False, False]]).expand(7, 3)
    without = RawStates(RAW.vectors, torch.zeros_like(RAW.there))
    assert torch.allclose(psi.embed_one("keys", given["keys"]), psi(given, only, without), atol=1e-6)


def test_hidden_states_are_neither_forgotten_nor_ignored() -> None:
    with pytest.raises(ValueError, match="go with a psi that reads them"):
        reading_encoder()(latents(), OBSERVED)
    with pytest.raises(ValueError, match="and with no other"):
        encoder()(latents(), OBSERVED, RAW)
