"""What the operator of a server decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from omg_graph.errors import ConfigError
from omg_graph.server.settings import ServerSettings


def test_arrays_are_kept_for_ever_unless_a_number_of_days_is_named(tmp_path: Path) -> None:
    assert ServerSettings.read(tmp_path, {}).artifact_days is None
    assert ServerSettings.read(tmp_path, {"OMG_ARTIFACT_DAYS": "0.5"}).artifact_days == 0.5


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf"])
def test_what_is_no_number_of_days_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=f"OMG_ARTIFACT_DAYS: expected a number of days, got '{given}'"):
        ServerSettings.read(tmp_path, {"OMG_ARTIFACT_DAYS": given})
