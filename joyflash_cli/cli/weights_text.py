"""What ``joyflash weights`` shows: plans, findings and licences as lines or as plain values."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from joyflash_cli.errors import CheckpointError
from joyflash_cli.weights import places
from joyflash_cli.weights.lock_file import is_accepted, read_lock
from joyflash_cli.weights.manifest import WeightProfile
from joyflash_cli.weights.sources import (
    PROMPT_ROLE,
    convert_command,
    fetch_command,
    local_source,
)
from joyflash_cli.weights.store import is_converted

if TYPE_CHECKING:
    from joyflash_cli.weights.fetch_plan import FetchPlan, PlannedFile
    from joyflash_cli.weights.verify import Finding

_STATES = {"ready": "here", "check": "here, to be checked", "download": "to download"}


def bytes_text(num_bytes: int) -> str:
    """A size as people read it: ``11.4 GB``; ``size unknown`` for 0."""
    if num_bytes <= 0:
        return "size unknown"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} bytes"


def list_lines(name: str, profile: WeightProfile) -> list[str]:
    """One profile of ``joyflash weights list``."""
    lines = [name, f"  {profile.title}", f"  files    {_files(profile)}"]
    if profile.source != "embedded":
        lines.append(f"  here     {_here(name, profile)}")
    lines += _text_lines(name, profile)
    lines.append(f"  licence  {profile.licence}")
    if profile.note:
        lines.append(f"  note     {profile.note}")
    return lines


def profile_values(name: str, profile: WeightProfile) -> dict[str, Any]:
    """One profile of ``joyflash weights list --json``: the manifest's entry and what is here."""
    lock = read_lock(places.lock_path())
    return asdict(profile) | {
        "fetched_files": sum(local_source(file, lock) is not None for file in profile.files),
        "converted": profile.source != "embedded" and is_converted(name),
    }


def plan_lines(plan: "FetchPlan", profile: WeightProfile) -> list[str]:
    """What a fetch will do, before it does it."""
    rows = [
        (
            planned.file.role,
            f"{planned.file.name}@{planned.revision[:8]}",
            bytes_text(planned.bytes),
            _STATES[planned.state],
        )
        for planned in plan.files
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{plan.profile}: {profile.title}", f"licence: {profile.licence}"]
    lines += [
        f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}"
        for row in rows
    ]
    unknown = sum(f.state == "download" and not f.bytes for f in plan.files)
    also = f" and {unknown} of unknown size" if unknown else ""
    size = bytes_text(plan.download_bytes) if plan.download_bytes else "0 bytes"
    lines.append(
        f"to download: {plan.num_downloads} of {len(plan.files)} files, {size}{also}; "
        f"{bytes_text(plan.free_bytes)} free in {plan.hub.cache}"
    )
    return lines


def plan_values(plan: "FetchPlan") -> dict[str, Any]:
    """A plan as plain values."""
    return {
        "profile": plan.profile,
        "download_files": plan.num_downloads,
        "download_bytes": plan.download_bytes,
        "free_bytes": plan.free_bytes,
        "cache": str(plan.hub.cache),
        "files": file_values(plan.files),
    }


def file_values(files: Iterable["PlannedFile"]) -> list[dict[str, Any]]:
    """Files of a plan as plain values."""
    return [
        {
            "role": planned.file.role,
            "repo": planned.file.repo,
            "revision": planned.revision,
            "path": planned.file.path,
            "bytes": planned.bytes,
            "sha256": planned.sha256,
            "format": planned.file.format,
            "licence": planned.file.licence,
            "state": planned.state,
            "local_path": str(planned.local) if planned.local else None,
        }
        for planned in files
    ]


def next_step(name: str, profile: WeightProfile) -> list[str]:
    """What to do after a fetch; nothing when the profile can be rendered with already."""
    if profile.kind != "avatar" or is_converted(name):
        return []
    return [f"next: {convert_command(name)}"]


def finding_line(finding: "Finding") -> str:
    """One file of ``joyflash weights verify``."""
    states = {"absent": "not here, not needed", "unknown": "read; nothing to compare it with"}
    detail = f": {finding.detail}" if finding.detail else ""
    return f"  {states.get(finding.state, finding.state)}  {finding.name}{detail}"


