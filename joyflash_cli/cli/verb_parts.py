"""A verb that has an argument of its own and, beside it, verbs below it."""

from functools import cached_property
from typing import Any

import typer
from typer.core import TyperCommand


def with_parts(parts: typer.Typer) -> type[TyperCommand]:
    """The class of a command that hands over to one of its parts when the first word names it.

    ``joyflash evaluate tiny`` is the verb itself, ``joyflash evaluate set build`` a part. Settings
    and documentation find the parts as ``commands``, as they do with a group.

    Args:
        parts: Holds them; more than one, or groups.
    """

    class VerbWithParts(TyperCommand):
        """The verb; the help of its parts is their own."""

        verb_parts = parts

        @cached_property
        def commands(self) -> Any:
            """The parts by name."""
            return getattr(typer.main.get_group(parts), "commands", {})

        def make_context(
            self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
        ) -> Any:
            """The context of the part that the first word names, else of the verb."""
            part = self.commands.get(args[0]) if args else None
            if part is None:
                return super().make_context(info_name, args, parent=parent, **extra)
            above = (parent.default_map or {}) if parent is not None else {}
            extra.setdefault("default_map", above.get(info_name, {}).get(args[0]))
            return part.make_context(f"{info_name} {args[0]}", args[1:], parent=parent, **extra)

    return VerbWithParts
