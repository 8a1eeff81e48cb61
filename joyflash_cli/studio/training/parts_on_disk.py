"""Parts as earlier stages of a run left them on disk."""

from dataclasses import replace
from math import prod

from safetensors.torch import load_file

from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.encoders.front_end import FrontEnd, load_front_end
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.training.latent_reader import LatentReader
from joyflash_cli.studio.training.run_config import RunConfig


def codec_of(run: RunConfig, name: str = "codec/codec.safetensors") -> TinyCodec:
    """A codec of a run at the size of its clips: by default as the stage ``codec`` left it."""
    codec = TinyCodec(replace(run.codec.codec, detail_scale=1))
    codec.load_state_dict(load_file(run.path(name)))
    return codec.eval()


def shipped_codec_of(run: RunConfig) -> TinyCodec:
    """The codec of a run as it is shipped: at the size of the video."""
    codec = TinyCodec(run.codec.codec)
    codec.load_state_dict(load_file(run.path("decoder/codec.safetensors")))
    return codec.eval()


def transformer_of(
    run: RunConfig, name: str = "generator/generator.safetensors"
) -> CausalTransformer:
    """The transformer of a weights file of a run, for inference."""
    model = CausalTransformer(run.generator.transformer)
    model.load_state_dict(load_file(run.path(name)))
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
