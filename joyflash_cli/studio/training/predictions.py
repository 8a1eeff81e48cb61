"""What the generator makes of known clips, for the decoder to learn to draw from.

A generator's latents are softer than encoded video: details it cannot know are averaged. Here true
latents are noised to one of the sampler's levels and the generator finishes the remaining main
steps, with the profile's guidance. Pose and lips stay close to the truth, details are the
generator's own, so the true frames still are the right answer for the decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.codec.warp import FRAMES_PER_LATENT
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.errors import DataError
from joyflash_cli.files import whole_file
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.codec import box_weights, to_signed
from joyflash_cli.studio.training.decoder_batches import (
    DecoderBatch,
    DecoderTrainingConfig,
    mouth_centre,
    read_decoder_batch,
)
from joyflash_cli.studio.training.latents import audio_tokens
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class PredictionsConfig:
    """How much is predicted.

    Attributes:
        num_clips: Clips, spread over the store.
        span: Latent frames that the generator sees at once.
        start_reference_share: Share of clips whose reference is their first frame.
        first_steps: Main steps the truth is noised to, drawn evenly; later ones are the
            generator's.
        seed: Of clips, references and noise.
    """

    num_clips: int = 1000
    span: int = 6
    start_reference_share: float = 0.5
    first_steps: tuple[int, ...] = (1, 2)
    seed: int = 0


@torch.no_grad()
def predict_latents(
    transformer: CausalTransformer,
    clean: Tensor,
    conditioning: Conditioning,
    *,
    positions: Tensor,
    profile: SamplerSettings,
    first_step: int,
    generator: torch.Generator,
) -> Tensor:
    """The generator's clean prediction ``(B, T, C, H, W)`` of latents noised to a main step."""
    levels = [noise_levels(profile)[2 * k].sigma for k in range(len(profile.main_steps))]
    audio = conditioning.audio
    assert audio is not None
    silent = conditioning.with_frames(audio=torch.zeros_like(audio))
    estimate = clean
    for sigma in levels[first_step:]:
        noise = torch.randn(clean.shape, generator=generator)
        noisy = (1 - sigma) * estimate + sigma * noise
        timesteps = torch.full(clean.shape[:2], 1000 * sigma)
        with torch.autocast("cpu", torch.bfloat16):
            heard = transformer(noisy, timesteps, conditioning, positions=positions)
            if not profile.needs_audio_free_pass:
                estimate = heard.prediction.float()
                continue
            free = transformer(noisy, timesteps, silent, positions=positions)
        estimate = profile.audio_guidance * (heard.prediction - free.prediction).float()
        estimate = estimate + profile.audio_free_weight * free.prediction.float()
    return estimate


def predict_clip(
    index: int,
    *,
    store: ClipStore,
    codec: TinyCodec,
    front_end: FrontEnd,
    transformer: CausalTransformer,
    profile: SamplerSettings,
    config: PredictionsConfig,
) -> dict[str, Tensor]:
    """Predicted latents of a clip, the index of its reference frame and its own index."""
    rng = np.random.default_rng([config.seed, index])
    clip = to_signed(store.open_eyed(index))
    at_start = rng.random() < config.start_reference_share
    reference_index = 0 if at_start else int(rng.integers(len(clip)))
    reference = clip[reference_index]
    latents = codec.encode(clip[None], reference[None])[0]
    count = (len(latents) - 1) // config.span
    first = 1 + int(rng.integers(len(latents) - count * config.span))
    rows = (first + torch.arange(count * config.span)).unflatten(0, (count, config.span))
    still = codec.reference_latents(reference[None])[0].expand(count, config.span, -1, -1, -1)
    audio = audio_tokens(front_end, store.waveform(index), len(latents))
    predicted = predict_latents(
        transformer,
        latents[rows],
        Conditioning(
            image=torch.cat([still, torch.ones_like(still[:, :, :1])], 2), audio=audio[rows]
        ),
        positions=rows[0],
        profile=profile,
        first_step=int(rng.choice(config.first_steps)),
        generator=torch.Generator().manual_seed(int(rng.integers(2**31))),
    )
    return {
        "latents": predicted.flatten(0, 1).half().contiguous(),
        "clip": torch.tensor(index),
        "reference": torch.tensor(reference_index),
        "first": torch.tensor(first),
    }


