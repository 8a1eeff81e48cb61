"""``joyflash weights convert``: a checkpoint, or the first weights of a training recipe."""

from pathlib import Path
from typing import Annotated, Any

from joyflash_cli.cli.download_progress import ConvertProgress
from joyflash_cli.cli.options import Accept, Debug, Json, ProfileName, Quiet, answer, option, say
from joyflash_cli.cli.train import studio
from joyflash_cli.cli.weights_fetch import check_terms, with_files
from joyflash_cli.errors import UsageError


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

    Only this command, and fetch --from, open a pickle, and for tensors alone: nothing in it can
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
    entry = with_files(profile)
    warnings = check_terms(profile, entry, entry.files, accept=accept_license)
    say(*(f"joyflash: warning: {text}" for text in warnings), quiet=quiet)
    how: dict[str, Any] = {
        "source": source,
        "dtype": dtype or ("bf16" if recipe is None else "fp32"),
        "on_progress": ConvertProgress(profile, quiet=quiet).update,
        "overwrite": overwrite,
    }
    if recipe is None:
        from joyflash_cli.weights.convert import convert_weights
        from joyflash_cli.weights.places import converted_directory

        directory = convert_weights(profile, out_dir=output or converted_directory(profile), **how)
        say(*_text_notice(profile, directory), quiet=quiet)
    else:
        directory = _convert_start(profile, recipe, output, how)
    values = {"profile": profile, "checkpoint": str(directory), "dtype": how["dtype"]}
    answer(values, str(directory), as_json=as_json)


def _convert_start(profile: str, recipe: Path, output: Path | None, how: dict[str, Any]) -> Path:
    """The networks that a recipe trains, its teacher's and its generator's, made of a base."""
    if output is None:
        raise UsageError(
            "--recipe needs --output",
            hint="give the folder that teacher_start of its [weights] names",
        )
    with studio():
        from joyflash_cli.studio.training.base_start import convert_start
        from joyflash_cli.studio.training.run_config import load_run_config

        run = load_run_config(recipe)
    networks = (run.weights.teacher_transformer, run.generator.transformer)
    known = [network for network in networks if network is not None]
    return convert_start(profile, known, out_dir=output, **how)


def _text_notice(profile: str, directory: Path) -> list[str]:
    """What a new checkpoint without a text encoder still needs; nothing if it needs nothing."""
    from joyflash_cli.weights.manifest import find_profile
    from joyflash_cli.weights.prompt_cache import find_unkeyed
    from joyflash_cli.weights.sources import PROMPT_ROLE, text_commands
    from joyflash_cli.weights.tensors import part_files

    if PROMPT_ROLE not in find_profile(profile).roles or part_files(directory, "text_encoder"):
        return []
    from joyflash_cli.weights.convert import read_template

    template = read_template(profile)
    width = int(template["transformer"]["text_dim"])
    prompt = str(template["conditioning"]["default_prompt"])
    if part_files(directory, PROMPT_ROLE) or find_unkeyed(directory, prompt, width=width):
        return []
    return [
        "joyflash: the checkpoint has no text encoder; rendering needs the states of its prompt:",
        f"  {text_commands(profile)}",
    ]
