"""Who signs: a certificate with its chain and the private key that belongs to it, as PEM files."""

from __future__ import annotations

import datetime
import importlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.files import cannot_write, whole_file

MAX_PEM_BYTES = 1 << 20
CERTIFICATE_NAME, KEY_NAME = "certificate.pem", "key.pem"
UNTRUSTED = "JoyFlash try-out (self-signed and untrusted)"
"""The organisation of identities that were made here: no trust list will ever have it."""

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class Signing:
    """How a video is to be signed.

    Attributes:
        certificate: PEM file: the signer's certificate, then those that vouch for it.
        key: PEM file with its private key, not encrypted.
        thumbnail: Whether a small copy of the picture goes into the statement.
        timestamps: Address of a service that attests the time (RFC 3161), or nothing; the only
            thing for which the network is asked.
    """

    certificate: Path
    key: Path
    thumbnail: bool = False
    timestamps: str = ""


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, read and checked.

    Attributes:
        algorithm: C2PA's name, such as ``es256``.
        chain: The certificates as PEM.
        key: The private key as PKCS #8 PEM.
        subject: Whose certificate it is, in the notation of RFC 4514.
        timestamps: See ``Signing``.
    """

    algorithm: str
    chain: bytes
    key: bytes
    subject: str
    timestamps: str = ""


def choose_signing(
    certificate: Path | None, key: Path | None, thumbnail: bool = False, timestamps: str = ""
) -> Signing | None:
    """By whom is signed, from what was given; ``None`` for nobody.

    Raises:
        UsageError: ``E-SIGN-KEY`` for a certificate without its key, or anything without both.
    """
    if certificate is not None and key is not None:
        return Signing(certificate.absolute(), key.absolute(), thumbnail, timestamps)
    if any((certificate, key, thumbnail, timestamps)):
        raise UsageError(
            "--sign CERT and --key FILE belong together, and other --sign-... to both",
            hint="joyflash provenance init makes a certificate and a key to try out",
            code="E-SIGN-KEY",
        )
    return None


def library(name: str) -> Any:
    """A module of the extra ``provenance``.

    Raises:
        UsageError: ``E-SIGN-EXTRA`` when it is not installed.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: its shared library does not load here
        raise UsageError(
            f"Content Credentials need the package c2pa-python: {error}",
            hint="pip install 'joyflash[provenance]'",
            code="E-SIGN-EXTRA",
        ) from error


def read_identity(signing: Signing) -> Identity:
    """The certificate and key of two files, which fit each other and are in force today.

    Raises:
        UsageError: ``E-SIGN-CERTIFICATE`` or ``E-SIGN-KEY``, naming the file; ``E-SIGN-EXTRA``.
    """
    x509, serialization = library("cryptography.x509"), _serialization()
    chain = _read(signing.certificate, "certificate")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError as error:
        hint = "give PEM: the signer's certificate, then those that vouch for it"
        raise _wrong(signing.certificate, "holds no certificates", hint) from error
    leaf = certificates[0]
    key = _load_key(signing.key)
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise _wrong_key(
            signing.key,
            f"is not the key of {signing.certificate}, whose signer's certificate comes first",
            "give the two that belong together",
        )
    now = datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        when = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise _wrong(signing.certificate, f"is valid from {when}, not today", "renew it")
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
    subject = leaf.subject.rfc4514_string()
    return Identity(_algorithm(key, signing.key), pem, plain, subject, signing.timestamps)


