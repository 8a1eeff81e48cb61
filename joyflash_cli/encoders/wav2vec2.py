"""wav2vec2 as an audio encoder: its hidden states, one row per video frame.

The popular checkpoints (OmniAvatar, LiveTalk, AvatarForcing) interpolate the convolution features
to the video's frame rate *before* the transformer and keep every hidden state. They differ in
small rules, which are the fields of ``Wav2Vec2Options``. The encoder attends over the whole clip,
so a row depends on all of the sound: a file is encoded as a whole (``encode``), as the checkpoints
were trained. A stream hears a few seconds at a time instead (``span`` and ``encode_span``): 8 s
before a row and 0.28 s after it, unless ``with_context`` says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from joyflash_cli.encoders.convolutions import convolution_features
from joyflash_cli.encoders.protocol import Wav2Vec2Options
from joyflash_cli.errors import AudioError, ConfigError
from joyflash_cli.types import MODEL_SAMPLE_RATE_HZ

STREAM_LEFT_S = 8.0
"""Sound before a row that a stream lets it attend."""

STREAM_RIGHT_S = 0.28
"""Sound after a row that a stream waits for: four features of 20 ms and 200 ms to spare."""

CONFIG_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride", "conv_kernel",
    "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "do_stable_layer_norm", "layer_norm_eps",
)  # fmt: skip
"""Settings of a Hugging Face ``config.json`` that decide what the encoder computes."""


@dataclass(frozen=True)
class Wav2Vec2Stages:
    """Everything between the waveform and the rows, batch axis first.

    Attributes:
        normalised: ``(1, samples)`` input of the convolution stack.
        features: ``(1, n, conv_dim)`` its output, about 50 per second.
        resampled: ``(1, R, conv_dim)`` at the row rate.
        projected: ``(1, R, D)`` after the feature projection.
        hidden_states: n + 1 tensors ``(1, R, D)``; state 0 enters the first layer and the last one
            is the encoder's output.
    """

    normalised: Tensor
    features: Tensor
    resampled: Tensor
    projected: Tensor
    hidden_states: tuple[Tensor, ...]


class Wav2Vec2Encoder:
    """``AudioEncoder`` on transformers' ``Wav2Vec2Model``.

    Args:
        model: A ``Wav2Vec2Model``; put into evaluation mode.
        options: The checkpoint's rules.
        left_s: Sound before a row that ``encode_span`` lets it attend.
        right_s: Sound after it.

    Raises:
        ConfigError: If the row rate is not positive or, without resampling, not the native one.
    """

    def __init__(
        self,
        model: Any,
        options: Wav2Vec2Options,
        *,
        left_s: float = STREAM_LEFT_S,
        right_s: float = STREAM_RIGHT_S,
    ) -> None:
        self._model = model.eval()
        self.options = options
        self._context_s = (left_s, right_s)
        config = model.config
        self._stride = math.prod(config.conv_stride)
        self._receptive_field = _receptive_field(config.conv_kernel, config.conv_stride)
        native_hz = MODEL_SAMPLE_RATE_HZ / self._stride
        if options.rate_hz <= 0 or (options.resampling == "none" and options.rate_hz != native_hz):
            raise ConfigError(
                f"the wav2vec2 encoder cannot give {options.rate_hz:g} rows per second",
                hint=f'the native rate is {native_hz:g}; other rates need resampling="aligned"',
            )
        layers = config.num_hidden_layers
        num_states = {"all": layers + 2, "layers": layers, "last": 1}[options.hidden_states]
        self.feature_dim: int = num_states * config.hidden_size
        self.feature_rate_hz: float = options.rate_hz

    def with_context(self, *, left_s: float, right_s: float) -> "Wav2Vec2Encoder":
        """The same encoder whose ``encode_span`` hears that much around its rows."""
        return Wav2Vec2Encoder(self._model, self.options, left_s=left_s, right_s=right_s)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights; rows are always fp32."""
        return next(self._model.parameters()).dtype

    def encode(
        self, waveform: Float[Tensor, "*samples"], num_rows: int
    ) -> Float[Tensor, "num_rows D"]:
        """Feature rows of mono 16 kHz sound, fp32; row r is heard at ``r / feature_rate_hz``.

        Args:
            waveform: Samples, ``(n,)``; longer sound is cut, shorter sound continued with silence.
            num_rows: Rows wanted, the leading zero row included.

        Raises:
            AudioError: If the waveform is empty or has more than one axis.
            ConfigError: If fewer rows are asked for than the rules can give.
        """
        leading = int(self.options.leading_zero_row)
        if num_rows <= leading:
            return torch.zeros(num_rows, self.feature_dim, device=self.device)
        stages = self.encode_stages(waveform, num_rows - leading)
        return functional.pad(self._rows_of(stages.hidden_states), (0, 0, leading, 0))

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """Samples that a stream's rows hear: never before the sound begins, as in training."""
        first_row, last_row = self._stream_rows(start_row, stop_row)
        first = self._sample_of_row(first_row)
        return first, first + self._num_samples(last_row - first_row)

    @torch.no_grad()
    def encode_span(
        self,
        sound: Float[Tensor, " samples"],
        start_row: int,
        stop_row: int,
        *,
        clip_rows: int | None = None,
    ) -> Float[Tensor, "rows D"]:
        """Rows of a stretch of sound, as if it were a clip of its own.

        The encoder attends and standardises over all it hears, so these are not the rows of the
        whole file (docs/profiles.md has figures). They are taken at their true times; aligning end
        points, as for a file, puts a row up to 12 ms beside it, which would be a jump from stretch
        to stretch. Rows before the sound begins are zero.

        Args:
            sound: The samples of ``span``, fewer where the sound ends.
            start_row: First row.
            stop_row: Row after the last.
            clip_rows: Rows of the whole clip, where they are known: then the end points that are
                aligned are the clip's own, and every row is taken where ``encode`` takes it.
        """
        rows = torch.zeros(stop_row - start_row, self.feature_dim, device=self.device)
        leading = int(self.options.leading_zero_row)
        begin = max(start_row, leading)
        if stop_row <= begin or not len(sound):
            return rows
        first_row, last_row = self._stream_rows(start_row, stop_row)
        prepared = self._prepare(sound.to(self.device, torch.float32), last_row - first_row)
        features = self._convolved(prepared[None].to(self.dtype))
        moments = torch.arange(last_row - first_row, device=self.device)
        if self.options.resampling == "aligned":
            samples_per_row = self._sample_of_row(1)
            # Feature i hears the samples around stride * i + half of the receptive field. A file
            # of "rows" has its rows, on average, in the middle of the samples that are theirs.
            middle = samples_per_row / 2 if self.options.span == "rows" else 0.0
            centres = moments * samples_per_row + middle
            moments = (centres - self._receptive_field / 2) / self._stride
            if clip_rows is not None:
                moments = self._clip_moments(first_row, last_row, clip_rows - leading)
        projected = self._model.feature_projection(_at_moments(features, moments))[0]
        heard = self._rows_of(self._states(projected))
        rows[begin - start_row :] = heard[begin - leading - first_row :][: stop_row - begin]
        return rows

    def _clip_moments(self, first_row: int, last_row: int, clip_rows: int) -> Tensor:
        """Features, counted from that of ``first_row``, at which a clip's aligned rows lie."""
        num_features = (self._num_samples(clip_rows) - self._receptive_field) // self._stride + 1
        rows = torch.arange(first_row, last_row, dtype=torch.float64)
        whole = rows * (num_features - 1) / max(clip_rows - 1, 1)
        return (whole - self._sample_of_row(first_row) / self._stride).float().to(self.device)

    def _stream_rows(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """Rows to encode for these, counted from the first row of sound."""
        leading = int(self.options.leading_zero_row)
        left, right = (math.ceil(s * self.feature_rate_hz) for s in self._context_s)
        first_row = max(start_row - leading - left, 0)
        # Convolutions begin where those of the whole sound have a feature, too.
        grid = self._stride // math.gcd(self._stride, self._sample_of_row(1))
        if left >= grid:
            first_row += -first_row % grid
        return first_row, max(stop_row - leading, first_row + 1) + right

    def _sample_of_row(self, row: int) -> int:
        """Where a row of sound begins."""
        if self.options.resampling == "none":
            return row * self._stride
        if self.options.span == "rows":
            return row * int(MODEL_SAMPLE_RATE_HZ / self.options.rate_hz)
        return round(row * MODEL_SAMPLE_RATE_HZ / self.options.rate_hz)

    @torch.no_grad()
    def encode_stages(self, waveform: Float[Tensor, "*samples"], num_rows: int) -> Wav2Vec2Stages:
        """All steps from the waveform to the hidden states, without the leading zero row.

        Args:
            waveform: Mono samples at 16 kHz.
            num_rows: Rows R wanted from the sound.
        """
        _check_waveform(waveform)
        if num_rows < 1:
            raise ConfigError(f"{num_rows} audio rows were asked for; at least one is needed")
        prepared = self._prepare(waveform.to(self.device, torch.float32), num_rows)
        normalised = prepared[None].to(self.dtype)
        features = self._convolved(normalised)
        resampled = features
        if self.options.resampling == "aligned":
            resampled = functional.interpolate(
                features.transpose(1, 2), size=num_rows, mode="linear", align_corners=True
            ).transpose(1, 2)
        projected = self._model.feature_projection(resampled)[0]
        return Wav2Vec2Stages(normalised, features, resampled, projected, self._states(projected))

    def _prepare(self, waveform: Tensor, num_rows: int) -> Tensor:
        """Standardised samples, exactly as many as the rows describe (fewer when stretching).

        Silence is appended *after* the statistics are taken, so that padding a clip to whole
        blocks does not change how loud its speech is.
        """
        num_samples = self._num_samples(num_rows)
        kept = waveform[:num_samples]
        if self.options.normalise == "padded":
            kept = functional.pad(kept, (0, num_samples - len(kept)))
        measured = waveform if self.options.normalise == "whole" else kept
        variance, mean = torch.var_mean(measured, correction=0)
        spread = torch.sqrt(variance + 1e-7)
        normalised = (kept - mean) / spread
        short = self.options.short_audio
        wanted = self._receptive_field if short == "stretch" else num_samples
        missing = wanted - len(normalised)
        if missing > 0:
            # A zero sample of the given sound becomes -mean / spread.
            filling = torch.zeros_like(mean) if short == "zeros" else -mean / spread
            normalised = torch.cat([normalised, filling.expand(missing)])
        return normalised

    def _num_samples(self, num_rows: int) -> int:
        """Samples that this many rows describe; at least what one convolution feature sees."""
        if self.options.resampling == "none":
            num_samples = self._stride * (num_rows - 1) + self._receptive_field
        elif self.options.span == "rows":
            num_samples = num_rows * int(MODEL_SAMPLE_RATE_HZ / self.options.rate_hz)
        else:
            # The reference's own order of operations: another one truncates differently.
            num_samples = int((num_rows - 1) / self.options.rate_hz * MODEL_SAMPLE_RATE_HZ)
        return max(num_samples, self._receptive_field)

    def _convolved(self, normalised: Tensor) -> Tensor:
        """Features ``(1, n, conv_dim)`` at the native rate."""
        return convolution_features(self._model.feature_extractor, normalised).transpose(1, 2)

    def _rows_of(self, states: tuple[Tensor, ...]) -> Float[Tensor, "R D"]:
        """One row per tick of the hidden states that the checkpoint hears."""
        kept = {"all": (states[-1], *states), "layers": states[1:], "last": states[-1:]}
        return torch.cat(kept[self.options.hidden_states], dim=-1)[0].float()

    def _states(self, projected: Tensor) -> tuple[Tensor, ...]:
        """Inputs of all layers and the encoder's output.

        Read off by hooks of our own: what ``output_hidden_states`` returns when the pieces are
        called one by one differs between releases of transformers.
        """
        inputs: list[Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
            for layer in self._model.encoder.layers
        ]
        try:
            last = self._model.encoder(projected).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        return (*inputs, last)


def _at_moments(features: Float[Tensor, "B n C"], moments: Tensor) -> Float[Tensor, "B R C"]:
    """Features at fractional indices, linearly between neighbours, the ends continued."""
    moments = moments.clamp(0, features.shape[1] - 1)
    below = moments.floor().long()
    above = (below + 1).clamp_max(features.shape[1] - 1)
    share = (moments - below).to(features.dtype)[None, :, None]
    return features[:, below] * (1 - share) + features[:, above] * share


def _receptive_field(kernels: Any, strides: Any) -> int:
    """Samples that one convolution feature sees."""
    size, step = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        size += (kernel - 1) * step
        step *= stride
    return size


def _check_waveform(waveform: Tensor) -> None:
    """Refuse sound that is no mono signal."""
    if waveform.ndim != 1:
        raise AudioError(
            f"the encoder needs mono samples, not an array of shape {tuple(waveform.shape)}",
            hint="average the channels first",
        )
    if waveform.numel() == 0:
        raise AudioError("the audio is empty", hint="give a file with sound", code="E-AUDIO-EMPTY")


def is_training_only(key: str) -> bool:
    """Whether a weight has no part in encoding: the CTC head, the mask vector, the quantiser."""
    name = key.removeprefix("wav2vec2.")
    return name == "masked_spec_embed" or name.startswith(
        ("lm_head.", "quantizer.", "project_q.", "project_hid.")
    )


def wav2vec2_module(config: Mapping[str, Any]) -> Any:
    """The model of transformers with exactly the weights that encoding needs, values not set.

    Args:
        config: Arguments of ``Wav2Vec2Config``; empty for the base model.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    no_masking = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    return Wav2Vec2Model(Wav2Vec2Config(**{**config, **no_masking}))


def current_name(key: str) -> str:
    """A weight's name in today's models: older files name the weight norm's parts otherwise."""
    parts = {"conv.weight_g": "original0", "conv.weight_v": "original1"}
    name = key.removeprefix("wav2vec2.")
    for old, new in parts.items():
        name = name.replace(
            f"pos_conv_embed.{old}", f"pos_conv_embed.conv.parametrizations.weight.{new}"
        )
    return name
