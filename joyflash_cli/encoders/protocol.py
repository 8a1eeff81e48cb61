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
