"""Training of the face networks: the finder on scenes, the points network on crops.

The two never see each other's results. Both train on faces whose points are known (see
``points_pictures``), disturbed in every way that pictures of people are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyflash_cli.errors import ConfigError
from joyflash_cli.media.inputs.face_networks import FaceFinder, FaceNetworks, PointsNetwork
from joyflash_cli.media.inputs.face_points import NUM_POINTS, OUTLINE, points_of
from joyflash_cli.studio.clips.real_faces import PointedPicture, read_film_frames, read_photos
from joyflash_cli.studio.training.loop import M, train_network
from joyflash_cli.studio.training.points_batches import UNKNOWN, Collection, draw_crops, draw_scenes
from joyflash_cli.studio.training.points_pictures import (
    SQUARE_PX,
    load_parts,
    render_heads,
    sample_faceless,
    write_part,
)
from joyflash_cli.studio.training.session import ALONE, Session
from joyflash_cli.studio.training.trainer import NetworkStage, OptimiserConfig, TrainingRun

_OUTLINE_WEIGHT = 0.4
"""Where a cheek ends is a matter of taste; lips and lids are not."""

_JUDGEMENT_WEIGHT = 2.0

OPENINGS = (
    (13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (0, 17), (61, 291), (78, 308),
    (159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373),
)  # fmt: skip
"""Canonical numbers of points across lips, mouths and lids; their distances count beside places."""

_SHARP = 0.05
"""Spread of a point's map, of the crop's side, below which it costs nothing."""

DrawnLoss = Callable[[M, Collection, int, np.random.Generator], Tensor]
"""From network, what is learnt from, number of pictures and their source of randomness."""


@dataclass(frozen=True)
class NetworkConfig(NetworkStage):
    """How one of the two networks is trained, on crops or scenes."""

    optimiser: OptimiserConfig = field(
        default_factory=lambda: OptimiserConfig(
            steps=2000, learning_rate=2e-3, ema_decay=0.995, clip_norm=5.0
        )
    )
    batch: int = 48


@dataclass(frozen=True)
class PointsConfig:
    """The stage ``points``.

    Attributes:
        pictures: Folder of ``photos.json``, ``clips.json`` and what they name; without it rendered
            and drawn heads are all there is.
        frames_per_clip: Film frames that are used of every clip.
        num_heads: Rendered and drawn heads; 0 for none.
        num_faceless: Pictures without a face.
        shares: Of photographs, film frames and heads in a batch.
        seed: Of heads and pictures without a face.
        network: The points network.
        finder: The finder.
    """

    pictures: str = ""
    frames_per_clip: int = 12
    num_heads: int = 600
    num_faceless: int = 400
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2)
    seed: int = 3000
    network: NetworkConfig = field(default_factory=NetworkConfig)
    finder: NetworkConfig = field(default_factory=lambda: NetworkConfig(batch=20))

    def __post_init__(self) -> None:
        if abs(sum(self.shares) - 1) > 1e-6 or min(self.shares) < 0:
            raise ConfigError(f"points.shares are {self.shares}; they must add up to 1")


def train_face_networks(
    config: PointsConfig, *, assets_dir: Path, out_dir: Path, session: Session = ALONE
) -> FaceNetworks:
    """Both networks, trained one after the other; in evaluation mode.

    Raises:
        ConfigError: There is nothing to learn from.
        DataError: A list of pictures, a picture or a head pack is missing or damaged.
        TrainingStopped: When the session asked to stop; the state is saved.
    """
    collection = build_collection(config, assets_dir=assets_dir, directory=out_dir / "pictures")

    def trained(network: M, loss: DrawnLoss[M], stage: NetworkConfig, name: str) -> M:
        def step_loss(network: M, step: int, streams: Sequence[int]) -> Tensor:
            rng = np.random.default_rng([stage.seed, step, streams[0]])
            return loss(network, collection, len(streams), rng)

        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = TrainingRun(
            out_dir / name, network, stage.optimiser, seed=stage.seed, session=session
        )
        return train_network(run, step_loss, stage).eval()

    torch.manual_seed(config.finder.seed)
    finder = trained(FaceFinder(), finder_loss, config.finder, "finder")
    torch.manual_seed(config.network.seed)
    return FaceNetworks(finder, trained(PointsNetwork(), points_loss, config.network, "points"))


def build_collection(config: PointsConfig, *, assets_dir: Path, directory: Path) -> Collection:
    """Everything that the networks learn from, made where it is missing."""
    parts: dict[str, Iterator[PointedPicture]] = {}
    if config.pictures:
        folder = Path(config.pictures).expanduser()
        films = read_film_frames(folder, frames_per_clip=config.frames_per_clip)
        parts = {"photos": read_photos(folder), "films": films}
    if config.num_heads:
        parts["heads"] = render_heads(config.num_heads, assets_dir, seed=config.seed)
    if not parts:
        raise ConfigError("points has neither pictures nor num_heads", hint="give one of them")
    shares = [config.shares[("photos", "films", "heads").index(name)] for name in parts]
    for name, pictures in parts.items():
        write_part(directory, name, pictures)
    stores = load_parts(directory, tuple(parts))
    rng = np.random.default_rng(config.seed)
    faceless = [sample_faceless(rng, SQUARE_PX) for _ in range(config.num_faceless)]
    return Collection(stores, [share / sum(shares) for share in shares], np.stack(faceless))


def points_loss(
    network: PointsNetwork, collection: Collection, count: int, rng: np.random.Generator
) -> Tensor:
    """Of places, openings, spread and judgements on random crops."""
    crops, points, labels = draw_crops(collection, count, rng)
    reading = network(crops)
    known = points.isfinite()
    target = torch.where(known, points, reading.points.detach())
    error = functional.smooth_l1_loss(reading.points, target, beta=0.01, reduction="none")
    weights = torch.ones(NUM_POINTS)
    weights[torch.from_numpy(OUTLINE)] = _OUTLINE_WEIGHT
    weight = weights[None, :, None] * known
    blurred = functional.relu(reading.spread - _SHARP) * known[..., 0]
    judged = labels != UNKNOWN
    judgement = functional.binary_cross_entropy_with_logits(
        reading.logits, labels.clamp(min=0), weight=judged.float(), reduction="sum"
    )
    return (
        100 * (error * weight).sum() / weight.sum().clamp(min=1)
        + 200 * opening_error(reading.points, points)
        + 2 * blurred.mean()
        + _JUDGEMENT_WEIGHT * judgement / judged.sum().clamp(min=1)
    )


def finder_loss(
    network: FaceFinder, collection: Collection, count: int, rng: np.random.Generator
) -> Tensor:
    """Of where faces are in random scenes, and how large and how turned."""
    scenes, heat, shape = draw_scenes(collection, count, rng)
    seen = network(scenes).float()
    faces = (heat == 1).sum().clamp(min=1)
    near = heat.clamp(min=0) * (heat > 0.05)
    distance = functional.smooth_l1_loss(seen[:, 1:], shape, beta=0.2, reduction="none")
    weight = torch.tensor([0.5, 0.5, 2.0, 1.5, 1.5]).view(1, 5, 1, 1)
    placed = (distance * weight * near[:, None]).sum() / near.sum().clamp(min=1)
    return _focal(seen[:, 0], heat) / faces + placed


def opening_error(read: Tensor, true: Tensor) -> Tensor:
    """Error of how far lips and lids are open and mouths are wide, in sides of the crop.

    A network that is unsure of each edge alone answers with a half-open mouth: the error of points
    forgives that, as it is small beside the error of their place.

    Args:
        read: Points ``(B, P, 2)``.
        true: The same, NaN where unknown.
    """
    first, second = (torch.from_numpy(points_of(column)) for column in zip(*OPENINGS, strict=True))
    wanted = (true[:, first] - true[:, second]).norm(dim=-1)
    known = wanted.isfinite()
    made = (read[:, first] - read[:, second]).square().sum(-1).add(1e-8).sqrt()
    error = functional.smooth_l1_loss(made, wanted.nan_to_num(), beta=0.004, reduction="none")
    return (error * known).sum() / known.sum().clamp(min=1)


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CornerNet (arXiv 1808.01244), summed."""
    chance = logits.sigmoid()
    is_face = (heat == 1).float()
    hit = is_face * (1 - chance) ** 2 * functional.logsigmoid(logits)
    free = (1 - heat.clamp(min=0)) ** 4 * (heat != UNKNOWN) * (1 - is_face)
    miss = free * chance**2 * functional.logsigmoid(-logits)
    return -(hit + miss).sum()
