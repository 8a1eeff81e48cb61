"""What a run goes on from: sizes, and parts as earlier stages left them on disk."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from safetensors.torch import load_file

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.encoders.front_end import FrontEnd
from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.dataset_latents import resolve_encoders
from joyflash_cli.studio.training.front_end import load_front_end
from joyflash_cli.studio.training.latent_reader import LatentReader
from joyflash_cli.studio.training.run_config import CHECKPOINT, RunConfig
from joyflash_cli.weights.tensors import part_files


@dataclass(frozen=True)
class Geometry:
    """What all networks of a run share.

    Attributes:
        student: Sizes of generator and fake score.
        teacher: Sizes of the real score.
        sampler: The profile that is trained.
    """

    student: TransformerConfig
    teacher: TransformerConfig
    sampler: SamplerSettings


def read_geometry(run: RunConfig) -> Geometry:
    """Sizes and sampler of a run: its own, or those of the checkpoint that it starts from."""
    student, sampler = run.generator.transformer, run.generator.sampler
    if run.weights.teacher_start == CHECKPOINT:
        files = resolve_encoders(run.dataset.checkpoint)
        student, own = files.description.transformer, files.description.sampler
        if not isinstance(own, SamplerSettings):
            raise ConfigError(
                f"checkpoint {files.name} is sampled in segments; training is of rolling windows",
                hint="start from a checkpoint with a cache",
            )
        sampler = own
    return Geometry(student, run.weights.teacher_transformer or student, sampler)


def weight_files(run: RunConfig, name: str) -> tuple[Path, ...]:
    """The files behind an entry of ``[weights]``: a file, or a folder of converted shards."""
    if name == CHECKPOINT:
        return resolve_encoders(run.dataset.checkpoint).shards("transformer")
    path = run.path(name)
    return (part_files(path, "transformer") or (path,)) if path.is_dir() else (path,)


def codec_of(run: RunConfig, name: str = "codec/codec.safetensors", *, scale: int = 1) -> TinyCodec:
    """A codec of a run, for pictures ``scale`` times the size of its clips."""
    codec = TinyCodec(replace(run.codec.codec, detail_scale=scale))
    codec.load_state_dict(load_file(run.path(name)))
    return codec.eval()


def exported_transformer(run: RunConfig) -> CausalTransformer:
    """The transformer of a run that is exported, for inference."""
    model = CausalTransformer(run.generator.transformer)
    model.load_state_dict(load_file(run.path(run.weights.exported)))
    return model.eval()


def lip_reader_of(run: RunConfig) -> LatentReader:
    """The frozen latent mouth reader of a run."""
    transformer = run.generator.transformer
    token_size = transformer.out_channels * prod(transformer.patch_size)
    reader = LatentReader(run.lip_reader, token_size)
    reader.load_state_dict(load_file(run.path("lip-reader/reader.safetensors")))
    return reader.eval().requires_grad_(False)


def front_end_of(run: RunConfig) -> FrontEnd:
    """The audio front end of a run, for inference."""
    return load_front_end(run.path("front_end.safetensors")).eval()
