"""Conditioning of segments: the rows around every video frame, of a whole file or of a live ring.

Of a file the rows are those of all of it. A live sound is heard a segment at a time: its samples
enter a ring of a few seconds that begins as silence, the whole ring is encoded anew, and the
segment hears its last rows. Memory does not grow with the sound either way.

A segment of T latent frames has 4T-3 video frames. Frame r hears the rows r-2 .. r+2. The audio
projector takes five of them for the first latent frame and eight for every later one: the first
half of the window of its first video frame, the middles of the inner ones, and the last half of the
window of its last. Where no window is cut at an end these are the rows 4f-5 .. 4f+2 in order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.frames import assemble_image_channels, audio_windows
from joyflash_cli.conditioning.stream import HeardSound, StaticConditioning, check_rate
from joyflash_cli.encoders.protocol import StreamingEncoder
from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.segment_settings import SegmentSettings
from joyflash_cli.types import FRAMES_PER_LATENT, MODEL_SAMPLE_RATE_HZ, Conditioning


class SegmentConditioning:
    """``ConditioningSource`` of segments, asked for in order.

    Args:
        sound: What is heard.
        encoder: Sound to rows, one per video frame.
        rule: Which rows each latent frame hears; its ``margin`` is that of the windows.
        static: What does not change over time; its reference latents are those of a segment.
        settings: Of the sampler; ``sound`` says which of the two ways is taken.
        num_blocks: Segments of a whole file.
        device: Where conditioning is handed out.
        dtype: Number format it is handed out in.

    Raises:
        ConfigError: If the encoder's row rate is not the frame rate, or a whole file has no length.
    """

    def __init__(
        self,
        sound: HeardSound,
        encoder: StreamingEncoder,
        rule: AudioWindowRule,
        *,
        static: StaticConditioning,
        settings: SegmentSettings,
        num_blocks: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_rate(encoder, rule, settings.fps)
        if settings.sound == "whole" and num_blocks is None:
            raise ConfigError("a sound of unknown length cannot be encoded as a whole")
        if rule.kind not in ("segment", "video-rows"):
            raise ConfigError(f"audio windows of the kind {rule.kind!r} are not cut for segments")
        self._sound, self._encoder = sound, encoder
        self._rule = rule
        self._width = 2 * rule.margin + 1 if rule.kind == "segment" else 1
        self._settings = settings
        self._num_blocks = num_blocks
        self._static = static.to(device, dtype)
        self._device, self._dtype = device, dtype
        per_frame = MODEL_SAMPLE_RATE_HZ / settings.fps
        self._stride = round(settings.stride_video_frames * per_frame)
        self._ring = torch.zeros(round(settings.ring_s * MODEL_SAMPLE_RATE_HZ))
        self._num_pushed = 0

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this segment; waits until that is known."""
        if self._settings.sound == "whole":
            assert self._num_blocks is not None
            return block_index < self._num_blocks
        frame = self._settings.video_start(block_index)
        while not self._sound.covers_frame(frame) and not self._sound.ended:
            self._sound.pull()
        return self._sound.covers_frame(frame)

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of a segment by its latent frames; waits for its sound.

        Raises:
            ConfigError: If the frames are not the next segment's.
        """
        settings = self._settings
        index, rest = divmod(start, settings.block_frames)
        if rest or stop - start != settings.segment_frames:
            raise ConfigError(f"latent frames {start} to {stop} are no segment")
        return Conditioning(
            image=self._image(index),
            text=self._static.text,
            negative_text=self._static.negative_text,
            image_tokens=self._static.image_tokens,
            audio=self._audio(index).to(self._device, self._dtype),
        )

    def _image(self, index: int) -> Tensor | None:
        """The picture's latents, and where there is a mask beside them, how much is known."""
        static, settings = self._static, self._settings
        if static.reference_latents is None or static.convention == "clip":
            return static.reference_latents
        return assemble_image_channels(
            static.reference_latents,
            0,
            settings.segment_frames,
            convention=static.convention,
            known_frames=settings.overlap_frames if index else 1,
        )

    def _audio(self, index: int) -> Float[Tensor, "1 T A D"]:
        settings = self._settings
        windows = self._whole(index) if settings.sound == "whole" else self._heard(index)
        if self._rule.kind == "segment":
            return latent_rows(windows[None])
        # A window of one row: the frame's own.
        return audio_windows(windows[None, :, 0], self._rule, 0, settings.segment_frames)

    def _whole(self, index: int) -> Float[Tensor, "F W D"]:
        """Windows of a segment of the file, whose last row stands in for those behind it."""
        settings = self._settings
        assert self._num_blocks is not None
        end = (self._num_blocks - 1) * settings.stride_video_frames + settings.segment_video_frames
        start = index * settings.stride_video_frames
        indices = window_indices(
            start, start + settings.segment_video_frames, end=end, width=self._width
        )
        first, stop = int(indices.min()), int(indices.max()) + 1
        begin, last = self._encoder.span(first, stop)
        while self._sound.num_samples < last and not self._sound.ended:
            self._sound.pull()
        rows = self._encoder.encode_span(self._sound.read(max(begin, 0), last), first, stop)
        self._sound.forget(max(begin, 0))
        return rows[(indices - first).to(rows.device)]

    def _heard(self, index: int) -> Float[Tensor, "F W D"]:
        """Windows of a segment whose sound has just entered the ring."""
        settings = self._settings
        if index * self._stride != self._num_pushed:
            raise ConfigError(f"segment {index} is not the next one of the sound")
        self._num_pushed += self._stride
        while self._sound.num_samples < self._num_pushed and not self._sound.ended:
            self._sound.pull()
        heard = self._sound.read(self._num_pushed - self._stride, self._num_pushed).cpu()
        self._sound.forget(self._num_pushed)
        silence = torch.zeros(self._stride - len(heard))
        self._ring = torch.cat((self._ring, heard, silence))[-len(self._ring) :]
        end = int(len(self._ring) * settings.fps / MODEL_SAMPLE_RATE_HZ)
        rows = self._encoder.encode(self._ring, end)
        indices = window_indices(
            end - settings.segment_video_frames, end, end=end, width=self._width
        )
        return rows[indices.to(rows.device)]


def window_indices(start: int, stop: int, *, end: int, width: int) -> Int[Tensor, "F W"]:
    """Rows that video frames ``start <= r < stop`` hear.

    Args:
        start: First row.
        stop: Row after the last.
        end: Rows that there are; the last and the first one stand in for those beyond.
        width: Rows of a window, an odd number.
    """
    around = torch.arange(width) - width // 2
    return (torch.arange(start, stop)[:, None] + around).clamp(0, end - 1)


def latent_rows(windows: Float[Tensor, "B F W *D"]) -> Float[Tensor, "B T A *D"]:
    """The windows of a segment's video frames as the rows of its latent frames.

    Args:
        windows: Of ``4T-3`` video frames, W rows each.

    Returns:
        ``W + 3`` rows for each latent frame; of the first only W count, the others are zero.
    """
    half = windows.shape[2] // 2
    first = windows[:, :1]
    later = windows[:, 1:].unflatten(1, (-1, FRAMES_PER_LATENT))
    rows = torch.cat(
        (later[:, :, 0, : half + 1], later[:, :, 1:-1, half], later[:, :, -1, half:]), dim=2
    )
    filled = torch.cat(
        (first, torch.zeros_like(first[:, :, : rows.shape[2] - 2 * half - 1])), dim=2
    )
    return torch.cat((filled, rows), dim=1)
