"""A small audio encoder that hears mouths: log-mel, convolutions, 25 rows a second.

It is trained to predict viseme tracks, so that the transformer of a small profile starts with
features that are already about lips. Every row depends on a short stretch of sound around it and
on nothing else, so that a stream gives the same rows as the whole file.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.encoders.protocol import FrontEndConfig
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

MEL_RATE_HZ = 100
FEATURE_RATE_HZ = 25
SAMPLES_PER_ROW = MODEL_SAMPLE_RATE_HZ // FEATURE_RATE_HZ
"""640: row r hears the sound around (r + 0.5) / 25 s, the centre of video frame r."""

_HOP = MODEL_SAMPLE_RATE_HZ // MEL_RATE_HZ
_WINDOW = 400
_MEL_PAD = (_WINDOW - _HOP) // 2
"""With this padding mel frame k is centred at (k + 0.5) / 100 s: four fit a row symmetrically."""
_POWER_FLOOR = 1e-6
_STEM_REACH = 2
"""Rows on either side that the convolutions before 25 Hz and the mel window can see, rounded up."""
_ROWS_AT_ONCE = 1500


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each moment alone: nothing leaks along time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B C T"]:
        """Normalise every moment."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """Norm, convolution over three rows, pointwise convolution, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.mix = nn.Conv1d(channels, channels, 3, padding=1)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B C T"]:
        """Same shape."""
        return x + self.out(functional.silu(self.mix(self.norm(x))))


