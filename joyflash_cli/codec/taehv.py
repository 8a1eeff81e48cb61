"""A tiny decoder for Wan 2.1 latents: TAEHV's layout, streamed exactly.

TAEHV (MIT licence) is a small network that imitates the decoder of a large video VAE: 2-D
convolutions, and layers that also see their own input one time step earlier. That earlier input is
all the memory it has, so it streams without any approximation; here it is the caller's value, as
for every codec. Beside a large VAE it decodes only: the picture is still encoded by what the
transformer was trained with.

Models that were trained with both halves (LeapTalk's default) encode with it, too. Where the large
VAE groups frames as 1, 4, 4, ..., its encoder groups them as 4, 4, ...: a clip is filled up at its
end with copies of its last frame. Decoding drops the first three frames, so 4T-3 frames are again
4T-3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.codec.protocol import DelegatingCodec, Encoder
from joyflash_cli.errors import CheckpointError, UsageError
from joyflash_cli.types import FRAMES_PER_LATENT

NUM_REMEMBERING = 3
"""Remembering layers of each stage."""

ENCODER_PREFIX = "encoder."

POOLS = (2, 2, 1)
"""Frames that each stage of the encoder makes one of."""


@dataclass(frozen=True)
class TaehvConfig:
    """Sizes of the decoder; the defaults are the published ones for Wan 2.1.

    Attributes:
        latent_channels: Channels of a latent.
        widths: Channels of the three stages and of the end.
        time_growth: Frames that each stage makes out of one.
    """

    latent_channels: int = 16
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    time_growth: tuple[int, int, int] = (1, 2, 2)

    @property
    def frames_per_latent(self) -> int:
        """Frames that one latent decodes to."""
        first, second, third = self.time_growth
        return first * second * third


@dataclass(frozen=True)
class TaehvDecodingState:
    """What the decoder remembers of a stream.

    Attributes:
        memories: Input of each remembering layer at the newest time step, in the order they run;
            empty before the first latent, when all of them are zero.
        num_latents: Latent frames decoded so far.
    """

    memories: tuple[Tensor, ...] = ()
    num_latents: int = 0


class SoftClamp(nn.Module):
    """Bends values beyond about 3 back towards it; latents of a good sampler hardly notice."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` inside -3..3."""
        return torch.tanh(x / 3) * 3


class RememberingLayer(nn.Module):
    """A residual layer over its input and its input one time step earlier."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
        )

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """``x`` and ``earlier`` are ``(B * F, D, H, W)``."""
        return functional.relu(self.conv(torch.cat((x, earlier), dim=1)) + x)


class TimeGrowth(nn.Module):
    """Every time step to several, by a 1 x 1 convolution whose channels are then split."""

    def __init__(self, dim: int, growth: int) -> None:
        super().__init__()
        self.growth = growth
        self.conv = nn.Conv2d(dim, dim * growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B * F, D, H, W)`` to ``(B * F * growth, D, H, W)``, in time order."""
        return self.conv(x).unflatten(1, (self.growth, -1)).flatten(0, 1)


