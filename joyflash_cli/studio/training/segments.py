"""What of a rollout the score networks see."""

from collections.abc import Callable

import torch
from torch import Tensor

from joyflash_cli.codec.protocol import Codec
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.batches import ReferencePlace, RolloutBatch, image_channels
from joyflash_cli.studio.training.ode_pairs import given_frames
from joyflash_cli.studio.training.scores import Segment

FirstFrame = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From latents up to and with a frame to that frame as the first of a clip, ``(B, C, H, W)``, and
the image conditioning of a clip that starts there, ``(B, T, C, H, W)``."""


def score_segment(
    latents: Tensor,
    batch: RolloutBatch,
    profile: SamplerSettings,
    *,
    max_frames: int,
    first_frame: FirstFrame | None = None,
) -> tuple[Segment, Tensor]:
    """What of a rollout the scores see, and where its gradient counts.

    Of a long rollout they see the end. A score network whose latent 0 is always a single picture
    (Wan) needs ``first_frame``: the slice then begins with the picture encoded anew, and its first
    block gets no gradient (Rolling-Forcing). Without it the slice is taken as it is.

    Returns:
        The segment, and a mask of the shape of its latents.
    """
    if profile.first_frame_rule == "prefix":
        latents = torch.cat([batch.reference_latent[:, None], latents], dim=1)
    total = latents.shape[1]
    start = max(0, total - max_frames)
    conditioning = batch.source.frames(start, total)
    seen, block = latents[:, start:], profile.block_frames
    counts = torch.ones_like(seen, dtype=torch.bool)
    if start and first_frame is not None:
        with torch.no_grad():
            first, image = first_frame(latents[:, : start + 1])
        seen = torch.cat([first[:, None], seen[:, 1:]], dim=1)
        conditioning = conditioning.with_frames(image=image)
        counts[:, :block] = False
    segment = Segment(
        latents=seen,
        conditioning=conditioning,
        positions=torch.arange(start, total, device=seen.device),
        given=given_frames(profile, total - start, start).to(seen.device),
    )
    return segment, counts & segment.learnt


def reencoded_first_frame(codec: Codec, *, num_frames: int, place: ReferencePlace) -> FirstFrame:
    """A ``FirstFrame`` that decodes what came before and encodes its last picture as a clip.

    Args:
        codec: One whose decoder needs no reference picture (Wan), on the latents' device.
        num_frames: Latent frames of a slice.
        place: Where the reference stands.
    """

    def first_frame(before: Tensor) -> tuple[Tensor, Tensor]:
        batch, _, _, height, width = before.shape
        stride = codec.spatial_stride
        blank = torch.zeros(batch, 3, height * stride, width * stride, device=before.device)
        frames, _ = codec.decode(before.float(), codec.start_decoding(blank))
        picture = frames[:, -1].clamp(-1, 1)
        latent = codec.encode(picture[:, None], picture)[:, 0]
        references = codec.reference_latents(picture)
        image = image_channels(references, 0, num_frames, place, from_start=True)
        return latent, image

    return first_frame
