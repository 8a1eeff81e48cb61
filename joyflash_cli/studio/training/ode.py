"""ODE initialisation: the student learns where the teacher's ODE ends (paper §4.1).

A pair is the teacher's way from noise to a clip, kept at the student's noise levels: Euler steps of
its probability-flow ODE on the grid of the sampler's own warp. With 48 steps and shift 5 the states
before steps 0, 6, ..., 42 lie exactly at the eight levels of main and sub-steps, and the last state
is clean.

In training every block of a clip gets its own level, clean included, and the student sees whole
blocks up to its own (Self-Forcing's ODE regression). What comes out is causal and few-step; the
window's exchange between noisy blocks is left to DMD.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.config import to_dict
from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import block_causal_mask
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.psb import noise_levels
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.sampler.solver import clean_from_flow, euler_step, flow_match_table
from joyflash_cli.studio.training.batches import rollout_batch
from joyflash_cli.studio.training.latents import LatentClips
from joyflash_cli.studio.training.scores import (
    Guidance,
    Segment,
    given_frames,
    guided_prediction,
    start_segment,
)
from joyflash_cli.studio.training.session import ONE_PROCESS, Processes
from joyflash_cli.studio.training.tensors import (
    keep_apart,
    map_tensors,
    read_shards,
    to_device,
    write_tensors,
)
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig
from joyflash_cli.types import Conditioning

KINDS = tuple(kind.name for kind in fields(Conditioning) if kind.name != "negative_text")


@dataclass(frozen=True)
class OdePairsConfig:
    """How many pairs, and how the teacher walks.

    Attributes:
        num_pairs: Clips with their states; the paper has 10,000.
        num_steps: Euler steps; every level must fall on one.
        guidance: Of the teacher.
        batch: Clips walked together.
        pairs_per_shard: A killed run loses at most one shard.
        num_blocks: Length of a pair; 7 blocks are 21 latent frames.
        seed: Of clips and noise.
        bf16: Whether the teacher runs in bfloat16.
    """

    num_pairs: int = 10_000
    num_steps: int = 48
    guidance: Guidance = field(default_factory=Guidance)
    batch: int = 4
    pairs_per_shard: int = 64
    num_blocks: int = 7
    seed: int = 0
    bf16: bool = True


def state_indices(profile: SamplerSettings, num_steps: int) -> tuple[int, ...]:
    """Euler steps before which the state lies at a level of the profile, noisiest first.

    Raises:
        ConfigError: If a level lies between two steps.
    """
    indices = []
    for nominal in sorted((*profile.main_steps, *profile.sub_steps), reverse=True):
        index, rest = divmod(num_steps * (1000 - nominal), 1000)
        if rest:
            raise ConfigError(
                f"Denoising step {nominal} lies between two of {num_steps} Euler steps",
                hint="use a multiple of 8 steps for the paper's levels",
            )
        indices.append(index)
    return tuple(indices)


@torch.no_grad()
def teacher_states(
    teacher: CausalTransformer,
    segment: Segment,
    noise: Float[Tensor, "B T C H W"],
    *,
    profile: SamplerSettings,
    num_steps: int,
    guidance: Guidance,
) -> Float[Tensor, "B S T C H W"]:
    """States of the teacher's ODE at the profile's levels, and the clean end."""
    kept = set(state_indices(profile, num_steps))
    sigmas = [*flow_match_table(profile.shift, num_steps=num_steps).sigmas.tolist(), 0.0]
    given = segment.given[:, None, None, None]
    state, states = torch.where(given, segment.latents, noise), []
    for index in range(num_steps):
        if index in kept:
            states.append(state)
        sigma = torch.full((len(noise),), sigmas[index], device=noise.device)
        flow = guided_prediction(teacher, segment, state, sigma, guidance).flow
        moved = euler_step(state, flow, sigmas[index], sigmas[index + 1])
        state = torch.where(given, segment.latents, moved)
    return torch.stack([*states, state], dim=1)


def build_ode_pairs(
    config: OdePairsConfig,
    *,
    teacher: CausalTransformer,
    clips: LatentClips,
    profile: SamplerSettings,
    out_dir: Path,
    on_shard: Callable[[int, int], None] | None = None,
    processes: Processes = ONE_PROCESS,
) -> None:
    """Write every shard that is not there yet; run again to go on.

    A shard depends on its number, the seed and the teacher alone. With several processes a
    sharded teacher is walked by all of them together, each with pairs of its own.

    Raises:
        ConfigError: If the clips are too short, the levels do not fall on steps, or the folder
            holds pairs of another configuration.
    """
    num_frames = profile.block_start(config.num_blocks)
    if clips.latents.shape[1] < num_frames:
        raise ConfigError(
            f"Clips have {clips.latents.shape[1]} latent frames; {config.num_blocks} blocks need "
            f"{num_frames}"
        )
    keep_apart(
        out_dir,
        to_dict(config) | {"reference": clips.place},
        message=f"{out_dir} holds ODE pairs of another configuration",
        hint="remove the folder",
    )

    def walked(shard: int) -> dict[str, Tensor]:
        first, batch = shard * config.pairs_per_shard, config.batch
        stop = min(first + config.pairs_per_shard, config.num_pairs)
        starts = range(first, first + config.pairs_per_shard, batch)
        rows = [range(i, min(i + batch, stop)) for i in starts if i < stop]
        parts = [_walk(numbers, config, teacher, clips, profile) for numbers in rows]
        # Processes that share a sharded teacher make the same passes, also for a short last shard.
        for _ in range(len(starts) - len(rows) if processes.world_size > 1 else 0):
            _walk(range(first, first + 1), config, teacher, clips, profile)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    num_shards = -(-config.num_pairs // config.pairs_per_shard)
    for round_start in range(0, num_shards, processes.world_size):
        shard = round_start + processes.rank
        path = out_dir / f"pairs-{shard:05d}.safetensors"
        wanted = shard < num_shards and not path.exists()
        if processes.any(wanted)[0]:
            joined = walked(shard if wanted else 0)
            if wanted:
                write_tensors(path, joined)
        if on_shard is not None and processes.is_first:
            on_shard(min(round_start + processes.world_size, num_shards), num_shards)
    processes.wait()


def _walk(
    numbers: range,
    config: OdePairsConfig,
    teacher: CausalTransformer,
    clips: LatentClips,
    profile: SamplerSettings,
) -> dict[str, Tensor]:
    """States and conditioning of the pairs of these numbers, half precision."""
    num_frames = profile.block_start(config.num_blocks)
    chosen = _clips_of(numbers, clips.starts(), config.seed)
    batch = rollout_batch(clips, chosen, clips.audio[chosen][:, :num_frames], config.num_blocks)
    device = next(teacher.parameters()).device
    batch = to_device(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        states = teacher_states(
            teacher,
            start_segment(batch, profile, num_frames),
            batch.noise(config.seed, numbers).initial(0, num_frames),
            profile=profile,
            num_steps=config.num_steps,
            guidance=config.guidance,
        )
    kinds = {kind: getattr(batch.conditioning, kind) for kind in KINDS}
    present = {kind: x.half().cpu() for kind, x in kinds.items() if x is not None}
    return {"states": states.half().cpu(), "clip": torch.from_numpy(chosen), **present}


def _clips_of(numbers: range, pool: np.ndarray, seed: int) -> np.ndarray:
    """The clip of each pair; every clip comes before any comes again."""
    rounds = [
        np.random.default_rng([seed, turn]).permutation(pool)
        for turn in range(numbers.start // len(pool), (numbers.stop - 1) // len(pool) + 1)
    ]
    offset = numbers.start // len(pool) * len(pool)
    return np.concatenate(rounds)[numbers.start - offset : numbers.stop - offset]


def load_ode_pairs(directory: Path) -> tuple[Tensor, Conditioning]:
    """States ``(N, levels + 1, T, C, H, W)`` and conditioning of all pairs of a folder.

    Raises:
        DataError: If there is none.
    """
    joined = read_shards(directory / "pairs", "ODE pairs", stage="ode-pairs")
    present = {kind: joined[kind] for kind in KINDS if kind in joined}
    return joined["states"], Conditioning(**present)


@dataclass(frozen=True)
class OdeConfig(NetworkStage):
    """How the ODE initialisation is trained; Self-Forcing's rate is the default."""

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=2000,
            learning_rate=2e-6,
            betas=(0.9, 0.999),
            weight_decay=0.01,
            flat_share=1.0,
            clip_norm=10.0,
            ema_decay=0.99,
        )
    )


