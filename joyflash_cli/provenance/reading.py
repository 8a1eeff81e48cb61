"""What a file claims of where it comes from, and whether that verifies, whoever made it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from joyflash_cli.errors import DataError, UsageError
from joyflash_cli.media.outputs.names import STATEMENT_SUFFIX, statement_path
from joyflash_cli.media.outputs.xmp import read_marks
from joyflash_cli.provenance.identity import library
from joyflash_cli.provenance.signing import FACTS, QUIET, mime_type

GENERATED = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
"""IPTC's digital source types of media that a trained model made, wholly or in part."""

MAX_STATEMENT_BYTES = 64 << 20


def read_claims(path: Path, anchors: Path | None = None) -> dict[str, Any]:
    """The claims of a file, as ``joyflash provenance show --json`` prints them.

    Args:
        path: A picture, a video or a sound; or a statement, for the file that it lies beside.
        anchors: PEM file of the certificates that are trusted to vouch for others.

    Returns:
        ``file``; ``credentials``, see :func:`_read_credentials`, ``None`` without any and
        ``"unread"`` without the extra; ``digital_source_type`` and ``comment`` of the file's own
        tags; ``ai_generated``: whether any of these says so.

    Raises:
        DataError: ``E-PROVENANCE`` for a file that cannot be read.
        UsageError: ``E-PROVENANCE-TRUST`` for anchors that are none.
    """
    if path.suffix == STATEMENT_SUFFIX and path.with_suffix("").is_file():
        path = path.with_suffix("")
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "it is no file")
        source_type, comment = read_marks(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    credentials: dict[str, Any] | str | None
    try:
        library("c2pa")
    except UsageError:
        credentials = "unread"
    else:
        credentials = _read_credentials(path, anchors)
    stated = [source_type]
    if isinstance(credentials, dict):
        stated += credentials["digital_source_types"]
    says_so = any(str(one).rpartition("/")[2] in GENERATED for one in stated)
    return {
        "file": str(path),
        "ai_generated": says_so or (comment or "").startswith("AI-generated"),
        "credentials": credentials,
        "digital_source_type": source_type,
        "comment": comment,
    }


def _read_credentials(path: Path, anchors: Path | None) -> dict[str, Any] | None:
    """The signed statement: by whom, what it says, and whether the file is still what it is about.

    Keys: ``state``, ``"trusted"``, ``"valid"`` (it verifies, but nobody known vouches for the
    signer) or ``"invalid"``; ``problems``; ``where``, ``"inside"`` or ``"beside"`` the file;
    ``signed_by``, ``generator``, ``digital_source_types``, ``actions``, ``ingredients``,
    ``facts`` (only this program's files have them) and ``earlier``, how many statements of its
    ingredients it holds.
    """
    c2pa = library("c2pa")
    beside = statement_path(path)
    try:
        with c2pa.Context.from_dict(QUIET | _trust(anchors)) as context, path.open("rb") as file:
            where, reader, mime = "inside", None, mime_type(path)
            if mime in c2pa.Reader.get_supported_mime_types():
                reader = c2pa.Reader.try_create(mime, file, context=context)
            if reader is None and beside.is_file():
                where, content = "beside", beside.read_bytes()[:MAX_STATEMENT_BYTES]
                file.seek(0)
                reader = c2pa.Reader(mime, file, content, context=context)
            if reader is None:
                return None
            with reader:
                store, state = json.loads(reader.json()), reader.get_validation_state()
    except (c2pa.C2paError, OSError, ValueError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from error
    return {"where": where, **_told(store, state)}


def _trust(anchors: Path | None) -> dict[str, Any]:
    if anchors is None:
        return {}
    try:
        text = anchors.read_text(encoding="ascii")
        library("cryptography.x509").load_pem_x509_certificates(text.encode())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{anchors} holds no certificates to trust",
            hint="give a PEM file",
            code="E-PROVENANCE-TRUST",
        ) from error
    return {"trust": {"user_anchors": text}}


def _told(store: dict[str, Any], state: str | None) -> dict[str, Any]:
    manifests = store.get("manifests") or {}
    manifest = manifests.get(store.get("active_manifest")) or {}
    told = {
        one["label"].partition("__")[0]: one.get("data") for one in _list(manifest, "assertions")
    }
    actions = next((_list(told[name], "actions") for name in told if "c2pa.actions" in name), [])
    signer, tools = manifest.get("signature_info") or {}, _list(manifest, "claim_generator_info")
    problems = [
        f"{one.get('code')}: {one.get('explanation') or ''}".rstrip(": ")
        for one in _list(store, "validation_status")
        if one.get("code") != "signingCredential.untrusted" or state == "Invalid"
    ]
    return {
        "state": (state or "Invalid").lower(),
        "problems": problems,
        "signed_by": {
            "name": signer.get("common_name"),
            "organization": signer.get("issuer"),
            "algorithm": signer.get("alg"),
            "time": signer.get("time"),
        },
        "generator": ", ".join(
            f"{tool.get('name')} {tool.get('version') or ''}".strip() for tool in tools
        )
        or manifest.get("claim_generator"),
        "digital_source_types": list(
            dict.fromkeys(
                one["digitalSourceType"] for one in actions if one.get("digitalSourceType")
            )
        ),
        "actions": [one.get("action") for one in actions],
        "ingredients": [_ingredient(one) for one in _list(manifest, "ingredients")],
        "facts": told.get(FACTS),
        "earlier": max(len(manifests) - 1, 0),
    }


def _ingredient(told: dict[str, Any]) -> dict[str, Any]:
    identity = str(told.get("instance_id") or "")
    return {
        "title": told.get("title"),
        "format": told.get("format"),
        "sha256": identity.removeprefix("sha256:") if identity.startswith("sha256:") else None,
        "thumbnail": "thumbnail" in told,
        "credentials": "active_manifest" in told,
    }


def _list(values: Any, key: str) -> list[Any]:
    """A list of objects, whatever a file may have in its place."""
    found = values.get(key) if isinstance(values, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read: {reason}",
        hint="give a picture, a video or a sound",
        code="E-PROVENANCE",
    )