class TaehvDecoder(nn.Module):
    """Latents to frames; the names of its weights are those of the published files."""

    def __init__(self, config: TaehvConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        layers: list[nn.Module] = [
            SoftClamp(),
            nn.Conv2d(config.latent_channels, widths[0], 3, padding=1),
            nn.ReLU(),
        ]
        for dim, next_dim, growth in zip(widths, widths[1:], config.time_growth, strict=False):
            layers += [RememberingLayer(dim) for _ in range(NUM_REMEMBERING)]
            layers += [
                nn.Upsample(scale_factor=2),
                TimeGrowth(dim, growth),
                nn.Conv2d(dim, next_dim, 3, padding=1, bias=False),
            ]
        layers += [nn.ReLU(), nn.Conv2d(widths[-1], 3, 3, padding=1)]
        self.decoder = nn.ModuleList(layers)

    @torch.no_grad()
    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: TaehvDecodingState
    ) -> tuple[Float[Tensor, "B F 3 H W"], TaehvDecodingState]:
        """Frames of the next latents, fp32 in -1..1, and the state after them.

        Args:
            latents: Normalised latents, any T >= 1.
            state: A new one, or from the previous call; not changed.

        Returns:
            Four frames per latent, one for the very first: the three before it would be made of
            empty memory, and the large VAE has none there either. Latents pass one by one, so that
            any chunking of a stream gives the same bits.
        """
        weight = next(self.parameters())
        chunks = []
        for latent in latents.unbind(1):
            frames, memories = self._decode_latent(
                latent.to(weight.device, weight.dtype), state.memories
            )
            first = self.config.frames_per_latent - 1 if state.num_latents == 0 else 0
            chunks.append(frames[:, first:].float().clamp(0, 1) * 2 - 1)
            state = TaehvDecodingState(memories, state.num_latents + 1)
        return torch.cat(chunks, dim=1), state

    def _decode_latent(
        self, latent: Float[Tensor, "B C h w"], memories: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "B F 3 H W"], tuple[Tensor, ...]]:
        """Frames in 0..1 (about), and what the remembering layers saw last."""
        batch = len(latent)
        new_memories: list[Tensor] = []
        x = latent
        for layer in self.decoder:
            if isinstance(layer, RememberingLayer):
                steps = x.unflatten(0, (batch, -1))
                before = memories[len(new_memories)] if memories else torch.zeros_like(steps[:, 0])
                # A copy: a view would keep all time steps of the layer in memory.
                new_memories.append(steps[:, -1].clone())
                earlier = torch.cat((before[:, None], steps[:, :-1]), dim=1)
                x = layer(x, earlier.flatten(0, 1))
            else:
                x = layer(x)
        return x.unflatten(0, (batch, -1)), tuple(new_memories)


