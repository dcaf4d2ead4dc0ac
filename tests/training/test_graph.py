"""The training graph: samples that miss different things, life in other graphs, what a model keeps."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph

from omg_graph.api import reconstruct
from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError, DataError, ModelError
from omg_graph.graph import build_graph
from omg_graph.model.folder import MANIFEST, load_model, read_manifest
from omg_graph.training.cache import FOLDER_SUFFIX as SUFFIX
from omg_graph.training.graph import NODES, build_training_graph

Train = Callable[..., Path]


@pytest.fixture
def content(tiny_data_file: Path) -> dict[str, dict[str, Any]]:
    """The clips' content, to be changed at will."""
    loaded: dict[str, dict[str, Any]] = pickle.loads(tiny_data_file.read_bytes())  # our own file
    return loaded


@pytest.fixture
def save(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        path = tmp_path / "data.pkl"
        path.write_bytes(pickle.dumps(content))
        return path

    return write


@pytest.fixture
def train(tiny_settings: dict[str, Any], tiny_stages: Path, tmp_path: Path) -> Train:
    """Train into a folder of this test's own; stages that it has in common with others aren't made again."""

    def go(data: Path, output: str = "model", **request: Any) -> Path:
        folder = tmp_path / output
        common = {"overrides": tiny_settings, "shared_stages": str(tiny_stages)}
        build_training_graph().invoke({"data": str(data), "output": str(folder)} | common | request)
        return folder

    return go


def fingerprint(folder: Path) -> str:
    return read_manifest(folder).fingerprint


# the graph


def test_its_drawing_and_schemas() -> None:
    graph = build_training_graph()
    assert list(graph.get_graph().nodes) == ["__start__", *NODES, "__end__"]
    assert "executor" in graph.get_graph().draw_mermaid()
    assert {"data", "output", "config", "seed"} <= set(graph.get_input_jsonschema()["properties"])
    assert {"model", "fingerprint", "metrics"} <= set(graph.get_output_jsonschema()["properties"])


class Shared(TypedDict, total=False):
    """The state of a graph that trains and uses what was trained."""

    data: str
    output: str
    overrides: dict[str, Any]
    fingerprint: str
    asked_by: str
    missing: list[str]


@dataclass(frozen=True)
class Inside:
    """What such a graph ended with, and what the training in it streamed."""

    state: Shared
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def inside(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Inside:
    """The tiny model trained once more from nothing, as a node beside one that reconstructs."""

    def use(state: Shared) -> Shared:
        graph = build_graph(load_model(Path(state["output"])))
        request = {"path": state["data"], "split": "test", "limit": 1, "missing": state["missing"]}
        (trajectory,) = graph.invoke(request)["trajectories"]
        assert trajectory.model == state["fingerprint"]
        return {"missing": list(trajectory.reconstruction)}

    outer = StateGraph(Shared)
    outer.add_node("train", build_training_graph())
    outer.add_node("use", use)
    outer.add_edge(START, "train")
    outer.add_edge("train", "use")
    outer.add_edge("use", END)
    request: Shared = {
        "data": str(tiny_data_file),
        "output": str(tmp_path_factory.mktemp("inside") / "model"),
        "overrides": tiny_settings,
        "asked_by": "me",
        "missing": ["audio"],
    }
    state, events = request, []
    for place, mode, chunk in outer.compile().stream(
        request, stream_mode=["custom", "values"], subgraphs=True
    ):
        if mode == "values" and not place:
            state = chunk
        if mode == "custom" and "stage" in chunk:
            events.append(chunk)
    return Inside(state, events)


def test_as_subgraphs_whose_model_is_used_at_once(inside: Inside) -> None:
    assert inside.state["missing"] == ["audio"]
    assert inside.state["asked_by"] == "me"


def test_progress_of_every_epoch(inside: Inside) -> None:
    json.dumps(inside.events)
    assert [event["stage"] for event in inside.events if event["done"] == 0] == list(NODES)
    epochs = [event for event in inside.events if event["stage"] == "executor" and event["done"]]
    assert [(event["done"], event["of"]) for event in epochs] == [(1, 2), (2, 2)]
    assert all(np.isfinite(event["loss"]) for event in epochs)


def test_the_same_seed_gives_the_same_model(
    inside: Inside, tiny_data_file: Path, tiny_model_folder: Path, train: Train
) -> None:
    again = Path(inside.state["output"])
    assert read_manifest(again).files == read_manifest(tiny_model_folder).files
    assert fingerprint(again) == inside.state["fingerprint"] == fingerprint(tiny_model_folder)
    assert fingerprint(train(tiny_data_file, seed=1)) != fingerprint(tiny_model_folder)


def test_a_run_goes_on_from_a_checkpoint_in_another_process(
    tiny_data_file: Path, tiny_model_folder: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """LangGraph resumes where sessions are gone: earlier stages come from the workspace."""
    saver, config = MemorySaver(), {"configurable": {"thread_id": "one"}}
    output = tmp_path / "model"
    request = {"data": str(tiny_data_file), "output": str(output), "overrides": tiny_settings}
    for given, stage in ((request, "codecs"), (None, "plans"), (None, "evidence"), (None, "executor")):
        build_training_graph(checkpointer=saver).invoke(given, config, interrupt_after=[stage])
        assert not output.exists()
    result = build_training_graph(checkpointer=saver).invoke(None, config)
    assert read_manifest(output).files == read_manifest(tiny_model_folder).files
    assert result["fingerprint"] == fingerprint(output)


def test_unknown_input_is_refused(tiny_data_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sede"):
        build_training_graph().invoke({"data": str(tiny_data_file), "output": str(tmp_path / "m"), "sede": 3})


# what a model is


def test_a_model_folder_is_whole_and_tells_where_it_came_from(
    tiny_model_folder: Path, tiny_data_file: Path
) -> None:
    manifest = read_manifest(tiny_model_folder)
    there = {p.relative_to(tiny_model_folder).as_posix() for p in tiny_model_folder.rglob("*") if p.is_file()}
    assert there == {*manifest.files, MANIFEST}
    assert all(Path(name).suffix in {".json", ".safetensors", ".jsonl"} for name in there)
    assert manifest.data["sha256"] == read_data_file(tiny_data_file).sha256
    assert manifest.data["train_rows"] == 48
    assert manifest.versions.keys() >= {"torch", "python", "omg-graph"}
    assert manifest.metrics["rows"]
    assert manifest.seed == 0
    assert not tiny_model_folder.with_name(tiny_model_folder.name + SUFFIX).exists()
    model = load_model(tiny_model_folder)
    assert set(model.knowledge_base.ids) == set(read_data_file(tiny_data_file).splits["train"].ids)


def test_the_test_split_is_never_read(
    tiny_model_folder: Path, content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train
) -> None:
    """Not even where it is broken, or holds labels and features that no other split has."""
    content["test"] = {
        "text": np.full((3, 12), np.nan),
        "audio": [[1.0, np.nan, 1.0, 1.0, 1.0], None, ["loud"]],
        "regression_labels": ["who", "knows", "it"],
        "id": ["same", "same", "same"],
        "heat": np.ones((2, 2)),
    }
    path = save(content)
    changed = train(path.rename(path.with_name("clips.pkl")))
    assert read_manifest(changed).files == read_manifest(tiny_model_folder).files


# data in which samples miss different things


def third(content: dict[str, dict[str, Any]], *, how: str) -> None:
    """Have a random third of all slots miss, rows with nothing among them."""
    random = np.random.default_rng(0)
    for rows in content.values():
        count = len(rows["id"])
        observed = random.random((count, 3)) > 1 / 3
        observed[0] = False
        for column, name in enumerate(("text", "audio", "vision")):
            there = observed[:, column]
            if how == "flags":
                rows.setdefault("observed", {})[name] = there
                rows[name] = np.where(there.reshape(-1, *[1] * (rows[name].ndim - 1)), rows[name], 1e6)
            elif how == "nan":
                rows[name] = rows[name].copy()
                rows[name][~there] = np.nan
            else:
                rows[name] = [row if seen else None for row, seen in zip(rows[name], there, strict=True)]


def test_every_way_of_missing_gives_the_same_model(
    content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train, tmp_path: Path
) -> None:
    """Whatever lies where ``observed`` says that nothing is, is never looked at."""
    prints = []
    for how in ("flags", "nan", "none"):
        changed: dict[str, dict[str, Any]] = pickle.loads(pickle.dumps(content))
        third(changed, how=how)
        prints.append(fingerprint(train(save(changed), how)))
    assert len(set(prints)) == 1
    manifest = read_manifest(tmp_path / "none")
    assert all(0.15 < share < 0.5 for share in manifest.data["missing_by_nature"].values())
    assert manifest.data["train_rows"] < 48
    model = load_model(tmp_path / "none")
    assert not model.knowledge_base.has_value["audio"].all()
    made = reconstruct(model, tmp_path / "data.pkl", split="valid", missing=["audio"])
    assert len(made) == 16
    assert all("audio" in trajectory.reconstruction for trajectory in made)


@pytest.mark.parametrize("change", ["no labels", "few labels", "neither", "no valid", "one group"])
def test_less_data(
    change: str, content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train
) -> None:
    for rows in content.values():
        if change in ("no labels", "neither"):
            del rows["regression_labels"]
        if change == "few labels":
            rows["regression_labels"][::2] = np.nan
            if rows is content["valid"]:
                del rows["regression_labels"]
        if change == "neither":
            del rows["raw_text"]
        if change == "one group":
            rows["group"] = ["everyone"] * len(rows["id"])
    if change == "no valid":
        del content["valid"]
    path = save(content)
    model = load_model(train(path))
    assert (model.config.task is None) == (change in ("no labels", "neither"))
    (one,) = reconstruct(model, path, split="test", missing=["audio"], limit=1)
    assert (one.prediction is None) == (change in ("no labels", "neither"))
    assert one.plan is not None
    assert np.isfinite(one.reconstruction["audio"].preview).all()
    if change == "no valid":
        assert model.manifest.data["validation_rows"] in range(4, 9)
    if change == "one group":
        # nothing but the sample itself is another group's: no evidence, and it says so
        (trained,) = reconstruct(model, path, split="train", missing=["audio"], limit=1)
        assert trained.evidence["audio"] == ()
        assert trained.left_out["audio"] == 48


def test_classes_keep_their_names(
    content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train, tiny_views_folder: Path
) -> None:
    for rows in content.values():
        del rows["regression_labels"], rows["raw_text"]
        rows["classification_labels"] = np.arange(len(rows["id"])) % 3
    path = save(content)
    model = load_model(train(path))
    assert model.config.target is not None
    assert sorted(model.config.target.class_names) == ["0", "1", "2"]
    (one,) = reconstruct(model, path, split="test", missing=["audio"], limit=1)
    assert one.prediction is not None
    assert one.prediction.value is None
    assert sorted(one.prediction.probabilities) == ["0", "1", "2"]
    named = load_model(tiny_views_folder).config.target
    assert named is not None
    assert sorted(named.class_names) == ["ant", "bee", "cat"]


def test_a_number_that_the_schema_has_no_words_for(
    content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train
) -> None:
    for rows in content.values():
        del rows["raw_text"]
        rows["regression_labels"] = 40 + 25 * rows["regression_labels"]
    path = save(content)
    (one,) = reconstruct(load_model(train(path)), path, split="test", limit=1)
    assert one.prediction is not None
    assert one.prediction.value is not None
    assert (one.prediction.label, one.prediction.probabilities) == (None, {})


def test_a_modality_that_no_training_row_has_is_left_out(
    content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train
) -> None:
    content["train"]["audio"] = [None] * 48
    assert load_model(train(save(content))).names == ("text", "vision")


def test_data_that_can_t_be_trained_on(
    content: dict[str, dict[str, Any]], save: Callable[[object], Path], train: Train, tmp_path: Path
) -> None:
    bare = {"id": ["a", "b"], "text": [None, None]}
    for broken in ({"test": content["test"]}, {"train": bare}, {"train": {"text": np.ones((1, 3))}}):
        with pytest.raises(DataError):
            train(save(broken))
    assert not (tmp_path / "model").exists()


# places and resuming


def test_a_folder_at_the_workspace_s_place_is_left_alone(
    tiny_data_file: Path, train: Train, tmp_path: Path
) -> None:
    mine = tmp_path / f"model{SUFFIX}" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    for resume in (False, True):
        with pytest.raises(ConfigError, match=r"something else is there.*--output"):
            train(tiny_data_file, resume=resume)
    assert mine.read_text() == "mine"


def test_a_model_that_is_there_stays_unless_asked(
    tiny_data_file: Path, tiny_model_folder: Path, train: Train, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    before = fingerprint(folder)
    with pytest.raises(ModelError, match="--overwrite"):
        train(tiny_data_file, seed=1)
    assert fingerprint(folder) == before
    train(tiny_data_file, seed=1, overwrite=True)
    assert fingerprint(folder) != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(ModelError, match="isn't a model"):
            train(tiny_data_file, "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"


def test_resuming_wants_the_same_data_seed_and_settings(
    tiny_data_file: Path,
    tiny_views_file: Path,
    tiny_settings: dict[str, Any],
    train: Train,
    tmp_path: Path,
) -> None:
    request = {"data": str(tiny_data_file), "output": str(tmp_path / "model"), "overrides": tiny_settings}
    build_training_graph(checkpointer=MemorySaver()).invoke(
        request, {"configurable": {"thread_id": "one"}}, interrupt_after=["codecs"]
    )
    other = tiny_settings | {"name": "other"}
    for changed, culprit in (({"seed": 5}, "seed"), ({"overrides": other}, "settings")):
        with pytest.raises(ConfigError, match=culprit):
            train(tiny_data_file, resume=True, **changed)
    with pytest.raises(ConfigError, match="data"):
        train(tiny_views_file, resume=True)
    with pytest.raises(ModelError, match="--resume"):
        load_model(tmp_path / "model")
    # without --resume it starts anew
    train(tiny_data_file, seed=5)
    assert load_model(tmp_path / "model").manifest.seed == 5


def test_resuming_what_was_never_begun_starts_it(
    tiny_data_file: Path, tiny_model_folder: Path, train: Train
) -> None:
    assert fingerprint(train(tiny_data_file, resume=True)) == fingerprint(tiny_model_folder)


def test_settings_that_make_no_sense(tiny_data_file: Path, train: Train) -> None:
    for overrides, culprit in (
        ({"optimiser": {"epohcs": 3}}, "epohcs"),
        ({"optimiser": {"epochs": 0}}, "epochs"),
    ):
        with pytest.raises(ConfigError, match=culprit):
            train(tiny_data_file, overrides=overrides)


def test_the_paper_s_reading_trains_and_runs(
    tiny_data_file: Path, tiny_settings: dict[str, Any], train: Train
) -> None:
    small = {
        "autoencoder": {"epochs": 2, "max_width": 4},
        "encoder": tiny_settings["encoder"],
        "planner": tiny_settings["planner"],
        "retriever": {"epochs": 1},
        "executor": tiny_settings["executor"],
        "optimiser": {"epochs": 2},
    }
    model = load_model(train(tiny_data_file, config="paper", overrides=small))
    (one,) = reconstruct(model, tiny_data_file, split="test", missing=["audio"], limit=1)
    assert model.config.retrieval.query == "literal"
    assert np.isfinite(one.reconstruction["audio"].preview).all()
