"""A video file while it is being written: a hidden name first, the real name only when it is whole.

Whoever watches the target path never sees a half-written file, and an earlier file under that
name is untouched until the new one has been read back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from joyflash_cli.errors import JoyFlashError, OutputError
from joyflash_cli.files import cannot_write, flush, is_disk_full, room_hint
from joyflash_cli.media.outputs.fast_start import write_fast_start
from joyflash_cli.media.outputs.names import PYAV_SUFFIXES
from joyflash_cli.media.outputs.probe import MediaInfo, plays, probe
from joyflash_cli.media.outputs.targets import OutputNames, being_written

SOUND_SLACK_S = 0.05
"""What an encoder may add to a sound or leave out: two of its frames at most."""


class PendingFile:
    """The temporary file beside a target, and its three ends: commit, keep as partial, discard.

    Args:
        path: Where the finished video goes.
        overwrite: Whether a file already there may be replaced.

    Raises:
        OutputError: See :meth:`OutputNames.check`.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._names = OutputNames(path)
        self._names.check(overwrite=overwrite)
        self.final, self.temporary = self._names.path, self._names.part
        self._overwrite = overwrite
        self._claim: int | None = None
        try:
            # Made now, so that an unwritable folder is known before any work is done.
            self._claim = _claimed(self.temporary)
        except BlockingIOError as error:
            raise being_written(self.final) from error
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
        with self._indexed_in_front() as whole:
            self._rename(whole, self.final)
        return info

    def keep_partial(self) -> Path | None:
        """Renames what there is to ``<stem>.partial<suffix>`` if it plays, else removes it.

        Returns:
            Where it is; its temporary name if another partial file has appeared meanwhile.
        """
        if not plays(self.temporary):
            self.discard()
            return None
        partial = self._names.partial
        if not self._overwrite and os.path.lexists(partial):
            self._release()
            return self.temporary
        with self._indexed_in_front() as whole:
            self._rename(whole, partial)
        return partial

    def discard(self) -> None:
        """Removes the temporary file; safe to call at any time."""
        if self._claim is not None:
            self.temporary.unlink(missing_ok=True)
            self._release()

    @contextlib.contextmanager
    def _indexed_in_front(self) -> Iterator[Path]:
        """The finished file; of an MP4, a second one that plays while it is fetched.

        Where there is no room for both, the first one has to do.
        """
        second = self._names.second_part
        try:
            found = self.temporary
            if self.final.suffix.lower() in PYAV_SUFFIXES:
                with contextlib.suppress(OSError):
                    second.unlink(missing_ok=True)  # never through a link
                    if write_fast_start(self.temporary, second):
                        shutil.copymode(self.temporary, second)
                        found = second
            yield found
        finally:
            with contextlib.suppress(OSError):
                second.unlink(missing_ok=True)

    def _release(self) -> None:
        """What lies under the temporary name is somebody else's from here on."""
        claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)

    def _rename(self, source: Path, target: Path) -> None:
        try:
            flush(source)
            os.replace(source, target)
            if source == self.temporary:
                self._release()
            else:
                self.discard()
            flush(target.parent)
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


def write_error(path: Path, error: Exception, *, partial: Path | None = None) -> JoyFlashError:
    """The error for a write that failed, with what was saved of it.

    Args:
        path: The target.
        error: What the system or the encoder said.
        partial: Where the playable part was kept, if it was.
    """
    hint = room_hint(error) if is_disk_full(error) else "choose another place"
    if partial is not None:
        hint += f"; what was written is in {partial}"
    return cannot_write(path, error, hint=hint)


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
    given_s = min(audio_s, num_frames * frame_s)
    if abs(info.audio_s - given_s) > SOUND_SLACK_S:
        return f"the audio track is {info.audio_s:.3f} s, {given_s:.3f} s were given"
    return ""
