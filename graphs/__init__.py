"""Thin entry points of the three graphs, for LangGraph's server and Studio."""
