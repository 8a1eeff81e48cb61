"""Parity of the audio and picture paths: recorded cases through the product code.

Every size comes from the case's own ``case.json``; all recorded tensors are compared.
"""

from pathlib import Path
from typing import Any

import torch
from from_state import wan_codec_from_state, wav2vec2_from_state
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from joyflash_cli.codec.wan import WanCodec
from joyflash_cli.conditioning.frames import AudioWindowRule, assemble_image_channels, audio_windows
from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, Wav2Vec2Options
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.types import Conditioning

VIDEO_ROWS = AudioWindowRule("video-rows")
ROWS_PER_LATENT = 4


class Comparison:
    """Differences by tensor name; ``worst`` is the greatest."""

    def __init__(self, io: dict[str, Tensor]) -> None:
        self.io = io
        self.errors: dict[str, float] = {}

    def check(self, name: str, value: Tensor) -> None:
        """Compare with the recorded tensor of this name; another shape is an infinite error."""
        expected = self.io[name]
        same_shape = value.shape == expected.shape
        error = float((value - expected).abs().max()) if same_shape else float("inf")
        self.errors[name] = error
        print(f"{name:32s} {tuple(expected.shape)!s:24s} {error:.3e}")

    def finish(self, inputs: set[str]) -> float:
        """The greatest error; a recorded tensor that nobody compared is an infinite one."""
        for name in sorted(set(self.io) - inputs - set(self.errors)):
            self.errors[name] = float("inf")
            print(f"{name:32s} not compared")
        return max(self.errors.values())


def run_audio(directory: Path, case: dict[str, Any], io: dict[str, Tensor]) -> float:
    """The AvatarForcing audio path: waveform, wav2vec2 stages, rows, windows, audio pack.

    Args:
        directory: Folder of the case, with the weights beside ``case.json``.
        case: Its ``case.json``.
        io: Its recorded inputs and outputs.

    Returns:
        Greatest absolute error over all recorded tensors.
    """
    comparison = Comparison(io)
    options = Wav2Vec2Options(
        rate_hz=float(case["fps"]), normalise="whole", span="rows", leading_zero_row=True
    )
    encoder = _encoder(directory, case, options)
    waveform = _mono(io["waveform"])
    _check_stages(comparison, encoder, waveform, case["teacher_len"])
    rows = encoder.encode(waveform, case["teacher_len"] + 1)
    comparison.check("audio_emb", rows)

    model = _audio_model(directory, case)
    for start, stop in case["windows"]:
        name = f"window{start}_{stop}"
        windows = audio_windows(rows[None], VIDEO_ROWS, start, stop)
        # Latent 0 hears its one row four times; the record holds every row once.
        own = windows.flatten(1, 2)[:, ROWS_PER_LATENT - 1 if start == 0 else 0 :]
        comparison.check(f"{name}.rows", own)
        comparison.check(f"{name}.pack", _pack(model, windows))
        for layer, token in enumerate(_layer_tokens(model, windows)):
            comparison.check(f"{name}.cond{layer}", token)
    return comparison.finish({"waveform"})


def run_livetalk_audio(directory: Path, case: dict[str, Any], io: dict[str, Tensor]) -> float:
    """The LiveTalk conditioning: audio, picture, image channels, and the VAE's decoding.

    Args:
        directory: Folder of the case, with the weights beside ``case.json``.
        case: Its ``case.json``.
        io: Its recorded inputs and outputs.

    Returns:
        Greatest absolute error over all recorded tensors.
    """
    comparison = Comparison(io)
    _check_livetalk_sound(comparison, directory, case)
    codec = wan_codec_from_state(vae_config(case), load_file(directory / "vae.safetensors"))
    _check_picture(comparison, codec, case)
    _check_decoding(comparison, codec)
    return comparison.finish({"waveform", "short_waveform", "image", "latents"})


def _check_livetalk_sound(comparison: Comparison, directory: Path, case: dict[str, Any]) -> None:
    """Both waveforms to per-layer tokens; the short one stretched, as the reference does."""
    num_latents, num_rows = case["num_latent_frames"], case["num_audio_rows"]
    # The record stretches short audio; the product's default continues it with silence.
    options = Wav2Vec2Options(rate_hz=float(case["fps"]), short_audio="stretch")
    encoder = _encoder(directory, case, options)
    model = _audio_model(directory, case["config"] | {"num_cond_projs": case["num_cond_projs"]})
    for prefix in ("", "short."):
        waveform = _mono(comparison.io["short_waveform" if prefix else "waveform"])
        _check_stages(comparison, encoder, waveform, num_rows, prefix=prefix)
        rows = encoder.encode(waveform, num_rows)[None]
        comparison.check(f"{prefix}audio_rows", rows)
        windows = audio_windows(rows, VIDEO_ROWS, 0, num_latents)
        comparison.check(f"{prefix}audio_tokens", torch.cat(_layer_tokens(model, windows)))
        if not prefix:
            comparison.check("pack_input", windows.flatten(1, 2))
            comparison.check("pack", _pack(model, windows))


