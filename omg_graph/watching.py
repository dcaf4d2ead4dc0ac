"""Nodes with a span and a line in the log around them, which say how much came out, never what."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from omg_graph.record.trajectory import Trajectory
from omg_graph.telemetry import Step, step

Update = dict[str, Any]


def watched(node: Callable[..., Update]) -> Callable[..., Update]:
    """A node that is watched under its name."""

    @functools.wraps(node)
    def run(*arguments: Any, **options: Any) -> Update:
        with step(node.__name__) as under_way:
            update = node(*arguments, **options)
            _note(under_way, node.__name__, update.get("trajectories", ()))
        return update

    return run


def _note(under_way: Step, node: str, trajectories: list[Trajectory]) -> None:
    if not trajectories:  # the review node, where nobody is asked
        return
    under_way.count(samples=len(trajectories))
    under_way.content(ids=[one.id for one in trajectories])
    plans = [one.plan for one in trajectories if one.plan is not None]
    if node == "planner":
        under_way.count(candidates=sum(each.times for one in trajectories for each in one.candidates))
        under_way.content(texts=[one.raw_text or "" for one in trajectories])
    if node in ("rerank", "review"):
        under_way.count(changed=sum(not plan.candidates[plan.chosen].greedy for plan in plans))
        under_way.content(plans=[plan.text for plan in plans])
    if node == "retriever":
        under_way.count(
            entries=sum(len(found) for one in trajectories for found in one.evidence.values()),
            left_out=sum(sum(one.left_out.values()) for one in trajectories),
        )
    if node == "executor":
        refs = [ref for one in trajectories for ref in one.reconstruction.values()]
        under_way.count(reconstructed=len(refs), notes=sum(len(one.notes) for one in trajectories))
