"""Losses of teacher, ODE initialisation and DMD, as plain functions of tensors.

x_t = (1 - sigma) x_0 + sigma eps and the flow is eps - x_0, as in ``sampler.solver``. All losses
are written in latents and flows, so a model that predicts the clean latent trains by the same
formulas as one that predicts the flow; ``scores`` brings either kind here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from joyflash_cli.types import finest_dtype


def flow_matching_loss(
    flow: Float[Tensor, "B *rest"],
    clean: Float[Tensor, "B *rest"],
    noise: Float[Tensor, "B *rest"],
    mask: Bool[Tensor, "B *rest"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the flow against ``noise - clean``.

    The teacher's loss on data; on generated latents the loss of the critic, the fake score.

    Args:
        flow: What the network says.
        clean: Latents that were noised; no gradient reaches them.
        noise: Noise that was mixed in.
        mask: Where the error counts; everywhere if ``None``.
    """
    error = (flow - (noise - clean.detach())).square()
    return error.mean() if mask is None else masked_mean(error, mask)


def masked_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Tensor:
    """Mean over the places where ``mask`` is true; 0 where there is none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def dmd_gradient(
    generated: Float[Tensor, "B *rest"],
    fake_clean: Float[Tensor, "B *rest"],
    real_clean: Float[Tensor, "B *rest"],
) -> Float[Tensor, "B *rest"]:
    """Direction in which the generated latents differ from data (paper Eq. 3).

    At one noise level the difference of two scores is proportional to the difference of the two
    clean predictions. Each sample is divided by the mean of ``|generated - real_clean|``, so that
    all noise levels pull alike (DMD; Self-Forcing uses no epsilon, and neither do we).

    Args:
        generated: Latents of the rollout.
        fake_clean: What the fake score makes of their noised version.
        real_clean: What the guided real score makes of the same noised version.
    """
    axes = tuple(range(1, generated.ndim))
    scale = (generated - real_clean).abs().mean(dim=axes, keepdim=True)
    return torch.nan_to_num((fake_clean - real_clean) / scale).detach()


def dmd_loss(
    generated: Float[Tensor, "B *rest"],
    gradient: Float[Tensor, "B *rest"],
    mask: Bool[Tensor, "B *rest"] | None = None,
) -> Float[Tensor, ""]:
    """A loss whose derivative by ``generated`` is ``gradient / numel``, in float64 if there is.

    1/2 mean((x - sg(x - gradient))^2); with a mask the mean and ``numel`` are over its true
    places, and the derivative is zero elsewhere.
    """
    fine = finest_dtype(generated.device)
    wanted = (generated.to(fine) - gradient.to(fine)).detach()
    error = (generated.to(fine) - wanted).square()
    return 0.5 * (error.mean() if mask is None else masked_mean(error, mask))


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of the teacher and of the real score.

    The numbers are *effective* weights: 1 is the plain conditional prediction, 0 the
    unconditional one. Self-Forcing's ``guidance_scale`` w adds to the conditional prediction,
    ``cond + w (cond - uncond)``, and is ``Guidance.added(w)`` here, so its 3.0 is 4 in this
    convention; FantasyTalking's 5 / 5 is 5 / 5.

    Attributes:
        text: Weight of the step from nothing to the text.
        audio: Weight of the step from the text alone to text and audio.
    """

    text: float = 5.0
    audio: float = 5.0

    @classmethod
    def added(cls, scale: float) -> "Guidance":
        """Guidance in the convention of Self-Forcing's ``guidance_scale``."""
        return cls(text=scale + 1, audio=scale + 1)


def guided(
    nothing: Float[Tensor, "*shape"],
    text: Float[Tensor, "*shape"],
    full: Float[Tensor, "*shape"],
    guidance: Guidance,
) -> Float[Tensor, "*shape"]:
    """``nothing + w_text (text - nothing) + w_audio (full - text)`` (FantasyTalking).

    Flows or clean predictions alike: at one noise level each is linear in the other.
    """
    return nothing + guidance.text * (text - nothing) + guidance.audio * (full - text)
