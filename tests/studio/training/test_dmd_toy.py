"""DMD on the plane: a known mixture of Gaussians, a two-layer student, the product's own losses."""

import math

import torch
from torch import nn

from joyflash_cli.sampler.solver import add_noise, clean_from_flow
from joyflash_cli.studio.training.scores import (
    dmd_gradient,
    dmd_loss,
    draw_sigmas,
    flow_matching_loss,
)

MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
SPREAD = 0.3
LIMITS = (20.0, 980.0)


def target_samples(num: int, generator: torch.Generator) -> torch.Tensor:
    which = torch.multinomial(WEIGHTS, num, replacement=True, generator=generator)
    return MEANS[which] + SPREAD * torch.randn(num, 2, generator=generator)


def real_clean(noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_t] of the mixture, exactly."""
    keep, sigma = 1 - sigma[:, None, None], sigma[:, None, None]
    variance = keep**2 * SPREAD**2 + sigma**2
    offset = noisy[:, None] - keep * MEANS
    log_density = -(offset**2).sum(-1) / (2 * variance[..., 0]) - torch.log(variance[..., 0])
    share = (log_density + WEIGHTS.log()).softmax(-1)[..., None]
    return (share * (MEANS + keep * SPREAD**2 / variance * offset)).sum(1)


class Score(nn.Module):
    """Flow of a noisy point."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, noisy, sigma):
        level = sigma[:, None]
        return self.layers(torch.cat([noisy, level, level**2, (4 * level).sin()], dim=1))


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Zero only for equal distributions."""
    mean = lambda x, y: torch.cdist(x, y).mean()  # noqa: E731
    return float(2 * mean(a, b) - mean(a, a) - mean(b, b))


def distil(steps: int, *, sign: float = 1.0, real=real_clean) -> tuple[float, float, torch.Tensor]:
    """Energy distance of the student to the target before and after, and its samples."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    student = nn.Sequential(nn.Linear(2, 128), nn.ReLU(), nn.Linear(128, 2))
    critic = Score()
    student_steps = torch.optim.Adam(student.parameters(), lr=4e-3, betas=(0.0, 0.99))
    critic_steps = torch.optim.Adam(critic.parameters(), lr=4e-3, betas=(0.0, 0.99))
    test_noise = torch.randn(1000, 2, generator=generator)
    truth = target_samples(1000, generator)
    before = energy_distance(student(test_noise).detach(), truth)

    def scored(latents):
        sigma = draw_sigmas(len(latents), generator, shift=1.0, limits=LIMITS)
        noise = torch.randn(latents.shape, generator=generator)
        return add_noise(latents, noise, sigma[:, None]), sigma, noise

    for step in range(steps):
        for group in (*student_steps.param_groups, *critic_steps.param_groups):
            group["lr"] = 4e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-4
        if step % 5 == 4:
            points = student(torch.randn(256, 2, generator=generator))
            with torch.no_grad():
                noisy, sigma, _ = scored(points)
                fake = clean_from_flow(noisy, critic(noisy, sigma), sigma[:, None])
                gradient = sign * dmd_gradient(points, fake, real(noisy, sigma))
            student_steps.zero_grad()
            dmd_loss(points, gradient).backward()
            student_steps.step()
        with torch.no_grad():
            points = student(torch.randn(256, 2, generator=generator))
            noisy, sigma, noise = scored(points)
        critic_steps.zero_grad()
        flow_matching_loss(critic(noisy, sigma), points, noise).backward()
        critic_steps.step()
    samples = student(test_noise).detach()
    return before, energy_distance(samples, truth), samples


STEPS = 2500


def test_dmd_moves_the_student_to_the_target():
    """Two draws of the target are 0.002 apart; a student that is a continuous map bridges modes."""
    before, after, samples = distil(STEPS)
    assert before > 1
    assert after < 0.08
    nearest = torch.cdist(samples, MEANS).argmin(1)
    shares = nearest.bincount(minlength=3) / len(samples)
    torch.testing.assert_close(shares, WEIGHTS, atol=0.06, rtol=0)
    for mode in range(3):
        centre = samples[nearest == mode].median(dim=0).values
        torch.testing.assert_close(centre, MEANS[mode], atol=0.25, rtol=0)


def test_the_bound_fails_for_a_gradient_of_the_wrong_sign():
    _, after, _ = distil(200, sign=-1.0)
    assert after > 1


def test_the_bound_fails_for_a_wrong_real_score():
    """The teacher decides where the student goes: one mode only gives one mode only."""

    def lone(noisy, sigma):
        keep = 1 - sigma[:, None]
        variance = keep**2 * SPREAD**2 + sigma[:, None] ** 2
        return MEANS[:1] + keep * SPREAD**2 / variance * (noisy - keep * MEANS[:1])

    _, after, samples = distil(STEPS // 3, real=lone)
    assert after > 0.5
    torch.testing.assert_close(samples.median(dim=0).values, MEANS[0], atol=0.25, rtol=0)
