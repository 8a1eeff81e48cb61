"""Licences of the weights: what they say, and that doubtful ones are accepted, not overlooked."""

from collections.abc import Sequence
from pathlib import Path

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights.lock_file import Lock, read_lock, record_acceptance
from joyflash_cli.weights.manifest import WeightFile, WeightProfile


def is_accepted(name: str, profile: WeightProfile, files: Sequence[WeightFile], lock: Lock) -> bool:
    """Whether nothing has to be accepted for these files, or these very terms were before."""
    if not profile.acceptance or not any(file.acceptance for file in files):
        return True
    return lock.accepted.get(name) == profile.licence


def require_acceptance(
    name: str,
    profile: WeightProfile,
    files: Sequence[WeightFile],
    *,
    accept: bool,
    lock_path: Path,
) -> tuple[str, ...]:
    """Warnings, once the terms are accepted: now by ``accept``, or in an earlier command.

    Args:
        name: The profile's.
        profile: Its licence is what must be accepted.
        files: What is about to be used.
        accept: Whether the user accepts now; remembered for this wording of the licence.
        lock_path: Where that is remembered.

    Raises:
        CheckpointError: ``E-LICENCE`` when the terms are not accepted.
    """
    if is_accepted(name, profile, files, read_lock(lock_path)):
        return ()
    if not accept:
        note = f"; {profile.note}" if profile.note else ""
        raise CheckpointError(
            f"the terms of {name} must be accepted: {profile.licence}{note}",
            hint="read them at their source, then add --accept-license",
            code="E-LICENCE",
        )
    try:
        record_acceptance(lock_path, name, profile.licence)
    except OSError as error:
        return (f"{lock_path} cannot be written ({error.strerror}); the acceptance is not kept",)
    return ()
