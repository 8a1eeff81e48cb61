"""Content Credentials of a render: whether its output can carry them, and what they say of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from joyflash_cli.errors import UsageError
from joyflash_cli.media.outputs.formats import FORMATS
from joyflash_cli.media.outputs.names import OutputNames
from joyflash_cli.render.record import RunRecord, weights_sha256
from joyflash_cli.render.request import RenderRequest
from joyflash_cli.weights.store import CheckpointFiles

if TYPE_CHECKING:
    from joyflash_cli.provenance.identity import Signing


def check_signing(signing: "Signing | None", output: OutputNames | BinaryIO | None) -> str | None:
    """Who will sign; refuses what could not be signed later, before any work is done.

    Args:
        signing: By whom; ``None`` for nobody, to which every output fits.
        output: Names, or a stream.

    Raises:
        UsageError: ``E-SIGN-OUTPUT`` for a stream or a playlist, ``E-SIGN-CERTIFICATE``,
            ``E-SIGN-KEY`` or ``E-SIGN-EXTRA``.
    """
    if signing is None:
        return None
    from joyflash_cli.provenance.signing import check_identity

    if not isinstance(output, OutputNames):
        raise _cannot_carry("a stream or pipe")
    if FORMATS[output.path.suffix.lower()].seals == "nowhere":
        raise _cannot_carry(f"{output.path}, a playlist with its segments,")
    return check_identity(signing)


def seal_of(
    request: RenderRequest, files: CheckpointFiles, begun: RunRecord
) -> Callable[[Path, Path], None] | None:
    """What signs the finished video of a request; ``None`` where nobody signs."""
    return None if request.signing is None else partial(_seal, request, files, begun)


def _seal(
    request: RenderRequest, files: CheckpointFiles, begun: RunRecord, source: Path, target: Path
) -> None:
    from joyflash_cli.media.outputs.pictures import thumbnail
    from joyflash_cli.provenance.signing import Ingredient, sign_file

    assert request.signing is not None
    facts = {
        "profile": begun.profile,
        "checkpoint_version": begun.checkpoint_version,
        "weights_sha256": weights_sha256(files),
        "seed": begun.seed,
        "notice": begun.notice,
    }
    small = thumbnail(request.face.picture) if request.signing.thumbnail else b""
    heard = getattr(request.audio, "path", None) or request.audio_name
    inputs = (
        Ingredient("picture", begun.image_sha256, _path(request.image_name), small),
        # Known only now: of a pipe, it is of what came through.
        Ingredient("sound", getattr(request.audio, "sha256", None), _path(heard)),
    )
    sign_file(source, target, request.signing, facts, inputs)


def _path(name: str | Path | None) -> Path | None:
    return None if name in (None, "-") else Path(name)


def _cannot_carry(what: str) -> UsageError:
    return UsageError(
        f"{what} cannot carry Content Credentials",
        hint="give --output FILE.mp4, or leave --sign out",
        code="E-SIGN-OUTPUT",
    )
