"""``joyflash weights``: which models there are and where their files come from."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from joyflash_cli.checkpoints.manifest import WeightProfile

weights = typer.Typer(help="Models, their files and licences.")


@weights.callback(invoke_without_command=True)
def _weights(context: typer.Context) -> None:
    """Models, their files and licences."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@weights.command("list")
def list_weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every profile: what it is, where it comes from and under which licence."""
    from joyflash_cli.checkpoints.manifest import read_manifest

    profiles = read_manifest()
    if as_json:
        typer.echo(json.dumps({name: asdict(profile) for name, profile in profiles.items()}))
        return
    for name, profile in profiles.items():
        typer.echo(f"{name}\n  {profile.title}")
        typer.echo(f"  files    {_files(profile)}\n  licence  {profile.licence}")
        if profile.note:
            typer.echo(f"  note     {profile.note}")


def _files(profile: "WeightProfile") -> str:
    if profile.source == "embedded":
        return "inside the package"
    if profile.source == "none":
        return "no public source; bring them with --checkpoint DIR"
    known = sum(file.bytes for file in profile.files)
    unknown = sum(file.bytes == 0 for file in profile.files)
    also = f" and {unknown} of unknown size" if unknown else ""
    return f"{len(profile.files)} on the Hub, {known / 1e9:.1f} GB{also}"
