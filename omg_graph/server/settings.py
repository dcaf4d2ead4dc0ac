"""What the operator of a server decides, by environment variables."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import ConfigError
from omg_graph.record.artifacts import DiskArtifactStore
from omg_graph.retriever.index import cache_folder

ADDRESS = "LANGGRAPH_API_URL"
"""Where LangGraph's server says that it can be reached."""

ROUTE = "/artifacts"


class ServerSettings(BaseModel):
    """One server's model and folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_folder: Path = Field(description="OMG_DATA_FOLDER: the one folder that requests may name files in.")
    model: Path | None = Field(default=None, description="OMG_MODEL: a model folder; else the embedded one.")
    artifacts: Path = Field(description="OMG_ARTIFACTS: where arrays are kept.")
    artifact_days: float | None = Field(
        default=None,
        gt=0,
        description="OMG_ARTIFACT_DAYS: arrays no run has made for so many days are deleted as the server "
        "starts; none ever if it isn't set.",
    )
    planner_model: str | None = Field(
        default=None, description="OMG_PLANNER_MODEL: a chat model that runs may ask to plan."
    )
    address: str = Field(default="", description="What stands before the path of a served array.")

    @classmethod
    def read(cls, data_folder: Path, environment: Mapping[str, str] = os.environ) -> ServerSettings:
        """The settings of this process.

        Args:
            data_folder: The data folder where the environment names none.
            environment: Where the variables are looked up.

        Raises:
            ConfigError: if OMG_ARTIFACT_DAYS is no number of days.
        """
        model = environment.get("OMG_MODEL")
        return cls(
            data_folder=Path(environment.get("OMG_DATA_FOLDER") or data_folder),
            model=Path(model) if model else None,
            artifacts=Path(environment.get("OMG_ARTIFACTS") or cache_folder() / "artifacts"),
            artifact_days=_days(environment.get("OMG_ARTIFACT_DAYS")),
            planner_model=environment.get("OMG_PLANNER_MODEL") or None,
            address=environment.get(ADDRESS, "").rstrip("/"),
        )

    def store(self) -> DiskArtifactStore:
        """The arrays, on disk as threads are: they outlive the process."""
        return DiskArtifactStore(self.artifacts, address=f"{self.address}{ROUTE}")


def _days(given: str | None) -> float | None:
    if not given:
        return None
    try:
        days = float(given)
    except ValueError:
        days = 0.0
    if not 0 < days < math.inf:
        raise ConfigError(
            f"OMG_ARTIFACT_DAYS: expected a number of days, got {given!r}: give one, or unset it"
        )
    return days
