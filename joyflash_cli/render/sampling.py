"""A checkpoint sampled in another way than its own: named options, and what to tell about them."""

from collections.abc import Iterable
from dataclasses import replace

from joyflash_cli.weights.store import CheckpointFiles


def with_sampler_options(
    files: CheckpointFiles, names: Iterable[str]
) -> tuple[CheckpointFiles, tuple[str, ...]]:
    """The checkpoint with its sampler settings changed, and a sentence for each untrained change.

    Args:
        files: The checkpoint; not changed on disk.
        names: Of ``sampler.options.SAMPLER_OPTIONS``.

    Raises:
        UsageError: For a name that does not exist.
        ConfigError: When the options contradict each other.
    """
    from joyflash_cli.sampler.options import untrained_options, with_options

    chosen = tuple(dict.fromkeys(names))
    own = files.description.sampler
    changed = with_options(own, chosen)
    description = files.description.with_sampler(changed)
    return replace(files, description=description), untrained_options(own, chosen)
