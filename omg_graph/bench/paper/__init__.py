"""What the paper reports, as data, and a model's own figures beside it."""
