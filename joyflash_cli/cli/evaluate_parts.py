"""What ``joyflash evaluate`` measures beside its own profiles, each a verb below it."""

import typer

from joyflash_cli.cli.evaluate_set import set_verbs
from joyflash_cli.cli.evaluate_videos import videos
from joyflash_cli.cli.help_text import GroupedCommand

evaluate_parts = typer.Typer(rich_markup_mode=None)
evaluate_parts.add_typer(set_verbs, name="set")
evaluate_parts.command(cls=GroupedCommand)(videos)


@evaluate_parts.callback()
def _parts() -> None:
    """Keeps the parts a group, however few they are."""
