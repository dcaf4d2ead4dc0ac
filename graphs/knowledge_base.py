"""The graph that builds a knowledge base, as ``langgraph.json`` names it."""

from omg_graph import build_knowledge_base_graph

graph = build_knowledge_base_graph()
