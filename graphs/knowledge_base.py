"""The graph that builds a knowledge base, as ``langgraph.json`` names it."""

from graphs.place import settings
from omg_graph.server import knowledge_base

graph = knowledge_base(settings)
