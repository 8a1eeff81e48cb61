"""Certificates and keys: what is made, what is read, and one clear line for all that is wrong."""

import datetime
import os
import stat
from dataclasses import replace

import pytest

pytest.importorskip("c2pa")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from joyflash_cli.errors import OutputError, UsageError
from joyflash_cli.provenance.identity import Signing, make_identity, read_identity
from joyflash_cli.provenance.signing import check_identity


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Signing:
    folder = tmp_path_factory.mktemp("identity")
    return make_identity(folder / "new", "Ada", days=2, overwrite=False)


def as_pem(key, *, passphrase: bytes | None = None, form=serialization.PrivateFormat.PKCS8):
    secret = serialization.BestAvailableEncryption(passphrase) if passphrase else None
    encryption = secret or serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


def self_signed(path, key, *, days: int = 2) -> Signing:
    """A certificate that vouches for itself, which C2PA does not allow."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "self")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, begin, begin + datetime.timedelta(days=3 + days)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)
    signing = Signing(path / "c.pem", path / "k.pem")
    signing.certificate.write_bytes(certificate)
    signing.key.write_bytes(as_pem(key))
    return signing


def refused(signing: Signing, check=read_identity) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check(signing)
    return caught.value


def test_an_identity_signs_and_says_that_it_is_not_trusted(made):
    identity = read_identity(made)
    assert identity.algorithm == "es256"
    assert identity.chain.count(b"BEGIN CERTIFICATE") == 2
    assert "CN=Ada" in check_identity(made)
    assert "untrusted" in identity.subject


def test_only_its_owner_reads_the_key(made):
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600


def test_an_earlier_identity_stays_and_nothing_is_left_beside_it(made):
    before = made.key.read_bytes()
    made.certificate.rename(made.certificate.with_name("moved"))
    try:
        with pytest.raises(OutputError, match="exists already") as caught:
            make_identity(made.key.parent, "Eve", days=2, overwrite=False)
        assert caught.value.code == "E-OUTPUT-EXISTS"
        assert not made.certificate.exists()
    finally:
        made.certificate.with_name("moved").rename(made.certificate)
    assert made.key.read_bytes() == before


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb"])
def test_names_that_no_certificate_can_hold(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        make_identity(tmp_path / "new", name, days=2, overwrite=False)
    assert caught.value.code == "E-SIGN-NAME"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
)
def test_other_kinds_of_keys(tmp_path, key, algorithm):
    assert read_identity(self_signed(tmp_path, key)).algorithm == algorithm


def test_a_key_in_openssls_older_form(made, tmp_path):
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    (tmp_path / "k.pem").write_bytes(
        as_pem(key, form=serialization.PrivateFormat.TraditionalOpenSSL)
    )
    check_identity(Signing(made.certificate, tmp_path / "k.pem"))


def test_another_key_is_told_by_both_names(made, tmp_path):
    (tmp_path / "k.pem").write_bytes(as_pem(ec.generate_private_key(ec.SECP256R1())))
    error = refused(Signing(made.certificate, tmp_path / "k.pem"))
    assert error.code == "E-SIGN-KEY"
    assert "k.pem is not the key of" in str(error)


@pytest.mark.parametrize("content", [b"", b"no PEM", b"\0" * 100, b"x" * (1 << 20) + b"x"])
def test_damaged_files(made, tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert refused(Signing(tmp_path / "x", made.key)).code == "E-SIGN-CERTIFICATE"
    assert refused(Signing(made.certificate, tmp_path / "x")).code == "E-SIGN-KEY"


def test_files_that_are_missing_or_exchanged(made, tmp_path):
    assert "cannot be read" in str(refused(Signing(tmp_path / "no", made.key)))
    assert "cannot be read" in str(refused(Signing(made.certificate, tmp_path)))
    assert "holds no certificates" in str(refused(Signing(made.key, made.certificate)))


def test_a_pipe_could_not_be_read_again(made, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in str(refused(Signing(made.certificate, tmp_path / "pipe")))


def test_a_key_with_a_passphrase(made, tmp_path):
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    (tmp_path / "k.pem").write_bytes(as_pem(key, passphrase=b"secret"))
    assert "is encrypted" in str(refused(Signing(made.certificate, tmp_path / "k.pem")))


def test_a_certificate_that_has_run_out(tmp_path):
    signing = self_signed(tmp_path, ec.generate_private_key(ec.SECP256R1()), days=-1)
    assert "not today" in str(refused(signing))


def test_what_the_standard_refuses_is_known_before_any_work(tmp_path):
    signing = self_signed(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    error = refused(signing, check_identity)
    assert error.code == "E-SIGN-CERTIFICATE"
    assert "cannot sign" in str(error)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/tsa", "no address"])
def test_a_service_that_attests_no_time_is_known_before_any_work(made, address):
    error = refused(replace(made, timestamps=address), check_identity)
    assert error.code == "E-SIGN-TIMESTAMP"
    assert address in str(error)


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],
)
def test_kinds_of_keys_that_the_standard_lacks(tmp_path, key):
    assert "kind" in str(refused(self_signed(tmp_path, key)))
