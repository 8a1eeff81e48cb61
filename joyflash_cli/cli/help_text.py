"""How the help is laid out: options in groups, so that what a beginner needs stands first."""

from typing import Any

from typer.core import TyperCommand

FILES, MODEL, DEVICE, EXPERT = "Input and output", "Model", "Device", "Expert options"
CONTROL, WORKERS, MESSAGES = "Control", "Workers and machines", "Messages"

GROUPS = (FILES, MODEL, CONTROL, WORKERS, DEVICE, EXPERT, MESSAGES)
"""The order in which groups are shown; options of no group stand between files and model."""

MIN_GROUPED = 9
"""Verbs with fewer options show one plain list."""


class GroupedCommand(TyperCommand):
    """A verb whose help shows its options in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes one section per group, in a fixed order."""
        options = [
            (parameter, record)
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
            and parameter.param_type_name == "option"
        ]
        if len(options) < MIN_GROUPED:
            super().format_options(ctx, formatter)
            return
        _write_arguments(self, ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter, record in options:
            sections.setdefault(_group(parameter), []).append(record)
        for name in sorted(sections, key=_rank):
            with formatter.section(name):
                formatter.write_dl(sections[name])


def _write_arguments(command: GroupedCommand, ctx: Any, formatter: Any) -> None:
    records = [
        record
        for parameter in command.get_params(ctx)
        if parameter.param_type_name == "argument"
        and (record := parameter.get_help_record(ctx)) is not None
    ]
    if records:
        with formatter.section("Arguments"):
            formatter.write_dl(records)


def _group(parameter: Any) -> str:
    # Click makes the option --help itself.
    own = MESSAGES if parameter.name == "help" else getattr(parameter, "rich_help_panel", None)
    return own or "Options"


def _rank(name: str) -> float:
    return GROUPS.index(name) if name in GROUPS else 0.5
