"""The training graph, as ``langgraph.json`` names it."""

from omg_graph import build_training_graph

graph = build_training_graph()