def draw_levels(
    num_levels: int, num_frames: int, batch: int, profile: SamplerSettings, rng: np.random.Generator
) -> Tensor:
    """Index of a random level for every block, clean (the last) included, ``(batch, T)`` per frame.

    Frames before the first block are always clean.
    """
    prefix = profile.first_block_frame
    num_blocks = (num_frames - prefix) // profile.block_frames
    drawn = torch.from_numpy(rng.integers(num_levels, size=(batch, num_blocks)))
    chosen = drawn.repeat_interleave(profile.block_frames, dim=1)
    return torch.cat([torch.full((batch, prefix), num_levels - 1), chosen], dim=1)


def states_at(states: Tensor, drawn: Tensor) -> Tensor:
    """Noisy latents ``(B, T, C, H, W)``: of every frame the state of its level.

    Args:
        states: ``(B, S, T, C, H, W)``, noisiest first, clean last.
        drawn: From ``draw_levels``.
    """
    index = drawn[:, None, :, None, None, None].expand(-1, 1, -1, *states.shape[3:])
    return states.gather(1, index)[:, 0]


def causal_clean(
    model: CausalTransformer,
    noisy: Tensor,
    timesteps: Tensor,
    conditioning: Conditioning,
    profile: SamplerSettings,
) -> Tensor:
    """Clean prediction of a whole clip under the block-causal mask, without a cache."""
    num_frames = noisy.shape[1]
    mask = block_causal_mask(
        num_frames,
        profile.block_frames,
        model.config.tokens_per_frame(*noisy.shape[-2:]),
        prefix_frames=profile.first_block_frame,
        device=noisy.device,
    )
    positions = torch.arange(num_frames, device=noisy.device)
    output = model(noisy, timesteps, conditioning, positions=positions, mask=mask)
    prediction = output.prediction.to(noisy.dtype)
    if model.config.prediction == "clean":
        return prediction
    return clean_from_flow(noisy, prediction, timesteps[..., None, None, None] / 1000)


