"""Settings of a training run: the defaults, the paper's, a file's, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from omg_graph.errors import ConfigError
from omg_graph.training.config import TrainingConfig, load_config, recipes


def test_nothing_said_means_the_defaults() -> None:
    assert load_config(None) == load_config("default") == TrainingConfig()


def test_the_paper_s_reading() -> None:
    """Appendix A's figures, DDPM by Eq. 11, noise prediction, no anchor, the literal Eq. 7."""
    paper = load_config("paper")
    assert paper.planner.semantic_weight == 0.3
    assert (paper.retriever.top_k, paper.retriever.temperature, paper.retriever.query) == (
        10,
        0.07,
        "literal",
    )
    weights = paper.objective
    assert (weights.plan, weights.evidence, weights.task) == (0.1, 0.1, 0.1)
    optimiser = paper.optimiser
    assert (optimiser.batch_size, optimiser.learning_rate, optimiser.patience) == (32, 2e-3, 30)
    executor = paper.executor
    assert (executor.prediction, executor.sampler, executor.priors) == ("epsilon", "ddpm", ())
    assert not paper.planner.include_greedy
    assert paper.autoencoder.kind == "vae"


def test_a_file_of_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: paper\nretriever:\n  top_k: 5\noptimiser:\n  epochs: 3\n")
    mine = load_config(path, {"optimiser": {"epochs": 4}})
    assert mine.name == "mine"
    assert mine.retriever.top_k == 5
    assert mine.retriever.query == "literal"
    assert (mine.optimiser.epochs, mine.optimiser.batch_size) == (4, 32)
    # the paper's own stay what they were
    assert load_config("paper").retriever.top_k == 10


@pytest.mark.parametrize(("name", "batch_size"), [("mosi", 32), ("mosei", 128), ("sims", 32)])
def test_recipes_are_known_by_name(name: str, batch_size: int, tmp_path: Path) -> None:
    recipe = load_config(name)
    assert name in recipes()
    assert recipe.name == name
    assert recipe.optimiser.batch_size == batch_size
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {name}\noptimiser: {{epochs: 3}}\n")
    mine = load_config(path)
    assert (mine.name, mine.optimiser.epochs) == ("mine", 3)
    assert mine.optimiser.batch_size == batch_size
    assert mine.encoder == recipe.encoder


def test_every_recipe_is_tested_above() -> None:
    assert set(recipes()) == {"mosi", "mosei", "sims"}


def test_chinese_text_gets_an_encoder_and_plans_that_suit_it() -> None:
    sims, default = load_config("sims"), load_config(None)
    assert "multilingual" in sims.encoder.text_encoder
    assert "multilingual" not in default.encoder.text_encoder
    assert sims.planner.annotator == "labels"


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("optimiser: {epohcs: 3}", "optimiser.epohcs"),
        ("optimiser: {epochs: many}", "many"),
        ("retriever: {top_k: 0}", "retriever.top_k"),
        ("planner: {schema_penalty: 0.1}", "planner.schema_penalty: this version has no such setting"),
        ("executor: {width: 30, heads: 4}", "width"),
        ("base: article", "article"),
        ("just words", "str"),
        ("a: [1", "YAML"),
        ("a: &x [*x]\n", "mine.yaml"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, culprit: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_nothing_has_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="default, paper, mosei, mosi, sims"):
        load_config("mosie")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none"):
        load_config(tmp_path / "none.yaml")
