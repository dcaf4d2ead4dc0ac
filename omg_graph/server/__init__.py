"""What LangGraph's server shows to others: the three graphs, bounded, and the arrays they refer to."""
