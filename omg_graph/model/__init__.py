"""A trained model: in memory, on disk, and step by step."""