def make_identity(folder: Path, name: str, *, days: int, overwrite: bool) -> Signing:
    """A certificate and key of one's own, for trying out: it says that nobody vouches for it.

    The certificate that signs it is made for it alone, and its key is thrown away.

    Args:
        folder: Where both files go; made if it is missing.
        name: Who signs.
        days: How long the certificate is valid.
        overwrite: Whether files already there may be replaced.

    Raises:
        UsageError: ``E-SIGN-NAME`` for a name that no certificate can hold; ``E-SIGN-EXTRA``.
        OutputError: ``E-OUTPUT-EXISTS`` or ``E-OUTPUT-WRITE``.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise UsageError(
            f"the name {name!r:.80} cannot stand in a certificate",
            hint="1 to 64 printable characters can",
            code="E-SIGN-NAME",
        )
    signing = Signing(folder / CERTIFICATE_NAME, folder / KEY_NAME)
    for path in (signing.certificate, signing.key):
        if not overwrite and os.path.lexists(path):
            raise OutputError(
                f"{path} exists already",
                hint="use --overwrite or another --out-dir",
                code="E-OUTPUT-EXISTS",
            )
    certificate, key = _new_certificate(name, days)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(signing.key, key, 0o600)
        _write(signing.certificate, certificate, 0o644)
    except OSError as error:
        raise cannot_write(folder, error, hint="choose another --out-dir") from error
    return signing


def _write(path: Path, content: bytes, mode: int) -> None:
    with whole_file(path) as part:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with open(descriptor, "wb") as file:
            file.write(content)


def _new_certificate(name: str, days: int) -> tuple[bytes, bytes]:
    """The chain and the key, as PEM; C2PA refuses a certificate that has signed itself."""
    x509, oid = library("cryptography.x509"), library("cryptography.x509.oid")
    ec = library("cryptography.hazmat.primitives.asymmetric.ec")
    hashes, serialization = library("cryptography.hazmat.primitives.hashes"), _serialization()
    now = datetime.datetime.now(datetime.UTC)

    def named(common: str) -> Any:
        parts = ((oid.NameOID.ORGANIZATION_NAME, UNTRUSTED), (oid.NameOID.COMMON_NAME, common))
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])

    def certificate(subject: Any, public: Any, *, vouches: bool) -> Any:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        usage |= {"digital_signature": not vouches, "key_cert_sign": vouches, "crl_sign": vouches}
        extensions = [
            (x509.BasicConstraints(vouches, 0 if vouches else None), True),
            (x509.KeyUsage(**usage), True),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False),
        ]
        if not vouches:
            purpose = x509.ExtendedKeyUsage([oid.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            extensions.append((purpose, False))
        builder = x509.CertificateBuilder(
            issuer_name=named("root"),
            subject_name=subject,
            public_key=public,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(minutes=5),  # clocks differ a little
            not_valid_after=now + datetime.timedelta(days=days),
        )
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = certificate(named(name), key.public_key(), vouches=False)
    chain += certificate(named("root"), root.public_key(), vouches=True)
    plain = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return chain, plain


def _load_key(path: Path) -> Any:
    content = _read(path, "key")
    try:
        return _serialization().load_pem_private_key(content, None)
    except TypeError as error:
        raise _wrong_key(path, "is encrypted", "give it without a passphrase") from error
    except Exception as error:  # noqa: BLE001 - every class of cryptography, UnsupportedAlgorithm too
        raise _wrong_key(path, "holds no private key", "give the PEM of one") from error


def _algorithm(key: Any, path: Path) -> str:
    """C2PA's name for signatures of a key."""
    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve in _CURVES:
        return _CURVES[curve]
    if type(key).__name__.startswith("Ed25519"):
        return "ed25519"
    if type(key).__name__.startswith("RSA") and key.key_size >= _MIN_RSA_BITS:
        return "ps256"
    raise _wrong_key(
        path,
        "is of a kind that C2PA does not know",
        "use P-256, P-384, Ed25519, or RSA of 2048 bits",
    )


def _serialization() -> Any:
    return library("cryptography.hazmat.primitives.serialization")


def _public(key: Any) -> bytes:
    serialization = _serialization()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, form)
    return encoded


def _read(path: Path, what: str) -> bytes:
    wrong = _wrong_key if what == "key" else _wrong
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # read before the work and at its end
            raise wrong(path, "is a pipe, which can be read only once", "give a file")
        with path.open("rb") as file:
            content = file.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise wrong(path, reason, f"give the PEM file of the {what}") from error
    if len(content) > MAX_PEM_BYTES:
        raise wrong(path, f"is larger than {MAX_PEM_BYTES >> 20} MB", f"give the {what} alone")
    return content


def _wrong(path: Path, what: str, hint: str) -> UsageError:
    return UsageError(f"{path} {what}", hint=hint, code="E-SIGN-CERTIFICATE")


def _wrong_key(path: Path, what: str, hint: str) -> UsageError:
    return UsageError(f"{path} {what}", hint=hint, code="E-SIGN-KEY")