def build_predictions(
    config: PredictionsConfig,
    *,
    clips_dir: Path,
    out_dir: Path,
    codec: TinyCodec,
    front_end: FrontEnd,
    transformer: CausalTransformer,
    profile: SamplerSettings,
    per_shard: int = 50,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Predict clips that are not predicted yet, in shards; run again to go on."""
    from safetensors.torch import save_file

    out_dir.mkdir(parents=True, exist_ok=True)
    store = ClipStore(clips_dir)
    chosen = np.linspace(0, len(store) - 1, min(config.num_clips, len(store))).astype(int)
    num_shards = -(-len(chosen) // per_shard)
    for shard in range(num_shards):
        path = out_dir / f"predictions-{shard:04d}.safetensors"
        if not path.exists():
            clips = [
                predict_clip(
                    int(index),
                    store=store,
                    codec=codec,
                    front_end=front_end,
                    transformer=transformer,
                    profile=profile,
                    config=config,
                )
                for index in chosen[shard * per_shard : (shard + 1) * per_shard]
            ]
            with whole_file(path) as part:
                save_file({k: torch.stack([c[k] for c in clips]) for k in clips[0]}, part)
        if on_shard is not None:
            on_shard(shard + 1, num_shards)


class PredictionReader:
    """Decoder batches of which a share shows the generator's predictions.

    Args:
        directory: Folder written by ``build_predictions``.

    Raises:
        DataError: If it holds none.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors.torch import load_file

        shards = [load_file(path) for path in sorted(directory.glob("predictions-*.safetensors"))]
        if not shards:
            raise DataError(
                f"{directory} holds no predictions.", hint="run the stage 'predictions'"
            )
        self._latents = torch.cat([shard["latents"] for shard in shards])
        self._clips = torch.cat([shard["clip"] for shard in shards]).tolist()
        self._references = torch.cat([shard["reference"] for shard in shards]).tolist()
        self._firsts = torch.cat([shard["first"] for shard in shards]).tolist()

    def __call__(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> DecoderBatch:
        """A random batch of clean clips in which some are replaced by predicted ones."""
        batch = read_decoder_batch(store, config, rng)
        mouth_weight = config.predicted_mouth_weight
        if mouth_weight is None:
            mouth_weight = config.mouth_weight
        predicted: list[Tensor | None] = []
        for i in range(config.batch):
            if rng.random() >= config.predicted_share:
                predicted.append(None)
                continue
            j, offset = self._widest_of_two(store, config, rng)
            index = self._clips[j]
            clip = store.frames(index)
            start = FRAMES_PER_LATENT * (self._firsts[j] + offset) - 3
            rows = start + np.arange(config.num_latents * FRAMES_PER_LATENT)
            frames = to_signed(clip[rows]).unflatten(0, (config.num_latents, FRAMES_PER_LATENT))
            weight = box_weights(
                store, index, mouth_weight=mouth_weight, eyes_weight=config.eyes_weight
            )
            batch.frames[i] = batch.seen[i] = frames
            reference = np.array([self._references[j]])
            batch.reference[i] = to_signed(store.open_eyed(index, reference)[0])
            batch.weight[i, 0, 0, 0] = weight / weight.mean()
            batch.outside[i, 0, 0, 0] = box_weights(store, index, mouth_weight=0.0, eyes_weight=1.0)
            batch.mouths[i] = mouth_centre(store, index)
            tracks = torch.from_numpy(np.array(store.visemes(index)[rows]))
            batch.visemes[i] = tracks.unflatten(0, (config.num_latents, FRAMES_PER_LATENT))
            closures = torch.from_numpy(store.track("blink", index)[rows])
            batch.lids[i] = closures.unflatten(0, (config.num_latents, FRAMES_PER_LATENT))
            predicted.append(self._latents[j, offset : offset + config.num_latents].float())
        known = [latents for latents in predicted if latents is not None]
        if not known:
            return batch
        unknown = torch.full_like(known[0], torch.nan)
        stacked = torch.stack([unknown if x is None else x for x in predicted])
        return replace(batch, predicted=stacked)

    def _widest_of_two(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> tuple[int, int]:
        """A stretch, the one with the wider mouth of two: open mouths are rare and hard."""
        span = config.num_latents * FRAMES_PER_LATENT
        found = []
        for _ in range(2):
            j = int(rng.integers(len(self._clips)))
            offset = int(rng.integers(self._latents.shape[1] - config.num_latents + 1))
            start = FRAMES_PER_LATENT * (self._firsts[j] + offset) - 3
            gap = store.lips(self._clips[j])[start : start + span, 0]
            found.append((float(gap.max()), j, offset))
        return max(found)[1:]
