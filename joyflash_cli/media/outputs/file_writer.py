"""A video file while it is being written: a hidden name first, the real name only when it is whole.

Whoever watches the target path never sees a half-written file, and an earlier file under that
name is untouched until the new one has been read back. MP4, MOV, MKV and WebM play at any moment
while they are written.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from joyflash_cli.errors import OutputError
from joyflash_cli.files import flush, is_locked
from joyflash_cli.media.outputs.formats import BOX_SUFFIXES, FORMATS
from joyflash_cli.media.outputs.mp4_boxes import drop_cut_fragment, write_fast_start
from joyflash_cli.media.outputs.names import being_written, statement_path
from joyflash_cli.media.outputs.probe import MediaInfo, plays, probe
from joyflash_cli.media.outputs.tracks import TrackWriter
from joyflash_cli.media.outputs.writer import NamedWriter, write_error
from joyflash_cli.media.outputs.xmp import append_box

SOUND_SLACK_S = 0.05
"""What an encoder may add to a sound or leave out: two of its frames at most."""


class FileWriter(NamedWriter):
    """Writes one file under a temporary name beside its target, which only this process writes.

    The file is written in short fragments and becomes an ordinary one when it is finished, so that
    even a killed process leaves a playable ``.<stem>.part.mp4``. In MP4 sound is written at its own
    rate from 44.1 kHz on, mono or stereo kept, more channels mixed down to stereo; MKV keeps it
    exactly (FLAC).
    """

    _claim: int | None = None

    def _begin(self) -> None:
        super()._begin()
        self.final, self.temporary = self.names.path, self.names.part
        entry = FORMATS[self.final.suffix.lower()]
        self._seals_beside = entry.seals == "beside"
        try:
            # Made now, so that an unwritable folder is known before any work is done.
            self._claim = _claimed(self.temporary)
        except BlockingIOError as error:
            raise being_written(self.final) from error
        options = {"flush_packets": "1"}
        if self.final.suffix.lower() in BOX_SUFFIXES:
            options |= {"movflags": _movflags(), "frag_duration": str(FRAGMENT_US)}
        else:
            options["cluster_time_limit"] = str(FRAGMENT_US // 1000)
        target = str(self.temporary.absolute())
        self.tracks = TrackWriter(target, entry, self.film, options=options)

    def discard(self) -> None:
        """Removes the temporary file; safe to call at any time."""
        super().discard()
        if self.film.seal is not None:
            self.names.sealed_part.unlink(missing_ok=True)
            self.names.statement_part.unlink(missing_ok=True)
        if self._claim is not None:
            self.temporary.unlink(missing_ok=True)
            self._release()

    def _end(self) -> None:
        """Adds the XMP packet where that is a box; other containers got it as a tag."""
        if self.final.suffix.lower() in BOX_SUFFIXES:
            append_box(self.temporary, self.film.metadata)

    def _publish(self) -> MediaInfo:
        """Reads the temporary file back, then gives it the target's name.

        Raises:
            OutputError: ``E-OUTPUT-TRACKS`` if a track is missing or their lengths differ by
                more than one frame (the file is kept as partial); otherwise as
                :func:`write_error`.
        """
        try:
            info = probe(self.temporary)
            problem = self._track_problem(info)
            if problem:
                raise OutputError(
                    f"{self.final.name}: {problem}",
                    hint=f"what was written is in {self._keep()}",
                    code="E-OUTPUT-TRACKS",
                )
            if not self.overwrite and self.final.exists():
                raise OutputError(
                    f"{self.final} appeared while the video was written",
                    hint=f"what was written is in {self._keep()}",
                    code="E-OUTPUT-EXISTS",
                )
            with self._indexed_in_front() as whole:
                try:
                    sealed = self._sealed(whole)
                except OutputError as error:
                    self.unsealed = self._as_partial(whole)
                    error.hint = f"the finished video, unsigned, is in {self.unsealed}"
                    raise
                self._rename(sealed, self.final)
            return info
        finally:
            self.discard()

    def _keep(self) -> Path | None:
        """Renames what there is to ``<stem>.partial<suffix>`` if it plays, else removes it.

        Returns:
            Where it is; its temporary name if another partial file has appeared meanwhile.
        """
        if not plays(self.temporary):
            self.discard()
            return None
        with self._indexed_in_front() as whole:
            try:
                return self._as_partial(self._sealed(whole))
            except OutputError as error:
                if self.is_sealed:
                    raise
                self.seal_error = error
            return self._as_partial(whole)

    def _as_partial(self, whole: Path) -> Path:
        partial = self.names.partial
        if not self.overwrite and os.path.lexists(partial):
            self.is_sealed = False
            self._release()
            return self.temporary
        self._rename(whole, partial)
        return partial

    def _sealed(self, whole: Path) -> Path:
        """The signed copy of a finished file, or that file where none is asked for.

        Raises:
            OutputError: If it cannot be signed, or the copy holds something else.
        """
        if self.film.seal is None:
            return whole
        if self._seals_beside:
            sealed = whole
            self.film.seal(whole, self.names.statement_part)
        else:
            sealed = self.names.sealed_part
            self.film.seal(whole, sealed)
            if probe(sealed) != probe(whole):
                raise OutputError(f"{self.final} changed when it was signed", code="E-SIGN")
            shutil.copymode(whole, sealed)
        self.is_sealed = True
        return sealed

    def _rescue(self) -> Path | None:
        """Keeps what reached the disk when nothing more can be written."""
        if self.tracks is not None:
            self.tracks.abandon()
        with contextlib.suppress(OSError):
            drop_cut_fragment(self.temporary)
        return self._keep()

    def _track_problem(self, info: MediaInfo) -> str:
        """What is wrong with the tracks that were read back; empty where nothing is."""
        num_frames, frame_s = self.num_frames, float(1 / self.film.fps)
        written_s, slack_s = num_frames * frame_s, frame_s + 1e-6
        if info.num_frames != num_frames:
            return f"{info.num_frames} frames were read back, {num_frames} were written"
        if abs(info.video_s - written_s) > slack_s:
            return f"the video track is {info.video_s:.3f} s, {written_s:.3f} s were written"
        sound = None if self.tracks is None else self.tracks.sound
        if sound is None:
            return ""
        if info.audio_s is None:
            return "the audio track is missing"
        for length_s in (sound.duration_s, info.audio_s):
            if abs(info.video_s - length_s) > slack_s:
                return f"the video is {info.video_s:.3f} s and the audio {length_s:.3f} s long"
        given_s = min(sound.duration_s, written_s)
        if abs(info.audio_s - given_s) > SOUND_SLACK_S:
            return f"the audio track is {info.audio_s:.3f} s, {given_s:.3f} s were given"
        return ""

    @contextlib.contextmanager
    def _indexed_in_front(self) -> Iterator[Path]:
        """The finished file; of an MP4, a second one that plays while it is fetched.

        Where there is no room for both, the first one has to do.
        """
        second = self.names.second_part
        try:
            found = self.temporary
            with contextlib.suppress(OSError):
                second.unlink(missing_ok=True)  # never through a link
                if write_fast_start(self.temporary, second):
                    shutil.copymode(self.temporary, second)
                    found = second
            yield found
        finally:
            with contextlib.suppress(OSError):
                second.unlink(missing_ok=True)

    def _rename(self, source: Path, target: Path) -> None:
        try:
            flush(source)
            if self.is_sealed and self._seals_beside:
                os.replace(self.names.statement_part, statement_path(target))
            elif self._seals_beside:
                statement_path(target).unlink(missing_ok=True)  # of an earlier video
            os.replace(source, target)
            if source == self.temporary:
                self._release()
            else:
                self.discard()
            flush(target.parent)
        except OSError as error:
            raise write_error(target, error) from error

    def _release(self) -> None:
        """What lies under the temporary name is somebody else's from here on."""
        claim, self._claim = self._claim, None
        if claim is not None:
            os.close(claim)


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
            if is_locked(descriptor):
                raise BlockingIOError
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                    os.ftruncate(descriptor, 0)
                    return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its writer has just given it its final name


FRAGMENT_US = 320_000
"""Length of what is written to the disk at once, microseconds: with the few frames inside the
encoder, all that a killed process loses."""


_MOVFLAGS = (
    "hybrid_fragmented+delay_moov", "frag_keyframe+delay_moov", "frag_keyframe+empty_moov",
)  # fmt: skip
"""Fragments, the best way first: the first ends as an ordinary file, which FFmpeg before 7.1 does
not know."""


@functools.cache
def _movflags() -> str:
    """The first of them that this libavformat knows."""
    import av

    for flags in _MOVFLAGS[:-1]:
        with (
            contextlib.suppress(av.error.FFmpegError, ValueError, OSError),
            av.open(io.BytesIO(), mode="w", format="mp4", options={"movflags": flags}) as probe,
        ):
            stream = probe.add_stream("libx264", rate=1)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            probe.start_encoding()
            return flags
    return _MOVFLAGS[-1]
