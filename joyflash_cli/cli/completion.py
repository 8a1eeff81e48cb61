"""What the shell offers after an option: names of profiles, devices and number formats.

``joyflash --install-completion`` teaches the shell; verbs and options are completed by Typer.
"""

from collections.abc import Iterator

DEVICES = (
    ("auto", "a GPU if there is one"),
    ("cpu", "the processor"),
    ("cuda", "the first CUDA GPU"),
    ("cuda:1", "another CUDA GPU"),
    ("mps", "Apple's GPU"),
)
DTYPES = (
    ("auto", "what the device is best at"),
    ("float32", "exact"),
    ("bfloat16", "half the memory"),
    ("float16", "half the memory, older GPUs"),
)


def complete_profile(incomplete: str) -> Iterator[tuple[str, str]]:
    """Profiles of ``weights.toml`` with their titles."""
    from joyflash_cli.errors import JoyFlashError
    from joyflash_cli.weights.manifest import read_manifest

    try:
        profiles = read_manifest()
    except JoyFlashError:
        return  # nothing may be printed between what is typed
    for name, profile in profiles.items():
        if name.startswith(incomplete):
            yield name, profile.title


def complete_device(incomplete: str) -> list[tuple[str, str]]:
    """Devices that may be named."""
    return [entry for entry in DEVICES if entry[0].startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[tuple[str, str]]:
    """Number formats of the transformer."""
    return [entry for entry in DTYPES if entry[0].startswith(incomplete)]
