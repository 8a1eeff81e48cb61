"""umT5 as the text encoder: a prompt to token states, as Wan 2.1 was trained with them.

The encoder is four times as large as the video model, and a prompt is encoded once: it is loaded,
used and freed, and what it gave is kept (``weights.prompt_cache``).
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from joyflash_cli.errors import CheckpointError, UsageError

MAX_TOKENS = 512
"""Longer prompts are cut, the end mark included."""

END_MARK = "</s>"


def text_encoder_module(config: Mapping[str, Any]) -> Any:
    """The umT5 encoder stack of transformers, its weights not set.

    Args:
        config: Arguments of ``UMT5Config``: sizes only.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(feed_forward_proj="gated-gelu", **config)).encoder


def clean_prompt(prompt: str) -> str:
    """The prompt as it is tokenised: mended Unicode, HTML marks read, single spaces.

    Raises:
        UsageError: When the library that mends Unicode is not installed.
    """
    try:
        import ftfy
    except ImportError as error:
        raise UsageError(
            "prompts need the package ftfy, which is not installed",
            hint="pip install 'joyflash[full]'",
        ) from error
    mended = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", mended).strip()


class TextEncoder:
    """Prompts to states of umT5.

    Args:
        module: From ``text_encoder_module``, with weights.
        tokenizer: Path of the ``tokenizer.json`` that belongs to it.

    Raises:
        CheckpointError: If the tokenizer cannot be read.
    """

    def __init__(self, module: Any, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises no class of its own
            raise CheckpointError(
                f"{tokenizer} is no tokenizer: {error}",
                hint="fetch and convert the text encoder again",
                code="E-CHECKPOINT-DAMAGED",
            ) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._module = module.eval().requires_grad_(False)

    def token_ids(self, prompt: str) -> list[int]:
        """Ids of the cleaned prompt, at most ``MAX_TOKENS``, always with the end mark."""
        ids = list(self._tokenizer.encode(clean_prompt(prompt)).ids)
        end = self._tokenizer.token_to_id(END_MARK)
        if end is not None:
            ids = [*ids[:-1], end] if ids and ids[-1] == end else [*ids, end]
            if len(ids) > MAX_TOKENS:
                ids = [*ids[: MAX_TOKENS - 1], end]
        return ids[:MAX_TOKENS]

    @torch.no_grad()
    def encode(self, prompt: str) -> Float[Tensor, "1 L D"]:
        """States of the prompt's own tokens, without padding.

        Wan 2.1 pads to 512 tokens and masks the padding, which gives the same states.
        """
        device = next(self._module.parameters()).device
        ids = torch.tensor([self.token_ids(prompt)], device=device)
        return self._module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
