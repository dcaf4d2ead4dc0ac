"""The routes beside LangGraph's own, as ``langgraph.json`` names them."""

from graphs.place import settings
from omg_graph.server import build_app

app = build_app(settings.store())
