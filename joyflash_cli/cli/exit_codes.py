"""What the exit status of ``joyflash`` means."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Stable exit codes; errors carry theirs in ``JoyFlashError.exit_code``."""

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
