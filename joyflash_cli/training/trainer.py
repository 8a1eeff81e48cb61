"""What every training stage shares: schedule, metrics on disk, resumable state."""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW and its schedule.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Peak value.
        warmup_steps: Linear rise from zero.
        flat_share: Share of the steps at the peak; then linear to zero.
        betas: Of AdamW.
        weight_decay: On matrices and kernels only.
        clip_norm: Largest gradient norm.
        ema_decay: Of the averaged weights that are kept as the result.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    flat_share: float = 0.4
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998


def learning_rate_scale(step: int, config: OptimiserConfig) -> float:
    """Factor of the peak learning rate at a step: warm-up, flat, linear to zero."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    progress = step / config.steps
    if progress < config.flat_share:
        return warmup
    return warmup * max(0.0, 1 - (progress - config.flat_share) / (1 - config.flat_share))


def make_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on parameters of two or more axes."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def make_average(module: nn.Module, config: OptimiserConfig) -> torch.optim.swa_utils.AveragedModel:
    """Exponential moving average of the weights with a short start-up bias correction."""

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        decay = min(config.ema_decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    return torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=update, use_buffers=False)


M = TypeVar("M", bound=nn.Module)


class TrainingRun(Generic[M]):
    """One stage's module, optimiser, average, generators and files.

    Args:
        directory: Where state, metrics and results go.
        module: The network that is trained, on its device.
        config: Optimiser and schedule.
        seed: Of every random number of the run.
        save_every_s: A kill loses at most this much.
    """

    def __init__(
        self,
        directory: Path,
        module: M,
        config: OptimiserConfig,
        *,
        seed: int,
        save_every_s: float = 120.0,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.module = module
        self.config = config
        self.optimiser = make_optimiser(module, config)
        self.average = make_average(module, config)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.save_every_s = save_every_s
        self._sums: dict[str, float] = {}
        self._count = 0
        self._started = time.monotonic()
        self._saved = time.monotonic()

    @property
    def averaged(self) -> M:
        """The module with the averaged weights."""
        return cast(M, self.average.module)

    @property
    def state_path(self) -> Path:
        """File of the resumable state."""
        return self.directory / "state.pt"

    def restart_average(self) -> None:
        """Begin the average at the module's present weights, after they were set by hand."""
        self.average = make_average(self.module, self.config)

    def state(self) -> dict:
        """Everything that ``load_state`` needs to go on bit for bit."""
        return {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
        }

    def load_state(self, state: dict) -> None:
        """Put back what ``state`` gave."""
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]

    def resume(self) -> bool:
        """Go on from the saved state; false when there is none."""
        if not self.state_path.exists():
            return False
        state = torch.load(self.state_path, weights_only=True)
        self.load_state(state)
        return True

    def save(self) -> None:
        """Write the resumable state: complete or absent."""
        partial = self.state_path.with_suffix(".part")
        torch.save(self.state(), partial)
        os.replace(partial, self.state_path)
        self._saved = time.monotonic()

    def update(self, loss: torch.Tensor, **figures: float) -> None:
        """Backward, clip, step, average; remember figures for the log."""
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        if math.isfinite(float(norm)):
            scale = learning_rate_scale(self.step, self.config)
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * scale
            self.optimiser.step()
            self.average.update_parameters(self.module)
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._count += 1
        for name, value in {"loss": float(loss.detach()), "norm": float(norm), **figures}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if time.monotonic() - self._saved > self.save_every_s:
            self.save()

    def log(self, **figures: float | str) -> dict:
        """Append the mean figures since the last call to ``metrics.jsonl`` and return them."""
        elapsed = time.monotonic() - self._started
        means = self.take_means()
        line = {"step": self.step, "elapsed_s": round(elapsed, 1), **means, **figures}
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    def take_means(self) -> dict[str, float]:
        """Mean of every figure since the last call."""
        means = {name: value / max(self._count, 1) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
