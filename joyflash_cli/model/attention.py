"""Attention: self-attention with context, and cross-attention; ``kernels`` computes them.

Keys leave self-attention *before* rotation, and context keys enter it so. Whoever keeps them (the
sampler's cache) decides later at which positions they are seen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.kernels import AttentionBackend, attend
from joyflash_cli.model.layers import RMSNorm
from joyflash_cli.model.rope import rotate
from joyflash_cli.model.ulysses import SharedPass

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, both ``(B, S, N, K)``."""


def joined(older: KeysValues, newer: KeysValues) -> KeysValues:
    """Those of the same layer, one behind the other."""
    keys, values = (torch.cat(pair, dim=1) for pair in zip(older, newer, strict=True))
    return keys, values


def block_causal_mask(
    num_frames: int,
    block_frames: int,
    tokens_per_frame: int,
    *,
    prefix_frames: int = 0,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "L L"]:
    """Mask in which a token sees every token up to the end of its own block.

    Args:
        num_frames: Latent frames of the sequence, prefix included.
        block_frames: Latent frames of a block.
        tokens_per_frame: Tokens of one latent frame.
        prefix_frames: Frames before the first block; they form a block of their own.
        device: Where to build it.
    """
    frames = torch.arange(num_frames, device=device)
    block = (frames - prefix_frames).div(block_frames, rounding_mode="floor").clamp(min=-1)
    block = block.repeat_interleave(tokens_per_frame)
    return block[:, None] >= block[None, :]


@dataclass(frozen=True)
class LeadAttention:
    """What the tokens at the head of a pass attend beside themselves, in one layer.

    Attributes:
        num_tokens: How many they are.
        context: Of earlier frames.
        context_rope: Rotations of its keys.
    """

    num_tokens: int
    context: KeysValues | None
    context_rope: Complex[Tensor, "S K2"] | None


