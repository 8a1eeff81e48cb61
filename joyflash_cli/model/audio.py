"""How audio enters the transformer: packed and added, attended, or through the modulation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from joyflash_cli.model.config import (
    AudioAttentionConfig,
    AudioPackConfig,
    AudioProjectorConfig,
)
from joyflash_cli.model.layers import SiluProjection


class AudioPack(nn.Module):
    """The audio rows of a latent frame as one narrow token (OmniAvatar's audio pack)."""

    def __init__(self, config: AudioPackConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.audio_dim * config.rows_per_latent, config.hidden_dim)
        self.norm = nn.LayerNorm(config.hidden_dim, eps=1e-5)

    def forward(self, audio: Float[Tensor, "B T A D"]) -> Float[Tensor, "B T D2"]:
        """One token per latent frame, rows flattened in time order."""
        return self.norm(self.projection(audio.flatten(2).to(self.projection.weight.dtype)))


class AudioProjection(nn.Module):
    """Audio rows to the width that the cross-attention keys are made from.

    Attention does not see the order of its keys, so every place in the frame's audio window has a
    learned vector of its own; it starts at zero.
    """

    def __init__(self, config: AudioAttentionConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.audio_dim, config.projection_dim, bias=False)
        self.norm = nn.LayerNorm(config.projection_dim)
        self.token_embedding = nn.Parameter(
            torch.zeros(config.tokens_per_latent, config.projection_dim)
        )

    def forward(self, audio: Float[Tensor, "B T A D"]) -> Float[Tensor, "B T A D2"]:
        """The projected rows."""
        projected = self.norm(self.projection(audio.to(self.projection.weight.dtype)))
        return projected + self.token_embedding


class AudioProjector(nn.Module):
    """The audio rows of a latent frame as the tokens that the frame attends (FlashHead)."""

    def __init__(self, config: AudioProjectorConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.audio_dim * config.window_rows, config.hidden_dim)
        self.later = nn.Linear(config.audio_dim * config.rows_per_latent, config.hidden_dim)
        self.hidden = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.output = nn.Linear(config.hidden_dim, config.num_tokens * config.output_dim)
        self.norm = nn.LayerNorm(config.output_dim, eps=1e-5)

    def forward(self, audio: Float[Tensor, "B T A D"]) -> Float[Tensor, "B T S D2"]:
        """Tokens of every latent frame.

        Args:
            audio: Rows in time order; of the first frame only the first ``window_rows`` count.
        """
        audio = audio.to(self.first.weight.dtype)
        first = self.first(audio[:, :1, : self.config.window_rows].flatten(2))
        later = self.later(audio[:, 1:].flatten(2))
        hidden = functional.relu(torch.cat((first, later), dim=1))
        tokens = self.output(functional.relu(self.hidden(hidden)))
        return self.norm(tokens.unflatten(-1, (self.config.num_tokens, -1)))


class AudioModulation(nn.Module):
    """A latent frame's audio window as an addition to its timestep embedding; zero at first."""

    def __init__(self, config: AudioAttentionConfig, dim: int) -> None:
        super().__init__()
        self.projection = SiluProjection(config.audio_dim * config.tokens_per_latent, dim)
        nn.init.zeros_(self.projection.output.weight)
        nn.init.zeros_(self.projection.output.bias)

    def forward(self, audio: Float[Tensor, "B T A D"]) -> Float[Tensor, "B T D2"]:
        """One vector per latent frame."""
        return self.projection(audio.flatten(2).to(self.projection.input.weight.dtype))
