"""``joyflash weights``: which models there are, bringing their files here, and proving them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from joyflash_cli.cli.help_text import CONTROL, GroupedCommand
from joyflash_cli.cli.options import Debug, Json, Quiet, option
from joyflash_cli.cli.weights_prompt import prompt
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.weights.fetch_plan import FetchPlan
    from joyflash_cli.weights.manifest import WeightProfile

weights = typer.Typer(help="Models, their files and licences.")

ProfileName = Annotated[
    str, typer.Argument(metavar="PROFILE", help="A model; see joyflash weights list.")
]
Accept = Annotated[bool, option("--accept-license", "Accept the terms that the command shows.")]
Roles = Annotated[
    list[str] | None, option("--role", "Only these files; may be given again.", "ROLE")
]


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
    if as_json:
        values = {name: profile_values(name, profile) for name, profile in profiles.items()}
        typer.echo(json.dumps(values))
        return
    for name, profile in profiles.items():
        typer.echo("\n".join(list_lines(name, profile)))


@weights.command("fetch", cls=GroupedCommand)
def fetch(
    profile: ProfileName,
    roles: Roles = None,
    without: Annotated[
        list[str] | None, option("--without", "Not these files; may be given again.", "ROLE")
    ] = None,
    place: Annotated[
        str | None, option("--from", "Where a prompt embedding is: a file, or OWNER/NAME.", "PLACE")
    ] = None,
    accept_license: Accept = False,
    offline: Annotated[
        bool, option("--offline", "Ask no network: only check what is here.")
    ] = False,
    parallel: Annotated[int, option("--parallel", "Files at a time.", "N", min=1, max=16)] = 4,
    dry_run: Annotated[
        bool, option("--dry-run", "Show what would be downloaded, and stop.", group=CONTROL)
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download the files of a profile into the Hub's shared cache, and check each one.

    The plan (files, sizes, free disk) is shown first. Every file is compared with the size and the
    SHA-256 that weights.toml or the first download gave it; one that differs is deleted. What is
    here already is not downloaded again, so the same command goes on after an interruption.

    HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN are honoured. The paths of the
    files are printed on stdout.

    The text encoder is the largest file and needed only to encode prompts. Without it, bring the
    states of the default prompt: joyflash weights prompt makes them where the encoder is.

    \b
    Examples:
      joyflash weights fetch livetalk-1.3b --accept-license
      joyflash weights fetch livetalk-1.3b --without text_encoder --without tokenizer
      joyflash weights fetch livetalk-1.3b --role prompt_embedding --from OWNER/NAME
      joyflash weights fetch livetalk-1.3b --role fast_codec
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.cli.weights_prompt import keep_embeddings, place_files
    from joyflash_cli.cli.weights_text import next_step, plan_lines, plan_values
    from joyflash_cli.weights.fetch_plan import check_room, plan_fetch
    from joyflash_cli.weights.hub import open_hub
    from joyflash_cli.weights.licences import require_acceptance
    from joyflash_cli.weights.manifest import select_files
    from joyflash_cli.weights.places import lock_path

    entry = _with_files(profile)
    chosen = select_files(entry, roles=roles or (), without=without or ())
    files, embedding = place_files(profile, chosen, place)
    if not files and embedding is not None:
        _show_kept([] if dry_run else keep_embeddings([embedding]), as_json=as_json)
        return
    warnings: tuple[str, ...] = ()
    if not dry_run:
        warnings = require_acceptance(
            profile, entry, files, accept=accept_license, lock_path=lock_path()
        )
    plan = plan_fetch(profile, entry, files, hub=open_hub(offline=offline))
    _say(plan_lines(plan, entry), quiet=quiet)
    if dry_run:
        if as_json:
            typer.echo(json.dumps(plan_values(plan)))
        return
    check_room(plan)
    brought = _fetch(plan, warnings, parallel=parallel, as_json=as_json, quiet=quiet)
    keep_embeddings([*brought, *([] if embedding is None else [embedding])])
    _say(next_step(profile, entry), quiet=quiet)


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
        _say([name], quiet=quiet or as_json)
        found[name] = verify_profile(
            name,
            entry,
            on_file=lambda finding: _say([finding_line(finding)], quiet=quiet or as_json),
        )
    if as_json:
        typer.echo(json.dumps({name: finding_values(found[name]) for name in found}))
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
        typer.echo(json.dumps({"checkpoint": str(directory)}) if as_json else str(directory))
        return
    if checkpoint is not None:
        raise UsageError("--role is about downloads, --checkpoint about a directory")
    found = local_sources(profile, roles)
    if as_json:
        typer.echo(json.dumps({role: [str(p) for p in paths] for role, paths in found.items()}))
        return
    for paths in found.values():
        for file in paths:
            typer.echo(str(file))


@weights.command("convert")
def convert(
    profile: ProfileName,
    source: Annotated[
        Path | None, option("--source", "Folder of the files, or the transformer's file.", "PATH")
    ] = None,
    output: Annotated[
        Path | None, option("-o --output", "Checkpoint; default: where render looks.", "DIR")
    ] = None,
    dtype: Annotated[
        str, option("--dtype", "bf16, fp16 or fp32; fp32 with --recipe.", "NAME")
    ] = "",
    recipe: Annotated[
        Path | None,
        option(
            "--recipe",
            "Make the network of this training recipe out of a base, new paths fresh.",
            "FILE",
        ),
    ] = None,
    accept_license: Accept = False,
    overwrite: Annotated[bool, option("--overwrite", "Replace an earlier checkpoint.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a checkpoint of safetensors out of a profile's downloaded files.

    The only command that opens a pickle, and it opens it for tensors alone: nothing in it can
    execute. Afterwards the downloads are not needed any more. The checkpoint is complete or absent;
    its path is printed on stdout.

    In --source files are found by their published names; a folder called like a role, such as
    text_encoder, may hold safetensors of any name, also shards and scaled fp8, instead.

    \b
    Examples:
      joyflash weights convert livetalk-1.3b
      joyflash weights convert livetalk-1.3b --source downloads -o livetalk
      joyflash weights convert wan2.1-t2v-14b --recipe runs/paper-1.3b.toml -o base-14b
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.weights.licences import require_acceptance
    from joyflash_cli.weights.places import lock_path

    entry = _with_files(profile)
    warnings = require_acceptance(
        profile, entry, entry.files, accept=accept_license, lock_path=lock_path()
    )
    _say((f"joyflash: warning: {text}" for text in warnings), quiet=quiet)
    from joyflash_cli.cli.weights_convert import run_conversion, text_notice

    directory, stored = run_conversion(
        profile,
        source=source,
        output=output,
        dtype=dtype,
        recipe=recipe,
        overwrite=overwrite,
        quiet=quiet,
    )
    if recipe is None:
        _say(text_notice(profile, directory), quiet=quiet)
    if as_json:
        values = {"profile": profile, "checkpoint": str(directory), "dtype": stored}
        typer.echo(json.dumps(values))
    else:
        typer.echo(str(directory))


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
    if as_json:
        values = {name: licence_values(name, entry) for name, entry in entries.items()}
        typer.echo(json.dumps(values))
        return
    for name, entry in entries.items():
        typer.echo("\n".join(licence_lines(name, entry)))


def _fetch(
    plan: "FetchPlan", warnings: tuple[str, ...], *, parallel: int, as_json: bool, quiet: bool
) -> list[Path]:
    """Downloads and checks what the plan says, and prints where it is; its prompt embeddings."""
    from joyflash_cli.cli.download_progress import open_fetch_progress
    from joyflash_cli.cli.weights_text import file_values, plan_values
    from joyflash_cli.weights.download import fetch_files
    from joyflash_cli.weights.sources import PROMPT_ROLE

    try:
        with open_fetch_progress(plan, quiet=quiet) as progress:
            result = fetch_files(plan, on_progress=progress.update, num_parallel=parallel)
    except KeyboardInterrupt:
        _say(["joyflash: stopped; the same command brings what is missing"], quiet=quiet)
        raise
    _say((f"joyflash: warning: {text}" for text in (*warnings, *result.warnings)), quiet=quiet)
    if as_json:
        typer.echo(json.dumps(plan_values(plan) | {"files": file_values(result.files)}))
    else:
        for file in result.files:
            typer.echo(str(file.local))
    return [file.local for file in result.files if file.local and file.file.role == PROMPT_ROLE]


def _show_kept(kept: list[Path], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"embeddings": [str(path) for path in kept]}))
        return
    for path in kept:
        typer.echo(str(path))


def _with_files(name: str) -> "WeightProfile":
    """The profile, if it is one whose files are downloaded and converted."""
    from joyflash_cli.weights.manifest import find_profile

    entry = find_profile(name)
    if entry.source == "embedded":
        raise UsageError(
            f"profile {name} is inside the package", hint="there is nothing to download or convert"
        )
    if entry.source == "none":
        raise UsageError(
            f"profile {name} has no public weights: {entry.note}",
            hint="joyflash render --checkpoint DIR",
        )
    return entry


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


def _say(lines: Any, *, quiet: bool) -> None:
    if not quiet:
        for line in lines:
            typer.echo(line, err=True)
