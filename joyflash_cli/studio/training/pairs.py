"""Decoder batches in which some clips are a closed mouth and a smile of one person: true teeth."""

from pathlib import Path

import numpy as np
import torch

from joyflash_cli.codec.warp import FRAMES_PER_LATENT
from joyflash_cli.studio.clips.clips import ClipStore
from joyflash_cli.studio.training.codec import box_weights, to_signed
from joyflash_cli.studio.training.decoder import BatchReader
from joyflash_cli.studio.training.decoder_batches import (
    DecoderBatch,
    DecoderTrainingConfig,
    mouth_centre,
)


class PairReader:
    """Puts pairs in the place of some of another reader's clips, each as a picture that rests.

    Args:
        directory: Folder written by ``studio.clips.photo_pairs.build_pairs``.
        read_batch: The other reader.

    Raises:
        DataError: If there are no pairs.
    """

    def __init__(self, directory: Path, read_batch: BatchReader) -> None:
        self._pairs = ClipStore(directory)
        self._read_batch = read_batch

    def __call__(
        self, store: ClipStore, config: DecoderTrainingConfig, rng: np.random.Generator
    ) -> DecoderBatch:
        """A random batch in which ``config.pair_share`` of the clips are pairs."""
        batch = self._read_batch(store, config, rng)
        for i in np.flatnonzero(rng.random(config.batch) < config.pair_share):
            index = int(rng.integers(len(self._pairs)))
            closed, smiling = to_signed(self._pairs.frames(index))
            weight = box_weights(
                self._pairs, index,
                mouth_weight=config.mouth_weight, eyes_weight=config.eyes_weight,
            )  # fmt: skip
            batch.frames[i] = batch.seen[i] = smiling.expand(
                config.num_latents, FRAMES_PER_LATENT, -1, -1, -1
            )
            batch.reference[i] = closed
            batch.weight[i, 0, 0, 0] = weight / weight.mean()
            batch.outside[i, 0, 0, 0] = box_weights(
                self._pairs, index, mouth_weight=0.0, eyes_weight=1.0
            )
            batch.mouths[i] = mouth_centre(self._pairs, index)
            batch.visemes[i] = torch.nan
            batch.lids[i] = 0
            if batch.predicted is not None:
                batch.predicted[i] = torch.nan
        return batch
