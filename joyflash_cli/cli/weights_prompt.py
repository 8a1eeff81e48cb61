"""``joyflash weights prompt``, and fetching an embedding: text without the text encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from joyflash_cli.cli.help_text import DEVICE, FILES, MODEL
from joyflash_cli.cli.options import Debug, Json, Quiet, answer, option, say
from joyflash_cli.errors import CheckpointError, OutputError, UsageError

if TYPE_CHECKING:
    from joyflash_cli.weights.prompt_cache import PromptEmbedding


def prompt(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A model with text; see joyflash weights list.")
    ],
    text: Annotated[str, option("--prompt", "Default: the profile's own prompt.", "TEXT")] = "",
    source: Annotated[
        Path | None, option("--source", "Folder of the text encoder's files.", "DIR")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        option("--checkpoint", "Use this checkpoint's text encoder.", "DIR", group=MODEL),
    ] = None,
    output: Annotated[
        Path | None, option("-o --output", "Also write it here, to be moved.", "FILE", group=FILES)
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", "Replace an existing file.", group=FILES)
    ] = False,
    device: Annotated[
        str, option("--device", "auto, cpu, cuda, cuda:N or mps.", "NAME", group=DEVICE)
    ] = "cpu",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Encode a prompt once, so that rendering with it needs no text encoder.

    The profile's downloaded text encoder (11 GB) is loaded, used and let go, or that of its
    checkpoint if it has one. The states, a few hundred kB, are kept in the user's cache, where
    render finds them. With --output they can be taken to another machine, or put into a Hub
    repository of one's own; fetch --role prompt_embedding --from brings them there.

    \b
    Examples:
      joyflash weights prompt livetalk-1.3b -o prompt_embedding.safetensors
      joyflash weights prompt livetalk-1.3b --prompt "A woman reads the news."
      joyflash weights prompt livetalk-1.3b --source downloads
    """  # noqa: D301 - \b tells the help not to fold the examples
    if output is not None and output.exists() and not overwrite:
        raise OutputError(
            f"{output} exists already",
            hint="use --overwrite or another --output",
            code="E-OUTPUT-EXISTS",
        )
    encoded = _encoded(profile, text, source=source, checkpoint=checkpoint, device=device)
    written = _written(encoded, output)
    if not text:
        _keep_negative(profile, source=source, checkpoint=checkpoint, device=device)
    say(f"prompt: {encoded.prompt!r}, {encoded.states.shape[1]} tokens", quiet=quiet)
    values = {"file": str(written), "prompt": encoded.prompt, "encoder": encoded.encoder}
    answer(values, str(written), as_json=as_json)


def _keep_negative(
    profile: str, *, source: Path | None, checkpoint: Path | None, device: str
) -> None:
    """Encode the negative prompt of a profile that has one, into the user's cache."""
    from joyflash_cli.weights.convert import read_template

    negative = str(read_template(profile)["conditioning"].get("negative_prompt", ""))
    if negative:
        encoded = _encoded(profile, negative, source=source, checkpoint=checkpoint, device=device)
        _written(encoded, None)


def _written(encoded: "PromptEmbedding", output: Path | None) -> Path:
    """The states, kept in the user's cache and, if asked for, in a file of their own.

    Raises:
        OutputError: ``E-OUTPUT-DISK`` when they cannot be written.
    """
    from joyflash_cli.weights.prompt_cache import write_prompt

    written = write_prompt(encoded)
    if output is not None:
        written = write_prompt(encoded, output)
    if written is None:
        raise OutputError(
            f"{output or 'the cache of prompts'} cannot be written",
            hint="check the permissions, or give --output FILE",
            code="E-OUTPUT-DISK",
        )
    return written


def _encoded(
    profile: str, text: str, *, source: Path | None, checkpoint: Path | None, device: str
) -> "PromptEmbedding":
    """The states, from the checkpoint where it has a text encoder, else from the downloads."""
    from joyflash_cli.weights.manifest import find_profile
    from joyflash_cli.weights.store import is_converted

    if source is not None and checkpoint is not None:
        raise UsageError("--source and --checkpoint exclude each other")
    entry = find_profile(profile)
    if source is None and (checkpoint is not None or is_converted(profile)):
        encoded = _from_checkpoint(profile, text, checkpoint=checkpoint, device=device)
        if encoded is not None:
            return encoded
    if not {"text_encoder", "tokenizer"} <= set(entry.roles):
        raise CheckpointError(
            f"profile {profile} has no text encoder of its own",
            hint="give --checkpoint DIR, a checkpoint with a text encoder",
            code="E-CHECKPOINT-TEXT",
        )
    from joyflash_cli.render.device import choose_device
    from joyflash_cli.weights.convert import read_template
    from joyflash_cli.weights.prompt_encoding import encode_prompt

    wanted = text or str(read_template(profile)["conditioning"].get("default_prompt", ""))
    return encode_prompt(profile, wanted, source=source, device=str(choose_device(device)))


def _from_checkpoint(
    profile: str, text: str, *, checkpoint: Path | None, device: str
) -> "PromptEmbedding | None":
    """The states from a checkpoint; ``None`` when it has no text encoder and none was named."""
    from joyflash_cli.encoders.text import clean_prompt
    from joyflash_cli.render.device import choose_device
    from joyflash_cli.render.prompts import text_states
    from joyflash_cli.weights.prompt_cache import PromptEmbedding
    from joyflash_cli.weights.store import resolve_checkpoint

    files = resolve_checkpoint(profile, checkpoint)
    if not files.has("text_encoder"):
        if checkpoint is None:
            return None
        raise CheckpointError(
            f"{files.directory} has no text encoder",
            hint="give one that has, or leave --checkpoint out to use the downloaded files",
            code="E-CHECKPOINT-TEXT",
        )
    config = files.description.conditioning
    states = text_states(files, text, choose_device(device))
    cleaned = clean_prompt(text or config.default_prompt)
    return PromptEmbedding(states.cpu(), cleaned, config.text_encoder)
