"""Small random files in exactly the layouts in which full-size profiles are published."""

import json
from pathlib import Path

import torch
from public_layouts import to_public
from safetensors.torch import save_file

from joyflash_cli.codec.wan import wan_vae_module
from joyflash_cli.encoders.image import image_encoder_module
from joyflash_cli.encoders.text import text_encoder_module
from joyflash_cli.encoders.wav2vec2 import wav2vec2_module
from joyflash_cli.model.config import AudioPackConfig, TransformerConfig
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.weights.convert_names import (
    IMAGE_ENCODER_NAMES,
    ORIGINAL_NAMES,
    TEXT_ENCODER_NAMES,
    rename,
)
from joyflash_cli.weights.manifest import find_profile

TEXT_DIM = 16
VAE = {"base_dim": 4, "z_dim": 16}
TEXT = {
    "vocab_size": 12, "d_model": TEXT_DIM, "num_heads": 2, "d_kv": 8, "d_ff": 24,
    "num_layers": 2, "relative_attention_num_buckets": 32,
}  # fmt: skip
WAV2VEC2 = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
CLIP = {
    "hidden_size": 80, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 1,
    "image_size": 28, "patch_size": 14, "hidden_act": "gelu",
}  # fmt: skip
AVATAR = TransformerConfig(
    dim=128, num_layers=4, num_heads=1, ffn_dim=48, freq_dim=32, in_channels=33, text_dim=TEXT_DIM,
    audio_pack=AudioPackConfig(audio_dim=4 * 16, hidden_dim=8),
)  # fmt: skip
"""As wide as one head of the published models, so that the number of heads is found."""


def write_profile(folder: Path, profile: str, config: TransformerConfig = AVATAR) -> Path:
    """All files of a profile under their published names; returns the folder.

    Args:
        folder: Where they go.
        profile: Its name.
        config: Sizes of the network of a profile with an adapter.
    """
    torch.manual_seed(5)
    writers = {
        "transformer": write_transformer,
        "codec": write_vae,
        "audio_encoder": write_audio_encoder,
        "text_encoder": write_text_encoder,
        "tokenizer": write_tokenizer,
        "image_encoder": write_image_encoder,
    }
    files = find_profile(profile).files
    shards = [file for file in files if file.role == "transformer" and "-of-" in file.path]
    parts = {}
    if any(file.role == "adapter" for file in files):
        base, adapter, _ = adapted(config)
        parts = {"transformer": base, "adapter": adapter}
    for file in files:
        path = folder / file.repo.partition("/")[2] / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.role in parts:
            write_adapted(path, parts[file.role], shards.index(file) if file in shards else 0)
        elif file.role in writers and not path.exists():
            writers[file.role](path)
    return folder


def random_transformer(config: TransformerConfig = AVATAR) -> CausalTransformer:
    """Random weights of moderate size everywhere, so that every path has an effect."""
    model = CausalTransformer(config)
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def write_transformer(path: Path, config: TransformerConfig = AVATAR) -> None:
    """LiveTalk's plain safetensors, or AvatarForcing's training checkpoint with adapters."""
    if path.name == "config.json":
        return
    public = to_public(random_transformer(config).state_dict(), config)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in public.items()}, path)
        return
    averaged = {f"model._fsdp_wrapped_module.{n}": t for n, t in with_adapters(public).items()}
    plain = {f"model.{n}": t + 1.0 for n, t in with_adapters(public).items()}
    critic = {f"model.{n}": t - 1.0 for n, t in public.items()}
    torch.save({"generator": plain, "generator_ema": averaged, "critic": critic, "step": 3}, path)


def with_adapters(public: dict[str, torch.Tensor], rank: int = 4) -> dict[str, torch.Tensor]:
    """The state dict with low-rank adapters beside the linear maps that AvatarForcing adapts."""
    adapted = {}
    for name, tensor in public.items():
        stem, _, leaf = name.rpartition(".")
        is_adapted = name.startswith("blocks.") and stem.endswith(
            (".q", ".k", ".v", ".o", "ffn.0", "ffn.2")
        )
        adapted[f"{stem}.base_layer.{leaf}" if is_adapted else name] = tensor
        if is_adapted and leaf == "weight":
            rows, columns = tensor.shape
            adapted[f"{stem}.lora_A.default.weight"] = torch.randn(rank, columns) * 0.02
            adapted[f"{stem}.lora_B.default.weight"] = torch.randn(rows, rank) * 0.02
    return adapted


TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
WHOLE = ("patch_embedding", "audio_proj", "audio_cond_projs")
RANK, ALPHA = 3, 6
STATED = {"lora_rank": RANK, "lora_alpha": ALPHA, "lora_target_modules": ",".join(TARGETS)}
NUM_SHARDS = 6


def adapted(config: TransformerConfig = AVATAR):
    """A text-to-video base, what OmniAvatar trains on it, and the network they make together."""
    public = to_public(random_transformer(config).state_dict(), config)
    base = {name: x for name, x in public.items() if not name.startswith("audio_")}
    base["patch_embedding.weight"] = torch.randn(config.dim, config.out_channels, 1, 2, 2)
    base["patch_embedding.bias"] = torch.randn(config.dim)
    adapter = {name: x for name, x in public.items() if name.startswith(WHOLE)}
    merged = dict(public)
    for name, x in public.items():
        linear = name.removesuffix(".weight")
        if not name.endswith(".weight") or not linear.endswith(tuple(f".{t}" for t in TARGETS)):
            continue
        down, up = torch.randn(RANK, x.shape[1]) * 0.1, torch.randn(x.shape[0], RANK) * 0.1
        adapter[f"{linear}.lora_A.default.weight"] = down
        adapter[f"{linear}.lora_B.default.weight"] = up
        merged[name] = x + ALPHA / RANK * up @ down
    return base, adapter, merged


