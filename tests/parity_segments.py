"""Cases that record whole runs in segments: sound to windows, and picture and sound to frames."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import torch
from from_state import wan_codec_from_state, wav2vec2_from_state
from parity_audio import vae_config
from parity_projector import load_network
from parity_report import Report
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from joyflash_cli.codec.taehv import taehv_codec_from_state
from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.segments import SegmentConditioning, latent_rows, window_indices
from joyflash_cli.conditioning.stream import StaticConditioning
from joyflash_cli.encoders.protocol import Wav2Vec2Options
from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.segment_settings import SegmentSettings, nominal_steps
from joyflash_cli.sampler.segments import SegmentStream
from joyflash_cli.sampler.solver import warped_timesteps
from joyflash_cli.types import Conditioning


class WholeSound:
    """``HeardSound`` of a recorded waveform."""

    def __init__(self, waveform: Tensor) -> None:
        self._waveform = waveform
        self.num_samples = len(waveform)
        self.ended = True

    def pull(self) -> None:
        """All is there."""

    def covers_frame(self, frame: int) -> bool:
        """Whether it reaches into this video frame."""
        return frame * 640 < self.num_samples

    def read(self, start: int, stop: int) -> Tensor:
        """Samples of the waveform."""
        return self._waveform[start:stop]

    def forget(self, before: int) -> None:
        """Nothing is forgotten."""


class EncodedFile:
    """``StreamingEncoder`` of a whole waveform, which remembers what it encoded."""

    def __init__(self, encoder: Wav2Vec2Encoder, waveform: Tensor, num_rows: int) -> None:
        self.feature_rate_hz, self.feature_dim = encoder.feature_rate_hz, encoder.feature_dim
        self.rows = encoder.encode(waveform, num_rows)

    def span(self, start_row: int, stop_row: int) -> tuple[int, int]:
        """No samples of the stream."""
        return 0, 0

    def encode_span(self, sound: Tensor, start_row: int, stop_row: int) -> Tensor:
        """Rows of the file."""
        return self.rows[start_row:stop_row]


class NotedEncoder(Wav2Vec2Encoder):
    """An encoder that keeps the stages and the rows of every call."""

    def __init__(self, encoder: Wav2Vec2Encoder) -> None:
        super().__init__(encoder._model, encoder.options)
        self.calls: list = []

    def encode(self, waveform: Tensor, num_rows: int) -> Tensor:
        """Noted rows."""
        rows = super().encode(waveform, num_rows)
        self.calls.append((self.encode_stages(waveform, num_rows), rows))
        return rows


@torch.inference_mode()
def run_audio(directory: Path, case: dict, report: Report) -> None:
    """Waveform to the windows of every chunk, whole and through rings (``flashhead_audio``)."""
    (waveform,) = report.use("waveform")
    layers = case["wav2vec2_config"]["num_hidden_layers"]
    settings = _lengths(case, SegmentSettings(fps=case["fps"]))
    for run in case["runs"]:
        encoder = NotedEncoder(_encoder(directory, case, settings.fps))
        if run["mode"] == "once":
            settings = dataclasses.replace(settings, sound="whole")
            num_blocks = _num_blocks(waveform, settings)
            num_rows = 4 * settings.num_latents(num_blocks) - 3
            source = EncodedFile(encoder, waveform, num_rows)
        else:
            settings = dataclasses.replace(settings, sound="ring", ring_s=run["ring_seconds"])
            num_blocks, source = run["chunks"], encoder
        conditioning = _conditioning(waveform, source, settings, num_blocks)
        for index in range(num_blocks):
            windows = _windows_of(conditioning, settings, index)
            _compare_rows(report, f"{run['name']}.windows.{index}", windows, layers)
        _compare_stages(report, run, encoder, settings, layers)


def _compare_stages(
    report: Report, run: dict, encoder: NotedEncoder, settings: SegmentSettings, layers: int
) -> None:
    stride = settings.stride_video_frames * 16000 // settings.fps
    for index, (stages, rows) in enumerate(encoder.calls):
        values = {
            "normalized_input": stages.normalised,
            "normalized_tail": stages.normalised[:, -stride:],
            "conv_features": stages.features,
            "resampled_features": stages.resampled,
            "projected_features": stages.projected,
            "embeddings": rows.unflatten(-1, (layers, -1)),
        }
        values |= {f"hidden_state.{i}": state for i, state in enumerate(stages.hidden_states)}
        ending = "" if run["mode"] == "once" else f".{index}"
        for name, value in values.items():
            report.compare(f"{run['name']}.{name}{ending}", value)


def _compare_rows(report: Report, name: str, windows: Tensor, layers: int) -> None:
    report.compare(name, windows[None].unflatten(-1, (layers, -1)))


class RecordingStream(SegmentStream):
    """A stream that compares what it makes with the records of a run."""

    def __init__(self, *arguments: object, report: Report, run: str, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.report, self.run, self.index = report, run, 0
        self.shown_float: Tensor | None = None
        self._calls = 0

    def compare(self, name: str, value: Tensor) -> None:
        """With the record of this run; latents are stored channels first."""
        if value.ndim == 5:
            value = value[0] if value.shape[2] == 3 else value[0].transpose(0, 1)
        self.report.compare(self.run + name, value)

    def prefix(self) -> Tensor:
        """As it is imposed."""
        prefix = super().prefix()
        self.compare(f"chunk{self.index}.prefix", prefix)
        return prefix

    def denoised(self, index: int, prefix: Tensor) -> Tensor:
        """With the input and the output of every pass."""
        self.index, self._calls = index, 0
        handle = self.transformer.register_forward_hook(self._note_pass, with_kwargs=True)
        try:
            latents = super().denoised(index, prefix)
        finally:
            handle.remove()
        self.compare(f"chunk{index}.latents", latents)
        return latents

    def _note_pass(self, _module: object, inputs: tuple, _options: dict, output: object) -> None:
        name = f"chunk{self.index}"
        for kind, flow in (("step", "flow"), ("call", "v")):
            self.compare(f"{name}.{kind}{self._calls}.input", inputs[0])
            self.compare(f"{name}.{kind}{self._calls}.{flow}", output.prediction)
        self._calls += 1

    def decoded(self, latents: Tensor) -> Tensor:
        """Before and after the colours are matched."""
        raw, _ = self.codec.decode(latents, self.codec.start_decoding(self.reference))
        self.compare(f"chunk{self.index}.decoded", raw)
        frames = super().decoded(latents)
        self.compare(f"chunk{self.index}.matched", frames)
        shown = frames[0, self.settings.first_shown(self.index) :].permute(0, 2, 3, 1)
        self._compare_levels(f"chunk{self.index}.final_float", shown)
        self.index += 1
        return frames

    def _compare_levels(self, name: str, shown: Tensor) -> None:
        """Frames whose record goes from 0 to 255, in the unit of all others."""
        if self.run + name in self.report.io:
            (recorded,) = self.report.use(self.run + name)
            self.report.add_difference(name, recorded / 127.5 - 1, shown.clamp(-1, 1))

    def finish(self) -> None:
        """All blocks, their frames, and the prefix that a next segment would get."""
        frames = torch.cat([block.frames[0].permute(0, 2, 3, 1) for block in self.blocks()])
        self.compare("final_prefix", SegmentStream.prefix(self))
        compare_levels(self.report, f"{self.run}final_frames", frames)


def compare_levels(report: Report, name: str, frames: Tensor) -> None:
    """8-bit frames: at most one level off, in fewer than one of a thousand values.

    Raises:
        ValueError: If they differ by more.
    """
    (recorded,) = report.use(name)
    if recorded.shape != frames.shape:
        raise ValueError(f"{name}: recorded {tuple(recorded.shape)}, made {tuple(frames.shape)}")
    difference = (recorded.int() - frames.int()).abs()
    share = (difference > 0).double().mean().item()
    if difference.max() > 1 or share >= 1e-3:
        raise ValueError(f"{name}: {share:.1e} of the values differ, by {int(difference.max())}")
    report.note(f"{name} (share one level off)", share)


class RecordedNoise:
    """``NoiseSource`` of recorded draws ``(chunks, steps, C, F, h, w)``."""

    def __init__(self, draws: Tensor, initial: Tensor | None = None) -> None:
        self._draws, self._initial = draws.transpose(2, 3), initial

    def initial(self, block_index: int, num_frames: int) -> Tensor:
        """The noise of a chunk."""
        assert self._initial is not None
        return self._initial[block_index].transpose(0, 1)[None]

    def renoise(self, block_index: int, level: int, num_frames: int) -> Tensor:
        """The draw after a step."""
        return self._draws[block_index, level][None]

    def condition(self, block_index: int, level: int) -> Tensor:
        """Segments have no condition frame."""
        raise AssertionError


@torch.inference_mode()
def run_flashhead(directory: Path, case: dict, report: Report) -> None:
    """Picture and waveform to 8-bit frames (``flashhead_chunks``)."""
    model = load_network(load_file(directory / "weights.safetensors"), case)
    codec = wan_codec_from_state(vae_config(case), load_file(directory / "vae.safetensors"))
    sizes = case["infer_params"]
    settings = SegmentSettings(
        segment_frames=(sizes["frame_num"] + 3) // 4,
        overlap_frames=sizes["motion_frames_latent_num"],
        steps=nominal_steps(sizes["sample_steps"]),
        shift=sizes["sample_shift"],
        colour_match=sizes["color_correction_strength"],
        sound="ring" if case["mode"] == "stream" else "whole",
        ring_s=sizes["cached_audio_duration"],
        fps=sizes["tgt_fps"],
    )
    waveform, noise, draws = report.use("waveform", "noise", "draws")
    warped = warped_timesteps((*settings.steps, 0), settings.shift)
    report.compare("timesteps", warped)
    encoder = _encoder(directory, case, settings.fps)
    num_blocks, source = _num_blocks(waveform, settings), encoder
    if settings.sound == "whole":
        source = EncodedFile(encoder, waveform, 4 * settings.num_latents(num_blocks) - 3)
    reference, latents = _pictured(codec, report, case, settings)
    conditioning = _conditioning(waveform, source, settings, num_blocks, latents)
    # The reference makes one chunk fewer of a whole file than there are.
    noted = NotedSource(conditioning, case["num_chunks"], report, case["wav2vec2_config"])
    RecordingStream(
        model, settings, noted, RecordedNoise(draws, noise), codec, reference, latents,
        timesteps=tuple(report.io["timesteps"].tolist()[: len(settings.steps)]),
        report=report, run="",
    ).finish()  # fmt: skip


@torch.inference_mode()
def run_leaptalk(directory: Path, case: dict, report: Report) -> None:
    """Picture and audio embeddings to 8-bit frames, several ways (``leaptalk_*``)."""
    model = _adapted(directory, case, report)
    if (directory / "tae.safetensors").is_file():
        codec = taehv_codec_from_state(load_file(directory / "tae.safetensors"))
        _compare_alone(codec, report)
    else:
        codec = wan_codec_from_state(vae_config(case), load_file(directory / "vae.safetensors"))
    (embeddings,) = report.use("embeddings")
    settings = _lengths(
        case,
        SegmentSettings(
            shift=case["shift"],
            solver="bridge",
            colour_match=case["color_correction_strength"],
            sound="whole" if case["mode"] == "once" else "ring",
        ),
    )
    reference, latents = _pictured(codec, report, case, settings)
    scale = case.get("noise_scale", 1.0)
    for run in case["runs"]:
        chosen = dataclasses.replace(
            settings, steps=tuple(run["step_list"]), audio_guidance=run["guidance"]
        )
        name = f"{run['name']}."
        report.compare(f"{name}timesteps", warped_timesteps(chosen.steps, chosen.shift))
        RecordingStream(
            model, chosen, EmbeddedSource(embeddings, chosen, latents, case, report),
            RecordedNoise(scale * report.use(f"{name}draws")[0]), codec, reference, latents,
            timesteps=tuple(report.io[f"{name}timesteps"].tolist()), report=report, run=name,
        ).finish()  # fmt: skip


def _adapted(directory: Path, case: dict, report: Report) -> CausalTransformer:
    """The base with its adapter merged and its projector replaced."""
    state = load_file(directory / "weights.safetensors")
    state |= load_file(directory / "adapter_model.safetensors")
    projector = load_file(directory / "audio_proj.safetensors")
    state |= {f"audio_proj.{name}": value for name, value in projector.items()}
    stated = case["adapter_config"]
    model = load_network(state, case, scale=stated["lora_alpha"] / stated["r"])
    names = {"self_attn": "self_attention", "cross_attn": "cross_attention"}
    leaves = {"q": "query", "k": "key", "v": "value", "o": "output"}
    for key in [name for name in report.io if name.startswith("merged.")]:
        _, _, index, attention, leaf, _ = key.split(".")
        part = getattr(model.layers[int(index)], names[attention])
        ours = leaves[leaf]
        if attention == "cross_attn" and leaf in "kv":
            ours = f"audio_{ours}"
        report.compare(key, getattr(part, ours).weight)
    return model


def _compare_alone(codec: object, report: Report) -> None:
    (pixels,) = report.use("alone.pixels")
    frames = pixels.transpose(1, 2)
    latents = codec.encode(frames, frames[:, 0])
    report.compare("alone.latents", latents[0].transpose(0, 1))
    recorded = report.io["alone.latents"].transpose(0, 1)[None]
    decoded, _ = codec.decode(recorded, codec.start_decoding())
    report.compare("alone.decoded", decoded[0])


class NotedSource:
    """A ``ConditioningSource`` of a few segments, whose windows are compared."""

    def __init__(
        self, inner: SegmentConditioning, num_blocks: int, report: Report, encoder: dict
    ) -> None:
        self._inner, self._num_blocks, self._report = inner, num_blocks, report
        self._layers = encoder["num_hidden_layers"]
        self._windows: list[Tensor] = []
        inner_windows = "_heard" if inner._settings.sound == "ring" else "_whole"
        own = getattr(inner, inner_windows)
        setattr(inner, inner_windows, functools.partial(self._noted, own))

    def _noted(self, own: object, index: int) -> Tensor:
        windows = own(index)
        _compare_rows(self._report, f"chunk{index}.audio_windows", windows, self._layers)
        return windows

    def has_block(self, block_index: int) -> bool:
        """As many as were recorded."""
        return block_index < self._num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Of the inner source."""
        return self._inner.frames(start, stop)


