"""Writes the pages and parts of pages that follow from the code.

    python docs/generate.py            writes them
    python docs/generate.py --check    exit status 1 if one of them is not as the code says

``command-line.md`` is the help of every verb, the settings and the exit codes; between the marks of
``profiles.md`` stands ``weights.toml``, between those of ``measurements.md``
and ``measures.md`` the tables of measures, between those of ``hardware.md`` what was measured into
``runs/hardware``.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
WIDTH = "88"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"

HEAD = """# Command line

This page is written by `docs/generate.py` from the program itself; a test keeps it true.
`joyflash VERB --help` shows the same in a terminal, and `joyflash --install-completion` teaches
bash, zsh, fish and PowerShell to complete verbs, options and profiles.

"""

EXIT_CODES = """## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in JoyFlash |
| 2 | wrong option, value or configuration |
| 3 | picture or sound that cannot be used |
| 4 | weights missing, damaged or of another layout |
| 5 | the device is absent, out of memory, or gave numbers that are not finite |
| 6 | the video cannot be written |
| 7 | a batch ended with rows that failed, or an evaluation with films that were skipped or failed |
| 130 | Ctrl-C, after what was ready had been saved |
| 141 | whoever read the output closed the pipe |
| 143 | SIGTERM, after what was ready had been saved |

An error is one line on stderr, `joyflash: error[E-AUDIO-EMPTY]: ...`, with a stable code and, where
there is one, the next step as a hint. `--debug` adds the traceback.
"""

EVENTS = """## Events for programs

With `--progress json`, `joyflash render` and `joyflash batch` write one JSON object a line on
standard error and nothing else, not even the line of an error (only mistakes of the command line
itself stay plain text). With `--progress-fd N` the lines go to file descriptor `N`, which the
caller has opened, and standard error stays for people:

```bash
joyflash render face.png talk.wav --progress-fd 3 3>events.jsonl
```

Every object has `v` (1; changes when a key changes its meaning) and `event`:

| event | verb | what it tells |
|---|---|---|
| `start` | both | `total_frames` (null for a pipe) and `video_fps`; or the numbers of `rows` |
| `warn` | render | `text` of a warning |
| `load` | render | weights of `profile` are read |
| `latency` | render | for sound from a pipe: what the first picture waits for |
| `block` | render | `block` of `blocks` is written: `frames`, `fps`, `realtime_factor`, `eta_s` |
| `wait` | render | every ten seconds without a block: `waited_s` |
| `rows` | batch | every ten seconds: `rows`, `done`, `failed`, `running`, `open` |
| `saved` | both | the video; in a batch with its row as `job` and, made just now, its figures |
| `stopped` | render | a signal ended it; where the part is that was kept |
| `error` | both | `code` and `text`; with `job` that of a row, which does not end the batch |
| `done` | both | `exit_code`, unless an `error` was the end |

