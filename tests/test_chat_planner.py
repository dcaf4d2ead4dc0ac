"""A language model's plans in the graph: what is said of them outlives a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from langchain_core.language_models import GenericFakeChatModel
from langgraph.checkpoint.sqlite import SqliteSaver

from omg_graph import build_graph, load_model
from omg_graph.planner.chat import ChatPlanner
from omg_graph.planner.prompting import load_prompt
from omg_graph.record.artifacts import DiskArtifactStore


def test_where_plans_come_from_outlives_a_checkpoint(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    model = load_model(tiny_model_folder)
    answer = json.dumps({field.name: (field.values or ())[0] for field in model.schema.fields})
    planner = ChatPlanner(GenericFakeChatModel(messages=iter([answer] * 5)), model.schema)
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as saver:
        store = DiskArtifactStore(tmp_path / "arrays")
        graph = build_graph(model.with_planner(planner), artifacts=store, checkpointer=saver)
        thread = {"configurable": {"thread_id": "1"}}
        sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
        graph.invoke(sample, thread, interrupt_before=["rerank"])
        (waiting,) = graph.get_state(thread).values["trajectories"]
        assert waiting.plan is None
        assert waiting.plan_origin.planner == "chat"
        (trajectory,) = graph.invoke(None, thread)["trajectories"]
    plan = trajectory.plan
    assert (plan.planner, plan.confidence) == ("chat", "agreement among candidates")
    assert plan.prompt_sha256 == load_prompt().sha256
    assert trajectory.plan_origin is None
    assert "plan_origin" not in trajectory.model_dump()
