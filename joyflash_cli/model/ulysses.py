"""Ulysses: several processes compute one pass, each with some tokens or with some heads.

Outside attention a rank has its share of every latent frame's tokens, so that whatever is said per
frame (timestep, audio) stays as it is. Inside self-attention it has all tokens of its share of the
heads, and so has its cache. Between the two every rank sends every other its part: an all-to-all.
Nothing is approximated. (DeepSpeed-Ulysses, arXiv 2309.14509.)

``DTensor`` has the same exchange as a redistribution between two sharded axes, but gathers
everything everywhere on CPUs; here one collective of ``torch.distributed`` does it on all devices,
for frames whose tokens cannot be shared out evenly, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes that compute a pass together, as one of them sees it.

    Attributes:
        rank: This one, from 0.
        size: How many there are; it divides the heads.
        group: Of ``torch.distributed``; ``None`` for all processes of the program.
    """

    rank: int
    size: int
    group: "dist.ProcessGroup | None" = None

    def of_pass(self, num_frames: int, tokens_per_frame: int) -> "SharedPass":
        """How a pass of so many latent frames is shared out."""
        least, more = divmod(tokens_per_frame, self.size)
        num_tokens = tuple(least + (rank < more) for rank in range(self.size))
        return SharedPass(self, num_frames, num_tokens)

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """A part for every rank against one of these shapes from every rank, in their order."""
        sent = torch.cat([part.flatten() for part in parts])
        sizes = [prod(shape) for shape in shapes]
        received = sent.new_empty(sum(sizes))
        sent_sizes = [part.numel() for part in parts]
        dist.all_to_all_single(received, sent, sizes, sent_sizes, group=self.group)
        return [x.view(*shape) for x, shape in zip(received.split(sizes), shapes, strict=True)]


@dataclass(frozen=True)
class SharedPass:
    """One pass that is shared out.

    L are all tokens of the pass, L2 those of this rank: of every frame the same ones. N are all
    heads, N2 those of this rank.

    Attributes:
        ranks: Who takes part.
        num_frames: Latent frames.
        num_tokens: Tokens of each that every rank has, as ``tensor_split`` shares them out.
    """

    ranks: Ranks
    num_frames: int
    num_tokens: tuple[int, ...]

    def own(self, tokens: Float[Tensor, "B T P D"]) -> Float[Tensor, "B T P2 D"]:
        """This rank's tokens of every frame."""
        return tokens.tensor_split(self.ranks.size, dim=2)[self.ranks.rank]

    def to_heads(
        self,
        query: Float[Tensor, "B L2 N K"],
        key: Float[Tensor, "B L2 N K"],
        value: Float[Tensor, "B L2 N K"],
    ) -> list[Float[Tensor, "B L N2 K"]]:
        """The same of all tokens for this rank's heads, frame after frame."""
        own = torch.stack((query, key, value)).unflatten(2, (self.num_frames, -1))
        parts = own.chunk(self.ranks.size, dim=4)
        before, after = parts[0].shape[:3], parts[0].shape[4:]
        shapes = [(*before, num_tokens, *after) for num_tokens in self.num_tokens]
        return list(torch.cat(self.ranks.exchange(parts, shapes), dim=3).flatten(2, 3))

    def to_tokens(self, attended: Float[Tensor, "B L N2 K"]) -> Float[Tensor, "B L2 N K"]:
        """What attention gave, of all heads for this rank's tokens."""
        by_frame = attended.unflatten(1, (self.num_frames, -1))
        parts = by_frame.tensor_split(self.ranks.size, dim=2)
        shapes = [parts[self.ranks.rank].shape] * self.ranks.size
        return torch.cat(self.ranks.exchange(parts, shapes), dim=3).flatten(1, 2)

    def gather(self, own: Float[Tensor, "B T P2 D"]) -> Float[Tensor, "B T P D"]:
        """All tokens of every frame, on every rank."""
        shapes = [(*own.shape[:2], number, own.shape[3]) for number in self.num_tokens]
        return torch.cat(self.ranks.exchange([own] * self.ranks.size, shapes), dim=2)
