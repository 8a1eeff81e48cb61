"""What an audio encoder is: a waveform to one row of features per feature tick."""

from typing import Protocol

from torch import Tensor


class AudioEncoder(Protocol):
    """Mono 16 kHz sound to feature rows at a fixed rate."""

    feature_dim: int
    feature_rate_hz: float
    """Rows per second; row r describes the sound around time r / feature_rate_hz."""

    def encode(self, waveform: Tensor, num_rows: int) -> Tensor:
        """Feature rows ``(num_rows, feature_dim)`` of a waveform ``(samples,)`` at 16 kHz."""
        ...


class StreamingEncoder(AudioEncoder, Protocol):
    """An encoder whose rows depend on a stretch of sound around them and on nothing else."""

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """Samples ``first <= i < last`` that rows ``start_row <= r < stop_row`` depend on.

        ``first`` may lie before the sound begins. What lies beyond ``stop_row`` is the encoder's
        look-ahead: a stream waits for it.
        """
        ...

    def encode_span(self, sound: Tensor, start_row: int, stop_row: int) -> Tensor:
        """Rows ``(stop_row - start_row, feature_dim)``.

        Args:
            sound: ``(n,)``, the samples of ``span`` from sample 0 on; shorter where the sound ends
                within it.
            start_row: First row; rows before time zero are negative.
            stop_row: Row after the last.
        """
        ...
