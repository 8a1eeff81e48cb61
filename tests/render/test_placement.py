"""Choices of where and how: what excludes what, and what becomes of the loaded parts."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from joyflash_cli.codec import taehv
from joyflash_cli.codec.config import TinyCodecConfig, WanCodecConfig
from joyflash_cli.codec.protocol import PlacedCodec
from joyflash_cli.codec.taehv import (
    FastDecodeCodec,
    TaehvConfig,
    TaehvDecoder,
    TaehvDecodingState,
)
from joyflash_cli.codec.tiny import TinyCodec
from joyflash_cli.errors import CheckpointError, DeviceError, UsageError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.offloading import offload_linear_maps
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.render import device, load
from joyflash_cli.render import placement as module
from joyflash_cli.render.load import compile_layers, place_codec, place_transformer
from joyflash_cli.render.placement import (
    ExecutionOptions,
    Placement,
    choose_placement,
    place,
)
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.store import CheckpointFiles, resolve_checkpoint

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda:0"), torch.device("meta")
CONFIG = TransformerConfig(
    dim=32, num_layers=2, num_heads=2, ffn_dim=48, freq_dim=16, in_channels=4, out_channels=4,
    text_dim=8, text_len=4,
)  # fmt: skip


def transformer_of(seed: int = 0) -> CausalTransformer:
    generator = torch.Generator().manual_seed(seed)
    model = CausalTransformer(CONFIG).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.2, generator=generator)
    return model


def predict(transformer: CausalTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        return transformer(
            torch.randn(1, 3, 4, 4, 4, generator=generator),
            torch.tensor([[1000.0, 750.0, 0.0]]),
            Conditioning(text=torch.randn(1, 4, 8, generator=generator)),
            positions=torch.arange(3),
        ).prediction


def test_the_defaults_change_nothing():
    placement = choose_placement("cpu", "fp32")
    assert placement == Placement(CPU, torch.float32, CPU)
    assert placement.transformer_load_device == CPU
    assert placement.text_device == CPU
    assert placement.describe() == "cpu float32"


def test_every_choice_is_told_in_a_few_words():
    options = ExecutionOptions(quantize="int8", fast_decode=True, offload="text")
    placement = Placement(CUDA, torch.bfloat16, CPU, options)
    assert placement.describe() == ("cuda:0 bfloat16, int8 weights, fast decoder, pictures on cpu")
    assert placement.text_device == CPU
    assert placement.transformer_load_device == CPU
    offloading = Placement(CUDA, torch.bfloat16, CUDA, ExecutionOptions(offload="all"))
    assert offloading.offloads_layers
    assert offloading.transformer_load_device == CPU
    assert Placement(CUDA, torch.bfloat16, CUDA).transformer_load_device == CUDA


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offload": "some"}, "'some' does not exist"),
        ({"quantize": "int3"}, "'int3' does not exist"),
        ({"offload": "all", "compile": True}, "--offload all and --compile"),
        ({"offload": "all", "quantize": "int8"}, "--offload all and --quantize"),
    ],
)
def test_choices_that_cannot_be(options, words):
    with pytest.raises(UsageError, match=words) as caught:
        choose_placement("cpu", "fp32", ExecutionOptions(**options))
    assert caught.value.exit_code == 2


def test_what_changes_nothing_on_a_cpu_is_told(monkeypatch):
    placement = choose_placement("cpu", "fp32", ExecutionOptions(offload="all"))
    assert placement.warnings == ("--offload all changes nothing on the CPU",)
    assert not placement.offloads_layers
    monkeypatch.setattr(module, "unusable_gpu", lambda: "the machine has a GPU, but")
    monkeypatch.setattr(module, "choose_device", lambda name: CPU)
    assert choose_placement("auto", "fp32").warnings == (
        "the machine has a GPU, but; the CPU is used",
    )


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(DeviceError, match=r"C\+\+ compiler") as caught:
        choose_placement("cpu", "fp32", ExecutionOptions(compile=True))
    assert caught.value.code == "E-DEVICE-COMPILER"


@pytest.fixture
def files(toy_checkpoint) -> CheckpointFiles:
    return resolve_checkpoint("tiny", toy_checkpoint)


def test_a_checkpoint_with_its_own_decoder_has_no_fast_one(files):
    fast = ExecutionOptions(fast_decode=True)
    with pytest.raises(UsageError, match="small decoder of its own") as caught:
        place(files, "cpu", "fp32", fast)
    assert caught.value.code == "E-FAST-DECODE"


def test_a_missing_fast_decoder_is_named_with_its_role(files):
    description = dataclasses.replace(files.description, codec=WanCodecConfig({}))
    files = dataclasses.replace(files, description=description)
    fast = ExecutionOptions(fast_decode=True)
    with pytest.raises(CheckpointError, match=r"no fast_codec\.safetensors") as caught:
        place(files, "cpu", "fp32", fast)
    assert "role fast_codec" in caught.value.hint


def test_kernels_are_tried_with_the_checkpoints_own_heads(files):
    with pytest.raises(DeviceError, match="with heads of 16"):
        place(files, "cpu", "fp32", ExecutionOptions("cudnn"))
    place(files, "cpu", "fp32", ExecutionOptions("flash"))


def test_offloaded_layers_predict_the_same():
    """On the CPU: what is fetched is a copy there as well."""
    model = transformer_of()
    expected = predict(model)
    offload_linear_maps(model.layers, CPU)
    assert torch.equal(predict(model), expected)


def test_offloading_leaves_only_linear_maps_behind():
    model = transformer_of()
    placement = Placement(
        META, torch.float32, META, ExecutionOptions(attention="math", offload="all")
    )
    place_transformer(model, placement)
    for name, part in model.named_modules():
        for own, parameter in part.named_parameters(recurse=False):
            stays = isinstance(part, nn.Linear) and name.startswith("layers.")
            assert parameter.device == (CPU if stays else META), f"{name}.{own}"


def test_the_kernel_reaches_the_model():
    model = transformer_of()
    expected = predict(model)
    place_transformer(model, Placement(CPU, torch.float32, CPU, ExecutionOptions("math")))
    assert model.layers[0].self_attention.backend == "math"
    assert torch.allclose(predict(model), expected, atol=1e-5)


def test_quantized_layers_predict_nearly_the_same():
    pytest.importorskip("torchao")
    model = transformer_of()
    expected = predict(model)
    untouched = copy.deepcopy(model.head.projection.weight)
    options = ExecutionOptions(quantize="int8")
    place_transformer(model, Placement(CPU, torch.float32, CPU, options))
    got = predict(model)
    assert 0 < (got - expected).norm() / expected.norm() < 0.05
    assert torch.equal(model.head.projection.weight, untouched)
    assert model.layers[0].feed_forward.input.weight.qdata.dtype == torch.int8


@pytest.mark.slow
def test_compiled_layers_predict_the_same():
    model = transformer_of()
    expected = predict(model)
    compile_layers(model, backend="eager")
    assert torch.allclose(predict(model), expected, atol=1e-5)
    assert set(model.state_dict()) == set(transformer_of().state_dict())


class WanLikeCodec:
    """The sizes of a large VAE; nothing of it may be used."""

    latent_channels = 4
    spatial_stride = 8

    def reference_latents(self, reference):
        raise AssertionError

    encode = start_decoding = decode = reference_latents


def test_the_codec_is_wrapped_as_asked(files, monkeypatch):
    decoder = TaehvDecoder(TaehvConfig(latent_channels=4, widths=(4, 4, 4, 4)))
    monkeypatch.setattr(load, "_fast_weights", lambda files, placement: {})
    monkeypatch.setattr(taehv, "taehv_from_state", lambda: decoder)
    codec = WanLikeCodec()
    plain = Placement(CPU, torch.float32, CPU)
    assert place_codec(files, codec, plain) is codec
    fast = dataclasses.replace(plain, options=ExecutionOptions(fast_decode=True))
    assert isinstance(place_codec(files, codec, fast), FastDecodeCodec)
    elsewhere = dataclasses.replace(fast, codec_device=META)
    assert isinstance(place_codec(files, codec, elsewhere), PlacedCodec)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_the_embedded_codec_is_halved_where_the_transformer_is(
    files, monkeypatch, has_instructions
):
    monkeypatch.setattr(device, "has_bfloat16", lambda _device: has_instructions)
    for dtype in (torch.float32, torch.bfloat16):
        codec = TinyCodec(TinyCodecConfig())
        assert place_codec(files, codec, Placement(CPU, dtype, CPU)) is codec
        assert codec.is_halved == (has_instructions and dtype == torch.bfloat16)


def test_the_fast_decoder_is_read_from_the_checkpoint(files, tmp_path):
    from safetensors.torch import save_file

    decoder = TaehvDecoder(TaehvConfig(latent_channels=4, widths=(4, 4, 4, 4)))
    save_file(dict(decoder.state_dict()), tmp_path / "fast_codec.safetensors")
    files = dataclasses.replace(files, directory=tmp_path)
    options = ExecutionOptions(fast_decode=True)
    codec = place_codec(files, WanLikeCodec(), Placement(CPU, torch.float32, CPU, options))
    latents = torch.randn(1, 2, 4, 2, 2)
    got, _ = codec.decode(latents, codec.start_decoding(torch.zeros(1, 3, 16, 16)))
    expected, _ = decoder.decode(latents, TaehvDecodingState())
    torch.testing.assert_close(got, expected)
