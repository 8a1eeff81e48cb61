"""wav2vec2 from weights: what a configuration decides, and the names that files use."""

from collections.abc import Mapping
from typing import Any

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
