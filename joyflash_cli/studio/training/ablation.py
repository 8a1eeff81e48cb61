"""The switches of Tables 2, 3 and 4: what of the method a variant leaves out."""

from dataclasses import dataclass, replace

from joyflash_cli.errors import ConfigError
from joyflash_cli.sampler.settings import SamplerSettings
from joyflash_cli.studio.training.rollout import RolloutConfig


@dataclass(frozen=True)
class Ablation:
    """A variant of the method; the defaults are the full method.

    A variant may be trained so, sampled so, or both: ``rollout`` and ``profile`` give the two
    halves, and the caller decides where it uses the changed profile. In the paper rows 2 and the
    first of 3 are about training, "without added noise" and the rows of 4 about inference.

    Attributes:
        main_branch: Joint rollouts in training (Table 2).
        auxiliary_branch: Block-wise rollouts in training (Table 2).
        sub_steps: PSB's sub-steps, in both branches and in the ramp (Table 2).
        mci: The condition frame (Table 3).
        mci_noise: Noise on the condition frame (Table 3).
        sink: Sink frames in the cache (Table 4).
        relative_sink: Whether the sink moves along; otherwise it stays at index 0 (Table 4).
        reset_threshold: The paper's N (Table 4); ``None`` keeps the profile's.
    """

    main_branch: bool = True
    auxiliary_branch: bool = True
    sub_steps: bool = True
    mci: bool = True
    mci_noise: bool = True
    sink: bool = True
    relative_sink: bool = True
    reset_threshold: int | None = None

    def __post_init__(self) -> None:
        """Refuse a threshold for a sink that never moves."""
        if self.reset_threshold is not None and not self.relative_sink:
            raise ConfigError("reset_threshold needs relative_sink")

    def profile(self, full: SamplerSettings) -> SamplerSettings:
        """The sampler's profile without what is switched off."""
        changes: dict[str, object] = {}
        if not self.sub_steps:
            changes = {"psb": False, "sub_steps": ()}
        if not self.relative_sink:
            changes |= {"position_policy": "absolute", "reset_threshold": None}
        if not self.sink:
            changes["sink_frames"] = 0
        if self.reset_threshold is not None:
            changes["reset_threshold"] = self.reset_threshold
        changes["mci"] = full.mci and self.mci
        changes["mci_noise"] = full.mci_noise and self.mci_noise
        return replace(full, **changes)  # type: ignore[arg-type]

    def rollout(self, full: RolloutConfig) -> RolloutConfig:
        """The rollout without the branches that are switched off."""
        return replace(
            full,
            main_branch=full.main_branch and self.main_branch,
            auxiliary_branch=full.auxiliary_branch and self.auxiliary_branch,
        )
