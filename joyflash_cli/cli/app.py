"""The ``joyflash`` command: its verbs, and the one place where errors become exit codes.

Nothing imported here loads torch, PyAV or Rich: ``joyflash --help`` answers at once.
"""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.batch import batch
from joyflash_cli.cli.benchmark import benchmark
from joyflash_cli.cli.config import config
from joyflash_cli.cli.doctor import doctor
from joyflash_cli.cli.evaluate import evaluate, evaluate_parts
from joyflash_cli.cli.events import was_told
from joyflash_cli.cli.help_text import GroupedCommand
from joyflash_cli.cli.live import live
from joyflash_cli.cli.options import option, say, spelled_out
from joyflash_cli.cli.process import (
    flush_stdout,
    prepare_standard_streams,
    settle_standard_streams,
)
from joyflash_cli.cli.provenance import provenance
from joyflash_cli.cli.render import render
from joyflash_cli.cli.report import report
from joyflash_cli.cli.settings import (
    default_map,
    known_settings,
    read_settings,
    unknown_variables,
)
from joyflash_cli.cli.train import train
from joyflash_cli.cli.verb_parts import with_parts
from joyflash_cli.cli.weights import weights
from joyflash_cli.errors import ExitCode, JoyFlashError, UsageError
from joyflash_cli.streaming import stages_running

# Rich help costs a third of the 0.3 s that --help may take, and plain text pipes better.
app = typer.Typer(
    name="joyflash",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command(cls=GroupedCommand)(render)
app.command(cls=GroupedCommand)(live)
app.command(cls=GroupedCommand)(batch)
app.command(cls=GroupedCommand)(report)
app.command(cls=GroupedCommand)(benchmark)
app.command()(config)
app.command()(doctor)
app.command(cls=with_parts(evaluate_parts))(evaluate)
app.command()(train)
app.add_typer(weights, name="weights")
app.add_typer(provenance, name="provenance")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"joyflash {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def joyflash(
    context: typer.Context,
    version: Annotated[
        bool,
        option("--version", "Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
    no_config: Annotated[
        bool, option("--no-config", "Read no settings from files or environment.")
    ] = False,
) -> None:
    """A talking-head video from one picture and one voice, of any length, in real time.

    \b
    Examples:
      joyflash render --image face.png --audio talk.wav
      some-tts "Hello" | joyflash render --image face.png --audio - -o - | ffplay -
      agent | joyflash live --image face.png -o - | ffplay -
      joyflash batch manifest.csv --out-dir out
      joyflash report out

    \b
    Files and environment:
      ./joyflash.toml, ~/.config/joyflash/config.toml, JOYFLASH_*; see joyflash config --help

    \b
    Exit codes:
      0 done                    5 device absent, out of memory or not finite
      1 a bug in JoyFlash       6 the output cannot be written
      2 usage or configuration  7 rows of a batch failed
      3 picture or sound        130, 143 stopped, what was ready is saved
      4 weights                 141 the reader of the output has gone
    """  # noqa: D301 - \b tells the help not to fold what follows
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    try:
        os.getcwd()
    except OSError as error:
        # Libraries would end the whole program.
        raise UsageError(
            f"the working folder is gone: {error.strerror or error}",
            hint="cd to a folder that exists",
            code="E-FOLDER",
        ) from error
    settings = known_settings(context.command)
    if not no_config:
        warnings = unknown_variables(settings)
        settings = read_settings(settings)
        say(*(f"joyflash: warning: {text}" for text in warnings))
    context.default_map = default_map(settings)
    context.obj = settings


def main() -> None:
    """Entry point of the console script."""
    prepare_standard_streams()
    code = run(sys.argv[1:])
    settle_standard_streams()
    if stages_running():
        # A second Ctrl-C, or an error, while a stage computes: nobody waits for its end.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; errors are one line on stderr.

    ``--debug`` is looked up here rather than in the verbs, so that it works wherever they fail.
    """
    try:
        result = _invoke(spelled_out(arguments))
        flush_stdout()
        return result
    except BrokenPipeError:
        # Whoever read stdout has gone. Python would complain once more while closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.CLOSED_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except JoyFlashError as error:
        _print_traceback(arguments)
        if not was_told(error):
            _print_error(error.code, str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence; the text says it is a bug
        return _report_bug(arguments, error)


def _report_bug(arguments: Sequence[str], error: Exception) -> int:
    _print_traceback(arguments)
    if not was_told(error):
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        _print_error("E-INTERNAL", f"{what} (hint: this is a bug; --debug shows where)")
    return ExitCode.BUG


def _invoke(arguments: Sequence[str]) -> int:
    command: Any = typer.main.get_command(app)
    try:
        result = command.main(args=list(arguments), prog_name="joyflash", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except SystemExit as error:
        # Click turns a closed pipe into exit status 1, which is ours for bugs.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        raise
    except Exception as error:
        # Click's own errors alone can say themselves; not every Typer exports their class.
        if not hasattr(error, "format_message"):
            raise
        _print_error("E-USAGE", _usage_text(error))
        return ExitCode.USAGE
    return result if isinstance(result, int) else ExitCode.DONE


def _usage_text(error: Any) -> str:
    """Click's message with the nearest option, or the way to the help, as the hint."""
    near = _nearest(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or ())
    message = (error.message if near else error.format_message()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "joyflash"
    hint = f"did you mean {near[0]}?" if near else f"see {path} --help"
    if getattr(error, "option_name", "") == "--fps":
        message, hint = "No such option: --fps", "the model decides it; --output-fps N converts"
    if getattr(error, "option_name", "") in ("--size", "--width", "--height"):
        hint = "the size belongs to the model; see joyflash weights list"
    return f"{message} (hint: {hint})"


def _nearest(word: str, possible: Sequence[str]) -> list[str]:
    """``possible``, what looks most like ``word`` first."""
    import difflib

    return difflib.get_close_matches(word, sorted(possible), n=max(len(possible), 1), cutoff=0.0)


def _print_traceback(arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()


def _print_error(code: str, text: str) -> None:
    # Names of files may hold anything; what they hold must not reach a terminal as commands.
    words = " ".join(text.split())
    one_line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    typer.echo(f"joyflash: error[{code}]: {one_line}", err=True)
