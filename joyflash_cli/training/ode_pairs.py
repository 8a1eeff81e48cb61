"""ODE pairs: the teacher's way from noise to a clip, kept at the student's noise levels (§4.1).

The teacher walks its probability-flow ODE in Euler steps on the grid of the sampler's own warp.
With 48 steps and shift 5 the states before steps 0, 6, ..., 42 lie exactly at the eight levels of
main and sub-steps, and the last state is clean.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import ConfigError, DataError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.noise import SeededNoise
from joyflash_cli.sampler.profile import SamplerProfile
from joyflash_cli.sampler.solver import euler_step, flow_match_table
from joyflash_cli.training.batches import rollout_batch, start_clips
from joyflash_cli.training.latents import LatentClips
from joyflash_cli.training.losses import Guidance
from joyflash_cli.training.scores import Segment, guided_prediction


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


@dataclass(frozen=True)
class OdePairs:
    """Pairs in memory, half precision where the size matters.

    Attributes:
        states: ``(N, levels + 1, T, C, H, W)``, noisiest first, clean last.
        image: ``(N, T, C, H, W)`` image conditioning.
        audio: ``(N, T, A, D)``.
    """

    states: Tensor
    image: Tensor
    audio: Tensor

    def __len__(self) -> int:
        return len(self.states)


def state_indices(profile: SamplerProfile, num_steps: int) -> tuple[int, ...]:
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
    profile: SamplerProfile,
    num_steps: int,
    guidance: Guidance,
) -> Float[Tensor, "B S T C H W"]:
    """States of the teacher's ODE at the profile's levels, and the clean end.

    Args:
        teacher: Bidirectional.
        segment: Conditioning; its latents are read at the given frames only.
        noise: Where the walk begins.
        profile: Levels and warp.
        num_steps: Euler steps.
        guidance: Of the teacher.
    """
    kept = set(state_indices(profile, num_steps))
    sigmas = [*flow_match_table(profile.shift, num_steps=num_steps).sigmas.tolist(), 0.0]
    given = segment.given[:, None, None, None]
    state, states = torch.where(given, segment.latents, noise), []
    for index in range(num_steps):
        if index in kept:
            states.append(state)
        sigma = torch.full((len(noise),), sigmas[index])
        flow = guided_prediction(teacher, segment, state, sigma, guidance).flow
        moved = euler_step(state, flow, sigmas[index], sigmas[index + 1])
        state = torch.where(given, segment.latents, moved)
    return torch.stack([*states, state], dim=1)


def build_ode_pairs(
    config: OdePairsConfig,
    *,
    teacher: CausalTransformer,
    clips: LatentClips,
    profile: SamplerProfile,
    out_dir: Path,
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Write every shard that is not there yet; run again to go on.

    A shard depends on its number, the seed and the teacher alone.

    Raises:
        ConfigError: If the clips are too short, the levels do not fall on steps, or the folder
            holds pairs of another configuration.
    """
    from safetensors.torch import save_file

    num_frames = profile.block_start(config.num_blocks)
    if clips.latents.shape[1] < num_frames:
        raise ConfigError(
            f"Clips have {clips.latents.shape[1]} latent frames; {config.num_blocks} blocks need "
            f"{num_frames}"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    _check_same_run(config, out_dir)
    num_shards = -(-config.num_pairs // config.pairs_per_shard)
    for shard in range(num_shards):
        path = out_dir / f"pairs-{shard:05d}.safetensors"
        if not path.exists():
            first = shard * config.pairs_per_shard
            stop = min(first + config.pairs_per_shard, config.num_pairs)
            parts = [
                _walk(config, range(i, min(i + config.batch, stop)), teacher, clips, profile)
                for i in range(first, stop, config.batch)
            ]
            joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            partial = path.with_suffix(".part")
            save_file(joined, partial)
            partial.rename(path)
        if on_shard is not None:
            on_shard(shard + 1, num_shards)


def _check_same_run(config: OdePairsConfig, out_dir: Path) -> None:
    from joyflash_cli.config import to_dict

    about, wanted = out_dir / "about.json", to_dict(config)
    if not about.exists():
        about.write_text(json.dumps(wanted, indent=1) + "\n")
    elif json.loads(about.read_text()) != wanted:
        raise ConfigError(
            f"{out_dir} holds ODE pairs of another configuration", hint="remove the folder"
        )


def _walk(
    config: OdePairsConfig,
    pairs: range,
    teacher: CausalTransformer,
    clips: LatentClips,
    profile: SamplerProfile,
) -> dict[str, Tensor]:
    """States and conditioning of these pairs; every clip comes before any comes again."""
    pool = start_clips(clips)
    rounds = [
        np.random.default_rng([config.seed, turn]).permutation(pool)
        for turn in range(pairs.start // len(pool), (pairs.stop - 1) // len(pool) + 1)
    ]
    offset = pairs.start // len(pool) * len(pool)
    chosen = np.concatenate(rounds)[pairs.start - offset : pairs.stop - offset]
    num_frames = profile.block_start(config.num_blocks)
    batch = rollout_batch(
        clips, chosen, clips.audio[chosen][:, :num_frames].float(), config.num_blocks
    )
    segment = Segment(
        latents=batch.reference_latent[:, None].expand(-1, num_frames, -1, -1, -1),
        conditioning=batch.source.conditioning,
        positions=torch.arange(num_frames),
        given=given_frames(profile, num_frames),
    )
    noise = SeededNoise(config.seed, batch.latent_shape, streams=pairs)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
        states = teacher_states(
            teacher,
            segment,
            noise.initial(0, num_frames),
            profile=profile,
            num_steps=config.num_steps,
            guidance=config.guidance,
        )
    conditioning = batch.source.conditioning
    assert conditioning.image is not None
    assert conditioning.audio is not None
    return {
        "states": states.half(),
        "image": conditioning.image.half(),
        "audio": conditioning.audio.half(),
        "clip": torch.from_numpy(chosen),
    }


def given_frames(profile: SamplerProfile, num_frames: int, start: int = 0) -> Tensor:
    """Which of the latent frames from ``start`` on are known: frame 0, if the profile gives it."""
    is_first = torch.arange(start, start + num_frames) == 0
    return is_first & (profile.first_frame_rule != "none")


def load_ode_pairs(directory: Path) -> OdePairs:
    """All pairs of a folder.

    Raises:
        DataError: If there is none.
    """
    from safetensors.torch import load_file

    shards = [load_file(path) for path in sorted(directory.glob("pairs-*.safetensors"))]
    if not shards:
        raise DataError(f"{directory} holds no ODE pairs", hint="run the stage 'ode-pairs'")
    joined = {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}
    return OdePairs(joined["states"], joined["image"], joined["audio"])
