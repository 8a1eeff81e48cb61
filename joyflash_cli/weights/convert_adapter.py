"""What was trained on a base: low-rank adapters, and whole tensors that replace its own.

The scale of an adapter is nowhere in its tensors. Its own configuration states it, and without that
file nothing is merged: a wrong scale is a model that runs and is wrong.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.convert_plan import Shape
from joyflash_cli.weights.convert_sources import (
    OVERLAY_MARK,
    TensorSource,
    read_config,
)

_NAMED = 5
_ACTIVE = ("rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "modules_to_save")
"""Settings of peft that change what an adapter means; none of them is merged here."""


@dataclass(frozen=True)
class AdapterRule:
    """What an adapter's configuration says of it.

    Attributes:
        rank: Of every pair of factors.
        scale: Alpha / rank, the weight of their product.
        targets: The linear maps that have one: names, the ends of names, or one pattern.
    """

    rank: int
    scale: float
    targets: tuple[str, ...] | re.Pattern[str]

    def meets(self, linear: str) -> bool:
        """Whether this linear map has an adapter."""
        if isinstance(self.targets, re.Pattern):
            return self.targets.fullmatch(linear) is not None
        return any(linear == name or linear.endswith(f".{name}") for name in self.targets)


def read_adapter(paths: Sequence[Path]) -> tuple[TensorSource, AdapterRule] | None:
    """The tensors of an adapter and how they are merged; ``None`` without files.

    Raises:
        CheckpointError: When its configuration is missing or states what is not merged here.
    """
    if not paths:
        return None
    weights = tuple(path for path in paths if path.suffix != ".json")
    stated = [path for path in paths if path.suffix == ".json"]
    if not weights or not stated:
        lacking = "its configuration, which alone states its scale" if weights else "its weights"
        raise CheckpointError(
            f"the adapter {paths[0].name} lacks {lacking}",
            hint="put both files of the adapter's repository into one folder, or fetch them",
            code="E-CHECKPOINT-MISSING",
        )
    return TensorSource(weights), adapter_rule(read_config(stated[0]), stated[0].name)


def adapter_rule(stated: Mapping[str, Any], file: str) -> AdapterRule:
    """The rule of a configuration of peft, or of OmniAvatar's training.

    Args:
        stated: The parsed file.
        file: Its name, for messages.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT`` without a rank, an alpha and targets, and for
            settings that would be left out by merging.
    """
    for name in _ACTIVE:
        if stated.get(name):
            raise _refused(file, f"uses {name} = {json.dumps(stated[name])[:60]}")
    if stated.get("bias", "none") != "none":
        raise _refused(file, f"trains biases ({stated['bias']!r:.40})")
    if stated.get("train_architecture", "lora") != "lora":
        raise _refused(file, f"is of the kind {stated['train_architecture']!r:.40}")
    rank = stated.get("r", stated.get("lora_rank"))
    alpha = stated.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or alpha <= 0:
        raise _refused(file, f"states rank {rank!r:.40} and alpha {alpha!r:.40}")
    return AdapterRule(rank, alpha / rank, _targets(stated, file))


def _targets(stated: Mapping[str, Any], file: str) -> tuple[str, ...] | re.Pattern[str]:
    listed = stated.get("target_modules", stated.get("lora_target_modules"))
    if isinstance(listed, str) and "target_modules" in stated:
        try:
            return re.compile(listed)
        except re.error as error:
            raise _refused(file, f"names its targets by no pattern: {error}") from error
    if isinstance(listed, str):
        listed = [name.strip() for name in listed.split(",")]
    if not isinstance(listed, list) or not listed or not all(isinstance(n, str) for n in listed):
        raise _refused(file, f"states no target modules ({listed!r:.40})")
    return tuple(listed)


def check_adapter(
    rule: AdapterRule,
    plain: Mapping[str, str],
    adapters: Mapping[str, Mapping[str, str]],
    shapes: Mapping[str, Shape],
) -> None:
    """Refuse an adapter that is not exactly what its configuration says.

    Args:
        rule: Of the configuration.
        plain: Plain name to source name.
        adapters: Per linear map the source names of its factors.
        shapes: By source name.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT``.
    """
    linears = {
        name.removesuffix(".weight")
        for name, source in plain.items()
        if name.endswith(".weight") and len(shapes[source]) == 2
    }
    expected = {linear for linear in linears if rule.meets(linear)}
    _refuse_names("lacks the factors of", expected - set(adapters))
    _refuse_names("has factors that its configuration does not name, of", set(adapters) - expected)
    for linear, factors in adapters.items():
        rank = shapes[factors["A"]][0] if "A" in factors and shapes[factors["A"]] else None
        if rank != rule.rank:
            raise _refused_adapter(
                f"has rank {rank} at {linear}; its configuration says {rule.rank}"
            )


def check_brought(plain: Mapping[str, str], modules: Iterable[str]) -> None:
    """Refuse an adapter without the whole modules that it must bring.

    Left to the base they would make a model that runs and is wrong.

    Args:
        plain: Plain name to source name.
        modules: Names, or beginnings of names, of modules.

    Raises:
        CheckpointError: ``E-CHECKPOINT-LAYOUT``.
    """
    for module in modules:
        of_module = {n: s for n, s in plain.items() if n.startswith(f"{module}.")}
        left = [name for name, source in of_module.items() if not source.startswith(OVERLAY_MARK)]
        if left or not of_module:
            raise _refused_adapter(f"lacks {left[0] if left else module}, which it must bring")


def _refuse_names(complaint: str, names: set[str]) -> None:
    if names:
        first = sorted(names)[:_NAMED]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise _refused_adapter(f"{complaint} {', '.join(first)}{more}")


def _refused_adapter(complaint: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter {complaint}",
        hint="its weights and its configuration must come from the same revision of its repository",
        code="E-CHECKPOINT-LAYOUT",
    )


def _refused(file: str, complaint: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter's {file} {complaint}; such an adapter is not merged",
        hint="give plain low-rank factors with their rank, alpha and target modules",
        code="E-CHECKPOINT-LAYOUT",
    )
