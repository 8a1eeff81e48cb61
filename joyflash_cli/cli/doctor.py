"""``joyflash doctor``: what this machine has, what is missing, and what to do about it."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from joyflash_cli import __version__
from joyflash_cli.cli.options import Json, option
from joyflash_cli.errors import ExitCode

REPORT_FORMAT = 1
LOW_DISK_BYTES = 20_000_000_000
"""A full-size profile downloads about 18 GB and is converted to 3."""

LIBRARIES = (
    "numpy", "av", "safetensors", "diffusers", "transformers", "huggingface_hub", "torchao",
    "insightface", "c2pa-python", "numba", "ray",
)  # fmt: skip
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "HTTPS_PROXY",
)  # fmt: skip
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Finding:
    """Something that stands in the way, or may.

    Attributes:
        severity: ``problem``: no video can be made so. ``note``: one can.
        text: What is the matter.
        hint: The next step.
        exit_code: Of the program when this is its first problem.
    """

    severity: str
    text: str
    hint: str
    exit_code: int = 0


def doctor(
    as_json: Json = False,
    online: Annotated[bool, option("--online", "Also try whether the Hub answers.")] = False,
) -> None:
    """Report what this machine has for rendering, and what is missing.

    Names of users and hosts, home directories, tokens and passwords are left out, so that the
    report can be shown to others. Nothing is sent anywhere; --online asks the Hub for a sign of
    life. The exit code is 0 when a video can be made, else that of the first problem.
    """
    report, findings = examine(ask_hub=online)
    report = redact(report | {"findings": [asdict(finding) for finding in findings]})
    if as_json:
        typer.echo(json.dumps(report))
    else:
        for line in _lines(report):
            typer.echo(line)
    problems = [finding for finding in findings if finding.severity == "problem"]
    raise typer.Exit(problems[0].exit_code if problems else ExitCode.DONE)


def examine(*, ask_hub: bool = False) -> tuple[dict[str, Any], list[Finding]]:
    """Everything the report says, not yet redacted, and what is the matter."""
    findings: list[Finding] = []
    report: dict[str, Any] = {"format": REPORT_FORMAT, "joyflash": __version__}
    report |= _program()
    report |= _devices(findings)
    report |= _media(findings)
    report |= _storage(findings)
    report |= _hub(findings, ask=ask_hub)
    report |= _checkpoints(findings)
    return report, findings


def _program() -> dict[str, Any]:
    from importlib import metadata

    libraries: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = None
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    environment |= {name: "set" for name in SECRETS if os.environ.get(name)}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": libraries,
        "environment": environment,
    }


def _importable(name: str, findings: list[Finding], exit_code: int) -> bool:
    """Whether a library that every render needs can be imported; if not, that is a finding."""
    try:
        import_module(name)
    except (ImportError, OSError) as error:
        text = f"{name} cannot be imported: {error}".splitlines()[0]
        findings.append(Finding("problem", text, f"install {name} again", exit_code))
        return False
    return True


def _devices(findings: list[Finding]) -> dict[str, Any]:
    from joyflash_cli.render.device import host_memory

    memory = host_memory()
    machine = {"memory": None if memory is None else asdict(memory)}
    if not _importable("torch", findings, ExitCode.DEVICE):
        return machine | {"torch": None, "devices": []}
    from joyflash_cli.render.device import device_states, torch_state

    state = torch_state()
    if state["problem"] is not None:
        findings.append(
            Finding("note", state["problem"], "install a PyTorch that is built for this GPU")
        )
    return machine | {"torch": state, "devices": device_states()}


def _media(findings: list[Finding]) -> dict[str, Any]:
    if not _importable("av", findings, ExitCode.OUTPUT):
        return {"media": None}
    from joyflash_cli.media.outputs.codecs import media_abilities, media_versions, missing_abilities

    missing = missing_abilities()
    if missing:
        findings.append(
            Finding(
                "problem",
                f"PyAV cannot write videos: it lacks {', '.join(missing)}",
                "install the av package from a binary wheel",
                ExitCode.OUTPUT,
            )
        )
    return {"media": {"versions": media_versions(), "abilities": media_abilities()}}


def _storage(findings: list[Finding]) -> dict[str, Any]:
    from joyflash_cli.weights.diagnosis import cache_state

    cache = cache_state()
    if not cache["is_writable"]:
        findings.append(
            Finding(
                "note",
                f"the cache {cache['directory']} cannot be written; only the embedded model works",
                "set HF_HOME to a directory that can be",
            )
        )
    elif cache["free_bytes"] is not None and cache["free_bytes"] < LOW_DISK_BYTES:
        findings.append(
            Finding(
                "note",
                f"{cache['free_bytes'] / 1e9:.1f} GB are free for {cache['directory']}; "
                "a full-size profile takes about 18 GB",
                "set HF_HOME to a larger disk",
            )
        )
    here = Path.cwd()
    return {
        "cache": cache,
        "here": {
            "free_bytes": shutil.disk_usage(here).free,
            "is_writable": os.access(here, os.W_OK),
        },
    }


def _hub(findings: list[Finding], *, ask: bool) -> dict[str, Any]:
    from joyflash_cli.weights.diagnosis import hub_state

    state = hub_state(ask=ask)
    if state["is_reachable"] is False:
        findings.append(
            Finding(
                "note",
                f"the Hub at {state['endpoint']} {state['detail']}",
                "set HF_ENDPOINT to a mirror, or HTTPS_PROXY; the embedded model needs no network",
            )
        )
    return {"hub": state}


def _checkpoints(findings: list[Finding]) -> dict[str, Any]:
    from joyflash_cli.errors import JoyFlashError
    from joyflash_cli.weights.diagnosis import embedded_files
    from joyflash_cli.weights.store import resolve_checkpoint

    files = embedded_files()
    changed = [file["name"] for file in files if file["is_as_installed"] is False]
    if changed:
        findings.append(
            Finding(
                "problem",
                f"{', '.join(changed)} is not what was installed",
                "install the package again",
                ExitCode.CHECKPOINT,
            )
        )
    try:
        resolve_checkpoint("tiny")
    except JoyFlashError as error:
        findings.append(Finding("problem", error.message, error.hint, error.exit_code))
    return {"checkpoints": files}


def _lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    torch, memory = report["torch"], report["memory"]
    lines = [f"joyflash   {report['joyflash']}, Python {report['python']}, {report['system']}"]
    if torch is not None:
        lines.append(
            f"torch      {torch['version']} built for {torch['built_for']}, "
            f"{torch['num_threads']} threads; renders on {torch['chosen']}"
        )
    lines += [f"device     {_device_line(device)}" for device in report["devices"]]
    if memory is not None:
        lines.append(f"memory     {_of(memory)} free")
    cache, hub = report["cache"], report["hub"]
    free = "unknown" if cache["free_bytes"] is None else f"{cache['free_bytes'] / 1e9:.1f} GB"
    lines += [
        f"media      {_media_line(report['media'])}",
        f"cache      {cache['directory']}, {free} free"
        f"{'' if cache['is_writable'] else ', not writable'}",
        f"output     {report['here']['free_bytes'] / 1e9:.1f} GB free in this directory"
        f"{'' if report['here']['is_writable'] else ', not writable'}",
        f"hub        {hub['endpoint']} {hub['detail']}",
    ]
    lines += [
        f"weights    {file['name']} {file['sha256'][:16]}, {_integrity(file['is_as_installed'])}"
        for file in report["checkpoints"]
    ]
    installed = [f"{name} {version}" for name, version in report["libraries"].items() if version]
    absent = [name for name, version in report["libraries"].items() if not version]
    lines.append(f"libraries  {', '.join(installed)}")
    if absent:
        lines.append(f"           not installed: {', '.join(absent)}")
    lines += [f"setting    {name}={value}" for name, value in report["environment"].items()]
    lines += [
        f"{finding['severity']:<10} {finding['text']} (hint: {finding['hint']})"
        for finding in report["findings"]
    ]
    if not any(finding["severity"] == "problem" for finding in report["findings"]):
        lines.append("ready      videos can be made with profile tiny")
    return lines


def _device_line(device: dict[str, Any]) -> str:
    memory = "memory unknown" if device["memory"] is None else f"{_of(device['memory'])} free"
    bfloat16 = "" if device["has_bfloat16"] else ", no bfloat16"
    kernels = ", ".join(name for name in device["attention"] if name != "auto")
    return f"{device['name']}: {device['model']}, {memory}{bfloat16}; attention {kernels}"


def _of(memory: dict[str, int]) -> str:
    return f"{memory['free'] / 1e9:.1f} of {memory['total'] / 1e9:.1f} GB"


def _media_line(media: dict[str, Any] | None) -> str:
    if media is None:
        return "not usable"
    missing = [name for name, has in media["abilities"].items() if not has]
    also = f"; without {', '.join(missing)}" if missing else ""
    return f"PyAV {media['versions']['pyav']}{also}"


def _integrity(is_as_installed: bool | None) -> str:
    if is_as_installed is None:
        return "no record to compare with"
    return "as installed" if is_as_installed else "NOT as installed"


_TOKENS = re.compile(r"\b(hf|api_org|ghp|gho|github_pat|sk)_[A-Za-z0-9_]{8,}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_HOMES = re.compile(r"(?:[A-Za-z]:)?[\\/](?:home|Users)[\\/][^\\/\s:;,'\"]+")
_QUERY = re.compile(r"(?<=\?)\S+")


def redact(value: Any) -> Any:
    """The value with every text in it, at any depth, cleaned; keys of mappings stay."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def redact_text(text: str) -> str:
    """``text`` without home directories, user and host names, tokens and credentials."""
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    text = _HOMES.sub("~", text)
    text = _TOKENS.sub("<token>", text)
    text = _CREDENTIALS.sub("<credentials>@", text)
    if "://" in text:
        text = _QUERY.sub("<query>", text)
    for name, shown in ((_user(), "<user>"), (socket.gethostname(), "<host>")):
        if len(name) > 1:
            # As a part of a path or address only: a short name is also a part of words.
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown, text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
