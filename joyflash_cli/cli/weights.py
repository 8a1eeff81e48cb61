"""``joyflash weights``: which models there are, bringing their files here, and proving them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joyflash_cli.cli.help_text import GroupedCommand
from joyflash_cli.cli.options import Debug, Json, ProfileName, Quiet, Roles, answer, option, say
from joyflash_cli.cli.weights_convert import convert
from joyflash_cli.cli.weights_fetch import fetch
from joyflash_cli.cli.weights_prompt import prompt
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.weights.manifest import WeightProfile

weights = typer.Typer(help="Models, their files and licences.")


@weights.callback(invoke_without_command=True)
def _weights(context: typer.Context) -> None:
    """Models, their files and licences."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@weights.command("list")
def list_weights(as_json: Json = False) -> None:
    """Show every profile: what it is, where it comes from and under which licence."""
    from joyflash_cli.cli.weights_text import list_lines, profile_values
    from joyflash_cli.weights.manifest import read_manifest

    profiles = read_manifest()
    values = {name: profile_values(name, profile) for name, profile in profiles.items()}
    lines = (line for name, profile in profiles.items() for line in list_lines(name, profile))
    answer(values, *lines, as_json=as_json)


weights.command("fetch", cls=GroupedCommand)(fetch)


@weights.command("verify")
def verify(
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILE", help="Models; default: all that are here."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read every file of a profile again and compare its SHA-256.

    Downloads are compared with weights.toml or the lock file, converted checkpoints with what was
    written. Damaged or missing files end with status 4; fetch replaces them.
    """
    from joyflash_cli.cli.weights_text import finding_line, finding_values, raise_failures
    from joyflash_cli.weights.manifest import find_profile, read_manifest
    from joyflash_cli.weights.verify import verify_profile

    names = profiles or [name for name, entry in read_manifest().items() if _is_here(name, entry)]
    entries = {name: find_profile(name) for name in names}
    found: dict[str, Any] = {}
    for name, entry in entries.items():
        say(name, quiet=quiet or as_json)
        found[name] = verify_profile(
            name,
            entry,
            on_file=lambda finding: say(finding_line(finding), quiet=quiet or as_json),
        )
    answer({name: finding_values(found[name]) for name in found}, as_json=as_json)
    raise_failures(entries, found)


@weights.command("path")
def path(
    profile: ProfileName,
    roles: Roles = None,
    checkpoint: Annotated[
        Path | None, option("--checkpoint", "Check this directory instead.", "DIR")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Print where a profile's weights are.

    That is the checkpoint which render reads, or with --role files as they were downloaded. Nothing
    is fetched. What is missing ends with status 4 and the command that brings it.
    """
    from joyflash_cli.weights.sources import local_sources
    from joyflash_cli.weights.store import resolve_checkpoint

    if not roles:
        directory = resolve_checkpoint(profile, checkpoint).directory
        answer({"checkpoint": str(directory)}, str(directory), as_json=as_json)
        return
    if checkpoint is not None:
        raise UsageError("--role is about downloads, --checkpoint about a directory")
    sources = local_sources(profile, roles)
    found = {role: [str(path) for path in paths] for role, paths in sources.items()}
    answer(found, *(path for paths in found.values() for path in paths), as_json=as_json)


weights.command("convert")(convert)
weights.command("prompt", cls=GroupedCommand)(prompt)


@weights.command("licenses")
def licenses(
    profiles: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROFILE", help="Models; default: all."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show licences as their sources state them, conflicts included."""
    from joyflash_cli.cli.weights_text import licence_lines, licence_values
    from joyflash_cli.weights.manifest import find_profile, read_manifest

    entries = {name: find_profile(name) for name in profiles} if profiles else read_manifest()
    values = {name: licence_values(name, entry) for name, entry in entries.items()}
    lines = (line for name, entry in entries.items() for line in licence_lines(name, entry))
    answer(values, *lines, as_json=as_json)


def _is_here(name: str, entry: "WeightProfile") -> bool:
    from joyflash_cli.weights.lock_file import read_lock
    from joyflash_cli.weights.places import converted_directory, lock_path
    from joyflash_cli.weights.sources import local_source

    if entry.source == "embedded" or converted_directory(name).is_dir():
        return True
    lock = read_lock(lock_path())
    return any(
        local_source(file, lock) is not None for file in entry.files if file.role == "transformer"
    )
