"""``python -m joyflash_cli``: the same as ``joyflash``."""

from joyflash_cli.cli.app import main

if __name__ == "__main__":
    main()
