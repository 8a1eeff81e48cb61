"""What every trained network has: optimiser, schedule, precision, average and mean figures."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from joyflash_cli.errors import ConfigError
from joyflash_cli.model.transformer import CausalTransformer
from joyflash_cli.studio.training.session import ALONE, MetricsFile, Session
from joyflash_cli.studio.training.sharding import (
    local_part,
    shard_transformer,
    whole,
    whole_state,
)
from joyflash_cli.studio.training.state import load_module_state, load_optimiser_state


def check_counts(config: object, *names: str) -> None:
    """Refuse fields below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; at least 1 is needed")


def check_shares(config: object, *names: str) -> None:
    """Refuse fields outside 0..1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name} is {getattr(config, name)}; a share of 0..1 is needed")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW and its schedule.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Peak value.
        warmup_steps: Linear rise from zero.
        flat_share: Share of the steps at the peak, before a linear or cosine fall.
        schedule: How the rate ends: ``linear`` or ``cosine`` to zero, or ``constant``.
        betas: Of AdamW.
        weight_decay: On matrices and kernels only.
        clip_norm: Largest gradient norm.
        ema_decay: Of the averaged weights that are kept as the result.
        ema_from_step: Until then the average is the present weights (Self-Forcing: 200).
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    flat_share: float = 0.4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    ema_from_step: int = 0

    def __post_init__(self) -> None:
        """Refuse what no optimiser can follow."""
        check_counts(self, "steps")
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; a positive number is needed")
        check_shares(self, "flat_share", "ema_decay")


@dataclass(frozen=True)
class NetworkStage:
    """What the configurations of stages with one network have in common.

    Attributes:
        optimiser: Steps and rates.
        batch: Samples per step, over all processes.
        accumulate: Parts that a process splits its samples into, to save memory.
        seed: Of everything random.
        bf16: Whether the network runs in bfloat16.
        log_every: Steps between two lines of the log.
    """

    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    batch: int = 4
    accumulate: int = 1
    seed: int = 0
    bf16: bool = True
    log_every: int = 50


def learning_rate_scale(step: int, config: OptimiserConfig) -> float:
    """Factor of the peak learning rate at a step: warm-up, flat, then as ``schedule`` says."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    progress = step / config.steps
    if config.schedule == "constant" or progress < config.flat_share:
        return warmup
    left = max(0.0, 1 - (progress - config.flat_share) / max(1 - config.flat_share, 1e-9))
    return warmup * (left if config.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def make_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on parameters of two or more axes."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def make_average(module: nn.Module, config: OptimiserConfig) -> swa_utils.AveragedModel:
    """Exponential moving average of the weights with a short start-up bias correction."""

    def update(averaged: Any, current: Any, count: Any) -> None:
        decay = min(config.ema_decay, (1 + float(count)) / (10 + float(count)))
        parts = [[local_part(x) for x in weights] for weights in (averaged, current)]
        swa_utils.get_ema_multi_avg_fn(decay)(*parts, count)

    return swa_utils.AveragedModel(module, multi_avg_fn=update, use_buffers=False)


M = TypeVar("M", bound=nn.Module)


class TrainingRun(Generic[M]):
    """One network's module, optimiser, average, generator and files.

    With several processes a transformer is sharded here, and so are its average and moments.
    """

    def __init__(
        self,
        directory: Path,
        module: M,
        config: OptimiserConfig,
        *,
        seed: int,
        session: Session = ALONE,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.module = module
        self.config = config
        self.average = make_average(module, config)
        for network in (module, self.average.module):
            if isinstance(network, CausalTransformer):
                shard_transformer(network, session.processes)
        self.optimiser = make_optimiser(module, config)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.metrics = MetricsFile(directory, session)
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._count = 0

    @property
    def averaged(self) -> M:
        """The module with the averaged weights; sharded in a run of several processes."""
        return cast(M, self.average.module)

    def averaged_weights(self) -> dict[str, Tensor]:
        """The average as whole tensors on the CPU; every process has to call it."""
        return whole_state(self.average.module)

    def state(self) -> dict:
        """Everything that ``load_state`` needs to go on bit for bit."""
        return {
            "module": self.module.state_dict(),
            "average": self.average.module.state_dict(),
            "num_averaged": int(self.average.n_averaged),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "figures": {"sums": dict(self._sums), "count": self._count},
        }

    def load_state(self, state: dict) -> None:
        """Put back what ``state`` gave, shared out anew where the processes have changed."""
        load_module_state(self.module, state["module"])
        load_module_state(self.average.module, state["average"])
        self.average.n_averaged.fill_(state["num_averaged"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]
        self._sums = defaultdict(float, state["figures"]["sums"])
        self._count = state["figures"]["count"]

    def autocast(self, *, bf16: bool) -> torch.autocast:
        """The precision that the network's passes run in."""
        # Passes without gradients may come first; their cached casts of the weights have no graph
        # and would be used again by the passes that learn.
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False)

    def backward(self, loss: Tensor, *, share: float = 1.0) -> None:
        """Gradients of ``share * loss``, added to those of other parts of the batch."""
        (loss * share).backward()
        self._sums["loss"] += share * float(loss.detach())

    def apply(self, **figures: float) -> None:
        """Clip, step and average with the gradients gathered since the last call."""
        total = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.clip_norm)
        norm = float(whole(total))
        if math.isfinite(norm):
            scale = learning_rate_scale(self.step, self.config)
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * scale
            self.optimiser.step()
            self.average.update_parameters(self.module)
            if self.step < self.config.ema_from_step:
                self.average.n_averaged.zero_()  # the next update is a copy again
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self._count += 1
        for name, value in {"norm": norm, **figures}.items():
            self._sums[name] += value

    def log(self, **figures: float | str) -> dict:
        """Append the mean figures since the last call to ``metrics.jsonl`` and return them."""
        rate = self.optimiser.param_groups[0]["lr"]
        return self.metrics.write(
            {"step": self.step, **self.take_means(), "learning_rate": rate, **figures}
        )

    def take_means(self) -> dict[str, float]:
        """Mean of every figure over the steps since the last call and over the processes."""
        means = {name: value / max(self._count, 1) for name, value in self._sums.items()}
        self._sums.clear()
        self._count = 0
        return self.metrics.session.processes.mean(means)
