"""Videos of users to train on: a folder, or tar shards in the manner of webdataset.

A clip is what shares a name: ``anna-01.mp4`` with its sound inside, or with ``anna-01.wav`` beside
it, and optionally ``anna-01.txt`` with a caption (in shards also ``anna-01.json`` with the keys
``caption`` or ``text``). Nothing is unpacked: members of a shard are read in place.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from joyflash_cli.errors import DataError
from joyflash_cli.media.inputs.talking_video import TalkingVideo, read_talking_video
from joyflash_cli.studio.clips.clip_framing import ClipFraming

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
CAPTION_SUFFIXES = (".txt", ".json")
MAX_MEMBER_BYTES = 8 << 30
"""Largest member of a shard that is read into memory."""


@dataclass(frozen=True)
class StoredFile:
    """A file, or a member of a tar shard.

    Attributes:
        path: The file or the shard.
        offset: Where the member's bytes begin; ``None`` for a file of its own.
        num_bytes: The member's length.
    """

    path: Path
    offset: int | None = None
    num_bytes: int = 0

    def open(self) -> Path | BinaryIO:
        """The file's path, or the member's bytes as a stream."""
        return self.path if self.offset is None else io.BytesIO(self.read())

    def read(self) -> bytes:
        """All bytes.

        Raises:
            DataError: If they cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                if self.offset is None:
                    return file.read()
                file.seek(self.offset)
                return file.read(self.num_bytes)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error


@dataclass(frozen=True)
class DatasetClip:
    """One clip, not decoded.

    Attributes:
        key: Its name within the data set.
        video: The picture, with the sound unless ``sound`` is given.
        sound: A sound file of its own.
        caption: What is seen; may be empty.
    """

    key: str
    video: StoredFile
    sound: StoredFile | None = None
    caption: str = ""

    def read(self, *, fps: float, framing: ClipFraming) -> TalkingVideo:
        """Frames at ``fps``, cut by ``framing``, and the sound.

        Raises:
            DataError: If the clip cannot be decoded.
        """
        return read_talking_video(
            self.video.open(),
            fps=fps,
            fit=framing,
            sound=None if self.sound is None else self.sound.open(),
            name=self.key,
        )


def list_clips(source: Path) -> list[DatasetClip]:
    """The clips of a folder, of the shards of a folder, or of one shard, in order of their names.

    Args:
        source: A folder (searched at any depth) of videos or of ``.tar`` shards, or a shard.

    Raises:
        DataError: If there is no clip, or a shard is damaged.
    """
    if source.is_file():
        clips = _shard_clips(source)
    elif source.is_dir():
        shards = sorted(source.rglob("*.tar"))
        clips = _folder_clips(source) + [clip for shard in shards for clip in _shard_clips(shard)]
    else:
        raise DataError(f"{source} does not exist", hint="set path under [dataset]")
    if not clips:
        raise DataError(
            f"{source} holds no clip",
            hint=f"put videos ({', '.join(VIDEO_SUFFIXES)}) or .tar shards of them there",
        )
    return clips


def _folder_clips(folder: Path) -> list[DatasetClip]:
    files = {
        str(path.relative_to(folder)): StoredFile(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return list(_grouped(files))


def _shard_clips(shard: Path) -> list[DatasetClip]:
    try:
        with tarfile.open(shard, "r:") as file:
            members = {
                f"{shard.name}/{member.name}": StoredFile(shard, member.offset_data, member.size)
                for member in file
                if member.isfile() and member.size <= MAX_MEMBER_BYTES
            }
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{shard} is no readable tar shard: {error}",
            hint="write it again, without compression",
        ) from error
    return list(_grouped(members))


def _grouped(files: dict[str, StoredFile]) -> Iterator[DatasetClip]:
    """Clips of files that share a name up to the first dot, as webdataset groups them."""
    groups: dict[str, dict[str, StoredFile]] = {}
    for name, stored in files.items():
        folder, _, base = name.rpartition("/")
        stem, dot, suffix = base.partition(".")
        if stem and dot:
            key = f"{folder}/{stem}" if folder else stem
            groups.setdefault(key, {})[f".{suffix.lower()}"] = stored
    for key, parts in groups.items():
        video = _first(parts, VIDEO_SUFFIXES)
        if video is not None:
            yield DatasetClip(key, video, _first(parts, SOUND_SUFFIXES), _caption(key, parts))


def _first(parts: dict[str, StoredFile], suffixes: tuple[str, ...]) -> StoredFile | None:
    return next((parts[suffix] for suffix in suffixes if suffix in parts), None)


def _caption(key: str, parts: dict[str, StoredFile]) -> str:
    stored = _first(parts, CAPTION_SUFFIXES)
    if stored is None:
        return ""
    try:
        text = stored.read().decode("utf-8")
        if ".txt" in parts:
            return text.strip()
        about = json.loads(text)
        return str(about.get("caption", about.get("text", ""))).strip()
    except (UnicodeDecodeError, ValueError, AttributeError) as error:
        raise DataError(f"The caption of {key} is no text: {error}") from error
