"""A real file system with little room: what a full disk does cannot be imitated in Python alone."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096


class SmallDisk:
    """A mounted memory disk whose free room is set page by page."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._size = size
        self._filler = folder / ".filler"

    def leave(self, pages: int) -> None:
        """Fills the disk until so many pages are free."""
        self.clear()
        free = os.statvfs(self.folder)
        with self._filler.open("wb") as file:
            file.write(bytes(max(0, free.f_bavail - pages) * PAGE))
        assert os.statvfs(self.folder).f_bavail == pages

    def clear(self) -> None:
        """Makes room again."""
        self._filler.unlink(missing_ok=True)

    def names(self, under: str = "") -> list[str]:
        """Every file on it, or below one of its folders."""
        return sorted(
            str(path.relative_to(self.folder))
            for path in (self.folder / under).rglob("*")
            if path != self._filler and not path.is_dir()
        )


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 4 << 20) -> Iterator[SmallDisk | None]:
    """A small disk at a folder, or ``None`` where mounting is not allowed."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode != 0:
        yield None
        return
    try:
        yield SmallDisk(folder, size)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
