"""What a checkpoint's ``codec`` section says: one dataclass for each kind of codec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from joyflash_cli.config import check_ranges
from joyflash_cli.errors import ConfigError

FOLD = 4
"""The embedded model's networks work on pixels folded 4 x 4 into channels."""

WAN_WIDTH = 96
"""First width of the published Wan 2.1 VAE."""

TILE_PX = 240 * 416
"""Pixels of the larger tile of ``codec.tiling``."""

MAX_STAGES = 10


@dataclass(frozen=True)
class TinyCodecConfig:
    """Sizes of the codec.

    Attributes:
        latent_channels: Numbers per position of the latents' grid, which has one for 8 x 8 pixels.
        patch_px: Side of the patches whose components describe the reference: a token's side.
        encoder_dim: Width of the encoder on the quarter-resolution grid.
        latent_dim: Width of encoder and decoder on the latents' grid.
        num_latent_layers: Residual layers there, of each of the two.
        decoder_dim: Width of the networks that move and draw.
        num_flow_layers: Residual layers that read the motion.
        num_drawing_layers: Residual layers that draw what the reference lacks.
        reference_dim: Width of the reference features kept in the stream state.
        detail_scale: Reference pictures, and frames where no other picture is drawn into, are this
            many times as large as what the networks see; see ``codec.composition``.
        seam_limit: Jumps between two latents that are spread over frames; see
            ``codec.composition``.
        flow_seam_limit: Likewise of the motion, in pixels as the networks see them.
        mouth_seam: Share of those jumps that is spread where the mouth is. A mouth that opens
            jumps by itself; what is spread there is taken from its movement.
        blink_every_frames: Video frames from one blink to the next, on average; 0 never blinks.
        blink_depth: Closure that the networks are told at the middle of a blink. Past 1, what
            a closed eye was in training, soft and small eyes close, too.
        draw_below: Share of the height above which the reference is only moved, but for lids, in
            streams; 0 draws everywhere. See ``codec.composition``.
    """

    reference_is_a_frame: ClassVar[bool] = False
    """Latents are changes; what is seen of the reference are components of its patches."""

    latent_channels: int = 12
    patch_px: int = 16
    encoder_dim: int = 96
    latent_dim: int = 128
    num_latent_layers: int = 3
    decoder_dim: int = 80
    num_flow_layers: int = 4
    num_drawing_layers: int = 4
    reference_dim: int = 48
    detail_scale: int = 1
    seam_limit: float = 0.1
    flow_seam_limit: float = 2.0
    mouth_seam: float = 1.0
    blink_every_frames: int = 0
    blink_depth: float = 1.0
    draw_below: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(
            self,
            {
                "patch_px": (1, 512),
                "latent_channels": (1, 1 << 10),
                **dict.fromkeys(("encoder_dim", "latent_dim"), (1, 1 << 14)),
                **dict.fromkeys(("decoder_dim", "reference_dim"), (8, 1 << 14)),
                **dict.fromkeys(
                    ("num_latent_layers", "num_flow_layers", "num_drawing_layers"), (0, 256)
                ),
                "detail_scale": (1, 16),
                "seam_limit": (0.0, 2.0),
                "flow_seam_limit": (0.0, 64.0),
                "mouth_seam": (0.0, 1.0),
                "blink_every_frames": (0, 1 << 20),
                "blink_depth": (0.0, 4.0),
                "draw_below": (0.0, 1.0),
            },
        )
        if self.patch_px % (2 * FOLD):
            raise ConfigError(f"patch_px {self.patch_px} must be a multiple of {2 * FOLD}.")
        for name in ("decoder_dim", "reference_dim"):  # their layers normalise eight groups
            if getattr(self, name) % 8:
                raise ConfigError(f"{name} {getattr(self, name)} must be a multiple of 8.")

    @property
    def spatial_stride(self) -> int:
        """Pixels of a whole picture per latent row."""
        return self.detail_scale * self.patch_px // 2


@dataclass(frozen=True)
class WanCodecConfig:
    """The Wan 2.1 VAE, which diffusers builds.

    Attributes:
        settings: Arguments of ``AutoencoderKLWan``; empty for the published VAE.
        tiled: Whether pictures larger than a tile pass it tile by tile; see ``codec.tiling``.
    """

    reference_is_a_frame: ClassVar[bool] = True
    """What is seen of the reference is its latent as the first frame."""

    settings: Mapping[str, Any]
    tiled: bool = False

    def __post_init__(self) -> None:
        stages, width = self.settings.get("dim_mult", ()), self.settings.get("base_dim", 1)
        if not isinstance(stages, list | tuple) or not isinstance(width, int | float):
            raise ConfigError(
                "checkpoint.json: codec describes no such module: dim_mult is a list, base_dim "
                "a number",
                hint="the weights and checkpoint.json must come from the same export",
            )

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent row; every stage after the first halves the picture."""
        return 2 ** min(len(self.settings.get("dim_mult", (1, 2, 4, 4))) - 1, MAX_STAGES)

    @property
    def width_share(self) -> float:
        """Width of the layers as a share of the published VAE's."""
        return float(self.settings.get("base_dim", WAN_WIDTH)) / WAN_WIDTH


CodecConfig = TinyCodecConfig | WanCodecConfig
