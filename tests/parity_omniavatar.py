"""Cases of OmniAvatar: its network under its adapter, and its segments from sound to frames."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import torch
from from_state import wan_codec_from_state, wav2vec2_from_state
from parity_audio import prepared, vae_config
from parity_report import Report
from parity_segments import EncodedFile, WholeSound, compare_levels
from safetensors.torch import load_file
from torch import Tensor

from joyflash_cli.codec.tiling import (
    DECODE_STRIDE,
    DECODE_TILE,
    ENCODE_STRIDE,
    ENCODE_TILE,
    TiledWanCodec,
)
from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.frames import audio_windows
from joyflash_cli.conditioning.segments import SegmentConditioning
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.encoders.protocol import Wav2Vec2Options
from joyflash_cli.media.inputs.framing import SizeRule
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.segment_settings import SegmentSettings, even_steps
from joyflash_cli.sampler.segments import SegmentStream, segment_timesteps
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.convert_adapter import AdapterRule
from joyflash_cli.weights.convert_sources import TensorSource
from joyflash_cli.weights.convert_transformer import plan_transformer

VIDEO_ROWS = AudioWindowRule("video-rows")


def load_network(directory: Path, case: dict) -> CausalTransformer:
    """The case's base and adapter through the product's conversion."""
    sizes, lora = case["config"], case["lora"]
    names = ("dim", "num_layers", "num_heads", "ffn_dim", "freq_dim", "text_dim", "text_len", "eps")
    config = TransformerConfig(
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        patch_size=tuple(sizes["patch_size"]),
        audio_pack=AudioPackConfig(
            audio_dim=sizes["audio_dim"],
            rows_per_latent=sizes["audio_patch"][0],
            hidden_dim=sizes["audio_hidden_size"],
        ),
        **{name: sizes[name] for name in names},
    )
    rule = AdapterRule(lora["rank"], lora["alpha"] / lora["rank"], tuple(lora["targets"]))
    adapter = TensorSource((directory / "adapter.safetensors",)), rule
    brings = ["patch_embedding", "audio_proj"]
    if config.audio_pack_layers:
        brings.append("audio_cond_projs")
    template = {"transformer": config.to_dict(), "adapter": {"brings": brings}}
    source, _, outputs = plan_transformer(
        (directory / "weights.safetensors",), template, adapter=adapter
    )
    with source.opened() as read:
        weights = {o.name: o.build(*(read(name) for name in o.sources)) for o in outputs}
    model = CausalTransformer(config).eval()
    model.load_state_dict(weights)
    return model


@torch.inference_mode()
def run_net(directory: Path, case: dict, report: Report) -> None:
    """Independent passes over all frames (``omniavatar_net``)."""
    model = load_network(directory, case)
    report.use("text", "negative_text")
    for call in case["calls"]:
        _compare_call(model, call, report)


def _compare_call(model: CausalTransformer, call: dict, report: Report) -> None:
    name = f"call{call['index']}"
    x, y, rows, timestep = report.use(
        *(f"{name}.{k}" for k in ("x", "y", "audio_rows", "timestep"))
    )
    batch, _, num_frames = x.shape[:3]
    text = report.io[call["text"]].expand(batch, -1, -1)
    windows = audio_windows(rows, VIDEO_ROWS, 0, num_frames)
    conditioning = Conditioning(image=y.transpose(1, 2), text=text, audio=windows)
    kept: dict[str, Tensor] = {}
    watched = {
        "time": model.time_embedding,
        "text_embedded": model.text_embedding,
        "pack": model.audio_pack,
        "patch": model.patch_embedding,
    }
    watched |= {f"audio_tokens.{i}": m for i, m in enumerate(model.audio_pack_projections)}
    watched |= {f"hidden.{i}": layer for i, layer in enumerate(model.layers)}
    hooks = [
        module.register_forward_hook(
            lambda _m, _a, out, key=key: kept.__setitem__(
                key, out[0] if isinstance(out, tuple) else out
            )
        )
        for key, module in watched.items()
    ]
    timesteps = timestep.expand(batch)[:, None].expand(-1, num_frames)
    output = model(x.transpose(1, 2), timesteps, conditioning, positions=torch.arange(num_frames))
    for hook in hooks:
        hook.remove()
    # One timestep for all frames: every frame has the same vector.
    report.compare(f"{name}.time", kept.pop("time")[: len(timestep), 0])
    report.compare(f"{name}.patch", kept.pop("patch").flatten(1, 2))
    for key, value in kept.items():
        report.compare(f"{name}.{key}", value)
    report.compare(f"{name}.flow", output.prediction.transpose(1, 2))


@torch.inference_mode()
def run_sampling(directory: Path, case: dict, report: Report) -> None:
    """Picture and waveform to 8-bit frames, by two kinds of guidance (``omniavatar_sampling``)."""
    model = load_network(directory, case)
    plain = wan_codec_from_state(vae_config(case), load_file(directory / "vae.safetensors"))
    codec = TiledWanCodec(plain._vae)
    _compare_tiles(codec, case, report)
    reference, latent = _pictured(codec, case, report)
    settings = _settings(case, reference)
    waveform, *_ = report.use("waveform", "text", "negative_text")
    encoder = wav2vec2_from_state(
        case["wav2vec2_config"], load_file(directory / "wav2vec.safetensors"), _options(settings)
    )
    # The reference shows one frame more than there are of the sound: row r drives frame r + 1.
    num_frames = 1 + math.ceil(len(waveform) / case["sample_rate"] * settings.fps)
    num_blocks = settings.num_blocks(num_frames)
    file_rows = EncodedFile(encoder, waveform, settings.video_start(num_blocks))
    stages = encoder.encode_stages(waveform, settings.video_start(num_blocks) - 1)
    report.compare("padded_input", stages.normalised)
    report.compare("resampled_features", stages.resampled)
    static = StaticConditioning(
        latent, text=report.io["text"], negative_text=report.io["negative_text"]
    )
    for run in case["runs"]:
        name = f"{run['name']}."
        audio = run["audio_guidance"]
        chosen = dataclasses.replace(
            settings,
            steps=even_steps(run["steps"]),
            text_guidance=run["guidance"],
            audio_guidance=run["guidance"] if audio is None else audio,
        )
        warped = segment_timesteps(chosen)
        report.compare(f"{name}timesteps", warped)
        report.compare(f"{name}sigmas", warped / 1000)
        stream = RecordingSegments(
            model, chosen,
            NotedRows(
                WholeSound(waveform), file_rows, VIDEO_ROWS, static=static, settings=chosen,
                num_blocks=num_blocks,
            ),
            RecordedSegmentNoise(report.use(f"{name}noise")[0]), codec, reference,
            latent[:, None].expand(-1, chosen.segment_frames, -1, -1, -1),
            timesteps=tuple(report.io[f"{name}timesteps"].tolist()), report=report, run=run,
        )  # fmt: skip
        frames = torch.cat([block.frames[0].permute(0, 2, 3, 1) for block in stream.blocks()])
        compare_levels(report, f"{name}final_frames", frames[:num_frames])


class RecordingSegments(SegmentStream):
    """A stream that compares every pass, segment and frame with the records of a run."""

    def __init__(self, *arguments: object, report: Report, run: dict, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.report, self.run, self.index = report, run, 0
        self.source.note = self.compare
        self._calls: dict[str, int] = {}

    def compare(self, name: str, value: Tensor) -> None:
        """With the record of this run and segment; latents are stored channels first."""
        if value.ndim == 5:
            value = value[0].transpose(0, 1)
        self.report.compare(f"{self.run['name']}.segment{self.index}.{name}", value)

    def denoised(self, index: int, prefix: Tensor) -> Tensor:
        """With what is known at its begin, and the input and the output of every pass."""
        self.index, self._calls = index, {}
        given = torch.zeros_like(self.reference_latents)
        given[:, : prefix.shape[1]] = prefix
        self.compare("given_latents", given)
        handle = self.transformer.register_forward_hook(self._note_pass, with_kwargs=True)
        try:
            latents = super().denoised(index, prefix)
        finally:
            handle.remove()
        self.compare("latents", latents)
        return latents

    def decoded(self, latents: Tensor) -> Tensor:
        """With the frames."""
        frames = super().decoded(latents)
        self.compare("frames", (frames[0] + 1) / 2)
        return frames

    def _note_pass(self, _module: object, inputs: tuple, _options: dict, output: object) -> None:
        conditioning = inputs[2]
        is_negative = conditioning.text is conditioning.negative_text
        kind = "neg" if is_negative else "text"
        if not conditioning.audio.any():
            kind += "+no_audio"
        calls = [call for call in self.run["calls"] if call["segment"] == self.index]
        of_kind = [number for number, call in enumerate(calls) if call["kind"] == kind]
        number = of_kind[self._calls.get(kind, 0)]
        self._calls[kind] = self._calls.get(kind, 0) + 1
        self.compare(f"call{number}.input", inputs[0])
        self.compare(f"call{number}.flow", output.prediction)


class NotedRows(SegmentConditioning):
    """Conditioning whose rows and channels are compared."""

    note: Callable[[str, Tensor], None]

    def frames(self, start: int, stop: int) -> Conditioning:
        """Compared."""
        conditioning = super().frames(start, stop)
        self.note("y", conditioning.image)
        # Latent 0 hears its one row four times; the record holds every row once.
        self.note("audio_rows", conditioning.audio.flatten(1, 2)[:, 3:])
        return conditioning


class RecordedSegmentNoise:
    """``NoiseSource`` of recorded noise ``(segments, C, T, h, w)``, one draw per segment."""

    def __init__(self, noise: Tensor) -> None:
        self._noise = noise.transpose(1, 2)

    def initial(self, block_index: int, num_frames: int) -> Tensor:
        """The noise of a segment."""
        return self._noise[block_index][None]

    def renoise(self, block_index: int, level: int, num_frames: int) -> Tensor:
        """An ODE is walked: nothing is drawn on the way."""
        raise AssertionError

    def condition(self, block_index: int, level: int) -> Tensor:
        """Segments have no condition frame."""
        raise AssertionError


def _settings(case: dict, reference: Tensor) -> SegmentSettings:
    overlap = (case["overlap_frames"] + 3) // 4
    settings = SegmentSettings(
        segment_frames=overlap + 1,
        overlap_frames=overlap,
        shift=case["shift"],
        solver="euler",
        colour_match=0.0,
        max_tokens=case["max_tokens"],
        fps=case["fps"],
    ).for_size(reference.shape[-1], reference.shape[-2])
    if settings.segment_frames != case["segment_latents"]:
        raise ValueError(f"segments of {settings.segment_frames} latents instead of the case's")
    return settings


def _options(settings: SegmentSettings) -> Wav2Vec2Options:
    return Wav2Vec2Options(
        rate_hz=float(settings.fps),
        normalise="whole",
        span="rows",
        leading_zero_row=True,
        short_audio="zeros",
    )


def _pictured(codec: TiledWanCodec, case: dict, report: Report) -> tuple[Tensor, Tensor]:
    """The picture ``(1, 3, H, W)`` in -1..1 in the nearest size, and its latent."""
    (picture,) = report.use("picture")
    sizes = tuple((width, height) for height, width in case["sizes"])
    width, height = SizeRule(sizes=sizes, nearest="ratio").frame_size(
        picture.shape[1], picture.shape[0]
    )
    reference = prepared(picture, height, width)
    report.compare("pixel", reference[:, :, None])
    latent = codec.reference_latents(reference)
    report.compare("image_latent", latent[:, :, None])
    return reference, latent


def _compare_tiles(codec: TiledWanCodec, case: dict, report: Report) -> None:
    if "tiled.latents" not in report.io:
        return
    constants = {
        "decode_tile_latents": DECODE_TILE, "decode_stride_latents": DECODE_STRIDE,
        "encode_tile_pixels": ENCODE_TILE, "encode_stride_pixels": ENCODE_STRIDE,
    }  # fmt: skip
    for name, constant in constants.items():
        if tuple(case["tiling"][name]) != constant:
            raise ValueError(f"{name} is {case['tiling'][name]}; the product has {constant}")
    latents, pixels = report.use("tiled.latents", "tiled.pixels")
    decoded, _ = codec.decode(latents.transpose(1, 2), codec.start_decoding())
    report.compare("tiled.decoded", decoded.transpose(1, 2))
    clip = pixels.transpose(1, 2)
    report.compare("tiled.encoded", codec.encode(clip, clip[:, 0]).transpose(1, 2))
