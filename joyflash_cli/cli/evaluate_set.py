"""``joyflash evaluate set``: avatars and voices to judge videos by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.options import Debug, Json, Quiet, answer, option, say
from joyflash_cli.errors import UsageError

set_verbs = typer.Typer(help="Avatars and voices to judge videos by.")


@set_verbs.callback(invoke_without_command=True)
def _set(context: typer.Context) -> None:
    """Avatars and voices to judge videos by."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@set_verbs.command("build")
def build(
    out: Annotated[Path, option("--out", "Folder for manifest.csv and set.json.", "DIR")],
    pictures: Annotated[
        list[Path] | None, option("--pictures", "Folder of avatars; may be given again.", "DIR")
    ] = None,
    speech: Annotated[
        list[Path] | None, option("--speech", "Folder of voices; may be given again.", "DIR")
    ] = None,
    built_in: Annotated[
        bool, option("--built-in", "The recorded clips of the package, for a first look.")
    ] = False,
    count: Annotated[
        int | None,
        option(
            "--count", "Videos of the set; default: 100, built in all.", "N", min=1, max=100_000
        ),
    ] = None,
    seed: Annotated[int, option("--seed", "Decides the pairs and their seeds.", "N", min=0)] = 0,
    copy: Annotated[bool, option("--copy", "Copy the files into the folder.")] = False,
    overwrite: Annotated[bool, option("--overwrite", "Replace an earlier set.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Pair avatars with voices, balanced over their kinds, for joyflash batch to render.

    Avatars are real, animated or three-dimensional; voices conversation, public-speaking, singing,
    opera or synthetic, as in the paper. The name of a folder says it, or about.json in it:

    \b
      {"*": {"category": "real", "licence": "CC0-1.0"}, "aria.ogg": {"kind": "opera"}}

    A licence may also be the first line of a file LICENCE or LICENSE. The same files and seed give
    the same set.

    \b
    Examples:
      joyflash evaluate set build --pictures faces --speech voices --out set
      joyflash evaluate set build --built-in --out set
      joyflash batch set/manifest.csv --out-dir videos
      joyflash evaluate videos set/manifest.csv --videos videos
    """  # noqa: D301 - \b tells the help not to fold the examples
    if built_in == bool(pictures or speech):
        raise UsageError(
            "a set is made of your files or of the built-in clips",
            hint="give --pictures and --speech, or --built-in",
        )
    from joyflash_cli.measures.evaluation_set import MANIFEST_FILE, build_set

    made = build_set(
        out,
        pictures=pictures or (),
        speech=speech or (),
        count=count,
        seed=seed,
        copy=copy,
        overwrite=overwrite,
    )
    say(*(f"set: {text}" for text in _notes(made)), quiet=quiet)
    answer(made, str(out / MANIFEST_FILE), as_json=as_json)


def _notes(made: dict[str, Any]) -> list[str]:
    """What a user should know before judging by the set."""
    notes = [
        f"{made['num_pairs']} videos of {made['num_pictures']} avatars and "
        f"{made['num_voices']} voices"
    ]
    for what in ("categories", "kinds"):
        counts = made[what]
        notes.append(", ".join(f"{name} {number}" for name, number in counts.items() if number))
        if missing := [name for name, number in counts.items() if not number]:
            notes.append(f"without {', '.join(missing)}, which the paper's set has")
    if unknown := made["licences"].get("unknown"):
        notes.append(f"the licence of {unknown} files is unknown; {_LICENCE_HINT}")
    return notes


_LICENCE_HINT = "say it in about.json before the set is passed on"
