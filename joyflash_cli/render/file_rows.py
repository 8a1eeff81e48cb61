"""Audio rows of a sound whose length is known, by an encoder that attends over a whole clip.

Public checkpoints were trained on the features of whole clips. A stream can only come near them; a
file need not. Up to ``WHOLE_FILE_S`` it is encoded at once, by the checkpoint's own rules. Longer
sound is encoded in long stretches that hear half a minute beyond either end, its rows at the same
moments, so that an hour takes no more memory than five minutes.
"""

from typing import TYPE_CHECKING

from joyflash_cli.encoders.protocol import StreamingEncoder
from joyflash_cli.errors import ConfigError
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import torch

    from joyflash_cli.conditioning.config import AudioWindowRule
    from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder
    from joyflash_cli.media.inputs.sound import OpenSound
    from joyflash_cli.render.request import RenderRequest
    from joyflash_cli.sampler.segment_settings import AnySettings

WHOLE_FILE_S = 300.0
"""The public models' own code ends after 164 and 256 s."""

STRETCH_S = 240.0
MARGIN_S = 30.0


def encoder_for(
    request: "RenderRequest",
    encoder: "Wav2Vec2Encoder",
    rule: "AudioWindowRule",
    settings: "AnySettings",
) -> StreamingEncoder:
    """The encoder of a request: one that knows the whole file, or the stream's.

    Sound of unknown length is heard as a stream, and so is a file under a chosen look-ahead, which
    stands for a stream.
    """
    num_frames = request.num_frames(settings.fps)
    if num_frames is None or request.is_stream(settings.fps):
        return encoder
    num_latents = settings.num_latents(settings.num_blocks(num_frames))
    return FileRows(encoder, request.sound.open(), num_rows=rule.num_rows(num_latents))


class FileRows:
    """``StreamingEncoder`` that reads its sound itself, from a file that can be opened twice.

    Rows are asked for in order. Those of the stretch in hand are kept, in memory of the CPU.

    Args:
        encoder: Sound to rows.
        sound: Opened, nothing of it heard yet.
        num_rows: Rows of the whole clip, up to the end of its last block.
    """

    def __init__(self, encoder: "Wav2Vec2Encoder", sound: "OpenSound", *, num_rows: int) -> None:
        import torch

        self.feature_dim = encoder.feature_dim
        self.feature_rate_hz = encoder.feature_rate_hz
        self.is_whole = num_rows <= WHOLE_FILE_S * encoder.feature_rate_hz
        self._encoder = encoder
        self._sound = _Waveform(sound)
        self._num_rows = num_rows
        self._first_row = 0
        self._rows = torch.zeros(0, encoder.feature_dim)

    def encode(self, waveform: "torch.Tensor", num_rows: int) -> "torch.Tensor":
        """Rows of another sound."""
        return self._encoder.encode(waveform, num_rows)

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """No samples of the stream; where they would begin tells what it can forget."""
        sample = round(max(start_row, 0) * MODEL_SAMPLE_RATE_HZ / self.feature_rate_hz)
        return sample, sample

    def encode_span(self, sound: "torch.Tensor", start_row: int, stop_row: int) -> "torch.Tensor":
        """Rows of the file; the samples given are not looked at.

        Raises:
            ConfigError: For rows that the file does not have, or that were asked for before.
        """
        import torch

        if not self._first_row <= start_row <= stop_row <= self._num_rows:
            raise ConfigError(
                f"audio rows {start_row} to {stop_row} are not in {self._first_row} to "
                f"{self._num_rows}"
            )
        self._rows = self._rows[start_row - self._first_row :]
        self._first_row = start_row
        while self._first_row + len(self._rows) < stop_row:
            self._rows = torch.cat([self._rows, self._next_stretch().cpu()])
        return self._rows[: stop_row - start_row].to(self._encoder.device)

    def _next_stretch(self) -> "torch.Tensor":
        if self.is_whole:
            return self._encoder.encode(self._sound.read(0, None), self._num_rows)
        rate = self.feature_rate_hz
        start = self._first_row + len(self._rows)
        stop = min(start + round(STRETCH_S * rate), self._num_rows)
        # Not beyond the end, where it would hear half a minute of silence.
        right_s = min(MARGIN_S, (self._num_rows - stop) / rate)
        wide = self._encoder.with_context(left_s=MARGIN_S, right_s=right_s)
        first, last = wide.span(start, stop)
        sound = self._sound.read(first, last)
        return wide.encode_span(sound, start, stop, clip_rows=self._num_rows)


class _Waveform:
    """Samples at 16 kHz of an opened sound, read from the front to the back."""

    def __init__(self, sound: "OpenSound") -> None:
        import numpy as np

        from joyflash_cli.media.inputs.audio import ModelResampler

        self._pieces = sound.pieces
        self._resampler = ModelResampler(sound.format.sample_rate_hz)
        self._parts: list[np.ndarray] = []
        self._start = 0
        self._num_samples = 0
        self._ended = False

    def read(self, start: int, stop: int | None) -> "torch.Tensor":
        """Samples ``start <= i < stop``, or to the end; those before are forgotten."""
        import numpy as np
        import torch

        while not self._ended and (stop is None or self._num_samples < stop):
            piece = next(self._pieces, None)
            self._ended = piece is None
            heard = self._resampler.finish() if piece is None else self._resampler.push(piece)
            self._parts.append(heard)
            self._num_samples += len(heard)
        whole = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        kept = whole[max(start - self._start, 0) :]
        self._start = self._num_samples - len(kept)
        self._parts = [kept]
        return torch.from_numpy(kept[: None if stop is None else stop - self._start].copy())
