"""One layer of the causal diffusion transformer."""

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from joyflash_cli.model.attention import (
    AudioAttention,
    CrossAttention,
    KeysValues,
    LeadAttention,
    SelfAttention,
    StaticKeysValues,
)
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.layers import FeedForward, LayerNorm, add_gated, modulate
from joyflash_cli.model.ulysses import SharedPass


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward, modulated per latent frame."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(6, config.dim))
        self.self_norm = LayerNorm(config.dim, config.eps, affine=False)
        self.self_attention = SelfAttention(config)
        if config.has_cross_attention:
            self.cross_norm = (
                LayerNorm(config.dim, config.eps, affine=True)
                if config.cross_attn_norm
                else nn.Identity()
            )
            self.cross_attention: CrossAttention | None = CrossAttention(config)
        else:
            self.cross_attention = None
        projector = config.audio_projector
        self.audio_attention: AudioAttention | None = None
        if projector is not None and projector.own_attention:
            self.audio_norm = LayerNorm(config.dim, config.eps, affine=True)
            self.audio_attention = AudioAttention(config, projector.output_dim)
        self.feed_forward_norm = LayerNorm(config.dim, config.eps, affine=False)
        self.feed_forward = FeedForward(config.dim, config.ffn_dim)

    def forward(
        self,
        x_BLD: Float[Tensor, "B L D"],
        time_BT6D: Float[Tensor, "B T 6 D"],
        *,
        rope: Complex[Tensor, "L2 K2"],
        context: KeysValues | None,
        context_rope: Complex[Tensor, "S2 K2"] | None,
        static: StaticKeysValues | None,
        audio: Float[Tensor, "B T A D2"] | None,
        mask: Bool[Tensor, "L2 S"] | None,
        audio_mask: Bool[Tensor, "T A"] | None = None,
        shared: SharedPass | None = None,
        lead: LeadAttention | None = None,
    ) -> tuple[Float[Tensor, "B L D"], KeysValues]:
        """The sequence after the layer, and the layer's own keys and values."""
        vectors = (self.modulation.float() + time_BT6D.float()).unbind(dim=2)
        shift_self, scale_self, gate_self, shift_ffn, scale_ffn, gate_ffn = vectors
        normed = modulate(self.self_norm(x_BLD), shift_self, scale_self).to(x_BLD.dtype)
        update, keys_values = self.self_attention(
            normed, rope=rope, context=context, context_rope=context_rope, mask=mask,
            shared=shared, lead=lead,
        )  # fmt: skip
        x_BLD = add_gated(x_BLD, update, gate_self)
        if self.cross_attention is not None:
            normed = self.cross_norm(x_BLD).to(x_BLD.dtype)
            shared_audio = audio if self.audio_attention is None else None
            update = self.cross_attention(
                normed, static=static, audio=shared_audio, audio_mask=audio_mask
            )
            x_BLD = x_BLD + update.to(x_BLD.dtype)
        if self.audio_attention is not None:
            update = self.audio_attention(self.audio_norm(x_BLD).to(x_BLD.dtype), audio)
            x_BLD = x_BLD + update.to(x_BLD.dtype)
        normed = modulate(self.feed_forward_norm(x_BLD), shift_ffn, scale_ffn).to(x_BLD.dtype)
        return add_gated(x_BLD, self.feed_forward(normed), gate_ffn), keys_values
