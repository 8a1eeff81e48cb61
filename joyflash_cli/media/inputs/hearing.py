"""How a sound is to be heard, and what is learned about it on the way."""

from __future__ import annotations

from dataclasses import dataclass

from joyflash_cli.errors import AudioError

_SHOWN_PLACES = 5


@dataclass(frozen=True)
class SoundChoices:
    """How a sound is to be heard.

    Attributes:
        track: Which of several sound tracks, from 0; ``None`` for the one marked as default, or
            the first that is not silent.
        skip_damaged: Whether packets that cannot be decoded become silence, rather than an error.
        strict: Whether a sound that is cut off is refused.
    """

    track: int | None = None
    skip_damaged: bool = False
    strict: bool = False


class Hearing:
    """What is learned about a sound while it is heard; complete when the sound has ended.

    Args:
        name: Of the sound, for messages.
        choices: How it is to be heard.
    """

    def __init__(self, name: str, choices: SoundChoices | None = None) -> None:
        self.name = name
        self.choices = choices or SoundChoices()
        self.track: int | None = None
        """Which of several tracks is heard, from 0; ``None`` where there is one."""
        self.truncated = False
        """Whether less came than the sound itself says it has."""
        self.skipped: list[tuple[float, float]] = []
        """Where damaged parts became silence: their beginning and their length, in seconds."""
        self.notes: list[str] = []
        """Sentences the user should see."""

    def skip(self, at_s: float, length_s: float) -> None:
        """Notes a damaged part that became silence."""
        self.skipped.append((round(at_s, 3), round(length_s, 3)))

    def check_only_track(self) -> None:
        """Refuses a chosen track of a sound that has one.

        Raises:
            AudioError: ``E-AUDIO-STREAM``.
        """
        if self.choices.track:
            raise no_such_track(self.name, 1, self.choices.track)

    def end(self, heard_s: float, declared_s: float | None = None, *, is_cut: bool = False) -> None:
        """Called when the sound has ended.

        Args:
            heard_s: Seconds that came.
            declared_s: Seconds that the sound itself says it has.
            is_cut: Whether less came than that, or its end is missing.

        Raises:
            AudioError: ``E-AUDIO-TRUNCATED`` under a strict choice.
        """
        if self.skipped:
            places = ", ".join(f"{at_s:.2f}" for at_s, _ in self.skipped[:_SHOWN_PLACES])
            more = ", ..." if len(self.skipped) > _SHOWN_PLACES else ""
            total_s = sum(length_s for _, length_s in self.skipped)
            self.notes.append(
                f"{self.name} is damaged; {total_s:.2f} s of it became silence, at {places}{more} s"
            )
        if not is_cut:
            return
        self.truncated = True
        said = "its end is missing"
        if declared_s is not None:
            said = f"it says that it has {declared_s:.2f} s"
        text = f"{self.name} is cut off after {heard_s:.2f} s; {said}"
        if self.choices.strict:
            raise AudioError(
                text,
                hint="copy or export it again, or leave --strict out to use what is there",
                code="E-AUDIO-TRUNCATED",
            )
        self.notes.append(text)


def no_such_track(name: str, num_tracks: int, track: int) -> AudioError:
    """The error for a sound track that is not there."""
    has = "1 sound track" if num_tracks == 1 else f"{num_tracks} sound tracks"
    return AudioError(
        f"{name} has {has}; there is no track {track}",
        hint="tracks are counted from 0; leave --audio-track out for the default one",
        code="E-AUDIO-STREAM",
    )
