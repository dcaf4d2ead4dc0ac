"""Training: stages that can be resumed, and the graph that runs them."""
