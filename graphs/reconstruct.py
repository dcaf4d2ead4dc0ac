"""The reconstruction graph on the embedded default model, as ``langgraph.json`` names it."""

from graphs.place import settings
from omg_graph.server.graphs import reconstruction

graph = reconstruction(settings)
