"""wav2vec2 from weights: what a configuration decides, and the names that files use."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Encoder, Wav2Vec2Options
from joyflash_cli.errors import CheckpointError

CONFIG_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "feat_extract_norm", "feat_extract_activation", "conv_dim", "conv_stride", "conv_kernel",
    "conv_bias", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups",
    "do_stable_layer_norm", "layer_norm_eps",
)  # fmt: skip
"""Settings of a Hugging Face ``config.json`` that decide what the encoder computes."""


def is_training_only(key: str) -> bool:
    """Whether a weight has no part in encoding: the CTC head, the mask vector, the quantiser."""
    name = key.removeprefix("wav2vec2.")
    return name == "masked_spec_embed" or name.startswith(
        ("lm_head.", "quantizer.", "project_q.", "project_hid.")
    )


def wav2vec2_module(config: Mapping[str, Any]) -> Any:
    """The model of transformers with exactly the weights that encoding needs, values not set.

    Args:
        config: Arguments of ``Wav2Vec2Config``; empty for the base model.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    no_masking = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    return Wav2Vec2Model(Wav2Vec2Config(**{**config, **no_masking}))


def current_name(key: str) -> str:
    """A weight's name in today's models: older files name the weight norm's parts otherwise."""
    parts = {"conv.weight_g": "original0", "conv.weight_v": "original1"}
    name = key.removeprefix("wav2vec2.")
    for old, new in parts.items():
        name = name.replace(
            f"pos_conv_embed.{old}", f"pos_conv_embed.conv.parametrizations.weight.{new}"
        )
    return name


def wav2vec2_from_state(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    options: Wav2Vec2Options,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Wav2Vec2Encoder:
    """An encoder from a state dict in the key names of the Hugging Face model.

    Args:
        config: Arguments of ``Wav2Vec2Config``; empty for the base model.
        state: Weights by name; those of a CTC head and the ``wav2vec2.`` prefix that comes with
            it are left away, as are training-only weights.
        options: The rules of the checkpoint the rows are for.
        dtype: Number format of the weights.
        device: Where they go.

    Raises:
        CheckpointError: If a weight is missing, unknown or of another shape.
    """
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model: Any = Wav2Vec2Model(Wav2Vec2Config(**config))
    weights = {
        current_name(key): value for key, value in state.items() if not key.startswith("lm_head.")
    }
    # Only masked training reads this vector; checkpoints may or may not carry it.
    optional = {"masked_spec_embed"}
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"wav2vec2 weights have another shape: {str(error).splitlines()[-1].strip()}",
            hint="check that weights and configuration belong together",
        ) from error
    wrong = sorted((set(missing) | set(unexpected)) - optional)
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} wav2vec2 weights are missing or unknown, the first is {wrong[0]}",
            hint="check that the file is a wav2vec2 model",
        )
    return Wav2Vec2Encoder(model.to(device=device, dtype=dtype), options)
