"""Where this checkout lies: its examples are what a server may read if its operator names no other folder."""

from pathlib import Path

from omg_graph.server import ServerSettings

settings = ServerSettings.read(Path(__file__).parents[1] / "examples")
