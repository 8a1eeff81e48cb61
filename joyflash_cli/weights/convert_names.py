"""Names of public layouts and ours: one flat table per layout, ``{}`` standing for the layer."""

import re
from collections.abc import Mapping

ORIGINAL_NAMES = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "text_embedding.input",
    "text_embedding.2": "text_embedding.output",
    "time_embedding.0": "time_embedding.input",
    "time_embedding.2": "time_embedding.output",
    "time_projection.1": "time_projection",
    "img_emb.proj.0": "image_embedding.input_norm",
    "img_emb.proj.1": "image_embedding.input",
    "img_emb.proj.3": "image_embedding.output",
    "img_emb.proj.4": "image_embedding.output_norm",
    "blocks.{}.self_attn.q": "layers.{}.self_attention.query",
    "blocks.{}.self_attn.k": "layers.{}.self_attention.key",
    "blocks.{}.self_attn.v": "layers.{}.self_attention.value",
    "blocks.{}.self_attn.o": "layers.{}.self_attention.output",
    "blocks.{}.self_attn.norm_q": "layers.{}.self_attention.query_norm",
    "blocks.{}.self_attn.norm_k": "layers.{}.self_attention.key_norm",
    "blocks.{}.norm3": "layers.{}.cross_norm",
    "blocks.{}.cross_attn.q": "layers.{}.cross_attention.query",
    "blocks.{}.cross_attn.k": "layers.{}.cross_attention.key",
    "blocks.{}.cross_attn.v": "layers.{}.cross_attention.value",
    "blocks.{}.cross_attn.o": "layers.{}.cross_attention.output",
    "blocks.{}.cross_attn.norm_q": "layers.{}.cross_attention.query_norm",
    "blocks.{}.cross_attn.norm_k": "layers.{}.cross_attention.key_norm",
    "blocks.{}.cross_attn.k_img": "layers.{}.cross_attention.image_key",
    "blocks.{}.cross_attn.v_img": "layers.{}.cross_attention.image_value",
    "blocks.{}.cross_attn.norm_k_img": "layers.{}.cross_attention.image_key_norm",
    "blocks.{}.ffn.0": "layers.{}.feed_forward.input",
    "blocks.{}.ffn.2": "layers.{}.feed_forward.output",
    "blocks.{}.modulation": "layers.{}.modulation",
    "head.head": "head.projection",
    "head.modulation": "head.modulation",
    "audio_proj.proj": "audio_pack.projection",
    "audio_proj.norm_out": "audio_pack.norm",
    "audio_cond_projs.{}": "audio_pack_projections.{}",
}
"""Wan2.1's own names (also LiveTalk, OmniAvatar, AvatarForcing) to ours."""

PROJECTOR_NAMES = ORIGINAL_NAMES | {
    "audio_proj.proj1": "audio_projection.first",
    "audio_proj.proj1_vf": "audio_projection.later",
    "audio_proj.proj2": "audio_projection.hidden",
    "audio_proj.proj3": "audio_projection.output",
    "audio_proj.norm": "audio_projection.norm",
    "blocks.{}.norm_x": "layers.{}.audio_norm",
    "blocks.{}.audio_cross_attn.q_linear": "layers.{}.audio_attention.query",
    "blocks.{}.audio_cross_attn.kv_linear": "layers.{}.audio_attention.key_value",
    "blocks.{}.audio_cross_attn.proj": "layers.{}.audio_attention.output",
}
"""The names of FlashTalk, where sound has a cross-attention of its own beside that to text."""

ONLY_AUDIO_NAMES = PROJECTOR_NAMES | {
    "blocks.{}.cross_attn.k": "layers.{}.cross_attention.audio_key",
    "blocks.{}.cross_attn.v": "layers.{}.cross_attention.audio_value",
    "blocks.{}.cross_attn.norm_k": "layers.{}.cross_attention.audio_key_norm",
}
"""The names of FlashHead and LeapTalk, whose only cross-attention is that to sound."""

ONLY_AUDIO_UNUSED = frozenset(
    f"{layer}.{leaf}"
    for layer in (
        "text_embedding.0", "text_embedding.2",
        "audio_emb.proj.0", "audio_emb.proj.1", "audio_emb.proj.3", "audio_emb.proj.4",
    )
    for leaf in ("weight", "bias")
)  # fmt: skip
"""Tensors of FlashHead's file that its own code never reads."""

