"""The way into the studio, which is loaded late and needs an extra of its own."""

import contextlib
from collections.abc import Iterator

from joyflash_cli.errors import ConfigError


@contextlib.contextmanager
def studio() -> Iterator[None]:
    """Within it the studio is imported and run.

    Raises:
        ConfigError: For a package of its extra that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The package {error.name} is not installed", hint="pip install 'joyflash[train]'"
        ) from error
