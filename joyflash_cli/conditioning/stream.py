"""Conditioning of sound that is still being heard: windows on demand, memory that stays the same.

Sound is asked for when the sampler needs it, never earlier. Feature rows are encoded in runs that
belong to one block each, so a file and a live stream of the same sound give the same bits however
the sound arrived. Rows and samples that no later window can need are forgotten.

**Look-ahead.** A window denoises several blocks together, so by default a block is finished only
when the sound of all blocks of its window was heard. With a shorter look-ahead of n blocks, a pass
whose oldest block is k hears the sound of blocks up to k + n; beyond it every row is one of
silence, even if the sound is there already, so that again file and stream agree. A block then
meets its own sound only in its last n + 1 steps.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.frames import (
    ImageConvention,
    assemble_image_channels,
    audio_window_mask,
    audio_windows,
    row_indices,
)
from joyflash_cli.encoders.protocol import StreamingEncoder
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ, Conditioning, on_device

_SILENCE_S = 2.0


@dataclass(frozen=True)
class StaticConditioning:
    """What stays the same over a stream; absent kinds are ``None``.

    Attributes:
        reference_latents: ``(B, C, h, w)`` or, for ``"wan-i2v"``, ``(B, R, C, h, w)``; ``None`` for
            models without image channels.
        convention: How the image channels are put together.
        text: ``(B, L, D)``.
        negative_text: Likewise, of the negative prompt.
        image_tokens: ``(B, L, D)``.
        face: ``(B, 512)``.
    """

    reference_latents: Tensor | None = None
    convention: ImageConvention = "avatar"
    text: Tensor | None = None
    negative_text: Tensor | None = None
    image_tokens: Tensor | None = None
    face: Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "StaticConditioning":
        """The same on another device and in another number format."""
        moved: dict[str, Any] = {
            name: value.to(device, dtype)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


class HeardSound(Protocol):
    """Sound at 16 kHz as far as it was heard."""

    ended: bool
    """Whether nothing more will come."""

    num_samples: int
    """Samples heard so far, those forgotten included."""

    def pull(self) -> None:
        """Waits for more, or notes the end."""
        ...

    def covers_frame(self, frame: int) -> bool:
        """Whether what was heard reaches into this video frame."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Samples ``start <= i < stop``, fewer where the sound ends; not before what was kept."""
        ...

    def forget(self, before: int) -> None:
        """Samples before this one will not be asked for again."""
        ...

    def take_silenced(self) -> tuple[int, int] | None:
        """Samples, from and to, that have become silence since they were read; told once."""
        ...


