"""The semantic planner: schemas, plans for training data, the distilled student, and re-ranking."""
