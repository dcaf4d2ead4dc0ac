"""The graph: nodes over the workflow's steps, and what callers use."""
