"""CLIP's picture tower: the tokens that Wan 2.1's image-to-video models attend."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


def image_encoder_module(config: Mapping[str, Any]) -> Any:
    """The CLIP picture tower of transformers, its weights not set.

    Args:
        config: Arguments of ``CLIPVisionConfig``.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**config))


class ImageEncoder:
    """Pictures to the states before the last layer of CLIP.

    Args:
        module: From ``image_encoder_module``, with weights; may have been built on meta.
    """

    def __init__(self, module: Any) -> None:
        self._module = module.eval().requires_grad_(False)
        embeddings = module.embeddings
        if embeddings.position_ids.is_meta:
            # It is no weight, so no file fills it.
            device = embeddings.class_embedding.device
            positions = torch.arange(embeddings.position_ids.shape[-1], device=device)
            embeddings.register_buffer("position_ids", positions[None], persistent=False)

    @torch.no_grad()
    def encode(self, picture: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L D"]:
        """Tokens of a picture in -1..1 of any size: the class token, then row by row.

        As in Wan 2.1 the picture is squeezed into CLIP's square by bicubic interpolation, whatever
        its aspect, and the last layer and its norm are left out.
        """
        size = self._module.config.image_size
        weight = self._module.embeddings.class_embedding
        square = functional.interpolate(
            picture.to(weight.device, torch.float32), size=(size, size), mode="bicubic"
        )
        mean, std = (torch.tensor(v, device=weight.device) for v in (PIXEL_MEAN, PIXEL_STD))
        pixels = (square * 0.5 + 0.5 - mean[:, None, None]) / std[:, None, None]
        states = self._module(pixels.to(weight.dtype), output_hidden_states=True).hidden_states
        return states[-2]