class StreamConditioning:
    """``ConditioningSource`` of sound whose end may not be known.

    Args:
        sound: What is heard.
        encoder: Sound to rows.
        rule: Windows of the audio.
        static: Everything that does not change over time.
        settings: Of the sampler: how blocks lie in time.
        look_ahead_blocks: Blocks heard beyond the oldest of a window; ``None`` for all of them.
        device: Where conditioning is handed out.
        dtype: Number format it is handed out in.

    Raises:
        ConfigError: If the encoder's row rate does not fit, or for a look-ahead below zero.
    """

    def __init__(
        self,
        sound: HeardSound,
        encoder: StreamingEncoder,
        rule: AudioWindowRule,
        *,
        static: StaticConditioning,
        settings: SamplerSettings,
        look_ahead_blocks: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if look_ahead_blocks is not None and look_ahead_blocks < 0:
            raise ConfigError(f"a look-ahead of {look_ahead_blocks} blocks does not exist")
        check_rate(encoder, rule, settings.fps)
        self.sound = sound
        self.settings = settings
        self._encoder = encoder
        self._rule = rule
        self._static = static.to(device, dtype)
        self._device, self._dtype = device, dtype
        most = settings.num_window_blocks - 1
        self.look_ahead_blocks = most if look_ahead_blocks is None else min(look_ahead_blocks, most)
        self._binds_late = self.look_ahead_blocks < most
        self._first_row = -rule.lead_rows
        self._rows = torch.zeros(0, encoder.feature_dim, device=device, dtype=dtype)
        self._num_encoded = 0
        self._silence: Tensor | None = None

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this block; waits until that is known.

        Under a short look-ahead it is not waited for: a block beyond it is taken to exist, and
        whoever reads the stream drops what lies beyond the end of the sound.
        """
        settings = self.settings
        frame = settings.video_start(block_index)
        heard_block = max(0, block_index - settings.num_window_blocks + 1) + self.look_ahead_blocks
        if block_index <= heard_block:
            while not self.sound.covers_frame(frame) and not self.sound.ended:
                self.sound.pull()
            return self.sound.covers_frame(frame)
        _, last = self._encoder.span(*self._block_rows(heard_block))
        # One sample more than is heard: only then is it sure that the sound does not end with it.
        while self.sound.num_samples <= last and not self.sound.ended:
            self.sound.pull()
        return self.sound.num_samples > last or self.sound.covers_frame(frame)

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``; waits for their sound.

        Raises:
            ConfigError: If the range is none, or lies before what was kept.
        """
        if not 0 <= start < stop:
            raise ConfigError(f"latent frames {start} to {stop} are no range")
        static = self._static
        image = None
        if static.reference_latents is not None:
            image = assemble_image_channels(
                static.reference_latents, start, stop, convention=static.convention
            )
        audio, audio_mask = self._audio(start, stop)
        return Conditioning(
            image=image,
            text=static.text,
            image_tokens=static.image_tokens,
            audio=audio,
            face=static.face,
            audio_mask=audio_mask,
        )

    def _audio(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Tokens of these frames, and which lie inside the sound where not all of them do."""
        settings = self.settings
        heard_block = settings.block_of(stop - 1)
        if self._binds_late:
            heard_block = min(heard_block, settings.oldest_block(start) + self.look_ahead_blocks)
        self._encode_through(heard_block)
        if (silenced := self.sound.take_silenced()) is not None:
            self._mute(*silenced)
        rows = self._rows[: self._block_rows(heard_block)[1] - self._first_row]
        missing = self._rule.num_rows(stop) - (self._first_row + len(rows))
        if missing > 0:
            rows = torch.cat([rows, self._silent_row().expand(missing, -1)])
        needed = int(row_indices(self._rule, start, start + 1).min())
        if needed < self._first_row and self._first_row > -self._rule.lead_rows:
            raise ConfigError(f"the sound of latent frame {start} was forgotten already")
        lead_rows = -self._first_row
        windows = audio_windows(rows[None], self._rule, start, stop, lead_rows=lead_rows)
        inside = audio_window_mask(self._rule, start, stop, num_rows=len(rows), lead_rows=lead_rows)
        self._forget(start)
        return windows, None if bool(inside.all()) else on_device(inside, windows.device)

    def _block_rows(self, block_index: int) -> tuple[int, int]:
        """Rows that hearing this block adds to those of the blocks before it."""
        stop = self._rule.num_rows(self.settings.block_start(block_index + 1))
        if block_index == 0:
            return -self._rule.lead_rows, stop
        return self._rule.num_rows(self.settings.block_start(block_index)), stop

    def _encode_through(self, block_index: int) -> None:
        """Encodes what is missing of the rows up to this block, a run per block."""
        while self._num_encoded <= block_index:
            start, stop = self._block_rows(self._num_encoded)
            first, last = self._encoder.span(start, stop)
            while self.sound.num_samples < last and not self.sound.ended:
                self.sound.pull()
            samples = self.sound.read(max(first, 0), last)
            rows = self._encoder.encode_span(samples, start, stop)
            self._rows = torch.cat([self._rows, rows.to(self._device, self._dtype)])
            self._num_encoded += 1
            self.sound.forget(max(self._encoder.span(*self._block_rows(self._num_encoded))[0], 0))

    def _mute(self, start: int, stop: int) -> None:
        """Rows of samples ``start <= i < stop``, encoded before they became silence."""
        rate = self._encoder.feature_rate_hz / MODEL_SAMPLE_RATE_HZ
        first, last = (round(sample * rate) - self._first_row for sample in (start, stop))
        places = slice(max(first, 0), max(last, 0))
        self._rows[places] = self._silent_row()

    def _forget(self, start: int) -> None:
        """Drops rows that lie before the windows of the block before latent frame ``start``."""
        # A pass begins at most one block and a condition frame before the one that follows it.
        oldest = max(start - self.settings.block_frames - 1, 0)
        keep_from = int(row_indices(self._rule, oldest, oldest + 1).min())
        surplus = min(keep_from - self._first_row, len(self._rows))
        if surplus > 0:
            self._rows = self._rows[surplus:].clone()
            self._first_row += surplus

    def _silent_row(self) -> Tensor:
        """The row of sound that is silent for a while, ``(1, D)``."""
        if self._silence is None:
            num_rows = round(_SILENCE_S * self._encoder.feature_rate_hz)
            sound = torch.zeros(round(_SILENCE_S * MODEL_SAMPLE_RATE_HZ))
            middle = num_rows // 2
            row = self._encoder.encode(sound, num_rows)[middle : middle + 1]
            self._silence = row.to(self._device, self._dtype)
        return self._silence


def check_rate(encoder: StreamingEncoder, rule: AudioWindowRule, fps: float) -> None:
    """Refuse an encoder whose rows would drift against the frames."""
    rows_per_frame = rule.rows_per_frame if rule.kind == "fantasytalking" else 1.0
    expected = fps * rows_per_frame
    if not math.isclose(encoder.feature_rate_hz, expected, rel_tol=1e-9):
        raise ConfigError(
            f"the audio encoder gives {encoder.feature_rate_hz:g} rows per second, "
            f"the windows need {expected:g} at {fps:g} fps",
            hint="set the encoder's rate to the profile's frame rate",
        )
