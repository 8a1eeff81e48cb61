"""Cases of OmniAvatar: its network under its adapter, and its segments from sound to frames."""

from pathlib import Path

import torch
from parity_report import Report
from torch import Tensor

from joyflash_cli.conditioning.config import AudioWindowRule
from joyflash_cli.conditioning.frames import audio_windows
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.types import Conditioning
from joyflash_cli.weights.convert_adapter import Adapter, AdapterRule
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
    adapter = Adapter(TensorSource((directory / "adapter.safetensors",)), rule)
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
    num_frames = x.shape[2]
    windows = audio_windows(rows, VIDEO_ROWS, 0, num_frames)
    conditioning = Conditioning(
        image=y.transpose(1, 2), text=report.io[call["text"]], audio=windows
    )
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
    timesteps = timestep[:, None].expand(-1, num_frames)
    output = model(x.transpose(1, 2), timesteps, conditioning, positions=torch.arange(num_frames))
    for hook in hooks:
        hook.remove()
    # One timestep for all frames: every frame has the same vector.
    report.compare(f"{name}.time", kept.pop("time")[:, 0])
    report.compare(f"{name}.patch", kept.pop("patch").flatten(1, 2))
    for key, value in kept.items():
        report.compare(f"{name}.{key}", value)
    report.compare(f"{name}.flow", output.prediction.transpose(1, 2))
