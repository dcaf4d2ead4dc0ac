from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from omg_graph.files import whole_folder, write_atomically


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_appears_whole(tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "above" / "made"
    with whole_folder(target, replace=replace) as made:
        (made / "inner").mkdir()
        (made / "inner" / "file").write_text("content")
        assert not target.exists()
        assert made.parent == target.parent  # a rename across disks would be a copy
    assert (target / "inner" / "file").read_text() == "content"
    assert left_over(target.parent) == ["made"]


def test_a_replaced_folder_keeps_nothing_of_the_old(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("old")
    with whole_folder(target, replace=True) as made:
        (made / "new").write_text("new")
        assert left_over(target) == ["old"]
    assert left_over(target) == ["new"]
    assert left_over(tmp_path) == ["made"]


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("old")

    def half_way() -> None:
        with whole_folder(target, replace=True) as made:
            (made / "new").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert left_over(target) == ["old"]
    assert left_over(tmp_path) == ["made"]


def test_a_folder_that_is_there_isn_t_replaced_unasked(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OSError, match="not empty"), whole_folder(target, replace=False) as made:
        (made / "new").write_text("new")
    assert left_over(target) == ["old"]
    assert left_over(tmp_path) == ["made"]


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert left_over(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"first")

    def full(_handle: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert left_over(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_follow_the_user_s_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
        with whole_folder(tmp_path / "made", replace=False):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o750


def test_what_a_folder_holds_can_be_read_by_whom_the_user_lets(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.write_text("as any program would write it")
    with whole_folder(tmp_path / "made", replace=False) as folder:
        private = folder / "private"
        private.write_text("as safetensors writes it")
        private.chmod(0o600)
    assert (tmp_path / "made" / "private").stat().st_mode == usual.stat().st_mode


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to("disk", target_is_directory=True)
    with whole_folder(link, replace=True) as made:
        (made / "file").write_text("content")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "file").read_text() == "content"
