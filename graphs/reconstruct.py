"""The reconstruction graph on the embedded default model, as ``langgraph.json`` names it."""

from omg_graph import build_graph, load_model
from omg_graph.model.model import default_model_folder

graph = build_graph(load_model(default_model_folder()))