def finding_values(findings: Iterable["Finding"]) -> list[dict[str, Any]]:
    """Findings as plain values."""
    return [
        asdict(finding) | {"path": str(finding.path) if finding.path else None}
        for finding in findings
    ]


def raise_failures(
    profiles: Mapping[str, WeightProfile], found: Mapping[str, Iterable["Finding"]]
) -> None:
    """Ends with an error when any file is missing or damaged.

    Raises:
        CheckpointError: ``E-WEIGHTS-VERIFY`` naming the first five, and the command that helps.
    """
    failed = [
        (name, finding) for name, all_found in found.items() for finding in all_found
        if finding.failed
    ]  # fmt: skip
    if not failed:
        return
    names = ", ".join(f"{finding.name} is {finding.state}" for _, finding in failed[:5])
    more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
    name, finding = failed[0]
    if profiles[name].source == "embedded":
        hint = "install the package again"
    elif finding.role == "checkpoint":
        hint = f"{convert_command(name)} --overwrite"
    else:
        hint = fetch_command(name, profiles[name])
    raise CheckpointError(f"{names}{more}", hint=hint, code="E-WEIGHTS-VERIFY")


def licence_lines(name: str, profile: WeightProfile) -> list[str]:
    """One profile of ``joyflash weights licenses``."""
    lines = [name, f"  {profile.licence}"]
    if profile.acceptance:
        state = "accepted" if _accepted(name, profile) else "not accepted yet (--accept-license)"
        lines.append(f"  {state}; {profile.note}")
    by_licence: dict[str, list[str]] = {}
    for file in profile.files:
        by_licence.setdefault(file.licence, []).append(file.name)
    for licence, names in by_licence.items():
        lines.append(f"  {licence}")
        lines += [f"    {file}" for file in names]
    return lines


def licence_values(name: str, profile: WeightProfile) -> dict[str, Any]:
    """One profile of ``joyflash weights licenses --json``."""
    return {
        "licence": profile.licence,
        "note": profile.note,
        "acceptance": profile.acceptance,
        "accepted": _accepted(name, profile),
        "files": {file.name: file.licence for file in profile.files},
    }


def _accepted(name: str, profile: WeightProfile) -> bool:
    return is_accepted(name, profile, profile.files, read_lock(places.lock_path()))


def _files(profile: WeightProfile) -> str:
    if profile.source == "embedded":
        return "inside the package"
    if profile.source == "none":
        return "no public source; bring them with --checkpoint DIR"
    needed = [file for file in profile.files if not file.optional]
    known = sum(file.bytes for file in needed)
    unknown = sum(file.bytes == 0 for file in needed)
    also = f" and {unknown} of unknown size" if unknown else ""
    size = f"{bytes_text(known)}{also}" if known else "sizes unknown (fetch --dry-run asks)"
    optional = len(profile.files) - len(needed)
    more = f"; {optional} optional" if optional else ""
    return f"{len(needed)} on the Hub, {size}{more}"


def _text_lines(name: str, profile: WeightProfile) -> list[str]:
    """That the text encoder can be left out, with its size, for profiles of which that is true."""
    if not {"text_encoder", PROMPT_ROLE} <= set(profile.roles):
        return []
    encoder = sum(file.bytes for file in profile.files if file.role == "text_encoder")
    return [
        f"  text     the encoder ({bytes_text(encoder)}) is optional (--without text_encoder "
        "--without tokenizer)",
        f"           with the states of the default prompt, a few hundred kB: joyflash weights "
        f"prompt {name}",
        "           makes them where an encoder is; fetch --role prompt_embedding --from PLACE "
        "brings them",
    ]


def _here(name: str, profile: WeightProfile) -> str:
    """What of a profile is on this machine, and the command that brings the rest."""
    if is_converted(name):
        return f"converted, in {places.converted_directory(name)}"
    if profile.source == "none":
        return "nothing"
    lock = read_lock(places.lock_path())
    needed = [file for file in profile.files if not file.optional]
    num_here = sum(local_source(file, lock) is not None for file in needed)
    if num_here < len(needed):
        return f"{num_here} of {len(needed)} files; {fetch_command(name, profile)}"
    return "all files" if profile.kind != "avatar" else f"all files; {convert_command(name)}"