Frames and rates of `start` and `block` are those of the model, whatever `--output-fps` says. A
reader that leaves early does not stop the render. `joyflash live` has [events of its
own](live.md#events).
"""

SETTINGS = """## Settings

Every option below may be set ahead of time. The first of these wins:

1. the option on the command line;
2. the environment: `JOYFLASH_RENDER_SEED` for one verb, then `JOYFLASH_SEED` for all;
3. `joyflash.toml` in the current folder;
4. `joyflash/config.toml` in `$XDG_CONFIG_HOME`, by default `~/.config`;
5. the program's default.

```toml
device = "cuda:0"    # for every verb that has the option

[render]
seed = 7
```

An unknown key or a value of the wrong type is an error that names the file and the key (exit code
2). Relative paths count from the file that holds them. What a checkpoint decides, such as frame
rate and size, is no setting: it travels with the weights. `joyflash config --show-origin` shows
what holds and why; `joyflash --no-config VERB` reads neither files nor environment.

| key | variable | default | |
|---|---|---|---|
"""


def command_line() -> str:
    """The page about the command line."""
    parts = [HEAD]
    for verb in verbs():
        title = " ".join(("joyflash", *verb))
        parts.append(
            f"{'#' * (2 if len(verb) < 2 else 3)} {title}\n\n```text\n{help_of(verb)}```\n\n"
        )
    return "".join(parts) + settings_table() + "\n" + EVENTS + "\n" + EXIT_CODES


def verbs() -> list[tuple[str, ...]]:
    """Every verb in the order of the help, groups before their own."""
    from typer.main import get_command

    from joyflash_cli.cli.app import app

    def below(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [path]
        for name, inner in getattr(command, "commands", {}).items():
            found += below(inner, (*path, name))
        return found

    return below(get_command(app), ())


def help_of(verb: tuple[str, ...]) -> str:
    """What ``joyflash VERB --help`` prints in a terminal of fixed width."""
    from joyflash_cli.cli.app import run

    before = {name: os.environ.get(name) for name in ("COLUMNS", "TERMINAL_WIDTH")}
    os.environ |= {"COLUMNS": WIDTH, "TERMINAL_WIDTH": WIDTH}
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            code = run(["--no-config", *verb, "--help"])
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if code != 0:
        raise SystemExit(f"joyflash {' '.join(verb)} --help ended with {code}")
    return text.getvalue()


def settings_table() -> str:
    """Every setting with its variable and default."""
    from typer.main import get_command

    from joyflash_cli.cli.app import app
    from joyflash_cli.cli.settings import known_settings

    rows = []
    for setting in known_settings(get_command(app)):
        default = "" if setting.value in (None, "") else f"`{_shown(setting.value)}`"
        text = setting.option.help.rstrip(".").replace("|", "\\|")
        rows.append(f"| `{setting.key}` | `{setting.variables[1]}` | {default} | {text} |")
    return SETTINGS + "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def profile_table() -> str:
    """``weights.toml`` as a table."""
    from joyflash_cli.weights.manifest import read_manifest

    lines = ["| profile | what it is | files | licence |", "|---|---|---|---|"]
    for name, profile in read_manifest().items():
        known = sum(file.bytes for file in profile.files)
        num_files = sum(file.is_published for file in profile.files)
        size = f"{known / 1e9:.1f} GB known" if known else "sizes unknown"
        files = {
            "embedded": "inside the package",
            "none": "no public source; bring them with `--checkpoint DIR`",
        }.get(profile.source, f"{num_files} on the Hub, {size}")
        licence = profile.licence + ("; must be accepted" if profile.acceptance else "")
        note = f" {profile.note}" if profile.note else ""
        cells = (f"`{name}`", profile.title + "." + note, files, licence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def measure_tables() -> str:
    """The table of measures, one part a command."""
    from joyflash_cli.measures.table import PAGE
    from joyflash_cli.studio.evaluation.figure_tables import DRIFT, FILM, HELD_OUT

    commands = {
        "`joyflash report`": PAGE,
        "`joyflash evaluate tiny --real`": FILM,
        "`joyflash evaluate tiny --held-out` and the ablations": HELD_OUT,
        "`drift` of the same": DRIFT,
    }
    return "\n\n".join(_meanings(command, measures) for command, measures in commands.items())


def metric_tables() -> str:
    """The figures of ``joyflash evaluate videos``, one part a metric."""
    from joyflash_cli.measures.metrics import METRICS

    return "\n\n".join(_meanings(f"`{metric.name}`", metric.measures) for metric in METRICS)


def _meanings(title: str, measures: Iterable[Any]) -> str:
    lines = [f"### {title}", "", "| name | unit | what it is |", "|---|---|---|"]
    for measure in measures:
        lines.append(f"| `{measure.name}` | {measure.unit} | {measure.meaning} |")
    return "\n".join(lines)


def hardware_table() -> str:
    """What ``joyflash benchmark`` wrote into ``runs/hardware``, one file a row."""
    import json

    lines = [
        "| profile | size | device | dtype, attention | KV frames | `fps_dit` | `fps` "
        "| first block | memory | MFU | machine |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((DOCS.parent / "runs" / "hardware").glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        threads = f", {row['threads']} threads" if row["device"] == "cpu" else ""
        busy = f"load {row['load_average']:g}" if row["load_average"] is not None else ""
        cells = (
            f"`{row['profile']}` {row['weights']}",
            "x".join(map(str, row["size_px"])),
            f"{row['device_model']} ({row['device']}{threads})",
            f"{row['dtype']}, {row['attention']}",
            str(row["kv_frames"]),
            f"{row['fps_dit']:.3g}",
            _figure(row["fps"], ".3g"),
            _figure(row["first_block_s"], ".2f", " s"),
            _figure(row["peak_bytes"] and row["peak_bytes"] / 1e9, ".2f", " GB"),
            _figure(row["mfu"] and 100 * row["mfu"], ".0f", " %"),
            ", ".join(filter(None, (f"torch {row['torch']}", busy, row.get("note", "")))),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines.append("| | | *your GPU* | | | | | | | | |")
    return "\n".join(lines)


def _figure(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def renewed(page: str, part: Callable[[], str]) -> str:
    """A page with what stands between its marks renewed."""
    text = (DOCS / page).read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", flags=re.S)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{part()}\n\n{END}", text)


PAGES = {
    "command-line.md": command_line,
    "profiles.md": lambda: renewed("profiles.md", profile_table),
    "measures.md": lambda: renewed("measures.md", metric_tables),
    "hardware.md": lambda: renewed("hardware.md", hardware_table),
    "measurements.md": lambda: renewed("measurements.md", measure_tables),
}


def main() -> None:
    """Writes or checks every page."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, write in PAGES.items():
        path = DOCS / name
        text = write()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.exit(f"{', '.join(stale)} not as the code says; run python docs/generate.py")


if __name__ == "__main__":
    main()
