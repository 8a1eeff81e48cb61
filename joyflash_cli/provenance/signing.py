"""Signs a finished file: what made it, from which inputs, and that a trained model did."""

from __future__ import annotations

import base64
import io
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from joyflash_cli import __version__
from joyflash_cli.errors import JoyFlashError, OutputError, UsageError
from joyflash_cli.files import file_sha256, write_reason
from joyflash_cli.media.outputs.names import STATEMENT_SUFFIX
from joyflash_cli.media.outputs.xmp import TRAINED
from joyflash_cli.provenance.identity import Identity, Signing, library, read_identity

FACTS = "joyflash.render"
"""The assertion with what only this program knows to say of a video."""

QUIET = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
"""Settings of the library under which it never asks the network."""

_MIME_TYPES = {".mov": "video/quicktime", ".m4v": "video/x-m4v", ".mkv": "video/x-matroska",
               ".webm": "video/webm", ".webp": "image/webp", ".heic": "image/heic"}  # fmt: skip
_PROBE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""


class Ingredient(NamedTuple):
    """Something that a video is made of.

    Attributes:
        title: What it is, not how its file is called.
        sha256: Of its bytes; ``None`` if it never was bytes.
        path: Its file, if it still is one; its own Content Credentials are taken along.
        thumbnail: A small JPEG of it, or nothing.
    """

    title: str
    sha256: str | None
    path: Path | None = None
    thumbnail: bytes = b""


def check_identity(signing: Signing) -> str:
    """Signs a picture of one pixel, so that what cannot sign is told before any work is done.

    Returns:
        Who signs.

    Raises:
        UsageError: ``E-SIGN-CERTIFICATE``, ``E-SIGN-KEY``, ``E-SIGN-TIMESTAMP`` or
            ``E-SIGN-EXTRA``.
    """
    identity = read_identity(signing)
    try:
        _sign(replace(identity, timestamps=""), "image/png", io.BytesIO(_PROBE), io.BytesIO())
    except _errors() as error:
        raise UsageError(
            f"{signing.certificate} cannot sign Content Credentials: {_line(error)}",
            hint="a certificate for C2PA is needed; joyflash provenance init makes one to try out",
            code="E-SIGN-CERTIFICATE",
        ) from error
    try:
        if identity.timestamps:
            _sign(identity, "image/png", io.BytesIO(_PROBE), io.BytesIO())
    except _errors() as error:
        raise UsageError(
            f"{identity.timestamps} attests no time: {_line(error)}",
            hint="give the address of an RFC 3161 service, or leave --sign-timestamp out",
            code="E-SIGN-TIMESTAMP",
        ) from error
    return identity.subject


def sign_file(
    source: Path,
    target: Path,
    signing: Signing,
    facts: Mapping[str, Any],
    ingredients: Sequence[Ingredient],
) -> None:
    """Writes a signed copy of a file, or the statement alone, and reads it back.

    Args:
        source: The finished file; it is left as it is.
        target: The copy; where its name ends in ``.c2pa``, the statement that lies beside it.
        signing: By whom.
        facts: What is said of it, besides that a trained model has made it.
        ingredients: What it is made of.

    Raises:
        OutputError: ``E-SIGN`` when it cannot be signed or does not verify; nothing is left of it.
    """
    is_beside = target.suffix == STATEMENT_SUFFIX
    mime, manifest = mime_type(source), b""
    try:
        identity = read_identity(signing)
        with source.open("rb") as given, target.open("w+b") as written:
            copy: Any = _Nowhere() if is_beside else written
            manifest = _sign(identity, mime, given, copy, facts, ingredients, is_beside=is_beside)
            if is_beside:
                written.write(manifest)
        _verify(source if is_beside else target, mime, manifest if is_beside else None)
    except BaseException as error:
        reason = _room_error(target) or error
        target.unlink(missing_ok=True)
        if not isinstance(error, (OSError, UsageError, *_errors())):
            raise
        raise _failed(_line(reason)) from error


def mime_type(path: Path) -> str:
    """What kind of file this is, by its name."""
    suffix = path.suffix.lower()
    return (
        _MIME_TYPES.get(suffix)
        or mimetypes.guess_type(f"a{suffix}")[0]
        or "application/octet-stream"
    )


