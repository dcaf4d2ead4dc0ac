"""The reconstruction graph on the embedded default model, as ``langgraph.json`` names it."""

from graphs.place import settings
from omg_graph.server import reconstruction

graph = reconstruction(settings)