class SelfAttention(nn.Module):
    """Self-attention over the frames of the pass and an optional context of earlier frames."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.backend: AttentionBackend = "auto"
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.output = nn.Linear(config.dim, config.dim)
        self.query_norm = RMSNorm(config.dim, config.eps)
        self.key_norm = RMSNorm(config.dim, config.eps)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        *,
        rope: Complex[Tensor, "L2 K2"],
        context: KeysValues | None,
        context_rope: Complex[Tensor, "S2 K2"] | None,
        mask: Bool[Tensor, "L2 S"] | None,
        shared: SharedPass | None = None,
        lead: LeadAttention | None = None,
    ) -> tuple[Float[Tensor, "B L D"], KeysValues]:
        """The attended sequence, and its own keys (not rotated) and values.

        The key order is context, then own. In a shared pass L are the rank's tokens, and rope,
        context, keys and values are those of all tokens L2, for the rank's heads.

        The tokens of a lead attend themselves and its context; to the others they are the newest
        of theirs, whose rotations ``context_rope`` holds, too. Keys and values are then the lead's.
        """
        value = self.value(x_BLD)
        dtype = value.dtype  # attention runs in it; the norms give float32
        query, key = self.query_norm(self.query(x_BLD)), self.key_norm(self.key(x_BLD))
        q_BLNK, k_BLNK, v_BLNK = (
            x.unflatten(-1, (self.num_heads, -1)) for x in (query, key, value)
        )
        if shared is not None:
            q_BLNK, k_BLNK, v_BLNK = shared.to_heads(q_BLNK.to(dtype), k_BLNK.to(dtype), v_BLNK)
        queries, keys = rotate(q_BLNK, rope).to(dtype), rotate(k_BLNK, rope).to(dtype)
        kept = k_BLNK.to(dtype), v_BLNK
        if lead is None:
            attended = self._attend(queries, keys, v_BLNK, context, context_rope, mask)
        else:
            num = lead.num_tokens
            kept = kept[0][:, :num].clone(), kept[1][:, :num].clone()
            first = self._attend(
                queries[:, :num], keys[:, :num], v_BLNK[:, :num],
                lead.context, lead.context_rope, None,
            )  # fmt: skip
            before = kept if context is None else joined(context, kept)
            others = self._attend(
                queries[:, num:], keys[:, num:], v_BLNK[:, num:], before, context_rope, mask
            )
            attended = torch.cat((first, others), dim=1)
        if shared is not None:
            attended = shared.to_tokens(attended)
        return self.output(attended.flatten(2)), kept

    def _attend(
        self,
        q_BLNK: Float[Tensor, "B L N K"],
        k_BLNK: Float[Tensor, "B L N K"],
        v_BLNK: Float[Tensor, "B L N K"],
        context: KeysValues | None,
        context_rope: Complex[Tensor, "S K2"] | None,
        mask: Bool[Tensor, "L S2"] | None,
    ) -> Float[Tensor, "B L N K"]:
        """Attention of rotated queries to a context and to rotated keys of their own."""
        if context is not None and context_rope is not None:
            keys, values = (x.to(v_BLNK.dtype) for x in context)
            k_BLNK = _joined(rotate(keys, context_rope), k_BLNK)
            v_BLNK = _joined(values, v_BLNK)
        return attend(q_BLNK, k_BLNK, v_BLNK, mask, backend=self.backend)


def _joined(
    context_BSNK: Float[Tensor, "B S N K"], own_BLNK: Float[Tensor, "B L N K"]
) -> Float[Tensor, "B S2 N K"]:
    """Both, one behind the other, every head in one piece of memory as the kernels want it."""
    parts = [part.transpose(1, 2) for part in (context_BSNK, own_BLNK)]
    return torch.cat(parts, dim=2).transpose(1, 2)


@dataclass(frozen=True)
class StaticKeysValues:
    """Cross-attention keys and values that do not change along the stream, of one layer."""

    text: KeysValues | None = None
    image: KeysValues | None = None
    face: KeysValues | None = None


class CrossAttention(nn.Module):
    """Cross-attention to text, CLIP image, audio and face; the branches share query and output.

    Text and image follow Wan2.1. Audio (FantasyTalking's form) attends only the tokens of its own
    latent frame. Audio and face start at zero: beside text their keys and values do, in a model
    without text the output projection does.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.backend: AttentionBackend = "auto"
        self.num_heads = config.num_heads
        self.query = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.query_norm = RMSNorm(dim, config.eps)
        has_text = config.text_dim is not None
        if has_text:
            self.key = nn.Linear(dim, dim)
            self.value = nn.Linear(dim, dim)
            self.key_norm = RMSNorm(dim, config.eps)
        else:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
        if config.image_token_dim is not None:
            self.image_key = nn.Linear(dim, dim)
            self.image_value = nn.Linear(dim, dim)
            self.image_key_norm = RMSNorm(dim, config.eps)
        if (width := config.attended_audio_dim) is not None:
            self.audio_key = nn.Linear(width, dim, bias=not has_text)
            self.audio_value = nn.Linear(width, dim, bias=not has_text)
            self.audio_key_norm = nn.Identity() if has_text else RMSNorm(dim, config.eps)
            if has_text:
                nn.init.zeros_(self.audio_key.weight)
                nn.init.zeros_(self.audio_value.weight)
        if config.face_attention is not None:
            self.face_key = nn.Linear(dim, dim, bias=False)
            self.face_value = nn.Linear(dim, dim, bias=False)
            nn.init.zeros_(self.face_key.weight)
            nn.init.zeros_(self.face_value.weight)

    def project_static(
        self, text: Tensor | None, image: Tensor | None, face: Tensor | None
    ) -> StaticKeysValues:
        """Keys and values of the embedded tokens ``(B, S, D)`` of each static kind."""
        return StaticKeysValues(
            text=None
            if text is None
            else self._heads(self.key_norm(self.key(text)), self.value(text)),
            image=None
            if image is None
            else self._heads(self.image_key_norm(self.image_key(image)), self.image_value(image)),
            face=None if face is None else self._heads(self.face_key(face), self.face_value(face)),
        )

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        *,
        static: StaticKeysValues,
        audio: Float[Tensor, "B T A D2"] | None,
        audio_mask: Bool[Tensor, "T A"] | None = None,
    ) -> Float[Tensor, "B L D"]:
        """What the tokens take from all conditioning kinds that are present."""
        query = self.query(x_BLD)
        q_BLNK = self.query_norm(query).to(query.dtype).unflatten(-1, (self.num_heads, -1))
        branches = [
            attend(q_BLNK, *keys_values, backend=self.backend)
            for keys_values in (static.text, static.image, static.face)
            if keys_values is not None
        ]
        if audio is not None:
            branches.append(self._attend_audio(q_BLNK, audio, audio_mask))
        if not branches:
            return torch.zeros_like(x_BLD)
        return self.output(sum(branches[1:], branches[0]).flatten(2))

    def _attend_audio(
        self,
        q_BLNK: Float[Tensor, "B L N K"],
        audio: Float[Tensor, "B T A D2"],
        audio_mask: Bool[Tensor, "T A"] | None,
    ) -> Float[Tensor, "B L N K"]:
        """Every latent frame attends its own audio tokens only, and none outside the clip."""
        batch, num_frames = audio.shape[:2]
        tokens = audio.flatten(0, 1)
        keys_values = self._heads(
            self.audio_key_norm(self.audio_key(tokens)), self.audio_value(tokens)
        )
        mask = None if audio_mask is None else audio_mask.repeat(batch, 1)[:, None, None]
        return attend_per_frame(q_BLNK, keys_values, num_frames, mask, backend=self.backend)

    def _heads(self, key: Tensor, value: Tensor) -> KeysValues:
        split = (self.num_heads, -1)
        return key.to(value.dtype).unflatten(-1, split), value.unflatten(-1, split)


