"""What ``joyflash weights convert`` makes: a checkpoint, or the first weights of a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING

from joyflash_cli.cli.download_progress import ConvertProgress
from joyflash_cli.errors import UsageError

if TYPE_CHECKING:
    from joyflash_cli.model.config import TransformerConfig

CHECKPOINT_DTYPE, TRAINING_DTYPE = "bf16", "fp32"


def run_conversion(
    profile: str,
    *,
    source: Path | None,
    output: Path | None,
    dtype: str,
    recipe: Path | None,
    overwrite: bool,
    quiet: bool,
) -> tuple[Path, str]:
    """Converts with progress on stderr; the directory and the number format it is stored in.

    Raises:
        UsageError: For a recipe without ``--output``.
        JoyFlashError: As ``convert_weights`` and ``convert_start`` do.
    """
    progress = ConvertProgress(profile, quiet=quiet)
    if recipe is None:
        from joyflash_cli.weights.convert import convert_weights
        from joyflash_cli.weights.places import converted_directory

        dtype = dtype or CHECKPOINT_DTYPE
        directory = convert_weights(
            profile,
            source=source,
            out_dir=output or converted_directory(profile),
            dtype=dtype,
            on_progress=progress.update,
            overwrite=overwrite,
        )
        return directory, dtype
    if output is None:
        raise UsageError(
            "--recipe needs --output",
            hint="give the folder that teacher_start of its [weights] names",
        )
    from joyflash_cli.weights.convert_start import convert_start

    networks = _networks(recipe)
    dtype = dtype or TRAINING_DTYPE
    directory = convert_start(
        profile,
        networks,
        source=source,
        out_dir=output,
        dtype=dtype,
        on_progress=progress.update,
        overwrite=overwrite,
    )
    return directory, dtype


def _networks(recipe: Path) -> "list[TransformerConfig]":
    """The networks that a recipe trains: its teacher's, and its generator's."""
    from joyflash_cli.studio.training.run_config import load_run_config

    run = load_run_config(recipe)
    networks = (run.weights.teacher_transformer, run.generator.transformer)
    return [network for network in networks if network is not None]


def text_notice(profile: str, directory: Path) -> list[str]:
    """What a new checkpoint without a text encoder still needs; nothing if it needs nothing."""
    from joyflash_cli.weights.manifest import find_profile
    from joyflash_cli.weights.prompt_cache import find_unkeyed
    from joyflash_cli.weights.shards import part_files
    from joyflash_cli.weights.sources import PROMPT_ROLE, text_commands

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
