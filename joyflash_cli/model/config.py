"""Sizes and parts of the transformer; models of all sizes differ in these numbers alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from joyflash_cli import config as strict
from joyflash_cli.errors import ConfigError

MAX_WIDTH = 1 << 18
"""Far above any width in use; with ``MAX_LAYERS`` it keeps a wrong description buildable."""

MAX_LAYERS = 512
MAX_TOKENS = 1 << 16


@dataclass(frozen=True)
class AudioPackConfig:
    """Additive audio adapter (OmniAvatar, LiveTalk, AvatarForcing).

    The rows of one latent frame are flattened, projected to ``hidden_dim`` and normalised; one
    projection per adapted layer adds the result to all tokens of the frame.

    Attributes:
        audio_dim: Width of one audio row.
        rows_per_latent: Audio rows that one latent frame owns.
        hidden_dim: Width of the packed audio token.
    """

    audio_dim: int = 10752
    rows_per_latent: int = 4
    hidden_dim: int = 32

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        width = (1, MAX_WIDTH)
        limits = {"audio_dim": width, "rows_per_latent": (1, MAX_TOKENS), "hidden_dim": width}
        strict.check_ranges(self, limits)


@dataclass(frozen=True)
class AudioAttentionConfig:
    """Audio cross-attention per latent frame in every layer (the paper; FantasyTalking's form).

    Attributes:
        audio_dim: Width of one audio token.
        tokens_per_latent: Audio tokens that one latent frame attends.
        projection_dim: Width after the audio projector; keys and values are made from it.
    """

    audio_dim: int
    tokens_per_latent: int
    projection_dim: int = 2048

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        width = (1, MAX_WIDTH)
        limits = {"audio_dim": width, "tokens_per_latent": (1, MAX_TOKENS), "projection_dim": width}
        strict.check_ranges(self, limits)


@dataclass(frozen=True)
class AudioProjectorConfig:
    """Windows of audio rows to attended tokens (FlashHead, LeapTalk, FlashTalk).

    The first latent frame of a pass hears a window of rows, every later one three rows more. Each
    frame's rows, flattened in time order, become the tokens that the frame attends.

    Attributes:
        audio_dim: Width of one row: the hidden states of all layers side by side.
        window_rows: Rows that the first latent frame hears.
        hidden_dim: Width inside the projector.
        num_tokens: Tokens of one latent frame.
        output_dim: Width of a token.
        own_attention: Whether a second cross-attention, behind that to text, attends the tokens
            (FlashTalk); else the layers' only cross-attention does.
    """

    audio_dim: int
    window_rows: int = 5
    hidden_dim: int = 512
    num_tokens: int = 32
    output_dim: int = 1536
    own_attention: bool = False

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        width, tokens = (1, MAX_WIDTH), (1, MAX_TOKENS)
        strict.check_ranges(
            self,
            {
                **dict.fromkeys(("audio_dim", "hidden_dim", "output_dim"), width),
                **dict.fromkeys(("window_rows", "num_tokens"), tokens),
            },
        )
        if self.window_rows % 2 == 0:
            raise ConfigError(f"window_rows is {self.window_rows}; an odd number is needed")

    @property
    def rows_per_latent(self) -> int:
        """Rows that every latent frame but the first hears."""
        return self.window_rows + 3


@dataclass(frozen=True)
class FaceAttentionConfig:
    """Decoupled cross-attention to tokens made from a face embedding (§3.2, ArcFace).

    Attributes:
        face_dim: Width of the face embedding.
        num_tokens: Tokens made from it; the paper gives no value.
    """

    face_dim: int = 512
    num_tokens: int = 4

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        strict.check_ranges(self, {"face_dim": (1, MAX_WIDTH), "num_tokens": (1, MAX_TOKENS)})


_WIDTHS = (
    "dim", "num_heads", "ffn_dim", "in_channels", "out_channels", "freq_dim", "text_dim",
    "image_token_dim",
)  # fmt: skip


@dataclass(frozen=True)
class TransformerConfig:
    """Everything that decides the transformer's parameters.

    Attributes:
        dim: Width of a token.
        num_layers: Transformer layers.
        num_heads: Attention heads; ``dim`` must be divisible by it.
        ffn_dim: Hidden width of the feed-forward part.
        in_channels: Latent channels plus the image conditioning channels.
        out_channels: Latent channels.
        freq_dim: Width of the sinusoidal timestep embedding.
        patch_size: Latent frames, rows and columns of one token; one frame only.
        text_dim: Width of the text encoder's states, ``None`` for a model without text.
        text_len: Text is zero-padded to this many tokens, and the padding is attended.
        image_token_dim: Width of CLIP states (Wan I2V), ``None`` without that branch.
        audio_pack: Additive audio adapter, ``None`` without.
        audio_attention: Audio cross-attention, ``None`` without.
        audio_modulation: Whether the audio of a latent frame also enters its timestep embedding;
            needs ``audio_attention`` for the sizes.
        audio_projector: Windows of audio rows to attended tokens, ``None`` without; in place of
            the two before.
        face_attention: Face cross-attention, ``None`` without.
        cross_attn_norm: Whether the norm before cross-attention exists (it is affine).
        eps: Of all layer norms and RMS norms.
        prediction: What the head gives: the flow (noise minus clean) or the clean latent.
        position_embedding: Tokens per frame of a learned position table, ``None`` without.
    """

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    in_channels: int
    out_channels: int = 16
    freq_dim: int = 256
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int | None = None
    text_len: int = 512
    image_token_dim: int | None = None
    audio_pack: AudioPackConfig | None = None
    audio_attention: AudioAttentionConfig | None = None
    audio_modulation: bool = False
    audio_projector: AudioProjectorConfig | None = None
    face_attention: FaceAttentionConfig | None = None
    cross_attn_norm: bool = True
    eps: float = 1e-6
    prediction: Literal["flow", "clean"] = "flow"
    position_embedding: int | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be built."""
        strict.check_ranges(
            self,
            {
                **dict.fromkeys(_WIDTHS, (1, MAX_WIDTH)),
                **dict.fromkeys(("text_len", "position_embedding"), (1, MAX_TOKENS)),
                "num_layers": (1, MAX_LAYERS),
                "patch_size": (1, 64),
                "eps": (0.0, 1.0),
            },
        )
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ConfigError(
                f"dim {self.dim} cannot be split into {self.num_heads} heads of even width"
            )
        if self.freq_dim % 2:
            raise ConfigError(f"freq_dim is {self.freq_dim}; an even number is needed")
        if self.patch_size[0] != 1:
            raise ConfigError(
                f"patch_size is {self.patch_size}; the first number must be 1, "
                "because every latent frame has its own timestep"
            )
        if self.in_channels < self.out_channels:
            raise ConfigError(
                f"in_channels {self.in_channels} is less than out_channels {self.out_channels}"
            )
        if self.image_token_dim is not None and self.text_dim is None:
            raise ConfigError("image_token_dim needs text_dim: the two branches share their query")
        if self.audio_modulation and self.audio_attention is None:
            raise ConfigError("audio_modulation needs audio_attention, which gives its sizes")
        kinds = (self.audio_pack, self.audio_attention, self.audio_projector)
        if self.audio_projector is not None and kinds.count(None) < 2:
            raise ConfigError("audio_projector excludes audio_pack and audio_attention")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads

    @property
    def patch_area(self) -> int:
        """Latent positions of one token."""
        return self.patch_size[1] * self.patch_size[2]

    @property
    def image_channels(self) -> int:
        """Channels of the image conditioning."""
        return self.in_channels - self.out_channels

    @property
    def audio_pack_layers(self) -> range:
        """Layers whose input receives packed audio: 2 to L//2, both included, from 0."""
        return range(2, self.num_layers // 2 + 1) if self.audio_pack is not None else range(0)

    @property
    def has_cross_attention(self) -> bool:
        """Whether any conditioning is attended by the cross-attention that all kinds share."""
        parts = (self.text_dim, self.attended_audio_dim, self.face_attention)
        return any(part is not None for part in parts)

    @property
    def attended_audio_dim(self) -> int | None:
        """Width of the audio tokens in the shared cross-attention, ``None`` without."""
        if self.audio_attention is not None:
            return self.audio_attention.projection_dim
        projector = self.audio_projector
        return None if projector is None or projector.own_attention else projector.output_dim

    @property
    def hears_audio(self) -> bool:
        """Whether sound enters in any way."""
        parts = (self.audio_pack, self.audio_attention, self.audio_projector)
        return any(part is not None for part in parts)

    def tokens_per_frame(self, height: int, width: int) -> int:
        """Tokens of one latent frame of this size.

        Raises:
            ConfigError: If the patch does not divide the latent frame.
        """
        rows, columns = self.patch_size[1:]
        if height % rows or width % columns:
            raise ConfigError(
                f"A latent frame of {height} x {width} is not divisible by the patch "
                f"{rows} x {columns}",
                hint="choose a picture size that is a multiple of 16",
            )
        return (height // rows) * (width // columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return strict.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TransformerConfig":
        """The configuration of ``to_dict``; unknown keys raise ``ConfigError``."""
        return strict.from_dict(cls, values)


TINY = TransformerConfig(
    dim=256,
    num_layers=6,
    num_heads=4,
    ffn_dim=768,
    in_channels=25,
    out_channels=12,
    audio_attention=AudioAttentionConfig(audio_dim=166, tokens_per_latent=8, projection_dim=256),
    audio_modulation=True,
    prediction="clean",
    position_embedding=64,
)
"""The embedded model: 128 x 128 pixels, no text, audio by cross-attention and modulation."""
