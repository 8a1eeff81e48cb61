"""The causal diffusion transformer: one class for the teacher, the student and the stream.

Without context it is the bidirectional teacher; with a block-causal mask it is the student of the
ODE initialisation; with context from the sampler's cache it is the streaming generator. It reads
and writes no cache: keys and values of a pass are returned, before rotation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.attention import (
    CrossAttention,
    KeysValues,
    LeadAttention,
    StaticKeysValues,
    joined,
)
from joyflash_cli.model.audio import AudioModulation, AudioPack, AudioProjection, AudioProjector
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.embeddings import (
    FaceProjection,
    ImageTokenProjection,
    check_kinds,
    pad_text,
    patchify,
    timestep_sinusoids,
    unpatchify,
)
from joyflash_cli.model.layers import (
    FeedForward,
    Head,
    SiluProjection,
    add_per_frame,
)
from joyflash_cli.model.rope import Positions, rope_rotations
from joyflash_cli.model.transformer_layer import TransformerLayer
from joyflash_cli.model.ulysses import Ranks, SharedPass
from joyflash_cli.types import Conditioning


@dataclass(frozen=True)
class Context:
    """Earlier frames to attend.

    Attributes:
        keys_values: Per layer, keys before rotation and values, ``(B, S * P, N, K)``.
        positions: Temporal index of each of the S frames, ``(S,)``.
    """

    keys_values: tuple[KeysValues, ...]
    positions: Positions

    def followed_by(self, newest: tuple[KeysValues, ...]) -> "Context":
        """The same with frames behind them, which the positions count already."""
        pairs = zip(self.keys_values, newest, strict=True)
        return replace(self, keys_values=tuple(joined(old, new) for old, new in pairs))


@dataclass(frozen=True)
class Lead:
    """Frames in front of a pass, of which only keys and values are wanted.

    They attend themselves and a context of their own. To the pass they are the newest frames of its
    context, as if a pass before had given their keys and values.

    Attributes:
        latents: ``(B, F, C, H, W)``.
        timesteps: ``(B, F)``.
        conditioning: Of exactly these frames.
        positions: Temporal index of each as they see themselves, ``(F,)``.
        context: What they attend.
    """

    latents: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    positions: tuple[int, ...]
    context: Context | None

    def followed_by(
        self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning, positions: Positions
    ) -> tuple[Tensor, Tensor, Conditioning, Positions]:
        """Lead and pass in one sequence, in the order of the arguments."""
        return (
            torch.cat((self.latents, latents), dim=1),
            torch.cat((self.timesteps, timesteps), dim=1),
            self.conditioning.followed_by(conditioning),
            (*self.positions, *positions),
        )


@dataclass(frozen=True)
class TransformerOutput:
    """What one pass gives.

    Attributes:
        prediction: Flow or clean latents as ``config.prediction`` says, ``(B, T, C, H, W)``, or
            ``(B, T, P, patch * C)`` as tokens.
        keys_values: Per layer, the pass's own keys before rotation and values, ``(B, L, N, K)``; of
            a pass with a lead those of the lead.
    """

    prediction: Tensor
    keys_values: tuple[KeysValues, ...]


class CausalTransformer(nn.Module):
    """Wan2.1-style diffusion transformer with one timestep per latent frame."""

    output_scale: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.ranks: Ranks | None = None
        dim = config.dim
        # A convolution whose stride is its kernel is a linear map of the patch.
        self.patch_embedding = nn.Linear(config.in_channels * config.patch_area, dim)
        self.time_embedding = SiluProjection(config.freq_dim, dim)
        self.time_projection = nn.Linear(dim, 6 * dim)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))
        self.head = Head(config)
        if config.position_embedding is not None:
            self.position_embedding = nn.Parameter(torch.zeros(config.position_embedding, dim))
        if config.text_dim is not None:
            self.text_embedding = FeedForward(config.text_dim, dim, dim)
        if config.image_token_dim is not None:
            self.image_embedding = ImageTokenProjection(config.image_token_dim, dim)
        if config.face_attention is not None:
            face = config.face_attention
            self.face_embedding = FaceProjection(face.face_dim, face.num_tokens, dim)
        if config.audio_pack is not None:
            self.audio_pack = AudioPack(config.audio_pack)
            self.audio_pack_projections = nn.ModuleList(
                nn.Linear(config.audio_pack.hidden_dim, dim) for _ in config.audio_pack_layers
            )
        if config.audio_attention is not None:
            self.audio_projection: nn.Module = AudioProjection(config.audio_attention)
            if config.audio_modulation:
                self.audio_modulation = AudioModulation(config.audio_attention, dim)
        elif config.audio_projector is not None:
            self.audio_projection = AudioProjector(config.audio_projector)
        if config.prediction == "clean":
            # Latents keep their energy spectrum; the head works at unit scale.
            self.register_buffer(
                "output_scale", torch.ones(config.patch_area * config.out_channels)
            )

    def forward(
        self,
        latents: Float[Tensor, "B T C H W"],
        timesteps: Float[Tensor, "B T"],
        conditioning: Conditioning,
        *,
        positions: Positions,
        context: Context | None = None,
        mask: Bool[Tensor, "L S"] | None = None,
        static: tuple[StaticKeysValues, ...] | None = None,
        keep_keys_values: bool = True,
        as_tokens: bool = False,
        token_subset: Int[Tensor, " P2"] | None = None,
        lead: Lead | None = None,
    ) -> TransformerOutput:
        """Prediction for every latent frame, and the pass's keys and values.

        Args:
            latents: Noisy latents, without the image conditioning.
            timesteps: In 0..1000, one per latent frame.
            conditioning: Of exactly these frames.
            positions: Temporal index of each latent frame, for the rotary embedding.
            context: Earlier frames to attend, in front of the pass's own; behind a lead its
                positions end with those at which the pass sees the lead.
            mask: True where a query token may see a key token (context first, then own).
            static: From ``project_static``, to save its work in a stream.
            keep_keys_values: Whether the result holds them; without, each layer's are freed.
            as_tokens: Whether the prediction stays in tokens ``(B, T, P, patch * C)``.
            token_subset: Tokens of a frame that are computed, in every frame (token drop in
                training); a context must hold the same. Only as tokens.
            lead: Frames that are computed along and whose keys and values are returned instead.

        Raises:
            ConfigError: If a size or a kind of conditioning does not fit the configuration.
        """
        num_lead = 0 if lead is None else len(lead.positions)
        if lead is not None:
            latents, timesteps, conditioning, positions = lead.followed_by(
                latents, timesteps, conditioning, positions
            )
        tokens = self._embed_latents(latents, conditioning, token_subset)
        shared = None if self.ranks is None else self.ranks.of_pass(*tokens.shape[1:3])
        time_BTD, time_BT6D = self._embed_timesteps(timesteps, conditioning)
        x_BLD, keys_values = self._run_layers(
            (tokens if shared is None else shared.own(tokens)).flatten(1, 2),
            time_BT6D,
            conditioning,
            context,
            self.project_static(conditioning) if static is None else static,
            keep_keys_values=keep_keys_values,
            leads=self._leads(lead),
            rope=self._rope(positions, latents, token_subset),
            context_rope=self._rope(context.positions, latents, token_subset) if context else None,
            mask=mask,
            shared=shared,
        )
        prediction = self._predict(x_BLD, time_BTD, shared)[:, num_lead:]
        if not as_tokens:
            prediction = unpatchify(prediction, self._grid(latents), self.config.patch_size[1:])
        return TransformerOutput(prediction, keys_values)

    def _predict(self, x_BLD: Tensor, time_BTD: Tensor, shared: SharedPass | None) -> Tensor:
        """Tokens of the prediction ``(B, T, P, patch * C)``, of all frames and all ranks."""
        patches = self.head(x_BLD, time_BTD)
        if self.config.prediction == "clean":
            patches = patches * self.output_scale
        prediction = patches.unflatten(1, (time_BTD.shape[1], -1))
        return prediction if shared is None else shared.gather(prediction)

    def _run_layers(
        self,
        x_BLD: Float[Tensor, "B L D"],
        time_BT6D: Float[Tensor, "B T 6 D"],
        conditioning: Conditioning,
        context: Context | None,
        static: tuple[StaticKeysValues, ...],
        *,
        keep_keys_values: bool,
        leads: Sequence[LeadAttention | None],
        **of_every_layer: Any,
    ) -> tuple[Float[Tensor, "B L D"], tuple[KeysValues, ...]]:
        """The sequence after the last layer, and the keys and values of all, if they are kept."""
        additions = self._audio_additions(conditioning)
        audio = None
        if self.config.hears_audio and self.config.audio_pack is None:
            audio = self.audio_projection(conditioning.audio)
        keys_values = []
        for index, layer in enumerate(self.layers):
            if index in additions:
                x_BLD = add_per_frame(x_BLD, additions[index])
            x_BLD, own = layer(
                x_BLD,
                time_BT6D,
                context=None if context is None else context.keys_values[index],
                static=static[index],
                audio=audio,
                audio_mask=conditioning.audio_mask,
                lead=leads[index],
                **of_every_layer,
            )
            if keep_keys_values:
                keys_values.append(own)
            # The name would hold them through the whole next layer.
            del own
        return x_BLD, tuple(keys_values)

    def share_with(self, ranks: Ranks) -> None:
        """From here on compute passes together with other processes that hold the same weights.

        Every rank is given the same latents and conditioning and returns the same prediction, but
        only its own heads' keys and values; a context holds those, too.

        Raises:
            ConfigError: If the ranks cannot share the heads.
        """
        if self.config.num_heads % ranks.size:
            raise ConfigError(f"{ranks.size} ranks cannot share {self.config.num_heads} heads")
        self.ranks = ranks

    @property
    def num_own_heads(self) -> int:
        """Heads whose keys and values a pass takes and returns here."""
        return self.config.num_heads // (1 if self.ranks is None else self.ranks.size)

    def project_static(self, conditioning: Conditioning) -> tuple[StaticKeysValues, ...]:
        """Per layer, the keys and values of text, image tokens and face, for a whole stream."""
        dtype = self.patch_embedding.weight.dtype
        text = image = face = None
        if self.config.text_dim is not None and conditioning.text is not None:
            padded = pad_text(conditioning.text.to(dtype), self.config.text_len)
            text = self.text_embedding(padded)
        if self.config.image_token_dim is not None:
            image = self.image_embedding(conditioning.image_tokens)
        if self.config.face_attention is not None and conditioning.face is not None:
            face = self.face_embedding(conditioning.face)
        static = []
        for layer in self.layers:
            attention = layer.cross_attention
            if isinstance(attention, CrossAttention):
                static.append(attention.project_static(text, image, face))
            else:
                static.append(StaticKeysValues())
        return tuple(static)

    def _embed_latents(
        self, latents: Tensor, conditioning: Conditioning, token_subset: Tensor | None
    ) -> Float[Tensor, "B T P D"]:
        check_kinds(self.config, conditioning)
        if conditioning.image is not None:
            latents = torch.cat((latents, conditioning.image.to(latents.dtype)), dim=2)
        if latents.shape[2] != self.config.in_channels:
            raise ConfigError(
                f"Latents and image conditioning have {latents.shape[2]} channels; the "
                f"transformer takes {self.config.in_channels}"
            )
        num_tokens = self.config.tokens_per_frame(*latents.shape[-2:])
        weight_dtype = self.patch_embedding.weight.dtype
        patches = patchify(latents.to(weight_dtype), self.config.patch_size[1:])
        # Under autocast the residual stream stays in the dtype of the weights.
        tokens = self.patch_embedding(patches).to(weight_dtype)
        if self.config.position_embedding is not None:
            if num_tokens != self.config.position_embedding:
                raise ConfigError(
                    f"A latent frame has {num_tokens} tokens; the learned positions are for "
                    f"{self.config.position_embedding}"
                )
            tokens = tokens + self.position_embedding
        return tokens if token_subset is None else tokens[:, :, token_subset]

    def _embed_timesteps(
        self, timesteps: Tensor, conditioning: Conditioning
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T 6 D"]]:
        """The time vector of each frame and the six modulation vectors made from it."""
        # A few rows only, and the sinusoids deserve their precision: no autocast.
        # The meta device, on which costs are counted, has no autocast of its own.
        device_type = "cpu" if timesteps.is_meta else timesteps.device.type
        with torch.autocast(device_type, enabled=False):
            dtype = self.time_projection.weight.dtype
            sinusoids = timestep_sinusoids(timesteps, self.config.freq_dim, dtype)
            time_BTD = self.time_embedding(sinusoids)
            if self.config.audio_modulation:
                time_BTD = time_BTD + self.audio_modulation(conditioning.audio)
            six = self.time_projection(nn.functional.silu(time_BTD))
        return time_BTD, six.unflatten(-1, (6, self.config.dim))

    def _grid(self, latents: Tensor) -> tuple[int, int]:
        """Token rows and columns of a latent frame."""
        rows, columns = self.config.patch_size[1:]
        return latents.shape[-2] // rows, latents.shape[-1] // columns

    def _rope(
        self, positions: Positions, latents: Tensor, token_subset: Tensor | None
    ) -> Complex[Tensor, "L K2"]:
        """Rotations of all tokens of the frames at ``positions``."""
        rotations = rope_rotations(
            positions, self._grid(latents), head_dim=self.config.head_dim, device=latents.device
        )
        if token_subset is not None:
            rotations = rotations[:, token_subset]
        return rotations.flatten(0, 1)

    def _leads(self, lead: Lead | None) -> Sequence[LeadAttention | None]:
        """What a lead attends in each layer."""
        if lead is None:
            return [None] * len(self.layers)
        num_frames, *size = lead.latents.shape[1], *lead.latents.shape[-2:]
        num_tokens = num_frames * self.config.tokens_per_frame(*size)
        if lead.context is None:
            return [LeadAttention(num_tokens, None, None)] * len(self.layers)
        rope = self._rope(lead.context.positions, lead.latents, None)
        return [LeadAttention(num_tokens, pair, rope) for pair in lead.context.keys_values]

    def _audio_additions(self, conditioning: Conditioning) -> dict[int, Float[Tensor, "B T D"]]:
        """Layer index to what is added to the layer's input, per latent frame."""
        if self.config.audio_pack is None:
            return {}
        packed = self.audio_pack(conditioning.audio)
        projections = zip(self.config.audio_pack_layers, self.audio_pack_projections, strict=True)
        return {index: projection(packed) for index, projection in projections}
