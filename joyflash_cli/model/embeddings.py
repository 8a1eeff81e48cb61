"""How latents, timesteps, text, picture and face enter the transformer."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.config import TransformerConfig
from joyflash_cli.model.layers import FeedForward
from joyflash_cli.types import Conditioning, in_float64


def _patches(latents: Tensor, patch: tuple[int, int]) -> Tensor:
    """``(B, T, rows, columns, C, patch rows, patch columns)``: the latent frames cut in patches."""
    batch, frames, channels, height, width = latents.shape
    rows, columns = patch
    x = latents.reshape(batch, frames, channels, height // rows, rows, width // columns, columns)
    return x.permute(0, 1, 3, 5, 2, 4, 6)


def patchify(
    latents: Float[Tensor, "B T C H W"], patch: tuple[int, int]
) -> Float[Tensor, "B T P D"]:
    """Every patch as one vector in the order channel, row, column; patches in row-major order."""
    return _patches(latents, patch).flatten(4).flatten(2, 3)


def unpatchify(
    tokens: Float[Tensor, "B T P D"], grid: tuple[int, int], patch: tuple[int, int]
) -> Float[Tensor, "B T C H W"]:
    """Latent frames from token vectors in the order row, column, channel (Wan's head layout)."""
    batch, frames = tokens.shape[:2]
    x = tokens.reshape(batch, frames, *grid, *patch, -1).permute(0, 1, 6, 2, 4, 3, 5)
    return x.reshape(batch, frames, -1, grid[0] * patch[0], grid[1] * patch[1])


def head_patches(
    latents: Float[Tensor, "B T C H W"], patch: tuple[int, int]
) -> Float[Tensor, "B T P D"]:
    """Latent frames as the head gives them: the inverse of ``unpatchify``."""
    return _patches(latents, patch).movedim(4, -1).flatten(4).flatten(2, 3)


def timestep_sinusoids(
    timesteps: Float[Tensor, "*rest"], freq_dim: int, dtype: torch.dtype
) -> Float[Tensor, "*rest D"]:
    """Cosines, then sines of ``timestep * 10000^(-i / half)``, computed in float64."""
    half = freq_dim // 2
    exact = in_float64(timesteps)
    exponents = torch.arange(half, device=exact.device, dtype=torch.float64) / half
    angles = exact[..., None] * 10_000.0**-exponents
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype).to(timesteps.device)


class ImageTokenProjection(nn.Module):
    """CLIP states to the transformer's width (``MLPProj`` of Wan I2V)."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(in_dim)
        self.input = nn.Linear(in_dim, in_dim)
        self.output = nn.Linear(in_dim, dim)
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, tokens: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D2"]:
        """The projected tokens."""
        x = self.input(self.input_norm(tokens.to(self.input.weight.dtype)))
        return self.output_norm(self.output(F.gelu(x)))


class FaceProjection(nn.Module):
    """A face embedding to a few tokens; an all-zero embedding (no face) gives zero tokens."""

    def __init__(self, face_dim: int, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.feed_forward = FeedForward(face_dim, 2 * face_dim, num_tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, face: Float[Tensor, "B E"]) -> Float[Tensor, "B S D"]:
        """Tokens ``(B, num_tokens, D)``."""
        face = face.to(self.feed_forward.input.weight.dtype)
        tokens = self.norm(self.feed_forward(face).unflatten(-1, (self.num_tokens, -1)))
        present = (face != 0).any(dim=-1)
        return tokens * present[:, None, None]


def pad_text(text: Float[Tensor, "B S D"], length: int) -> Float[Tensor, "B S2 D"]:
    """Text states zero-padded to ``length`` tokens; the padding is attended, as in Wan2.1.

    Raises:
        ConfigError: If the text is longer.
    """
    if text.shape[1] > length:
        raise ConfigError(f"Text has {text.shape[1]} tokens; at most {length} fit")
    return F.pad(text, (0, 0, 0, length - text.shape[1]))


def check_kinds(config: TransformerConfig, conditioning: Conditioning) -> None:
    """Refuse conditioning that lacks a kind which the network takes.

    Raises:
        ConfigError: Naming it.
    """
    needed = {
        "image": config.image_channels > 0,
        "text": config.text_dim is not None,
        "image_tokens": config.image_token_dim is not None,
        "audio": config.hears_audio,
    }
    for kind, is_needed in needed.items():
        if is_needed and getattr(conditioning, kind) is None:
            raise ConfigError(
                f"This transformer needs {kind} conditioning, and none was given",
                hint="pass zeros where the kind is dropped on purpose",
            )
