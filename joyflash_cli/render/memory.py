"""How many bytes a run needs, from sizes alone: formulas, no tensors.

Each formula names the tensors that are alive together at the worst moment of a pass. The tests
compare them with the storages that a real pass keeps alive, on several geometries.
"""

from dataclasses import dataclass

from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.urcr import PassKind, attended_frames

MAX_SCORES = 1 << 22
"""Attention scores that the written-out kernel holds at once (``model.kernels``)."""

GELU_ELEMENTS = 1 << 15
"""Numbers that the activation of the feed-forward part computes at once (``model.kernels``)."""

CLIP_TOKENS = 257
"""Tokens of the CLIP picture encoder (16 x 16 patches and one for all)."""

LATENT_COPIES = 4
"""Float32 copies of the window's latents: blocks, joined input, prediction, clean prediction."""

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class PassSize:
    """One pass of the transformer.

    Attributes:
        own_tokens: Tokens that are computed.
        context_tokens: Tokens of the cache that they also attend.
        keeps_keys: Whether the keys and values of all layers are handed out.
    """

    own_tokens: int
    context_tokens: int
    keeps_keys: bool


@dataclass(frozen=True)
class StreamMemory:
    """What sampling needs besides the weights, in bytes.

    Attributes:
        cache: Keys and values of sink and context.
        per_frame: Of those, one latent frame.
        static: Text, picture and face: their states, and keys and values in every layer.
        activations: The largest pass.
    """

    cache: int
    per_frame: int
    static: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.cache + self.static + self.activations


def stream_memory(
    config: TransformerConfig,
    profile: SamplerSettings,
    grid: tuple[int, int],
    *,
    element_bytes: int,
    written_out: bool,
) -> StreamMemory:
    """What a stream needs once its window and its cache are full.

    Args:
        config: Of the transformer.
        profile: Of the sampler.
        grid: Rows and columns of a latent frame.
        element_bytes: Of one number in the transformer's dtype.
        written_out: Whether attention is computed by ``math`` rather than a fused kernel.

    Raises:
        ConfigError: If the latent frame does not fit the patch.
    """
    tokens = config.tokens_per_frame(*grid)
    per_frame = keys_values_bytes(config, tokens, element_bytes)
    cached_frames = profile.sink_frames + profile.context_frames
    passes = (window_pass_size(profile, tokens), clean_pass_size(profile, tokens))
    window_frames = profile.window_frames + int(profile.mci)
    latents = window_frames * grid[0] * grid[1]
    activations = max(
        pass_bytes(config, size, element_bytes=element_bytes, written_out=written_out)
        for size in passes
    )
    return StreamMemory(
        cache=cached_frames * per_frame,
        per_frame=per_frame,
        static=static_bytes(config, element_bytes),
        activations=activations
        + latents * config.out_channels * FLOAT32_BYTES * LATENT_COPIES
        + latents * config.in_channels * element_bytes,
    )


def keys_values_bytes(config: TransformerConfig, num_tokens: int, element_bytes: int) -> int:
    """Keys and values of some tokens in every layer."""
    return 2 * config.num_layers * num_tokens * config.dim * element_bytes


def static_bytes(config: TransformerConfig, element_bytes: int) -> int:
    """States of what does not change along the stream, and their keys and values."""
    states = num_tokens = 0
    if config.text_dim is not None:
        states += config.text_len * config.text_dim
        num_tokens += config.text_len
    if config.image_token_dim is not None:
        states += CLIP_TOKENS * config.image_token_dim
        num_tokens += CLIP_TOKENS
    if config.face_attention is not None:
        num_tokens += config.face_attention.num_tokens
    return states * element_bytes + keys_values_bytes(config, num_tokens, element_bytes)


def window_pass_size(profile: SamplerSettings, tokens_per_frame: int) -> PassSize:
    """The joint pass over a full window behind a full cache."""
    context = _attended(profile, "window", profile.window_frames)
    return PassSize(
        (profile.window_frames + int(profile.mci)) * tokens_per_frame,
        context * tokens_per_frame,
        profile.clean_kv == "last-pass",
    )


def clean_pass_size(profile: SamplerSettings, tokens_per_frame: int) -> PassSize:
    """The pass that makes a finished block's keys and values; nothing where there is none."""
    if profile.clean_kv != "extra-pass":
        return PassSize(0, 0, False)
    context = _attended(profile, "clean", profile.block_frames)
    return PassSize(profile.block_frames * tokens_per_frame, context * tokens_per_frame, True)


def _attended(profile: SamplerSettings, kind: PassKind, num_own: int) -> int:
    """Frames that a pass attends of a full cache."""
    held = {"num_sink": profile.sink_frames, "num_context": profile.context_frames}
    return sum(attended_frames(profile, kind, num_own=num_own, **held))


def pass_bytes(
    config: TransformerConfig, size: PassSize, *, element_bytes: int, written_out: bool
) -> int:
    """What is alive in the last layer of a pass, at the worst of its four moments."""
    own = size.own_tokens * config.dim * element_bytes
    context = size.context_tokens * config.dim * element_bytes
    keys = 2 * (own + context)
    # Rotation computes in float32: the copy, and the product.
    rotation = 8 if element_bytes < FLOAT32_BYTES else 4

    def scores(num_keys: int) -> int:
        if not written_out:
            return 0
        alive = min(size.own_tokens * num_keys * config.num_heads, MAX_SCORES)
        # Scores and probabilities, and the attended pieces before they are joined.
        return 2 * alive * element_bytes + own

    moments = (
        # Input, embedded tokens, normed, query, key, value, rotated own keys | the context's turn.
        7 * own + rotation * size.context_tokens * config.dim,
        # ... the query's turn, with all keys and values joined.
        6 * own + keys + rotation * size.own_tokens * config.dim,
        # ... attention and its result.
        8 * own + keys + scores(size.own_tokens + size.context_tokens),
        # Cross-attention: besides, the layer's input, its own keys and values, and its branches.
        10 * own + scores(config.text_len if config.text_dim is not None else 0),
        # Feed-forward: before and after its activation function, which computes in float32.
        7 * own
        + 2 * size.own_tokens * config.ffn_dim * element_bytes
        + 3 * FLOAT32_BYTES * min(size.own_tokens * config.ffn_dim, GELU_ELEMENTS),
    )
    kept = config.num_layers - 1 if size.keeps_keys else 0
    rotations = (size.own_tokens + size.context_tokens) * config.head_dim * FLOAT32_BYTES
    return max(moments) + 2 * own * kept + rotations


@dataclass(frozen=True)
class CodecMemory:
    """What a codec needs, in bytes.

    Attributes:
        weights: Of its weights on the device.
        state: What a stream remembers.
        work: Beside it, decoding one latent frame.
        encoding: Encoding the picture, before the stream begins.
    """

    weights: int
    state: int
    work: int
    encoding: int

    @property
    def total(self) -> int:
        """While frames are decoded."""
        return self.weights + self.state + self.work


@dataclass(frozen=True)
class CodecCost:
    """Numbers that a codec holds per pixel of a frame; convolutions scale exactly with pixels.

    Attributes:
        state: Remembered along the stream, between two steps.
        work: Alive at the worst moment of a step, beside the state before it.
    """

    state: float
    work: float

    def times(self, factor: float) -> "CodecCost":
        """The cost of a codec with so much wider layers."""
        return CodecCost(self.state * factor, self.work * factor)
