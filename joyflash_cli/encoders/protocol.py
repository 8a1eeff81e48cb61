"""What an audio encoder is, a waveform to one row of features per tick, and of what sizes.

A checkpoint's ``front_end`` section says the sizes: one dataclass for each kind of encoder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class AudioEncoder(Protocol):
    """Mono 16 kHz sound to feature rows at a fixed rate."""

    feature_dim: int
    feature_rate_hz: float
    """Rows per second; row r describes the sound around time r / feature_rate_hz."""

    def encode(self, waveform: "Tensor", num_rows: int) -> "Tensor":
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

    def encode_span(self, sound: "Tensor", start_row: int, stop_row: int) -> "Tensor":
        """Rows ``(stop_row - start_row, feature_dim)``.

        Args:
            sound: ``(n,)``, the samples of ``span`` from sample 0 on; shorter where the sound ends
                within it.
            start_row: First row; rows before time zero are negative.
            stop_row: Row after the last.
        """
        ...


@dataclass(frozen=True)
class FrontEndConfig:
    """Sizes of the audio front end.

    Attributes:
        num_mels: Mel bands, 60 to 7600 Hz.
        stem_width: Channels at 100 Hz; twice as many at 50 Hz.
        hidden: Channels at 25 Hz.
        num_blocks: Residual blocks; each adds one row of reach on either side.
        num_visemes: Mouth parameters of the head.
    """

    num_mels: int = 48
    stem_width: int = 64
    hidden: int = 160
    num_blocks: int = 5
    num_visemes: int = 6

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"front end: {name} is {value!r}, a whole number from 1 is needed",
                    hint="correct the configuration",
                )
        width = (1, 1 << 16)
        limits = {"num_mels": (1, 1024), "stem_width": width, "hidden": width}
        check_ranges(self, {**limits, "num_blocks": (1, 256), "num_visemes": (1, 4096)})


@dataclass(frozen=True)
class Wav2Vec2Options:
    """How a checkpoint's training turned sound into rows.

    Attributes:
        rate_hz: Rows per second; the video's frame rate, or about 50 without resampling.
        normalise: ``"whole"`` standardises the whole waveform and then cuts it to the rows asked
            for (AvatarForcing); ``"cut"`` cuts first (LiveTalk); ``"padded"`` cuts, or continues
            with silence, first (FlashHead).
        span: Samples that R rows describe: ``"rows"`` is ``R * int(16000 / rate)``
            (AvatarForcing), ``"intervals"`` is ``int((R-1) / rate * 16000)``, which puts the
            first and last row on the first and last sample (LiveTalk).
        resampling: ``"aligned"`` interpolates the convolution features linearly with aligned end
            points; ``"none"`` keeps the native rate (FantasyTalking).
        hidden_states: ``"all"`` concatenates last, 0, 1, ..., n; ``"last"`` keeps only the last;
            ``"layers"`` concatenates 1, ..., n (FlashHead).
        leading_zero_row: Row 0 is zero and the sound begins at row 1 (AvatarForcing).
        short_audio: ``"silence"`` continues sound that is too short with silence; ``"zeros"``
            continues it with zeros after it was standardised (OmniAvatar); ``"stretch"`` spreads
            what there is over all rows, as LiveTalk's reference does, which slows the lips down.
    """

    rate_hz: float
    normalise: Literal["whole", "cut", "padded"] = "cut"
    span: Literal["rows", "intervals"] = "intervals"
    resampling: Literal["aligned", "none"] = "aligned"
    hidden_states: Literal["all", "last", "layers"] = "all"
    leading_zero_row: bool = False
    short_audio: Literal["silence", "zeros", "stretch"] = "silence"

    def __post_init__(self) -> None:
        if self.resampling == "none" and self.short_audio == "stretch":
            raise ConfigError(
                "short audio cannot be stretched without resampling",
                hint='use short_audio="silence" or resampling="aligned"',
            )


@dataclass(frozen=True)
class Wav2Vec2FrontEnd:
    """wav2vec2, which transformers builds.

    Attributes:
        options: How the checkpoint's training turned sound into rows.
        config: Arguments of transformers' ``Wav2Vec2Config``; empty for the base model.
    """

    options: Wav2Vec2Options
    config: Mapping[str, Any]


AudioEncoderConfig = FrontEndConfig | Wav2Vec2FrontEnd
