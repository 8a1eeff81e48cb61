"""Errors a user can act on: one tree, one stable code and one exit code each.

The text of an error names the value, the limit and the next step. The command line prints it as
one line; ``--debug`` adds the traceback.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of ``joyflash`` means; these numbers never change."""

    DONE = 0
    BUG = 1
    USAGE = 2
    INPUT = 3
    CHECKPOINT = 4
    DEVICE = 5
    OUTPUT = 6
    ROWS_FAILED = 7
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


class JoyFlashError(Exception):
    """A mistake or a condition outside the program, told in one line.

    Args:
        message: What is wrong: the value and the limit.
        hint: The next step, without a full stop; may be empty.
        code: Stable identifier such as ``E-AUDIO-EMPTY``; the class gives a default.
    """

    exit_code: int = ExitCode.BUG
    code = "E-INTERNAL"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(JoyFlashError):
    """A wrong option, value or combination of options."""

    exit_code = ExitCode.USAGE
    code = "E-USAGE"


class ConfigError(UsageError):
    """A configuration that cannot be: unknown key, wrong type, impossible size."""

    code = "E-CONFIG"


class AudioError(JoyFlashError):
    """Audio that cannot be read or used."""

    exit_code = ExitCode.INPUT
    code = "E-AUDIO"


class ImageError(JoyFlashError):
    """A picture that cannot be read or used."""

    exit_code = ExitCode.INPUT
    code = "E-IMAGE"


class CheckpointError(JoyFlashError):
    """Weights that are missing, damaged or of another layout."""

    exit_code = ExitCode.CHECKPOINT
    code = "E-CHECKPOINT"


class DeviceError(JoyFlashError):
    """The device cannot do it: absent, out of memory, or it gave numbers that are not finite."""

    exit_code = ExitCode.DEVICE
    code = "E-DEVICE"


class OutputError(JoyFlashError):
    """The result cannot be written."""

    exit_code = ExitCode.OUTPUT
    code = "E-OUTPUT"


class BatchError(JoyFlashError):
    """A batch that ended with rows that failed."""

    exit_code = ExitCode.ROWS_FAILED
    code = "E-BATCH-ROWS"


class DataError(JoyFlashError):
    """Training or evaluation data that is missing or damaged."""

    exit_code = ExitCode.INPUT
    code = "E-DATA"