def _check_stages(
    comparison: Comparison,
    encoder: Wav2Vec2Encoder,
    waveform: Tensor,
    num_rows: int,
    *,
    prefix: str = "",
) -> None:
    """Everything between waveform and rows that the case recorded under this prefix."""
    stages = encoder.encode_stages(waveform, num_rows)
    values = {
        "normalized_input": stages.normalised,
        "conv_features": stages.features,
        "resampled_features": stages.resampled,
        "projected_features": stages.projected,
        "last_hidden": stages.hidden_states[-1],
    }
    values |= {f"hidden_state{i}": state for i, state in enumerate(stages.hidden_states)}
    for name, value in values.items():
        if prefix + name in comparison.io:
            comparison.check(prefix + name, value)


def prepared(picture: Tensor, height: int, width: int) -> Tensor:
    """LiveTalk's reference ``(1, 3, height, width)`` in -1..1 of RGB values ``(H, W, 3)``.

    Scaled until it covers the target and cut, the larger half at the top and left; the row or
    column that truncating the scaled size may lose is black.
    """
    pixels = picture.permute(2, 0, 1)[None].float() / 255.0
    rows, columns = pixels.shape[-2:]
    scale = max(height / rows, width / columns)
    size = [int(rows * scale), int(columns * scale)]
    scaled = functional.interpolate(
        pixels, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    surplus = (size[0] - height, size[1] - width)
    top, left = (-(-amount // 2) for amount in surplus)
    bottom, right = surplus[0] - top, surplus[1] - left
    return functional.pad(scaled, (-left, -right, -top, -bottom)) * 2.0 - 1.0


def _check_picture(comparison: Comparison, codec: WanCodec, case: dict[str, Any]) -> None:
    """Picture to pixels, latent and image channels."""
    height, width = case["image"]["size_out"]
    pixel = prepared(comparison.io["image"], height, width)
    comparison.check("pixel", pixel[:, :, None])
    reference = codec.reference_latents(pixel)
    comparison.check("ref_latent", reference[:, None])
    image = assemble_image_channels(reference, 0, case["num_latent_frames"], convention="avatar")
    comparison.check("y", image.transpose(1, 2))


def _check_decoding(comparison: Comparison, codec: WanCodec) -> None:
    """Latents to frames, one latent at a time as in a stream."""
    state = codec.start_decoding()
    chunks = []
    for latent in comparison.io["latents"].split(1, dim=1):
        frames, state = codec.decode(latent, state)
        chunks.append(frames)
    decoded = torch.cat(chunks, dim=1)
    comparison.check("decoded", decoded)
    comparison.check("video", (decoded * 0.5 + 0.5).clamp(0.0, 1.0))


def _mono(waveform: Tensor) -> Tensor:
    """``(samples,)`` of ``(samples,)`` or ``(samples, channels)``."""
    return waveform if waveform.ndim == 1 else waveform.mean(dim=-1)


def _encoder(directory: Path, case: dict[str, Any], options: Wav2Vec2Options) -> Wav2Vec2Encoder:
    return wav2vec2_from_state(
        case["wav2vec2_config"], load_file(directory / "wav2vec.safetensors"), options
    )


def vae_config(case: dict[str, Any]) -> dict[str, Any]:
    """The case's VAE sizes under the argument names of diffusers."""
    config = dict(case["vae_config"])
    config["temperal_downsample"] = config.pop("temporal_downsample")
    return config


def _audio_model(directory: Path, sizes: dict[str, Any]) -> CausalTransformer:
    """A transformer of the case's width with the recorded audio pack; the rest is not used."""
    config = TransformerConfig(
        dim=sizes["dim"],
        num_layers=2 * (sizes["num_cond_projs"] + 1),
        num_heads=1,
        ffn_dim=sizes["dim"],
        in_channels=33,
        audio_pack=AudioPackConfig(
            audio_dim=sizes["audio_dim"],
            rows_per_latent=ROWS_PER_LATENT,
            hidden_dim=sizes["audio_hidden_size"],
        ),
    )
    names = {
        "audio_proj.proj.": "audio_pack.projection.",
        "audio_proj.norm_out.": "audio_pack.norm.",
        "audio_cond_projs.": "audio_pack_projections.",
    }
    weights = {}
    for key, value in load_file(directory / "audio_pack.safetensors").items():
        prefix = next(old for old in names if key.startswith(old))
        weights[names[prefix] + key.removeprefix(prefix)] = value
    model = CausalTransformer(config).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    absent = [key for key in missing if key.startswith("audio_")]
    if absent or unexpected:
        raise KeyError(f"audio weights do not fit: missing {absent}, unknown {unexpected}")
    return model


@torch.no_grad()
def _pack(model: CausalTransformer, windows: Tensor) -> Tensor:
    """Packed tokens ``(B, T, 1, 1, hidden)``, the record's shape."""
    return model.audio_pack(windows)[:, :, None, None]


@torch.no_grad()
def _layer_tokens(model: CausalTransformer, windows: Tensor) -> list[Tensor]:
    """What each adapted layer adds, ``(B, T, 1, 1, dim)``, in layer order from layer 2."""
    additions = model._audio_additions(Conditioning(audio=windows))
    if sorted(additions) != list(range(2, 2 + len(additions))):
        raise KeyError(f"audio is added to layers {sorted(additions)}, not to 2, 3, ...")
    return [additions[layer][:, :, None, None] for layer in sorted(additions)]
