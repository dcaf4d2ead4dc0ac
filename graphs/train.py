"""The training graph, as ``langgraph.json`` names it."""

from graphs.place import settings
from omg_graph.server import training

graph = training(settings)