class EmbeddedSource:
    """A ``ConditioningSource`` of recorded audio embeddings."""

    def __init__(
        self,
        embeddings: Tensor,
        settings: SegmentSettings,
        latents: Tensor,
        case: dict,
        report: Report,
    ) -> None:
        self._width = case["config"]["audio_window"]
        self._embeddings, self._settings, self._latents = embeddings, settings, latents
        self._num_blocks, self._report = case["num_chunks"], report

    def has_block(self, block_index: int) -> bool:
        """As many as were recorded."""
        return block_index < self._num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Windows around the frames of a segment."""
        settings = self._settings
        index = start // settings.block_frames
        rows, first = self._embeddings, index * settings.stride_video_frames
        if rows.ndim == 4:  # a ring of each chunk
            rows = rows[index]
            first = len(rows) - settings.segment_video_frames
        stop = first + settings.segment_video_frames
        indices = window_indices(first, stop, end=len(rows), width=self._width)
        windows = rows[indices][None]
        self._report.compare(f"chunk{index}.audio_windows", windows)
        return Conditioning(image=self._latents, audio=latent_rows(windows).flatten(3))


def _pictured(
    codec: object, report: Report, case: dict, settings: SegmentSettings
) -> tuple[Tensor, Tensor]:
    """The picture ``(1, 3, H, W)`` in -1..1 and the latents of a clip of it."""
    (picture,) = report.use("picture")
    height, width = case["picture"]["size_out"]
    reference = prepared(picture, height, width)
    report.compare("pixel", reference[:, :, None])
    clip = reference[:, None].expand(-1, settings.segment_video_frames, -1, -1, -1)
    latents = codec.encode(clip, reference)
    report.compare("ref_latent", latents[0].transpose(0, 1))
    return reference, latents


def prepared(picture: Tensor, height: int, width: int) -> Tensor:
    """FlashHead's reference of RGB levels ``(H, W, 3)``: scaled to cover, cut in the middle."""
    levels = Image.fromarray(picture.numpy().astype(np.uint8))
    scale = max(height / levels.height, width / levels.width)
    size = (math.ceil(scale * levels.width), math.ceil(scale * levels.height))
    scaled = np.asarray(levels.resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - height) / 2), round((size[0] - width) / 2)
    cut = torch.from_numpy(scaled[top : top + height, left : left + width].copy())
    return cut.permute(2, 0, 1)[None].float() / 255 * 2 - 1


