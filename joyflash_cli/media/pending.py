"""A video file while it is being written: a hidden name first, the real name only when it is whole.

Whoever watches the target path never sees a half-written file, and an earlier file under that
name is untouched until the new one has been read back.
"""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from pathlib import Path

from joyflash_cli.errors import JoyFlashError, OutputError
from joyflash_cli.media.probe import MediaInfo, plays, probe


class PendingFile:
    """The temporary file beside a target, and its three ends: commit, keep as partial, discard.

    Args:
        path: Where the finished video goes.
        overwrite: Whether a file already there may be replaced.

    Raises:
        OutputError: See :func:`check_target`.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.final = Path(path)
        check_target(self.final, overwrite=overwrite)
        stem, suffix = self.final.stem, self.final.suffix
        self.temporary = self.final.with_name(f".{stem}.part{suffix}")
        self.partial = self.final.with_name(f"{stem}.partial{suffix}")
        self._overwrite = overwrite
        self._claim: int | None = None
        try:
            # Made now, so that an unwritable folder is known before any work is done.
            self._claim = _claimed(self.temporary)
        except BlockingIOError as error:
            raise OutputError(
                f"another program is writing {self.final} at this moment",
                hint="wait for it, or choose another --output",
                code="E-OUTPUT-EXISTS",
            ) from error
        except OSError as error:
            raise write_error(self.final, error) from error

    def commit(self, *, num_frames: int, fps: Fraction, audio_s: float | None) -> MediaInfo:
        """Reads the temporary file back, then gives it the target's name.

        Args:
            num_frames: Frames that were written.
            fps: Frames per second.
            audio_s: Length of the sound that belongs to the video, ``None`` without.

        Raises:
            OutputError: ``E-OUTPUT-TRACKS`` if a track is missing or their lengths differ by
                more than one frame (the file is kept as partial); otherwise as
                :func:`write_error`.
        """
        info = probe(self.temporary)
        problem = _track_problem(info, num_frames=num_frames, fps=fps, audio_s=audio_s)
        if problem:
            raise OutputError(
                f"{self.final.name}: {problem}",
                hint=f"what was written is in {self.keep_partial()}",
                code="E-OUTPUT-TRACKS",
            )
        if not self._overwrite and self.final.exists():
            raise OutputError(
                f"{self.final} appeared while the video was written",
                hint=f"what was written is in {self.keep_partial()}",
                code="E-OUTPUT-EXISTS",
            )
        self._rename(self.final)
        return info

    def keep_partial(self) -> Path | None:
        """Renames what there is to ``<stem>.partial<suffix>`` if it plays, else removes it."""
        if not plays(self.temporary):
            self.discard()
            return None
        self._rename(self.partial)
        return self.partial

    def discard(self) -> None:
        """Removes the temporary file; safe to call at any time."""
        if self._claim is not None:
            self.temporary.unlink(missing_ok=True)
            self._release()

    def _release(self) -> None:
        """What lies under the temporary name is somebody else's from here on."""
        claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)

    def _rename(self, target: Path) -> None:
        try:
            with self.temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.temporary, target)
            self._release()
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise write_error(target, error) from error


def _claimed(path: Path) -> int:
    """An empty file that only this process writes; its descriptor holds the claim.

    What a killed process has left under that name is taken over. Where the file system knows no
    locks, nobody is kept out.

    Raises:
        BlockingIOError: If another process writes it.
        OSError: If it cannot be made.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        try:
            _lock(descriptor)
            if _lies_at(path, descriptor):
                os.ftruncate(descriptor, 0)
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its writer has just given it its final name


def _lock(descriptor: int) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # a file system without locks


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def check_target(path: Path, *, overwrite: bool = False) -> None:
    """Refuses a target that cannot be written, before anything is loaded or rendered.

    Raises:
        OutputError: ``E-OUTPUT-EXISTS`` something is there, ``E-OUTPUT-FOLDER`` its folder is
            missing or not writable.
    """
    path = Path(path)
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(
            f"{parent} is not a folder", hint=f"mkdir -p {parent}", code="E-OUTPUT-FOLDER"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"{parent} is not writable",
            hint="choose another place with --output",
            code="E-OUTPUT-FOLDER",
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint="add a file name", code="E-OUTPUT-EXISTS")
    if path.exists() and not overwrite:
        raise OutputError(
            f"{path} exists already",
            hint="use --overwrite or another --output",
            code="E-OUTPUT-EXISTS",
        )


def write_error(path: Path, error: Exception, *, partial: Path | None = None) -> JoyFlashError:
    """The error for a write that failed, with what was saved of it.

    Args:
        path: The target.
        error: What the system or the encoder said.
        partial: Where the playable part was kept, if it was.
    """
    number = getattr(error, "errno", None)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
    hint = "free some space or choose another place" if full else "choose another place"
    if partial is not None:
        hint += f"; what was written is in {partial}"
    return OutputError(
        f"{path} cannot be written: {reason}",
        hint=hint,
        code="E-OUTPUT-FULL" if full else "E-OUTPUT-WRITE",
    )


def _track_problem(
    info: MediaInfo, *, num_frames: int, fps: Fraction, audio_s: float | None
) -> str:
    frame_s = float(1 / fps)
    slack_s = frame_s + 1e-6
    if info.num_frames != num_frames:
        return f"{info.num_frames} frames were read back, {num_frames} were written"
    if abs(info.video_s - num_frames * frame_s) > slack_s:
        return f"the video track is {info.video_s:.3f} s, {num_frames * frame_s:.3f} s were written"
    if audio_s is None:
        return ""
    if info.audio_s is None:
        return "the audio track is missing"
    for length_s in (audio_s, info.audio_s):
        if abs(info.video_s - length_s) > slack_s:
            return f"the video is {info.video_s:.3f} s and the audio {length_s:.3f} s long"
    return ""
