"""The numbers of published models, as their profiles have them."""

from dataclasses import replace

from joyflash_cli.encoders.wav2vec2 import Wav2Vec2Options
from joyflash_cli.model.config import (
    TINY,
    AudioAttentionConfig,
    AudioPackConfig,
    FaceAttentionConfig,
    TransformerConfig,
)
from joyflash_cli.sampler.settings import SamplerSettings

WAN_1_3B = TransformerConfig(
    dim=1536,
    num_layers=30,
    num_heads=12,
    ffn_dim=8960,
    in_channels=16,
    text_dim=4096,
)
"""Wan2.1 T2V 1.3B."""

AVATAR_1_3B = replace(
    WAN_1_3B,
    in_channels=33,
    audio_pack=AudioPackConfig(),
)
"""OmniAvatar, LiveTalk and AvatarForcing 1.3B: 33 input channels and the additive audio adapter."""

FUN_INP_1_3B = replace(
    WAN_1_3B,
    in_channels=36,
    image_token_dim=1280,
)
"""Wan2.1-Fun 1.3B InP: image to video with CLIP tokens."""

JOYAVATAR_1_3B = replace(
    FUN_INP_1_3B,
    audio_attention=AudioAttentionConfig(audio_dim=768, tokens_per_latent=21),
    face_attention=FaceAttentionConfig(),
)
"""JoyAvatar-Flash 1.3B as read from the paper: image to video with CLIP tokens, audio per latent
frame (21 rows of a 50 Hz encoder at 16 fps) and face tokens, all attended in every layer."""

WAN_14B = TransformerConfig(
    dim=5120,
    num_layers=40,
    num_heads=40,
    ffn_dim=13824,
    in_channels=16,
    text_dim=4096,
)
"""Wan2.1 T2V 14B."""

AVATAR_14B = replace(
    WAN_14B,
    in_channels=33,
    audio_pack=AudioPackConfig(),
)
"""OmniAvatar 14B."""

CONFIGURATIONS = {
    "tiny": TINY,
    "wan-1.3b": WAN_1_3B,
    "avatar-1.3b": AVATAR_1_3B,
    "fun-inp-1.3b": FUN_INP_1_3B,
    "joyavatar-1.3b": JOYAVATAR_1_3B,
    "wan-14b": WAN_14B,
    "avatar-14b": AVATAR_14B,
}
"""Named configurations."""

LIVETALK = SamplerSettings(
    window_blocks=1,
    sub_steps=(),
    psb=False,
    mci=False,
    mci_noise=False,
    sink_frames=9,
    context_frames=3,
    attention_span_frames=15,
    position_policy="absolute",
    first_frame_rule="replace",
    timestep_dtype="bfloat16",
)
"""LiveTalk 1.3B: block-wise, nine sink frames, reference as latent frame 0."""

AVATARFORCING = SamplerSettings(
    block_frames=4,
    main_steps=(1000, 800, 400, 200),
    sub_steps=(),
    psb=False,
    mci=False,
    mci_noise=False,
    sink_frames=1,
    context_frames=2,
    attention_span_frames=25,
    position_policy="absolute-update",
    first_frame_rule="prefix",
    fps=25,
)
"""AvatarForcing 1.3B: rolling, the reference latent is the sink."""

ROLLINGFORCING = SamplerSettings(
    main_steps=(1000, 800, 600, 400, 200),
    sub_steps=(),
    psb=False,
    mci=False,
    mci_noise=False,
    sink_frames=3,
    context_frames=18,
    attention_span_frames=21,
)
"""RollingForcing 1.3B: text only, a window of five blocks."""

AUDIO_AVATARFORCING = Wav2Vec2Options(
    rate_hz=25.0, normalise="whole", span="rows", leading_zero_row=True
)
"""Rules of the AvatarForcing checkpoint."""

AUDIO_LIVETALK = Wav2Vec2Options(rate_hz=16.0)
"""Rules of the LiveTalk checkpoint, except that short audio is continued, not stretched."""
