"""``joyflash provenance``: who signs videos, and what a file claims of where it comes from."""

from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli.cli.options import Debug, Json, answer, option, say
from joyflash_cli.errors import ExitCode

provenance = typer.Typer(help="Who signs videos, and what a file claims of its origin.")


@provenance.callback(invoke_without_command=True)
def _provenance(context: typer.Context) -> None:
    """Who signs videos, and what a file claims of its origin."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@provenance.command("init")
def init_identity(
    out_dir: Annotated[
        Path | None,
        option("--out-dir", "Default: joyflash/identity in the configuration folder.", "DIR"),
    ] = None,
    name: Annotated[str, option("--name", "Who signs.", "TEXT")] = "JoyFlash user",
    days: Annotated[int, option("--days", "How long it is valid.", "N", min=1, max=3650)] = 365,
    overwrite: Annotated[bool, option("--overwrite", "Replace an earlier identity.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a certificate and a key to try signing out.

    Nobody vouches for it: what it signs verifies, but every reader says that the signer is not
    trusted. A certificate that is trusted comes from an authority on the C2PA trust list.

    \b
    Examples:
      joyflash provenance init
      joyflash provenance init --name "Ada Lovelace" --out-dir identity
      joyflash render face.png talk.wav --sign identity/certificate.pem --key identity/key.pem
    """  # noqa: D301 - \b tells the help not to fold the examples
    import os

    from joyflash_cli.cli.settings import user_file
    from joyflash_cli.provenance.identity import make_identity

    folder = out_dir or user_file(os.environ).parent / "identity"
    made = make_identity(folder, name, days=days, overwrite=overwrite)
    paths = str(made.certificate), str(made.key)
    values = {"certificate": paths[0], "key": paths[1], "trusted": False}
    answer(values, *paths, as_json=as_json)
    say(
        "joyflash: self-signed, for trying out: readers will say that the signer is not trusted",
        f"sign with: joyflash render ... --sign {made.certificate} --key {made.key}",
        quiet=as_json,
    )


@provenance.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture, a video or a sound.")],
    trust: Annotated[
        Path | None,
        option("--trust", "Trust signers that these certificates (PEM) vouch for.", "FILE"),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a file claims of where it comes from, and whether that verifies.

    Reads Content Credentials, inside the file or in FILE.c2pa beside it, IPTC's digital source
    type and the comment, of files of any tool. Nothing is fetched from the network. Exit status 3
    means that there are Content Credentials and they do not verify: the file or they were changed.

    \b
    Examples:
      joyflash provenance show talk.mp4
      joyflash provenance show photo.jpg --trust anchors.pem --json
    """  # noqa: D301 - \b tells the help not to fold the examples
    from joyflash_cli.provenance.reading import read_claims

    claims = read_claims(file, trust)
    answer(claims, *map(_printable, _lines(claims)), as_json=as_json)
    credentials = claims["credentials"]
    if isinstance(credentials, dict) and credentials["state"] == "invalid":
        raise typer.Exit(ExitCode.INPUT)


def _lines(claims: dict[str, Any]) -> list[str]:
    """The claims for people."""
    lines = [f"{claims['file']}: {'says' if claims['ai_generated'] else 'does not say'} that it "
             "is AI-generated"]  # fmt: skip
    credentials = claims["credentials"]
    if credentials is None:
        lines.append("Content Credentials: none")
    elif credentials == "unread":
        lines.append("Content Credentials: not read; pip install 'joyflash[provenance]' reads them")
    else:
        lines += _credential_lines(credentials)
    source_type = claims["digital_source_type"]
    lines.append(f"IPTC digital source type: {source_type or 'none'}")
    lines.append(f"Comment: {claims['comment'] or 'none'}")
    return lines


def _credential_lines(told: dict[str, Any]) -> list[str]:
    verdict = {
        "trusted": "verify, and the signer is trusted",
        "valid": "verify; nobody known here vouches for the signer",
        "invalid": "DO NOT VERIFY",
    }[told["state"]]
    signer = told["signed_by"]
    who = " of ".join(filter(None, (signer["name"], signer["organization"]))) or "nobody"
    when = f", {signer['time']}" if signer["time"] else ""
    lines = [
        f"Content Credentials {told['where']} the file: {verdict}",
        f"  signed by          {who}{when}",
        f"  made with          {told['generator'] or 'not said'}",
        f"  actions            {', '.join(map(str, told['actions'])) or 'none'}",
        f"  source type        {', '.join(told['digital_source_types']) or 'not said'}",
    ]
    for ingredient in told["ingredients"]:
        parts = [ingredient["format"], ingredient["sha256"] and f"SHA-256 {ingredient['sha256']}"]
        parts.append(ingredient["credentials"] and "with Content Credentials of its own")
        lines.append(
            f"  made from          {', '.join(filter(None, (ingredient['title'], *parts)))}"
        )
    facts = told["facts"] if isinstance(told["facts"], dict) else {}
    lines += [f"  {key:<18} {value}" for key, value in facts.items()]
    return lines + [f"  problem            {problem}" for problem in told["problems"]]


def _printable(line: str) -> str:
    """A line of a file's own words: they must not reach a terminal as commands."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
