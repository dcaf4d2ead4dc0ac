"""psi with labels of single modalities beside the plans, as CH-SIMS has them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.data.patterns import pattern_pool
from omg_graph.encoders.observation import ObservationEncoder, ObservationEncoderConfig
from omg_graph.encoders.per_modality import PerModality
from omg_graph.model.folder import load_model, read_manifest
from omg_graph.seeding import generator, seeded
from omg_graph.training import observation_encoder
from omg_graph.training.config import EncoderSettings, load_config
from omg_graph.training.observation_encoder import fit_observation_encoder, unimodal_loss
from omg_graph.training.rows import PlannedRows

ROWS, SHARED = 240, 6


@pytest.fixture(scope="module")
def rows() -> PlannedRows:
    """Two modalities; the plan follows one number of ``audio``, its own label another."""
    source = generator("unimodal")
    latents = {name: torch.randn(ROWS, 4, generator=source) for name in ("text", "audio")}
    plans = torch.nn.functional.normalize(torch.randn(2, SHARED, generator=source), dim=1)
    plan = (latents["audio"][:, 0] > 0).long()
    label = latents["audio"][:, 1].clone()
    label[::7] = float("nan")
    pool = pattern_pool(np.ones((ROWS, 2), bool), tuple(map(str, range(ROWS))), 3, seed=0)
    return PlannedRows(latents, pool, [("x",)] * ROWS, plans[plan], plan, {"audio": label})


def explained(encoder: ObservationEncoder, rows: PlannedRows) -> float:
    """How much of the label a linear map tells from psi of that modality alone."""
    with torch.no_grad():
        seen = encoder.embed_one("audio", rows.latents["audio"]).double().numpy()
    target = rows.latents["audio"][:, 1].double().numpy()
    seen = np.concatenate([seen, np.ones((len(seen), 1))], axis=1)
    left = target - seen @ np.linalg.lstsq(seen, target, rcond=None)[0]
    return float(1 - left.var() / target.var())


def test_a_modality_s_own_label_is_learned_beside_the_plans(
    rows: PlannedRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(observation_encoder.STEPS, learning_rate=3e-3)
    monkeypatch.setattr(observation_encoder, "STEPS", quick)
    config = ObservationEncoderConfig(
        widths={"text": 4, "audio": 4}, scales={"text": 1.0, "audio": 1.0}, shared_width=SHARED, hidden=32
    )
    found = {}
    for weight in (0.0, 1.0):
        settings = EncoderSettings(epochs=12, unimodal_weight=weight)
        encoder, _ = fit_observation_encoder(config, rows, settings, seed=0)
        found[weight] = explained(encoder, rows)
    assert found[1.0] > found[0.0] + 0.2


def test_unknown_labels_cost_nothing() -> None:
    config = ObservationEncoderConfig(widths={"a": 2}, scales={"a": 1.0}, shared_width=4, hidden=8)
    with seeded("unknown"):
        encoder, heads = ObservationEncoder(config).eval(), PerModality({"a": torch.nn.Linear(4, 1)})
    latents = {"a": torch.randn(3, 2, generator=generator("a"))}
    nothing = unimodal_loss(encoder, heads, latents, {"a": torch.full((3,), float("nan"))})
    assert float(nothing) == 0.0
    one = unimodal_loss(encoder, heads, latents, {"a": torch.tensor([0.5, float("nan"), float("nan")])})
    guess = heads["a"](encoder.embed_one("a", latents["a"][:1]))
    assert one.item() == pytest.approx((guess - 0.5).square().item())


def test_a_file_of_ch_sims_layout_trains_as_the_recipe_says(
    tiny_data_file: Path, train_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    assert load_config("sims", {}).encoder.unimodal_weight > 0
    content = pickle.loads(tiny_data_file.read_bytes())  # our own file
    random = np.random.default_rng(0)
    for split in content.values():
        degrees = np.asarray(split.pop("regression_labels"), np.float64)
        split["regression_labels"] = np.round(np.clip(degrees / 3, -1, 1) * 5) / 5
        for letter in "TAV":
            noisy = degrees / 3 + 0.2 * random.standard_normal(len(degrees))
            split[f"regression_labels_{letter}"] = np.round(np.clip(noisy, -1, 1) * 5) / 5
    path = tmp_path / "sims.pkl"
    path.write_bytes(pickle.dumps(content))
    folder = train_tiny(path, "sims-model", config="sims")
    manifest = read_manifest(folder)
    assert manifest.config["encoder"]["unimodal_weight"] > 0
    model = load_model(folder)
    assert model.config.metrics == "sims"
    assert model.names == ("text", "audio", "vision")
