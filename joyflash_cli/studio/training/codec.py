"""What of the tiny codec is fitted in closed form, and how a codec is measured.

Its networks are trained by ``studio.training.decoder``.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.networks import CELL_PX
from joyflash_cli.codec.tiny import KnownBlinks, TinyCodec, TinyCodecConfig
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.types import FRAMES_PER_LATENT, to_signed


@dataclass(frozen=True)
class CodecTrainingConfig:
    """How the components of reference pictures are fitted.

    Attributes:
        codec: Sizes.
        mouth_weight: Weight of a patch inside the mouth box; ``eyes_weight`` likewise.
        num_clips: Clips that are looked at.
        seed: Of the choice of clips and frames.
    """

    codec: TinyCodecConfig = field(default_factory=TinyCodecConfig)
    mouth_weight: float = 6.0
    eyes_weight: float = 2.0
    num_clips: int = 300
    seed: int = 0


@torch.no_grad()
def fit_components(codec: TinyCodec, store: ClipStore, config: CodecTrainingConfig) -> None:
    """Set the basis and the statistics of ``reference_latents`` from still pictures.

    Patches of the mouth and the eyes weigh more, as in the loss.
    """
    rng = np.random.default_rng(config.seed)
    weighted, patches = [], []
    for index in rng.permutation(len(store))[: config.num_clips]:
        frames = store.frames(index)
        still = to_signed(frames[rng.integers(0, len(frames), 4)])
        found = functional.pixel_unshuffle(still, codec.config.patch_px)
        weight = box_weights(
            store, index, mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight
        )
        weight = functional.avg_pool2d(weight[None, None], codec.config.patch_px)
        patches.append(found.movedim(1, -1).flatten(0, 2))
        weighted.append((found * weight.sqrt()).movedim(1, -1).flatten(0, 2))
    heavy, plain = torch.cat(weighted), torch.cat(patches)
    _, vectors = torch.linalg.eigh(heavy.T @ heavy / len(heavy))
    codec.basis.copy_(vectors.flip(1)[:, : codec.basis.shape[1]])
    coefficients = plain @ codec.basis
    codec.coefficient_mean.copy_(coefficients.mean(0))
    codec.coefficient_std.copy_(coefficients.std(0).clamp(min=1e-3))


@torch.no_grad()
def fit_changes(codec: TinyCodec, store: ClipStore, config: CodecTrainingConfig) -> None:
    """Start encoder and decoder as principal components of changes, with a spread of one."""
    rng = np.random.default_rng(config.seed)
    weighted, cells = [], []
    for index in rng.permutation(len(store))[: config.num_clips]:
        frames = store.frames(index)
        starts = rng.integers(0, len(frames) - FRAMES_PER_LATENT, 4)
        groups = to_signed(np.stack([frames[s : s + FRAMES_PER_LATENT] for s in starts]))
        change = (groups - to_signed(frames[int(rng.integers(len(frames)))])).flatten(1, 2)
        weight = box_weights(
            store, index, mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight
        )
        weight = functional.avg_pool2d(weight[None, None], CELL_PX)
        found = functional.pixel_unshuffle(change, CELL_PX)
        cells.append(found.movedim(1, -1).flatten(0, 2)[::7])
        weighted.append((found * weight.sqrt()).movedim(1, -1).flatten(0, 2))
    heavy, plain = torch.cat(weighted), torch.cat(cells)
    _, vectors = torch.linalg.eigh(heavy.T @ heavy / len(heavy))
    basis = vectors.flip(1)[:, : codec.latent_channels]
    spread = (plain @ basis).square().mean(0).sqrt()
    shape = codec.encoder.components.weight.shape
    codec.encoder.components.weight.copy_((basis / spread).T.reshape(shape))
    codec.decoder.components.weight.copy_((basis * spread).T.reshape(shape))


def box_weights(store: ClipStore, index: int, *, mouth_weight: float, eyes_weight: float) -> Tensor:
    """Loss weight of every pixel of a clip ``(H, W)``: 1, more inside the mouth and eye boxes."""
    size_px = store.frames(index).shape[1]
    weight = torch.ones(size_px, size_px)
    x0, y0, x1, y1 = store.eyes_box(index)
    weight[y0:y1, x0:x1] = eyes_weight
    x0, y0, x1, y1 = store.mouth_box(index)
    weight[y0:y1, x0:x1] = mouth_weight
    return weight


@torch.no_grad()
def measure_codec(codec: TinyCodec, store: ClipStore, *, num_clips: int = 24) -> dict[str, float]:
    """PSNR in dB of whole frames and of the mouth box, decoded as a stream from the first frame."""
    whole, mouth = [], []
    for index in np.linspace(0, len(store) - 1, min(num_clips, len(store))).astype(int):
        frames = to_signed(store.frames(index)[:41])[None]
        seen = to_signed(store.open_eyed(index, np.arange(frames.shape[1])))[None]
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(seen, frames[:, 0])
            state = codec.start_decoding(frames[:, 0])
            state = replace(state, blinks=KnownBlinks(store.track("blink", index)))
            decoded, _ = codec.decode(latents, state)
        error = (decoded.float() - frames).square()[0]
        x0, y0, x1, y1 = store.mouth_box(index)
        whole.append(float(-10 * torch.log10(error.mean() / 4)))
        mouth.append(float(-10 * torch.log10(error[..., y0:y1, x0:x1].mean() / 4)))
    return {"psnr_db": float(np.mean(whole)), "mouth_psnr_db": float(np.mean(mouth))}


def fit_codec(config: CodecTrainingConfig, *, clips_dir: Path) -> TinyCodec:
    """A codec whose components are fitted to the clips and whose networks are fresh."""
    torch.manual_seed(config.seed)
    codec = TinyCodec(config.codec)
    store = ClipStore(clips_dir)
    fit_components(codec, store, config)
    fit_changes(codec, store, config)
    return codec
