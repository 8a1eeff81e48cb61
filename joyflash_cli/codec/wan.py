"""The Wan 2.1 video VAE as a streaming codec.

diffusers' ``AutoencoderKLWan`` decodes one latent frame at a time already, but it keeps the
feature cache of its causal convolutions on the module and clears it around every call, so two
calls on 3 + 4 latents give 9 + 13 frames instead of 25. Here the cache is the caller's: a state
value goes in, a new one comes out, and any number of streams can share the module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError
from joyflash_cli.types import FRAMES_PER_LATENT


@dataclass(frozen=True)
class WanDecodingState:
    """What the causal convolutions remember of a stream.

    Attributes:
        cache: One entry per causal convolution of the decoder, in the order they run: ``None``
            before the first latent, later a tensor (or diffusers' marker for "no history yet").
        num_latents: Latent frames decoded so far.
    """

    cache: tuple[Any, ...]
    num_latents: int = 0


class WanCodec:
    """``Codec`` on the Wan 2.1 VAE (16 channels, stride 8 in space and 4 in time).

    Latents are normalised by the 16 channel means and deviations of the VAE's configuration, as
    the transformer sees them; diffusers' own ``encode`` and ``decode`` work on raw latents.

    Args:
        vae: A diffusers ``AutoencoderKLWan``; put into evaluation mode.

    Raises:
        ConfigError: If the VAE is of another family (Wan 2.2 patches its pixels).
    """

    def __init__(self, vae: Any) -> None:
        if vae.config.patch_size is not None or vae.config.is_residual:
            raise ConfigError(
                f"this VAE patches its pixels by {vae.config.patch_size}, as Wan 2.2 does; "
                "only Wan 2.1 VAEs are supported",
                hint="use the VAE of a Wan 2.1 checkpoint",
            )
        self._vae = vae.eval()
        # diffusers tells the number of cached convolutions only through these private fields,
        # which clear_cache() fills; tests/codec/test_wan.py pins them.
        vae.clear_cache()
        self._num_decoder_convs: int = vae._conv_num
        self._num_encoder_convs: int = vae._enc_conv_num
        self.latent_channels: int = vae.config.z_dim
        self.spatial_stride = 2 ** (len(vae.config.dim_mult) - 1)
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)

    @property
    def device(self) -> torch.device:
        """Where the VAE's weights are."""
        return self._vae.post_quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the VAE's weights; results are always fp32."""
        return self._vae.post_quant_conv.weight.dtype

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Normalised latent of the reference picture, encoded as a clip of one frame.

        Args:
            reference: Picture in -1..1; height and width multiples of ``spatial_stride``.

        Raises:
            ConfigError: If the size does not fit the stride.
        """
        return self.encode(reference[:, None], reference)[:, 0]

    def padded_clip_latents(
        self, reference: Float[Tensor, "B 3 H W"], num_latents: int = 21
    ) -> Float[Tensor, "B T C h w"]:
        """Latents of the picture followed by grey frames, the "wan-i2v" condition.

        The VAE is causal and the frames after the first are all zero, so these latents settle;
        a longer stream repeats the last one (decision D9; Wan 2.1 image-to-video).

        Args:
            reference: Picture in -1..1.
            num_latents: Latent frames of the padded clip; 21 are the 81 frames of training.
        """
        return self._encode_clip(_padded_chunks(reference, num_latents))

    def encode(
        self,
        frames: Float[Tensor, "B F 3 H W"],
        reference: Float[Tensor, "B 3 H W"],
    ) -> Float[Tensor, "B T C h w"]:
        """Normalised latents (the posterior's mode) of a whole clip, fp32.

        Args:
            frames: ``F = 4T-3`` frames in -1..1; height and width multiples of the stride.
            reference: Not used: the first latent is the first frame alone.

        Raises:
            ConfigError: If the frame count or the size does not fit the strides.
        """
        num_frames = frames.shape[1]
        if num_frames % FRAMES_PER_LATENT != 1:
            raise ConfigError(
                f"a clip of {num_frames} frames cannot be encoded: the count must be 4T-3",
                hint=f"cut the clip to {max(1, num_frames - (num_frames - 1) % 4)} frames",
            )
        starts = [0, *range(1, num_frames, FRAMES_PER_LATENT), num_frames]
        return self._encode_clip(
            frames[:, start:stop] for start, stop in zip(starts, starts[1:], strict=False)
        )

    @torch.no_grad()
    def _encode_clip(self, chunks: Any) -> Tensor:
        """Latents of consecutive chunks of 1, 4, 4, ... frames ``(B, F, 3, H, W)``."""
        cache: list[Any] = [None] * self._num_encoder_convs
        moments = []
        for chunk in chunks:
            if any(size % self.spatial_stride for size in chunk.shape[-2:]):
                raise ConfigError(
                    f"frames of {chunk.shape[-2]} x {chunk.shape[-1]} pixels cannot be encoded: "
                    f"both sides must be multiples of {self.spatial_stride}",
                    hint="crop or scale the picture first",
                )
            pixels = chunk.transpose(1, 2).to(self.device, self.dtype)
            features = self._vae.encoder(pixels, feat_cache=cache, feat_idx=[0])
            moments.append(self._vae.quant_conv(features))
        raw = torch.cat(moments, dim=2).float()[:, : self.latent_channels]
        mean, std = self._mean.to(raw.device), self._std.to(raw.device)
        return ((raw - mean) / std).transpose(1, 2)

    def start_decoding(
        self, reference: Float[Tensor, "B 3 H W"] | None = None, *, seed: int | None = None
    ) -> WanDecodingState:
        """A fresh state; the reference picture is not needed, for all is in the latents."""
        return WanDecodingState(cache=(None,) * self._num_decoder_convs)

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: WanDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], WanDecodingState]:
        """Frames of the next latents, fp32 clamped to -1..1, and the state after them.

        Args:
            latents: Normalised latents, any T >= 1.
            state: From ``start_decoding`` or the previous call; not changed.

        Returns:
            ``4T`` frames (``4T-3`` if the stream begins here). Latent frames pass the network
            one by one, so that any chunking of a stream gives the same bits.
        """
        frames, state = self.decode_unclamped(latents, state)
        return frames.clamp_(-1.0, 1.0), state

    @torch.no_grad()
    def decode_unclamped(
        self, latents: Float[Tensor, "B T C h w"], state: WanDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], WanDecodingState]:
        """As ``decode``, but values outside of -1..1 stay: means of tiles are taken of them."""
        cache = list(state.cache)
        num_latents = state.num_latents
        mean, std = self._mean.to(self.device), self._std.to(self.device)
        frames = []
        for frame in latents.split(1, dim=1):
            raw = frame.transpose(1, 2).to(self.device, torch.float32) * std + mean
            # One frame at a time here too: a convolution may round differently for more frames.
            features = self._vae.post_quant_conv(raw.to(self.dtype).contiguous())
            pixels = self._vae.decoder(
                features, feat_cache=cache, feat_idx=[0], first_chunk=num_latents == 0
            )
            frames.append(pixels.float().transpose(1, 2))
            num_latents += 1
        return torch.cat(frames, dim=1), WanDecodingState(tuple(cache), num_latents)


def _padded_chunks(reference: Tensor, num_latents: int) -> Any:
    """The picture, then ``num_latents - 1`` chunks of four zero frames."""
    picture = reference[:, None]
    yield picture
    zeros = torch.zeros_like(picture).expand(-1, FRAMES_PER_LATENT, -1, -1, -1)
    for _ in range(num_latents - 1):
        yield zeros


def wan_vae_module(config: Mapping[str, Any]) -> Any:
    """The VAE of diffusers, its weights not set.

    Args:
        config: Arguments of ``AutoencoderKLWan``; empty for the published VAE.
    """
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(**config)