def _num_blocks(waveform: Tensor, settings: SegmentSettings) -> int:
    """Segments of a waveform, as the product counts them."""
    return settings.num_blocks(math.ceil(len(waveform) * settings.fps / 16000))


def _lengths(case: dict, settings: SegmentSettings) -> SegmentSettings:
    return dataclasses.replace(
        settings,
        segment_frames=(case["frame_num"] + 3) // 4,
        overlap_frames=(case["motion_frames"] + 3) // 4,
    )


def _encoder(directory: Path, case: dict, fps: int) -> Wav2Vec2Encoder:
    options = Wav2Vec2Options(
        rate_hz=float(fps), normalise="padded", span="rows", hidden_states="layers"
    )
    return wav2vec2_from_state(
        case["wav2vec2_config"], load_file(directory / "wav2vec.safetensors"), options
    )


def _conditioning(
    waveform: Tensor,
    encoder: object,
    settings: SegmentSettings,
    num_blocks: int,
    latents: Tensor | None = None,
) -> SegmentConditioning:
    return SegmentConditioning(
        WholeSound(waveform),
        encoder,
        AudioWindowRule("segment", margin=2),
        static=StaticConditioning(reference_latents=latents, convention="clip"),
        settings=settings,
        num_blocks=num_blocks if settings.sound == "whole" else None,
    )


def _windows_of(conditioning: SegmentConditioning, settings: SegmentSettings, index: int) -> Tensor:
    """Windows of a chunk, ``(F, 5, D)``, as the product makes them."""
    make = conditioning._whole if settings.sound == "whole" else conditioning._heard
    return make(index)
