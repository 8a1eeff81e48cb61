"""What the model and sampler cases share: configuration, weights, conditioning, recorded caches."""

import dataclasses
from pathlib import Path

import torch
from parity_report import Report
from presets import AVATARFORCING, LIVETALK, ROLLINGFORCING
from public_layouts import from_public
from safetensors.torch import load_file
from torch import Tensor

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.frames import audio_windows
from joyflash_cli.model.attention import KeysValues
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.rope import rope_rotations, rotate
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.convert_sources import select_generator


def transformer_config(case: dict) -> TransformerConfig:
    """The architecture of a case."""
    sizes = case["config"]
    audio_pack = None
    if sizes.get("use_audio"):
        audio_pack = AudioPackConfig(
            audio_dim=sizes["audio_dim"],
            rows_per_latent=sizes["audio_patch"][0],
            hidden_dim=sizes["audio_hidden_size"],
        )
    names = ("dim", "num_layers", "num_heads", "ffn_dim", "freq_dim", "text_dim", "text_len", "eps")
    return TransformerConfig(
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        patch_size=tuple(sizes["patch_size"]),
        audio_pack=audio_pack,
        cross_attn_norm=sizes.get("cross_attn_norm", True),
        **{name: sizes[name] for name in names},
    )


def load_transformer(directory: Path, case: dict) -> CausalTransformer:
    """The case's weights through the product's conversion."""
    folder = directory.parent / case["weights_from"] if "weights_from" in case else directory
    config = transformer_config(case)
    weights = select_generator(load_file(folder / "weights.safetensors"))
    scale = case.get("lora", {}).get("scale", 0.5)
    model = CausalTransformer(config).eval()
    model.load_state_dict(from_public(weights, config, adapter_scale=scale))
    return model


def sampler_profile(case: dict) -> SamplerSettings:
    """The checkpoint's own profile with the sizes of the case."""
    sizes = case["config"]
    if "max_attention_frames" not in sizes:
        profile, span = LIVETALK, sizes["cache_frames"]
    else:
        profile = AVATARFORCING if sizes.get("use_audio") else ROLLINGFORCING
        span = sizes["max_attention_frames"]
    steps = case.get("step_indices") or profile.main_steps
    if "sigmas" in case:
        # LiveTalk's own list of steps selects nothing; its noise levels tell what was used.
        shift = sizes["timestep_shift"]
        steps = [round(1000 * s / (shift - (shift - 1) * s)) for s in case["sigmas"]]
    block = sizes["num_frame_per_block"]
    return dataclasses.replace(
        profile,
        block_frames=block,
        main_steps=tuple(steps),
        shift=sizes["timestep_shift"],
        sink_frames=sizes["sink_frames"],
        # The reference's capacity counts sink and current block.
        context_frames=sizes["cache_frames"] - sizes["sink_frames"] - block,
        attention_span_frames=span,
        timestep_dtype="float32",
    )


class RecordedConditioning:
    """The recorded conditioning as a stream of ``num_blocks`` blocks.

    Args:
        io: Recorded tensors; absent kinds are left out.
        num_blocks: Length of the stream.
    """

    def __init__(self, io: dict[str, Tensor], num_blocks: int = 0) -> None:
        self._image = io["y"].transpose(1, 2) if "y" in io else None
        rows = io.get("audio_emb", io.get("audio_rows"))
        self._rows = rows
        self._text = io["prompt_embeds"]
        self._num_blocks = num_blocks

    def has_block(self, block_index: int) -> bool:
        """Whether the stream has this block."""
        return block_index < self._num_blocks

    def frames(self, start: int, stop: int) -> Conditioning:
        """Conditioning of latent frames ``start <= i < stop``."""
        audio = None
        if self._rows is not None:
            audio = audio_windows(self._rows, AudioWindowRule("video-rows"), start, stop)
        image = None if self._image is None else self._image[:, start:stop]
        return Conditioning(image=image, text=self._text, audio=audio)


class RecordedFrames:
    """Clean keys and values by latent frame, to rebuild any cache a reference held."""

    def __init__(self, model: CausalTransformer, case: dict) -> None:
        rows, columns = case["config"]["latent_hw"]
        patch = model.config.patch_size
        self._grid = (rows // patch[1], columns // patch[2])
        self._tokens = self._grid[0] * self._grid[1]
        self._head_dim = model.config.head_dim
        self._capacity = case["config"]["cache_frames"]
        self._sink = case["config"]["sink_frames"]
        # LiveTalk rotates all keys it keeps; the others leave the first write unrotated.
        self._first_write_is_raw = "max_attention_frames" in case["config"]
        self._raw: set[int] = set()
        self._frames: dict[int, list[KeysValues]] = {}

    def write(self, keys_values: tuple[KeysValues, ...], first_frame: int) -> None:
        """Remember the frames of one write; they replace what was there."""
        num_frames = keys_values[0][0].shape[1] // self._tokens
        frames = range(first_frame, first_frame + num_frames)
        if self._first_write_is_raw and first_frame == 0:
            self._raw.update(frames)
        for index, frame in enumerate(frames):
            part = slice(index * self._tokens, (index + 1) * self._tokens)
            self._frames[frame] = [(k[:, part], v[:, part]) for k, v in keys_values]

    def cache(self, last_frame: int) -> tuple[Tensor, Tensor]:
        """Keys and values ``(layers, B, tokens, N, K)`` as the reference holds them."""
        frames = range(last_frame + 1)
        recent = frames[self._sink :][-(self._capacity - self._sink) :]
        held = [*frames[: self._sink], *recent]
        keys, values = [], []
        for layer in range(len(self._frames[0])):
            parts = [self._frames[frame][layer] for frame in held]
            keys.append(
                torch.cat([self._as_stored(k, f) for (k, _), f in zip(parts, held, strict=True)], 1)
            )
            values.append(torch.cat([v for _, v in parts], dim=1))
        return torch.stack(keys), torch.stack(values)

    def _as_stored(self, keys: Tensor, frame: int) -> Tensor:
        if frame in self._raw:
            return keys
        turns = rope_rotations(torch.tensor([frame]), self._grid, head_dim=self._head_dim)
        return rotate(keys, turns[0])


def compare_audio_tokens(model: CausalTransformer, report: Report) -> None:
    """Packed audio of all frames through every layer's projection, layer-major, if recorded."""
    if "audio_tokens" not in report.io:
        return
    num_frames = report.io["audio_tokens"].shape[1]
    packed = model.audio_pack(RecordedConditioning(report.io).frames(0, num_frames).audio)
    tokens = [projection(packed) for projection in model.audio_pack_projections]
    if tokens:
        report.compare("audio_tokens", torch.cat(tokens)[:, :, None, None])
