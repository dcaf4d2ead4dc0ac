"""The reconstruction graph on the embedded default model, as ``langgraph.json`` names it."""

from omg_graph import build_graph, load_model

graph = build_graph(load_model())
