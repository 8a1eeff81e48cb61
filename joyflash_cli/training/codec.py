"""Fitting of the tiny codec: principal components, then the decoder's correction if it has one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.tiny import FRAMES_PER_LATENT, TinyCodec, TinyCodecConfig
from joyflash_cli.data.clips import ClipStore
from joyflash_cli.training.trainer import OptimiserConfig, TrainingRun


@dataclass(frozen=True)
class CodecTrainingConfig:
    """How the codec is trained.

    Attributes:
        codec: Sizes.
        optimiser: Steps and rates.
        batch: Clips per step.
        num_latents: Consecutive latents per clip, so that the decoder's memory is trained.
        first_latent_share: Share of clips that begin a stream: latent 0 is the still reference.
        noise: Largest noise on the latents in units of their spread; makes the decoder forgive
            the generator.
        mouth_weight: Loss weight inside the mouth box; ``eyes_weight`` likewise.
        gradient_weight: Weight of the loss on picture gradients.
        seed: Of batches and noise.
    """

    codec: TinyCodecConfig = field(default_factory=TinyCodecConfig)
    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=6000,
            learning_rate=6e-4,
            warmup_steps=150,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            flat_share=0.3,
            ema_decay=0.995,
        )
    )
    batch: int = 4
    num_latents: int = 3
    first_latent_share: float = 0.15
    noise: float = 0.1
    mouth_weight: float = 6.0
    eyes_weight: float = 2.0
    gradient_weight: float = 0.5
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
    for index in rng.permutation(len(store))[:300]:
        frames = store.frames(index)
        starts = rng.integers(0, len(frames) - FRAMES_PER_LATENT, 4)
        groups = to_signed(np.stack([frames[s : s + FRAMES_PER_LATENT] for s in starts]))
        reference = to_signed(frames[int(rng.integers(len(frames)))])[None].expand(4, -1, -1, -1)
        repeated = reference[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1, -1)
        weight = functional.avg_pool2d(
            _weights(store, index, frames.shape[1], config)[None, None], codec.config.patch_px
        )
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


@dataclass(frozen=True)
class CodecBatch:
    """``frames (B, T, 4, 3, H, W)``, ``reference (B, 3, H, W)``, ``weight (B, 1, 1, 1, H, W)``."""

    frames: Tensor
    reference: Tensor
    weight: Tensor


def read_codec_batch(
    store: ClipStore, config: CodecTrainingConfig, rng: np.random.Generator
) -> CodecBatch:
    """A random batch, mirrored and re-coloured so that the decoder learns to copy anything."""
    frames, references, weights = [], [], []
    span = config.num_latents * FRAMES_PER_LATENT
    for index in rng.integers(0, len(store), config.batch):
        clip = store.frames(index)
        if rng.random() < config.first_latent_share:
            start = int(rng.integers(0, len(clip) - span))
            order = np.maximum(np.arange(span) - (FRAMES_PER_LATENT - 1), 0) + start
            reference = start
        else:
            start = int(rng.integers(0, len(clip) - span))
            order = np.arange(span) + start
            reference = int(rng.integers(len(clip)))
        taken = to_signed(clip[order])
        still = to_signed(clip[reference])
        weight = _weights(store, index, clip.shape[1], config)
        if rng.random() < 0.5:
            taken, still, weight = taken.flip(-1), still.flip(-1), weight.flip(-1)
        gain = torch.from_numpy(rng.uniform(0.75, 1.2, 3) * rng.uniform(0.85, 1.1)).float()
        bias = float(rng.uniform(-0.12, 0.12))
        frames.append((taken * gain[:, None, None] + bias).clamp(-1, 1))
        references.append((still * gain[:, None, None] + bias).clamp(-1, 1))
        weights.append(weight)
    stacked = torch.stack(frames).unflatten(1, (config.num_latents, FRAMES_PER_LATENT))
    weight = torch.stack(weights)[:, None, None, None]
    return CodecBatch(stacked, torch.stack(references), weight / weight.mean())


def _weights(store: ClipStore, index: int, size_px: int, config: CodecTrainingConfig) -> Tensor:
    weight = torch.ones(size_px, size_px)
    x0, y0, x1, y1 = store.eyes_box(index)
    weight[y0:y1, x0:x1] = config.eyes_weight
    x0, y0, x1, y1 = store.mouth_box(index)
    weight[y0:y1, x0:x1] = config.mouth_weight
    return weight


def codec_loss(
    codec: TinyCodec,
    batch: CodecBatch,
    *,
    config: CodecTrainingConfig,
    noise_scale: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Weighted absolute error of pixels and of their gradients."""
    count = batch.frames.shape[1]
    latents = codec.encode_latent(
        batch.frames.flatten(0, 1), batch.reference.repeat_interleave(count, 0)
    ).unflatten(0, (-1, count))
    level = torch.rand(len(latents), 1, 1, 1, 1, generator=generator) * config.noise
    noise = torch.randn(latents.shape, generator=generator) * noise_scale * level
    decoded, _ = codec.decode_together(latents + noise, codec.start_decoding(batch.reference))
    error = decoded.float() - batch.frames
    pixels = (error.abs() * batch.weight).mean()
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return pixels + config.gradient_weight * gradients


@torch.no_grad()
def latent_spread(codec: TinyCodec, store: ClipStore, config: CodecTrainingConfig) -> Tensor:
    """Root mean square of each latent number ``(C, 2, 2)`` tiled to a latent, for the noise."""
    rng = np.random.default_rng(1)
    batches = [read_codec_batch(store, replace(config, batch=4), rng) for _ in range(8)]
    values = [codec.encode_latent(b.frames[:, 1], b.reference) for b in batches]
    folded = functional.pixel_unshuffle(torch.cat(values), 2)
    spread = folded.square().mean((0, 2, 3), keepdim=True).sqrt()
    height, width = folded.shape[-2:]
    return functional.pixel_shuffle(spread.expand(1, -1, height, width).contiguous(), 2)


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


def train_codec(
    config: CodecTrainingConfig,
    *,
    clips_dir: Path,
    held_out_dir: Path,
    out_dir: Path,
    resume: bool = False,
    on_log: Callable[[dict], None] | None = None,
    log_every: int = 200,
) -> TinyCodec:
    """Fit or train, measure on held-out clips, and return the (averaged) codec.

    A linear codec (no decoder layers) is fitted in closed form.
    """
    torch.manual_seed(config.seed)
    store, held_out = ClipStore(clips_dir), ClipStore(held_out_dir)
    codec = TinyCodec(config.codec)
    if not config.codec.num_decoder_layers:
        fit_principal_components(codec, store, config)
        if on_log is not None:
            on_log(measure_codec(codec, held_out))
        return codec
    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = TrainingRun(out_dir, codec, config.optimiser, seed=config.seed)
    if not (resume and run.resume()):
        fit_principal_components(codec, store, config)
        run.restart_average()
    spread = latent_spread(codec, store, config)
    while run.step < config.optimiser.steps:
        rng = np.random.default_rng([config.seed, run.step])
        batch = read_codec_batch(store, config, rng)
        with torch.autocast("cpu", torch.bfloat16):
            loss = codec_loss(
                codec, batch, config=config, noise_scale=spread, generator=run.generator
            )
        run.update(loss)
        if run.step % log_every == 0 or run.step == config.optimiser.steps:
            line = run.log(**measure_codec(run.averaged, held_out))
            store = ClipStore(clips_dir)  # clips may still be rendered meanwhile
            if on_log is not None:
                on_log(line)
    run.save()
    return run.averaged