def write_adapted(path: Path, tensors: dict[str, torch.Tensor], shard: int) -> None:
    """OmniAvatar's pickle and configuration, or one of the shards of its base."""
    if path.suffix == ".json":
        path.write_text(json.dumps(STATED))
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        names = sorted(tensors)[shard::NUM_SHARDS] if "-of-" in path.name else sorted(tensors)
        save_file({name: tensors[name].contiguous() for name in names}, path)


def write_vae(path: Path) -> None:
    """The VAE under Wan's own names, as a pickle."""
    state = wan_vae_module(VAE).state_dict()
    torch.save({name: state[ours] for ours, name in original_vae_names(state).items()}, path)


def original_vae_names(state) -> dict[str, str]:
    """diffusers' name to Wan's, found by asking the library about every name there could be."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    leaves = [f"{p}.{leaf}" for p in ("residual.2", "residual.6", "shortcut", "time_conv",
              "resample.1") for leaf in ("weight", "bias")]  # fmt: skip
    leaves += ["residual.0.gamma", "residual.3.gamma"]
    middle = ["0.residual", "2.residual"]
    candidates = [f"{side}.{leaf}" for side in ("encoder.conv1", "decoder.conv1", "conv1", "conv2")
                  for leaf in ("weight", "bias")]  # fmt: skip
    for side, stack in (("encoder", "downsamples"), ("decoder", "upsamples")):
        candidates += [f"{side}.{stack}.{i}.{leaf}" for i in range(20) for leaf in leaves]
        candidates += [f"{side}.head.{leaf}" for leaf in ("0.gamma", "2.weight", "2.bias")]
        candidates += [f"{side}.middle.{m}.{leaf}" for m in middle
                       for leaf in ("0.gamma", "2.weight", "2.bias", "3.gamma", "6.weight",
                                    "6.bias")]  # fmt: skip
        candidates += [f"{side}.middle.1.{leaf}" for leaf in ("norm.gamma", "to_qkv.weight",
                       "to_qkv.bias", "proj.weight", "proj.bias")]  # fmt: skip
    converted = convert_wan_vae_to_diffusers({name: name for name in candidates})
    found = {ours: name for ours, name in converted.items() if ours in state}
    assert set(found) == set(state), sorted(set(state) - set(found))[:5]
    return found


def write_text_encoder(path: Path) -> None:
    """umT5 under Wan's own names, as a pickle."""
    inverse = {ours: name for name, ours in TEXT_ENCODER_NAMES.items()}
    state = text_encoder_module(TEXT).state_dict()
    torch.save({rename(name, inverse): tensor for name, tensor in state.items()}, path)


def write_tokenizer(path: Path) -> None:
    """A word tokenizer with the end mark, under the name of the published one."""
    if path.name != "tokenizer.json":
        path.write_text("{}")
        return
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", "a", "person", "talking", "smile", "camera", "the"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(path))


def write_audio_encoder(path: Path) -> None:
    """wav2vec2 with its CTC head and the older names of the weight norm, and its configuration."""
    if path.suffix == ".json":
        path.write_text(json.dumps(WAV2VEC2 | {"model_type": "wav2vec2", "vocab_size": 32}))
        return
    prefix = "encoder.pos_conv_embed.conv."
    new = f"{prefix}parametrizations.weight."
    state = wav2vec2_module(WAV2VEC2).state_dict()
    old = {f"{new}original0": f"{prefix}weight_g", f"{new}original1": f"{prefix}weight_v"}
    public = {f"wav2vec2.{old.get(name, name)}": t.contiguous() for name, t in state.items()}
    public |= {"wav2vec2.masked_spec_embed": torch.zeros(16), "lm_head.weight": torch.ones(3, 16)}
    save_file(public, path)


def write_image_encoder(path: Path) -> None:
    """CLIP's two towers under Wan's own names, as a pickle."""
    state = image_encoder_module(CLIP).state_dict()
    inverse = {ours: name for name, ours in IMAGE_ENCODER_NAMES.items()}
    public = {"log_scale": torch.tensor(4.6), "textual.token_embedding.weight": torch.ones(2, 3)}
    public["visual.head"] = torch.ones(80, 5)
    for name, tensor in state.items():
        if "_proj." in name and "out_proj" not in name:
            continue
        public[f"visual.{rename(name, inverse) or inverse.get(name)}"] = tensor
    public["visual.cls_embedding"] = state["embeddings.class_embedding"][None, None]
    public["visual.pos_embedding"] = state["embeddings.position_embedding.weight"][None]
    for layer in range(CLIP["num_hidden_layers"]):
        for leaf in ("weight", "bias"):
            parts = [state[f"encoder.layers.{layer}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            public[f"visual.transformer.{layer}.attn.to_qkv.{leaf}"] = torch.cat(parts)
    torch.save(public, path)


__all__ = ["AVATAR", "ORIGINAL_NAMES", "write_profile"]