DIFFUSERS_NAMES = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.text_embedder.linear_1": "text_embedding.input",
    "condition_embedder.text_embedder.linear_2": "text_embedding.output",
    "condition_embedder.time_embedder.linear_1": "time_embedding.input",
    "condition_embedder.time_embedder.linear_2": "time_embedding.output",
    "condition_embedder.time_proj": "time_projection",
    "condition_embedder.image_embedder.norm1": "image_embedding.input_norm",
    "condition_embedder.image_embedder.ff.net.0.proj": "image_embedding.input",
    "condition_embedder.image_embedder.ff.net.2": "image_embedding.output",
    "condition_embedder.image_embedder.norm2": "image_embedding.output_norm",
    "blocks.{}.attn1.to_q": "layers.{}.self_attention.query",
    "blocks.{}.attn1.to_k": "layers.{}.self_attention.key",
    "blocks.{}.attn1.to_v": "layers.{}.self_attention.value",
    "blocks.{}.attn1.to_out.0": "layers.{}.self_attention.output",
    "blocks.{}.attn1.norm_q": "layers.{}.self_attention.query_norm",
    "blocks.{}.attn1.norm_k": "layers.{}.self_attention.key_norm",
    "blocks.{}.norm2": "layers.{}.cross_norm",
    "blocks.{}.attn2.to_q": "layers.{}.cross_attention.query",
    "blocks.{}.attn2.to_k": "layers.{}.cross_attention.key",
    "blocks.{}.attn2.to_v": "layers.{}.cross_attention.value",
    "blocks.{}.attn2.to_out.0": "layers.{}.cross_attention.output",
    "blocks.{}.attn2.norm_q": "layers.{}.cross_attention.query_norm",
    "blocks.{}.attn2.norm_k": "layers.{}.cross_attention.key_norm",
    "blocks.{}.attn2.add_k_proj": "layers.{}.cross_attention.image_key",
    "blocks.{}.attn2.add_v_proj": "layers.{}.cross_attention.image_value",
    "blocks.{}.attn2.norm_added_k": "layers.{}.cross_attention.image_key_norm",
    "blocks.{}.ffn.net.0.proj": "layers.{}.feed_forward.input",
    "blocks.{}.ffn.net.2": "layers.{}.feed_forward.output",
    "blocks.{}.scale_shift_table": "layers.{}.modulation",
    "proj_out": "head.projection",
    "scale_shift_table": "head.modulation",
    "audio_proj.proj": "audio_pack.projection",
    "audio_proj.norm_out": "audio_pack.norm",
    "audio_cond_projs.{}": "audio_pack_projections.{}",
}
"""The names of diffusers' ``WanTransformer3DModel`` to ours."""

TEXT_ENCODER_NAMES = {
    "token_embedding": "embed_tokens",
    "norm": "final_layer_norm",
    "blocks.{}.norm1": "block.{}.layer.0.layer_norm",
    "blocks.{}.attn.q": "block.{}.layer.0.SelfAttention.q",
    "blocks.{}.attn.k": "block.{}.layer.0.SelfAttention.k",
    "blocks.{}.attn.v": "block.{}.layer.0.SelfAttention.v",
    "blocks.{}.attn.o": "block.{}.layer.0.SelfAttention.o",
    "blocks.{}.pos_embedding.embedding": ("block.{}.layer.0.SelfAttention.relative_attention_bias"),
    "blocks.{}.norm2": "block.{}.layer.1.layer_norm",
    "blocks.{}.ffn.gate.0": "block.{}.layer.1.DenseReluDense.wi_0",
    "blocks.{}.ffn.fc1": "block.{}.layer.1.DenseReluDense.wi_1",
    "blocks.{}.ffn.fc2": "block.{}.layer.1.DenseReluDense.wo",
}
"""Wan2.1's umT5 encoder to the stack inside transformers' ``UMT5EncoderModel``."""

IMAGE_ENCODER_NAMES = {
    "cls_embedding": "embeddings.class_embedding",
    "pos_embedding": "embeddings.position_embedding.weight",
    "patch_embedding": "embeddings.patch_embedding",
    "pre_norm": "pre_layrnorm",
    "post_norm": "post_layernorm",
    "transformer.{}.norm1": "encoder.layers.{}.layer_norm1",
    "transformer.{}.norm2": "encoder.layers.{}.layer_norm2",
    "transformer.{}.attn.proj": "encoder.layers.{}.self_attn.out_proj",
    "transformer.{}.mlp.0": "encoder.layers.{}.mlp.fc1",
    "transformer.{}.mlp.2": "encoder.layers.{}.mlp.fc2",
}
"""The picture tower of Wan2.1's CLIP to transformers' ``CLIPVisionModel``; its joint query, key and
value projection is cut in three besides."""

_LEAVES = ("weight", "bias")


def rename(name: str, names: Mapping[str, str]) -> str | None:
    """``name`` through a table with ``{}`` for a number; ``None`` if it is not in it."""
    stem, leaf = name, ""
    for candidate in _LEAVES:
        if name.endswith(f".{candidate}"):
            stem, leaf = name[: -len(candidate) - 1], f".{candidate}"
    numbers = re.findall(r"(?<=\.)\d+(?=\.|$)", stem)
    if stem in names:
        return names[stem] + leaf
    if numbers:
        template = re.sub(rf"\.{numbers[0]}(?=\.|$)", ".{}", stem, count=1)
        if template in names:
            return names[template].format(numbers[0]) + leaf
    return None