class TimePool(nn.Module):
    """Consecutive frames to one, by a 1 x 1 convolution over the channels of all of them."""

    def __init__(self, dim: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(dim * pool, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(F, D, H, W)`` to ``(F / pool, D, H, W)``."""
        return self.conv(x.unflatten(0, (-1, self.pool)).flatten(1, 2))


class TaehvEncoder(nn.Module):
    """Frames to latents; the names of its weights are those of the published files."""

    spatial_stride = 2 ** len(POOLS)

    def __init__(self, dim: int, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        layers: list[nn.Module] = [nn.Conv2d(3, dim, 3, padding=1), nn.ReLU()]
        for pool in POOLS:
            layers += [TimePool(dim, pool), nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)]
            layers += [RememberingLayer(dim) for _ in range(NUM_REMEMBERING)]
        layers.append(nn.Conv2d(dim, latent_channels, 3, padding=1))
        self.encoder = nn.ModuleList(layers)

    def reference_latents(self, reference: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Latent of the reference picture."""
        return self.encode(reference[:, None], reference)[:, 0]

    def encode(
        self, frames: Float[Tensor, "B F 3 H W"], reference: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B T C h w"]:
        """Normalised latents of whole clips, fp32; the picture is not needed."""
        return torch.stack([self(clip) for clip in frames])

    @torch.no_grad()
    def forward(self, frames: Float[Tensor, "F 3 H W"]) -> Float[Tensor, "T C h w"]:
        """Latents of one clip of frames in -1..1, fp32; four frames pass at a time."""
        weight = next(self.parameters())
        shown = (frames + 1) / 2
        missing = -len(shown) % FRAMES_PER_LATENT
        if missing:
            shown = torch.cat((shown, shown[-1:].expand(missing, -1, -1, -1)))
        memories: list[Tensor | None] = [None] * len(self.encoder)
        latents = []
        for part in shown.split(FRAMES_PER_LATENT):
            x = part.to(weight.device, weight.dtype)
            for index, layer in enumerate(self.encoder):
                if isinstance(layer, RememberingLayer):
                    before = memories[index]
                    first = torch.zeros_like(x[:1]) if before is None else before
                    memories[index] = x[-1:].clone()
                    x = layer(x, torch.cat((first, x[:-1])))
                else:
                    x = layer(x)
            latents.append(x.float())
        return torch.cat(latents)


class FastDecodeCodec(DelegatingCodec):
    """A codec whose pictures are encoded by another one and decoded by the tiny decoder.

    Args:
        codec: That the transformer was trained with: the large VAE, or the ``TaehvEncoder``.
        decoder: Made for the same latents.

    Raises:
        UsageError: When the codec's latents are not those of the decoder.
    """

    def __init__(self, codec: Encoder, decoder: TaehvDecoder) -> None:
        expected = (decoder.config.latent_channels, 2**NUM_REMEMBERING)
        found = (codec.latent_channels, codec.spatial_stride)
        if found != expected:
            raise UsageError(
                f"--fast-decode is for Wan 2.1 latents ({expected[0]} channels, stride "
                f"{expected[1]}); this profile has {found[0]} channels and stride {found[1]}",
                hint="leave --fast-decode out",
                code="E-FAST-DECODE",
            )
        super().__init__(codec)
        self._decoder = decoder

    def start_decoding(
        self, reference: Float[Tensor, "B 3 H W"] | None = None, **options: Any
    ) -> TaehvDecodingState:
        """A fresh state; the picture is not needed."""
        return TaehvDecodingState()

    def decode(
        self, latents: Float[Tensor, "B T C h w"], state: Any
    ) -> tuple[Float[Tensor, "B F 3 H W"], TaehvDecodingState]:
        """Frames of the next latents, by the tiny decoder."""
        return self._decoder.decode(latents, state)


def taehv_from_state(
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> TaehvDecoder:
    """The decoder with the weights of a published file.

    Args:
        state: Weights by name. Those of the encoder, which the files hold too, are not used.
        dtype: Number format of the weights.
        device: Where they go.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when a weight is missing, unknown or of another
            shape; decoders made for other VAEs (Wan 2.2, Hunyuan 1.5, LTX) are among those.
    """
    weights = {k: v for k, v in state.items() if not k.startswith(ENCODER_PREFIX)}
    with torch.device("meta"):
        decoder = TaehvDecoder(_config_of(weights))
    _trim_time_growth(decoder, weights)
    try:
        decoder.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise other_layout(str(error).splitlines()[-1].strip()) from error
    decoder = decoder.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return decoder.eval().requires_grad_(False)


def taehv_codec_from_state(
    state: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> FastDecodeCodec:
    """TAEHV both ways, with the weights of a published file.

    Args:
        state: Weights by name.
        dtype: Number format of the weights.
        device: Where they go.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` when a weight is missing, unknown or of another
            shape.
    """
    weights = {name: v for name, v in state.items() if name.startswith(ENCODER_PREFIX)}
    first = weights.get("encoder.0.weight")
    if first is None:
        raise other_layout("it has no encoder")
    decoder = taehv_from_state(state, dtype=dtype, device=device)
    with torch.device("meta"):
        encoder = TaehvEncoder(first.shape[0], decoder.config.latent_channels)
    try:
        encoder.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise other_layout(str(error).splitlines()[-1].strip()) from error
    encoder = encoder.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FastDecodeCodec(encoder.eval().requires_grad_(False), decoder)


def _config_of(weights: Mapping[str, Tensor]) -> TaehvConfig:
    """The widths that the weights have; everything else is Wan 2.1's."""
    try:
        first = weights["decoder.1.weight"]
        widths = (first.shape[0], *(weights[f"decoder.{i}.weight"].shape[0] for i in (8, 14, 20)))
        pixels = weights["decoder.22.weight"].shape[0]
    except KeyError as error:
        raise other_layout(f"{error.args[0]} is missing") from error
    if pixels != 3:
        raise other_layout(f"it makes {pixels} channels instead of 3")
    return TaehvConfig(first.shape[1], widths)  # type: ignore[arg-type]


def _trim_time_growth(decoder: TaehvDecoder, weights: dict[str, Tensor]) -> None:
    """Keep the newest time steps where a file's layer makes more of them than its stage needs."""
    for index, layer in enumerate(decoder.decoder):
        name = f"decoder.{index}.conv.weight"
        if isinstance(layer, TimeGrowth) and name in weights:
            weights[name] = weights[name][-layer.conv.out_channels :]


def other_layout(what: str) -> CheckpointError:
    """The error for weights that are no TAEHV of Wan 2.1."""
    return CheckpointError(
        f"the fast decoder does not have the TAEHV layout of Wan 2.1: {what}",
        hint="check that the file is taew2_1",
        code="E-CHECKPOINT-LAYOUT",
    )
