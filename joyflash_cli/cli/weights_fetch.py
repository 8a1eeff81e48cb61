"""``joyflash weights fetch``: the files of a profile, and prompts that were encoded elsewhere."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from joyflash_cli.cli.download_progress import open_fetch_progress
from joyflash_cli.cli.help_text import CONTROL
from joyflash_cli.cli.options import (
    Accept,
    Debug,
    Json,
    ProfileName,
    Quiet,
    Roles,
    answer,
    option,
    say,
    takes,
)
from joyflash_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from joyflash_cli.weights.fetch_plan import FetchPlan
    from joyflash_cli.weights.manifest import WeightFile, WeightProfile


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """The command line of ``joyflash weights fetch``."""

    profile: ProfileName
    roles: Roles = None
    without: Annotated[
        list[str] | None, option("--without", "Not these files; may be given again.", "ROLE")
    ] = None
    place: Annotated[
        str | None,
        option("--from", "Where a file is that no hub has; prompts: also OWNER/NAME.", "PLACE"),
    ] = None
    accept_license: Accept = False
    offline: Annotated[bool, option("--offline", "Ask no network: only check what is here.")] = (
        False
    )
    parallel: Annotated[int, option("--parallel", "Files at a time.", "N", min=1, max=16)] = 4
    dry_run: Annotated[
        bool, option("--dry-run", "Show what would be downloaded, and stop.", group=CONTROL)
    ] = False
    as_json: Json = False
    quiet: Quiet = False
    debug: Debug = False


@takes(FetchOptions)
def fetch(options: FetchOptions) -> None:
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
      joyflash weights fetch measures --role syncnet --from syncnet_v2.model
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.cli.weights_text import next_step, plan_values
    from joyflash_cli.weights.manifest import select_files

    profile, place, as_json = options.profile, options.place, options.as_json
    entry = with_files(profile)
    chosen = select_files(entry, roles=options.roles or (), without=options.without or ())
    if entry.kind == "measure" and (place is not None or not chosen[0].is_published):
        kept_files = _bring_measure(chosen, place, is_rehearsal=options.dry_run)
        answer({"files": kept_files}, *kept_files, as_json=as_json)
        return
    files, embedding = _place_files(profile, chosen, place)
    if not files and embedding is not None:
        kept = [str(path) for path in ([] if options.dry_run else _keep_embeddings([embedding]))]
        answer({"embeddings": kept}, *kept, as_json=as_json)
        return
    warnings: tuple[str, ...] = ()
    if not options.dry_run:
        warnings = check_terms(profile, entry, files, accept=options.accept_license)
    plan = _planned(options, entry, files)
    if options.dry_run:
        answer(plan_values(plan), as_json=as_json)
        return
    brought = _fetch(options, plan, warnings)
    _keep_embeddings([*brought, *([] if embedding is None else [embedding])])
    say(*next_step(profile, entry), quiet=options.quiet)


def check_terms(
    profile: str, entry: "WeightProfile", files: "Sequence[WeightFile]", *, accept: bool
) -> tuple[str, ...]:
    """Warnings about the terms of files; see ``require_acceptance`` for what is refused."""
    from joyflash_cli.weights.lock_file import require_acceptance
    from joyflash_cli.weights.places import lock_path

    return require_acceptance(profile, entry, files, accept=accept, lock_path=lock_path())


def _planned(
    options: FetchOptions, entry: "WeightProfile", files: "Sequence[WeightFile]"
) -> "FetchPlan":
    """What is here, what is to be downloaded, and shown."""
    from joyflash_cli.cli.weights_text import plan_lines
    from joyflash_cli.weights.fetch_plan import plan_fetch
    from joyflash_cli.weights.hub import open_hub

    plan = plan_fetch(options.profile, entry, files, hub=open_hub(offline=options.offline))
    say(*plan_lines(plan, entry), quiet=options.quiet)
    return plan


def _fetch(options: FetchOptions, plan: "FetchPlan", warnings: tuple[str, ...]) -> list[Path]:
    """Downloads and checks what the plan says, and prints where it is; its prompt embeddings."""
    from joyflash_cli.cli.weights_text import file_values, plan_values
    from joyflash_cli.weights.download import fetch_files
    from joyflash_cli.weights.fetch_plan import check_room
    from joyflash_cli.weights.sources import PROMPT_ROLE

    check_room(plan)
    try:
        with open_fetch_progress(plan, quiet=options.quiet) as progress:
            result = fetch_files(plan, on_progress=progress.update, num_parallel=options.parallel)
    except KeyboardInterrupt:
        say("joyflash: stopped; the same command brings what is missing", quiet=options.quiet)
        raise
    told = (f"joyflash: warning: {text}" for text in (*warnings, *result.warnings))
    say(*told, quiet=options.quiet)
    values = plan_values(plan) | {"files": file_values(result.files)}
    answer(values, *(str(file.local) for file in result.files), as_json=options.as_json)
    return [file.local for file in result.files if file.local and file.file.role == PROMPT_ROLE]


def _bring_measure(
    files: Sequence["WeightFile"], place: str | None, *, is_rehearsal: bool
) -> list[str]:
    """Keeps the file of the user that measures films; where it is.

    Raises:
        UsageError: When no file is given, or for what the Hub has.
    """
    from joyflash_cli.measures.network_weights import PUBLISHED, bring_weights, fetch_command

    if len(files) != 1 or files[0].is_published:
        hint = f"--role {' or '.join(PUBLISHED)} --from FILE"
        raise UsageError("--from is for one file that no hub has", hint=hint)
    source = None if place is None else Path(place).expanduser()
    if source is None or not source.is_file():
        what = f"{files[0].path} is on no hub" if place is None else f"{place} is no file"
        raise UsageError(
            what, hint=f"download it from its authors, then {fetch_command(files[0].role)}"
        )
    return [] if is_rehearsal else [str(bring_weights(source, files[0]))]


def _place_files(
    profile: str, files: Sequence["WeightFile"], place: str | None
) -> "tuple[tuple[WeightFile, ...], Path | None]":
    """The files to ask the Hub for, and the embedding that is a file on this machine, if any.

    Raises:
        UsageError: When a file that nobody has published has no place, or one has too many.
    """
    from joyflash_cli.weights.manifest import placed_file
    from joyflash_cli.weights.sources import text_commands

    unpublished = [file for file in files if not file.is_published]
    if place is None and unpublished:
        raise UsageError(
            f"nobody has published the {unpublished[0].role} of {profile}",
            hint=text_commands(profile),
        )
    if place is None:
        return tuple(files), None
    if not unpublished:
        raise UsageError(
            "--from is for files that nobody has published",
            hint="--role prompt_embedding --from FILE_OR_REPOSITORY",
        )
    local = Path(place).expanduser()
    if local.exists():
        published = tuple(file for file in files if file.is_published)
        return published, local / unpublished[0].path if local.is_dir() else local
    return tuple(f if f.is_published else placed_file(f, place) for f in files), None


def _keep_embeddings(paths: Iterable[Path]) -> list[Path]:
    """Prompt embeddings in the user's cache, where render finds them.

    Raises:
        CheckpointError: For a file that is none.
        OutputError: When the cache cannot be written.
    """
    from joyflash_cli.weights.prompt_cache import read_embedding, write_prompt

    kept = []
    for path in paths:
        target = write_prompt(read_embedding(path))
        if target is None:
            raise OutputError(
                "the cache of prompts cannot be written",
                hint="check its permissions, or set XDG_CACHE_HOME",
                code="E-OUTPUT-DISK",
            )
        kept.append(target)
    return kept


def with_files(name: str) -> "WeightProfile":
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