class FrontEnd(nn.Module):
    """Waveform to feature rows at 25 Hz; an ``encoders.protocol.AudioEncoder``."""

    feature_rate_hz: float = FEATURE_RATE_HZ
    mel_filters: Tensor
    window: Tensor

    def __init__(self, config: FrontEndConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FrontEndConfig()
        width = config.stem_width
        self.register_buffer("mel_filters", mel_filterbank(config.num_mels), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW, device="cpu"), persistent=False)
        self.stem = nn.Sequential(
            nn.Conv1d(config.num_mels, width, 5, padding=2),
            nn.SiLU(),
            ChannelNorm(width),
            nn.Conv1d(width, 2 * width, 4, stride=2, padding=1),
            nn.SiLU(),
            ChannelNorm(2 * width),
            nn.Conv1d(2 * width, config.hidden, 4, stride=2, padding=1),
        )
        self.blocks = nn.ModuleList(ResidualBlock(config.hidden) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden)
        self.viseme_head = nn.Linear(config.hidden, config.num_visemes)

    @property
    def feature_dim(self) -> int:
        """Width of a row: hidden channels and the viseme estimates."""
        return self.config.hidden + self.config.num_visemes

    @property
    def context_rows(self) -> int:
        """Rows of sound on either side that can change a row."""
        return self.config.num_blocks + _STEM_REACH

    def log_mel(self, waveform: Float[Tensor, "B n"]) -> Float[Tensor, "B mels T"]:
        """Log-mel energies at 100 Hz, about -1..1; absolute, not relative to the file.

        Args:
            waveform: ``(B, rows * 640)`` at 16 kHz; silence is assumed around it.

        Returns:
            ``(B, num_mels, rows * 4)``.
        """
        padded = functional.pad(waveform, (_MEL_PAD, _MEL_PAD))
        spectrum = torch.stft(
            padded, _WINDOW, _HOP, window=self.window, center=False, return_complex=True
        )
        power = spectrum.abs().square() / _WINDOW
        return (torch.log(self.mel_filters @ power + _POWER_FLOOR) + 7.0) / 5.0

    def features(self, log_mel: Float[Tensor, "B mels T"]) -> Float[Tensor, "B rows hidden"]:
        """Hidden rows at 25 Hz of a log-mel spectrogram at 100 Hz."""
        x = self.stem(log_mel)
        for block in self.blocks:
            x = block(x)
        return self.norm(x.transpose(1, 2))

    def visemes(self, hidden: Float[Tensor, "B rows hidden"]) -> Float[Tensor, "B rows visemes"]:
        """Estimated mouth parameters of hidden rows."""
        return self.viseme_head(hidden)

    def forward(self, waveform: Float[Tensor, "B n"]) -> Float[Tensor, "B rows dim"]:
        """Feature rows of whole rows of sound: hidden channels, then viseme estimates.

        Args:
            waveform: ``(B, rows * 640)``. The first and last ``context_rows`` rows also see the
                convolutions' padding: surround the sound with that much, as ``encode`` does.
        """
        hidden = self.features(self.log_mel(waveform))
        return torch.cat([hidden, self.visemes(hidden)], dim=-1)

    @torch.no_grad()
    def encode(self, waveform: Float[Tensor, "n"], num_rows: int) -> Float[Tensor, "rows dim"]:
        """Feature rows of a waveform, with silence before and after it.

        Args:
            waveform: Mono 16 kHz; cut, or filled up with silence, to ``num_rows * 640`` samples.
            num_rows: Rows wanted.

        Returns:
            ``(num_rows, feature_dim)``, row r centred at (r + 0.5) / 25 s.
        """
        sound = waveform[: num_rows * SAMPLES_PER_ROW]
        parts = [self.window.new_zeros(0, self.feature_dim)]
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, num_rows)
            first, last = self.span(start, stop)
            parts.append(self.encode_span(sound[max(first, 0) : last], start, stop))
        return torch.cat(parts)

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """Samples ``first <= i < last`` that rows ``start_row <= r < stop_row`` depend on."""
        context = self.context_rows
        return (start_row - context) * SAMPLES_PER_ROW, (stop_row + context) * SAMPLES_PER_ROW

    @torch.no_grad()
    def encode_span(
        self, sound: Float[Tensor, "n"], start_row: int, stop_row: int
    ) -> Float[Tensor, "rows dim"]:
        """Rows of a stretch of sound; the same as those of the whole file up to rounding.

        Args:
            sound: The samples of ``span`` from sample 0 on: before it, and beyond the end of
                ``sound``, there is silence.
            start_row: First row; rows before time zero are negative.
            stop_row: Row after the last.
        """
        first, last = self.span(start_row, stop_row)
        before = min(max(-first, 0), last - first)
        # Padded here: an hour of sound should not be copied to be surrounded with silence.
        piece = sound.to(self.window)
        piece = functional.pad(piece, (before, last - first - before - len(piece)))
        context = self.context_rows
        return self(piece[None])[0, context:-context]


def mel_filterbank(
    num_mels: int, *, low_hz: float = 60.0, high_hz: float = 7600.0
) -> Float[Tensor, "mels bins"]:
    """Triangular filters, evenly spaced on the mel scale (2595 log10(1 + f / 700)).

    Returns:
        ``(num_mels, 201)``: weights of the bins of a 400-sample spectrum, each band summing to 1.
        On the CPU, even inside ``torch.device("meta")``, where arithmetic imports torch's compiler.
    """
    low, high = (2595 * math.log10(1 + edge_hz / 700) for edge_hz in (low_hz, high_hz))
    mels = torch.linspace(low, high, num_mels + 2, dtype=torch.float64, device="cpu")
    corners = 700 * (10 ** (mels / 2595) - 1)
    bins = torch.arange(_WINDOW // 2 + 1, dtype=torch.float64, device="cpu")
    bins = bins * MODEL_SAMPLE_RATE_HZ / _WINDOW
    # A band narrower than a bin would miss every bin: no slope is steeper than one bin.
    spacing = MODEL_SAMPLE_RATE_HZ / _WINDOW
    rise = (corners[1:-1] - corners[:-2]).clamp_min(spacing)[:, None]
    fall = (corners[2:] - corners[1:-1]).clamp_min(spacing)[:, None]
    distance = bins[None] - corners[1:-1, None]
    weights = torch.where(distance < 0, 1 + distance / rise, 1 - distance / fall).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()
