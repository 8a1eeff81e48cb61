"""The linear half of the tiny codec, fitted in closed form, and how a codec is measured.

The drawing half is trained by ``training.decoder``.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.tiny import FRAMES_PER_LATENT, TinyCodec, TinyCodecConfig
from joyflash_cli.data.clips import ClipStore


@dataclass(frozen=True)
class CodecTrainingConfig:
    """How the linear codec is fitted.

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


def to_signed(frames: np.ndarray) -> Tensor:
    """uint8 ``(..., H, W, 3)`` to float32 ``(..., 3, H, W)`` in -1..1."""
    tensor = torch.from_numpy(np.array(frames)).float() / 127.5 - 1
    return tensor.movedim(-1, -3)


def fit_principal_components(
    codec: TinyCodec, store: ClipStore, config: "CodecTrainingConfig"
) -> None:
    """Set the basis and the statistics buffers from changes against a reference.

    Patches of the mouth and the eyes weigh more, as in the loss.
    """
    rng = np.random.default_rng(config.seed)
    changes, unweighted, still = [], [], []
    for index in rng.permutation(len(store))[: config.num_clips]:
        frames = store.frames(index)
        starts = rng.integers(0, len(frames) - FRAMES_PER_LATENT, 4)
        groups = to_signed(np.stack([frames[s : s + FRAMES_PER_LATENT] for s in starts]))
        reference = to_signed(frames[int(rng.integers(len(frames)))])[None].expand(4, -1, -1, -1)
        repeated = reference[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1)
        weight = box_weights(
            store, index, mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight
        )
        weight = functional.avg_pool2d(weight[None, None], codec.config.patch_px)
        change = codec._patches(groups - repeated)
        unweighted.append(change.movedim(1, -1).flatten(0, 2)[::7])
        changes.append((change * weight.sqrt()).movedim(1, -1).flatten(0, 2))
        still.append(codec._patches(repeated).movedim(1, -1).flatten(0, 2))
    change, resting = torch.cat(changes), torch.cat(still)
    _, vectors = torch.linalg.eigh(change.T @ change / len(change))
    basis = vectors.flip(1)[:, : codec.config.num_coefficients].contiguous()
    with torch.no_grad():
        codec.basis.copy_(basis)
        coefficients = resting @ basis
        codec.coefficient_mean.copy_(coefficients.mean(0))
        codec.coefficient_std.copy_(coefficients.std(0).clamp(min=1e-3))
        scale = torch.cat(unweighted) @ basis
        codec.change_gain.copy_(scale.square().mean().rsqrt())


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
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(frames, frames[:, 0])
            decoded, _ = codec.decode(latents, codec.start_decoding(frames[:, 0]))
        error = (decoded.float() - frames).square()[0]
        x0, y0, x1, y1 = store.mouth_box(index)
        whole.append(float(-10 * torch.log10(error.mean() / 4)))
        mouth.append(float(-10 * torch.log10(error[..., y0:y1, x0:x1].mean() / 4)))
    return {"psnr_db": float(np.mean(whole)), "mouth_psnr_db": float(np.mean(mouth))}


def fit_codec(config: CodecTrainingConfig, *, clips_dir: Path) -> TinyCodec:
    """A codec whose linear half is fitted to the clips and whose drawing half is fresh."""
    torch.manual_seed(config.seed)
    codec = TinyCodec(config.codec)
    fit_principal_components(codec, ClipStore(clips_dir), config)
    return codec