def _sign(
    identity: Identity,
    mime: str,
    source: Any,
    target: Any,
    facts: Mapping[str, Any] = MappingProxyType({}),
    ingredients: Sequence[Ingredient] = (),
    *,
    is_beside: bool = False,
) -> bytes:
    """The signed statement; with a copy of the source that holds it, unless it lies beside."""
    c2pa = library("c2pa")
    created = ("c2pa.actions", "c2pa.ingredient", FACTS)
    settings = QUIET | {
        "builder": {"thumbnail": {"enabled": False}, "created_assertion_labels": list(created)}
    }
    info = c2pa.C2paSignerInfo(
        identity.algorithm, identity.chain, identity.key, identity.timestamps or None
    )
    with c2pa.Context.from_dict(settings) as context, c2pa.Signer.from_info(info) as signer:
        files = [one for one in ingredients if _has_credentials(one, context)]
        plain = [one for one in ingredients if one not in files]
        builder = c2pa.Builder(_definition(facts, [*files, *plain], plain), context)
        for ingredient in files:
            assert ingredient.path is not None
            with ingredient.path.open("rb") as file:
                builder.add_ingredient(_described(ingredient), mime_type(ingredient.path), file)
        for ingredient in (*files, *plain):
            if ingredient.thumbnail:
                builder.add_resource(f"{ingredient.title}.jpg", io.BytesIO(ingredient.thumbnail))
        if is_beside:
            builder.set_no_embed()
        signed: bytes = builder.sign(signer, mime, source, target)
    return signed


def _definition(
    facts: Mapping[str, Any], ingredients: list[Ingredient], plain: list[Ingredient]
) -> dict[str, Any]:
    tool = {"name": "JoyFlash", "version": __version__}
    action = {"action": "c2pa.created", "digitalSourceType": TRAINED, "softwareAgent": tool}
    if ingredients:
        titles = [ingredient.title for ingredient in ingredients]
        action["parameters"] = {"ingredientIds": titles}
    assertions = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if facts:
        assertions.append({"label": FACTS, "data": dict(facts)})
    return {
        "claim_generator_info": [tool],
        "ingredients": [_described(ingredient) for ingredient in plain],
        "assertions": assertions,
    }


def _described(ingredient: Ingredient) -> dict[str, Any]:
    described: dict[str, Any] = {
        "title": ingredient.title,
        "label": ingredient.title,
        "relationship": "inputTo",
    }
    if ingredient.path is not None:
        described["format"] = mime_type(ingredient.path)
    if ingredient.sha256 is not None:
        described["instance_id"] = f"sha256:{ingredient.sha256}"
    if ingredient.thumbnail:
        described["thumbnail"] = {
            "format": "image/jpeg",
            "identifier": f"{ingredient.title}.jpg",
        }
    return described


def _has_credentials(ingredient: Ingredient, context: Any) -> bool:
    """Whether its file has readable ones, and is still what the video was made of."""
    path, c2pa = ingredient.path, library("c2pa")
    if path is None:
        return False
    try:
        with path.open("rb") as file:
            reader = c2pa.Reader.try_create(mime_type(path), file, context=context)
            if reader is None:
                return False
            reader.close()
        return file_sha256(path) == ingredient.sha256
    except (OSError, ValueError, c2pa.C2paError):
        return False  # what it claims cannot be taken along


def _verify(path: Path, mime: str, manifest: bytes | None) -> None:
    c2pa = library("c2pa")
    with (
        path.open("rb") as file,
        c2pa.Context.from_dict(QUIET) as context,
        c2pa.Reader(mime, file, manifest, context=context) as reader,
    ):
        state = reader.get_validation_state()
    if state not in ("Valid", "Trusted"):
        raise _failed(f"it does not verify when it is read back ({state})")


def _room_error(target: Path) -> OSError | None:
    """What the system says where there is no room: the library does not pass it on."""
    try:
        with target.open("ab") as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        return error
    return None


def _failed(reason: str) -> OutputError:
    return OutputError(
        f"the video cannot be signed: {reason}",
        hint="see joyflash provenance --help",
        code="E-SIGN",
    )


def _errors() -> tuple[type[Exception], ...]:
    """What the library raises."""
    error: type[Exception] = library("c2pa").C2paError
    return error, ValueError


def _line(error: BaseException) -> str:
    if isinstance(error, JoyFlashError):
        return error.message
    if isinstance(error, OSError):
        return write_reason(error)
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Nowhere(io.RawIOBase):
    """A file that is written and forgotten: the library copies even what it does not change."""

    _place = _length = 0

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._place += len(data)
        self._length = max(self._length, self._place)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = (0, self._place, self._length)[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place
