"""Scores of large public networks: IDC by DINOv2, Q_score and Q_face by Q-Align, CLIP-IQA.

The paper names the networks and no protocol. IDC here is the mean cosine of the frames' class
tokens to the reference's, pictures shrunk to 256 pixels and cut to 224. Q-Align's answer is the
softmax over its five words, weighted 1 to 0, of one frame a second. CLIP-IQA (Wang, Chan and Loy,
2023) is the softmax over a pair of antonyms, here for CLIP as transformers has it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.encoders.image import PIXEL_MEAN, PIXEL_STD
from joyflash_cli.measures.picture_look import resized

WORDS = ("excellent", "good", "fair", "poor", "bad")
WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)
PROMPT = (
    "USER: How would you rate the quality of this image?\n<|image|>\n"
    "ASSISTANT: The quality of the image is"
)
Q_ALIGN_REPOSITORY = "q-future/one-align"
Q_ALIGN_REVISION = "dcc603b95aa0ebd82afa696d4a1e20d11fc80ddb"

ANTONYMS = ("Good photo.", "Bad photo.")
"""What CLIP-IQA asks, the good one first."""

_IMAGE, _IMAGE_TOKEN = "<|image|>", -200
_RESIZED_PX, _SEEN_PX = 256, 224
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Judge(Protocol):
    """A network that says how good pictures look, in words."""

    def logits(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """How likely it says each of ``WORDS``, ``(B, 5)``, of pictures ``(H, W, 3)`` uint8."""


def word_scores(logits: Tensor) -> Tensor:
    """Scores ``(B,)`` in 0..1 of logits ``(B, 5)`` in the order of ``WORDS``."""
    return logits.float().softmax(-1) @ torch.tensor(WEIGHTS, device=logits.device)


@torch.inference_mode()
def quality_score(judge: Judge, pictures: Iterable[np.ndarray]) -> float | None:
    """The mean score of pictures; ``None`` without any."""
    scores = [float(word_scores(judge.logits([picture]))[0]) for picture in pictures]
    return float(np.mean(scores)) if scores else None


def similarity_to(embeddings: Tensor, reference: Tensor) -> float:
    """Mean cosine of embeddings ``(F, D)`` to one ``(D,)``."""
    return float(functional.cosine_similarity(embeddings, reference[None]).mean())


def consistency(embeddings: Tensor) -> float | None:
    """How alike embeddings ``(F, D)`` are to the one before and to the first; ``None`` of one.

    The mean of both cosines, as VBench (Huang et al., 2024) defines subject consistency.
    """
    if len(embeddings) < 2:
        return None
    before = functional.cosine_similarity(embeddings[1:], embeddings[:-1])
    first = functional.cosine_similarity(embeddings[1:], embeddings[:1])
    return float((before + first).mean() / 2)


@torch.inference_mode()
def class_tokens(network: Any, pictures: Sequence[np.ndarray]) -> Tensor:
    """Class tokens ``(B, D)`` after the last norm, of pictures ``(H, W, 3)`` uint8."""
    seen = torch.stack([_as_seen(picture) for picture in pictures])
    return network(pixel_values=seen).last_hidden_state[:, 0]


@torch.inference_mode()
def antonym_score(network: Any, tokenizer: Any, pictures: Iterable[np.ndarray]) -> float | None:
    """How much sooner CLIP calls pictures the good one of ``ANTONYMS``, 0 to 1.

    Args:
        network: ``CLIPModel``; its logits are cosines times its own scale.
        tokenizer: Its tokenizer.
        pictures: ``(H, W, 3)`` uint8, of any sizes.

    Returns:
        The mean of the softmax over both; ``None`` without pictures.
    """
    words = tokenizer(list(ANTONYMS), padding=True, return_tensors="pt")
    size = network.config.vision_config.image_size
    scores = []
    for picture in pictures:
        seen = _as_seen(picture, size, size, PIXEL_MEAN, PIXEL_STD)[None]
        logits = network(pixel_values=seen, **words).logits_per_image
        scores.append(float(logits.softmax(-1)[0, 0]))
    return float(np.mean(scores)) if scores else None


class QAlign:
    """Q-Align as its authors publish it: its code comes with the weights.

    Args:
        model: Has ``tokenizer`` and ``image_processor`` and takes ``input_ids`` and ``images``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        before, after = (model.tokenizer(text)["input_ids"] for text in PROMPT.split(_IMAGE))
        # Every text begins with a mark, which only the first may keep.
        self._ids = torch.tensor([[*before, _IMAGE_TOKEN, *after[1:]]])
        self._words = [ids[1] for ids in model.tokenizer(list(WORDS))["input_ids"]]

    def logits(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """As :class:`Judge` says."""
        processor = self._model.image_processor
        colour = tuple(int(255 * mean) for mean in processor.image_mean)
        squares = [_square(picture, colour) for picture in pictures]
        pixels = processor.preprocess(squares, return_tensors="pt")["pixel_values"]
        parameter = next(self._model.parameters())
        ids = self._ids.to(parameter.device).repeat(len(squares), 1)
        answer = self._model(input_ids=ids, images=pixels.to(parameter))["logits"]
        return answer[:, -1, self._words]


def _as_seen(
    picture: np.ndarray,
    resized_px: int = _RESIZED_PX,
    seen_px: int = _SEEN_PX,
    mean: Sequence[float] = _MEAN,
    spread: Sequence[float] = _SPREAD,
) -> Tensor:
    """The middle ``(3, seen_px, seen_px)`` of the picture, by default as DINOv2 was evaluated."""
    height, width = picture.shape[:2]
    scale = resized_px / min(height, width)
    size = max(resized_px, round(height * scale)), max(resized_px, round(width * scale))
    small = resized(picture, size)
    top, left = ((length - seen_px) // 2 for length in size)
    pixels = small[:, top : top + seen_px, left : left + seen_px] / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(spread)[:, None, None]


def _square(picture: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """The picture in the middle of a square of one colour."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), colour, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
