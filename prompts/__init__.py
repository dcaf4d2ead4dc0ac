"""Schemas and word lists that people edit; read them by importlib.resources, never import this."""
