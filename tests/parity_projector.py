"""Cases that record forward passes of networks whose sound passes an audio projector."""

from pathlib import Path

import torch
from parity_calls import Recorder
from parity_report import Report
from public_layouts import from_public
from safetensors.torch import load_file
from torch import Tensor

from joyflash_cli.conditioning.segments import latent_rows
from joyflash_cli.model.config import AudioProjectorConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.convert_transformer import detect_names


def network_config(case: dict) -> TransformerConfig:
    """The architecture of a case; a text branch where sound has an attention of its own."""
    sizes = case["config"]
    has_text = "audio_output_dim" in sizes
    names = ("dim", "num_layers", "num_heads", "ffn_dim", "freq_dim", "eps")
    return TransformerConfig(
        in_channels=sizes["in_dim"],
        out_channels=sizes["out_dim"],
        patch_size=tuple(sizes["patch_size"]),
        text_dim=sizes["text_dim"] if has_text else None,
        text_len=sizes.get("text_len", 512),
        image_token_dim=sizes.get("clip_dim"),
        audio_projector=AudioProjectorConfig(
            audio_dim=sizes["audio_blocks"] * sizes["audio_channels"],
            window_rows=sizes["audio_window"],
            hidden_dim=sizes["audio_intermediate"],
            num_tokens=sizes["context_tokens"],
            output_dim=sizes.get("audio_output_dim", sizes["dim"]),
            own_attention=has_text,
        ),
        **{name: sizes[name] for name in names},
    )


def load_network(state: dict[str, Tensor], case: dict, *, scale: float = 1.0) -> CausalTransformer:
    """The network with these weights, through the product's conversion."""
    config = network_config(case)
    names = detect_names({name: tuple(value.shape) for name, value in state.items()})
    model = CausalTransformer(config).eval()
    model.load_state_dict(from_public(state, config, names=names, adapter_scale=scale))
    return model


@torch.inference_mode()
def run_net(directory: Path, case: dict, report: Report) -> None:
    """Independent passes over all frames at once, and the projector alone."""
    model = load_network(load_file(directory / "weights.safetensors"), case)
    text = clip = None
    if "text" in report.io:
        text, clip = report.use("text", "clip")
        text = text[None]
    for call in case["calls"]:
        _run_call(model, call, Conditioning(text=text, image_tokens=clip), report)
    for index in range(len(case.get("projector_latent_frames", ()))):
        first, later = report.use(f"proj{index}.first_windows", f"proj{index}.later_windows")
        tokens = model.audio_projection(_together(first, later))
        report.compare(f"proj{index}.tokens", tokens)


def _run_call(model: CausalTransformer, call: dict, static: Conditioning, report: Report) -> None:
    name = f"call{call['index']}"
    x, y, timestep, windows = report.use(
        f"{name}.x", f"{name}.y", f"{name}.timestep", f"{name}.audio_windows"
    )
    x, y = (part if part.ndim == 5 else part[None] for part in (x, y))
    latents = x.transpose(1, 2)
    num_frames = latents.shape[1]
    conditioning = static.with_frames(
        image=y.transpose(1, 2), audio=latent_rows(windows).flatten(3)
    )
    with Recorder(model) as seen:
        flow = model(
            latents, timestep[:, None].expand(-1, num_frames), conditioning,
            positions=torch.arange(num_frames),
        ).prediction  # fmt: skip
    flow = flow.transpose(1, 2)
    own = {
        "patch": seen.outputs["patch_embed"].flatten(1, 2),
        "time": seen.outputs["time_embed"][:, 0],
        "time_six": seen.outputs["time_proj"][:, 0].unflatten(-1, (6, -1)),
        "audio_context": seen.outputs["audio_projection"],
        "flow": flow,
        "net_output": flow[0],
    }
    own |= {f"hidden.{i}": seen.outputs[f"block{i}"] for i in range(model.config.num_layers)}
    names = {
        "clip_tokens": "clip",
        "block0.self_attention": "self_attention0",
        "block0.text_clip_attention": "cross_attention0",
        "block0.audio_attention": "audio_attention0",
    }
    own |= {key: seen.outputs[part] for key, part in names.items() if part in seen.outputs}
    for key, value in own.items():
        report.compare(f"{name}.{key}", value)


def _together(first: Tensor, later: Tensor) -> Tensor:
    """Rows of the first latent frame and of the later ones, the first filled up with zeros."""
    missing = later.shape[2] - first.shape[2]
    filled = torch.cat((first, first.new_zeros(1, 1, missing, *first.shape[3:])), dim=2)
    return torch.cat((filled, later), dim=1).flatten(3)