class AudioAttention(nn.Module):
    """A cross-attention of its own to the audio tokens of each latent frame (FlashTalk's form)."""

    def __init__(self, config: TransformerConfig, audio_dim: int) -> None:
        super().__init__()
        self.backend: AttentionBackend = "auto"
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(audio_dim, 2 * config.dim)
        self.output = nn.Linear(config.dim, config.dim)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], audio: Float[Tensor, "B T A D2"]
    ) -> Float[Tensor, "B L D"]:
        """What the tokens of every latent frame take from the audio of that frame."""
        query, key_value = self.query(x_BLD), self.key_value(audio.flatten(0, 1))
        q_BLNK, *keys_values = (
            x.unflatten(-1, (self.num_heads, -1)) for x in (query, *key_value.chunk(2, dim=-1))
        )
        keys, values = keys_values
        attended = attend_per_frame(
            q_BLNK, (keys, values), audio.shape[1], None, backend=self.backend
        )
        return self.output(attended.flatten(2))


def attend_per_frame(
    q_BLNK: Float[Tensor, "B L N K"],
    keys_values: KeysValues,
    num_frames: int,
    mask: Bool[Tensor, "B2 1 1 A"] | None,
    *,
    backend: AttentionBackend,
) -> Float[Tensor, "B L N K"]:
    """Attention in which the tokens of a latent frame see the keys of that frame alone.

    Args:
        q_BLNK: Tokens of all frames, one frame behind the other.
        keys_values: ``(B * T, A, N, K)``.
        num_frames: T.
        mask: Keys that are seen, ``(B * T, 1, 1, A)``.
        backend: Kernel.
    """
    per_frame = q_BLNK.unflatten(1, (num_frames, -1)).flatten(0, 1)
    # The fused kernels that can be named take no mask.
    attended = attend(per_frame, *keys_values, mask, backend=backend if mask is None else "auto")
    return attended.unflatten(0, (-1, num_frames)).flatten(1, 2)


def use_backend(module: nn.Module, backend: AttentionBackend) -> None:
    """Make every attention inside ``module`` compute with this kernel."""
    for part in module.modules():
        if isinstance(part, SelfAttention | CrossAttention | AudioAttention):
            part.backend = backend