@dataclass(frozen=True)
class OdeLoss:
    """The student's loss as a function of network, step and samples.

    Attributes:
        config: Batch and seed.
        states: Of all pairs, ``(N, levels + 1, T, C, H, W)``, noisiest first, clean last.
        conditioning: Of all pairs.
        profile: Whose levels these are.
    """

    config: OdeConfig
    states: Tensor
    conditioning: Conditioning
    profile: SamplerSettings

    def __call__(self, network: CausalTransformer, step: int, streams: Sequence[int]) -> Tensor:
        """Squared error of the clean prediction, over frames that are neither clean nor given.

        The sum over these samples is divided by their share of all frames that count in the whole
        batch: different samples learn at different numbers of frames, and parts have to average
        to the whole.
        """
        batch, own = self.config.batch, list(streams)
        num_pairs, num_levels, num_frames = self.states.shape[:3]
        rng = np.random.default_rng([self.config.seed, step])
        chosen = torch.from_numpy(rng.integers(num_pairs, size=batch))
        drawn = draw_levels(num_levels, num_frames, batch, self.profile, rng)
        levels = noise_levels(self.profile)
        timesteps = torch.tensor([levels[level].timestep for level in sorted(levels)])[drawn]
        learnt = (timesteps != 0) & ~given_frames(self.profile, num_frames)
        device, rows = next(network.parameters()).device, chosen[own]
        states = self.states[rows].float().to(device)
        noisy = states_at(states, drawn[own].to(device))
        conditioning = map_tensors(self.conditioning, lambda x: x[rows].float().to(device))
        clean = causal_clean(network, noisy, timesteps[own].to(device), conditioning, self.profile)
        error = (clean - states[:, -1]).square().mean(dim=(2, 3, 4))
        counted = (error * learnt[own].to(device)).sum()
        return counted * (batch / len(own)) / learnt.sum().clamp(min=1)
