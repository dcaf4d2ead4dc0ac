"""Schemas, word lists and prompts that people edit; read them by importlib.resources, never import this."""
