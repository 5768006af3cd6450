import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.x509.oid import NameOID

from saml_bridge.keys.ring import KeyRing, create_key
from saml_bridge.model.errors import KeyRefused

RIGHT = "a passphrase of some length"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "family", "bits"),
    [
        ("rsa-2048", "rsa", 2048),
        ("rsa-3072", "rsa", 3072),
        ("ec-p256", "ec", 256),
        ("ec-p384", "ec", 384),
        ("ed25519", "ed25519", 255),
    ],
)
def test_k4_a_new_key_is_private_and_can_be_found(tmp_path: Path, kind: str, family: str, bits: int) -> None:
    key_path, certificate_path = create_key(tmp_path / "certs", "default", kind=kind, now=NOW)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_path.parent.stat().st_mode) == 0o700
    assert "PRIVATE" not in certificate_path.read_text()
    key = KeyRing(tmp_path / "certs").find("default")
    assert (key.kind, key.bits, key.name) == (family, bits, "default")
    assert key.not_after == NOW + timedelta(days=3650)
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_k1_a_key_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    key_path, _ = create_key(tmp_path, "default", kind="ec-p256", now=NOW)
    os.chmod(key_path, mode)
    with pytest.raises(KeyRefused, match=f"chmod 600 {key_path}"):
        KeyRing(tmp_path).find("default")


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    key_path, _ = create_key(tmp_path, "default", kind="ec-p256", now=NOW)
    before = key_path.read_bytes()
    with pytest.raises(KeyRefused, match="exists already"):
        create_key(tmp_path, "default", kind="ec-p256", now=NOW)
    assert key_path.read_bytes() == before


@pytest.mark.parametrize("name", ["../default", "Default", "", "a/b", "x" * 65, "-a"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyRefused):
        KeyRing(tmp_path).find(name)


def test_an_absent_key_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="saml-bridge init"):
        KeyRing(tmp_path).find("default")


def test_keys_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("winter", "default"):
        create_key(tmp_path, name, kind="ec-p256", now=NOW)
    assert KeyRing(tmp_path).list_names() == ("default", "winter")


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    create_key(tmp_path, "one", kind="ec-p256", now=NOW)
    create_key(tmp_path, "two", kind="ec-p256", now=NOW)
    (tmp_path / "one.cert.pem").write_bytes((tmp_path / "two.cert.pem").read_bytes())
    with pytest.raises(KeyRefused, match="certificate"):
        KeyRing(tmp_path).find("one")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_k1_a_key_is_private_from_its_first_moment_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        ring = KeyRing(tmp_path / "certs")
        ring.create("one", kind="ec-p256", now=NOW)
        ring.import_files("two", **files_of(tmp_path / "certs", "one"))
    finally:
        os.umask(before)
    for name in ("one", "two"):
        assert stat.S_IMODE((tmp_path / "certs" / f"{name}.key.pem").stat().st_mode) == 0o600


def test_k1_a_ring_with_one_key_that_others_can_read_is_refused_whole(tmp_path: Path) -> None:
    for name in ("default", "winter"):
        create_key(tmp_path, name, kind="ec-p256", now=NOW)
    KeyRing(tmp_path).check_modes()
    (tmp_path / "winter.key.pem").chmod(0o640)
    with pytest.raises(KeyRefused, match=r"chmod 600 .*winter"):
        KeyRing(tmp_path).check_modes()


def test_a_certificate_is_never_written_over_either(tmp_path: Path) -> None:
    (tmp_path / "default.cert.pem").write_text("somebody's")
    with pytest.raises(KeyRefused, match="exists already"):
        create_key(tmp_path, "default", kind="ec-p256", now=NOW)
    assert (tmp_path / "default.cert.pem").read_text() == "somebody's"
    assert not (tmp_path / "default.key.pem").exists()


def test_a_key_that_is_made_while_the_ring_is_open_is_found(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    with pytest.raises(KeyRefused):
        ring.find("winter")
    create_key(tmp_path, "winter", kind="ec-p256", now=NOW)
    assert ring.find("winter").name == "winter"


# Passphrases


def test_k2_an_encrypted_key_opens_with_the_passphrase_alone(tmp_path: Path) -> None:
    key_path, _ = KeyRing(tmp_path, RIGHT).create("locked", kind="ec-p256", now=NOW, encrypt=True)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in key_path.read_bytes()
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert KeyRing(tmp_path, RIGHT).find("locked").curve == "P-256"
    for passphrase, code in ((None, "key-passphrase-missing"), ("wrong", "key-passphrase-wrong")):
        with pytest.raises(KeyRefused, match="SAML_BRIDGE_KEY_PASSPHRASE") as caught:
            KeyRing(tmp_path, passphrase).find("locked")
        assert caught.value.code == code
        assert "wrong" not in str(caught.value).replace("key-passphrase-wrong", "")
    create_key(tmp_path, "open", kind="ec-p256", now=NOW)
    assert KeyRing(tmp_path, RIGHT).find("open").curve == "P-256", "a passphrase does no harm to an open key"


def test_nothing_is_encrypted_without_a_passphrase(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="SAML_BRIDGE_KEY_PASSPHRASE is not set"):
        KeyRing(tmp_path).create("locked", kind="ec-p256", now=NOW, encrypt=True)
    assert not list(tmp_path.iterdir())


# Taking a key over


def files_of(folder: Path, name: str) -> dict[str, Path]:
    return {"key_file": folder / f"{name}.key.pem", "certificate_file": folder / f"{name}.cert.pem"}


def write_pair(
    folder: Path, key: object, public: object | None = None, password: bytes | None = None
) -> dict[str, Path]:
    """A key as file, and a certificate that an authority of the test's made for it, or for `public`."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "TEST ONLY")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public or key.public_key())  # type: ignore[attr-defined,arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=30))
        .sign(authority, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = (
        key.private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption
        )
        if not isinstance(key, ed448.Ed448PrivateKey)
        else key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    files = files_of(folder, "outside")
    files["key_file"].write_bytes(pem)
    files["certificate_file"].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return files


@pytest.mark.parametrize("password", [None, RIGHT.encode()])
def test_a_key_of_another_origin_is_taken_over(tmp_path: Path, password: bytes | None) -> None:
    ring = KeyRing(tmp_path / "certs", RIGHT)
    files = write_pair(tmp_path, rsa.generate_private_key(65537, 2048), password=password)
    taken = ring.import_files("imported", **files)
    assert (taken.kind, taken.bits) == ("rsa", 2048)
    key_path = tmp_path / "certs" / "imported.key.pem"
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in key_path.read_bytes()) is (password is not None), "what was locked stays locked"
    assert KeyRing(tmp_path / "certs", RIGHT).find("imported") == taken
    assert taken.not_after == NOW + timedelta(days=30)


def test_a_key_can_be_locked_while_it_is_taken_over(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    KeyRing(tmp_path / "certs", RIGHT).import_files("imported", encrypt=True, **files)
    assert b"ENCRYPTED" in (tmp_path / "certs" / "imported.key.pem").read_bytes()


def test_a_locked_key_of_another_passphrase_is_not_taken_over(tmp_path: Path) -> None:
    files = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), password=b"another")
    for ring, code in (
        (KeyRing(tmp_path / "certs"), "key-passphrase-missing"),
        (KeyRing(tmp_path / "certs", RIGHT), "key-passphrase-wrong"),
    ):
        with pytest.raises(KeyRefused) as caught:
            ring.import_files("imported", **files)
        assert caught.value.code == code
    assert not (tmp_path / "certs").exists()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "key-rsa-bits"),
        (lambda: rsa.generate_private_key(3, 2048), "key-rsa-exponent"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "key-kind"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "key-kind"),
        (ed448.Ed448PrivateKey.generate, "key-kind"),
        (lambda: dsa.generate_private_key(2048), "key-kind"),
    ],
)
def test_k4_a_weak_key_or_one_of_another_kind_is_not_taken_over(
    tmp_path: Path, make: Callable[[], object], code: str
) -> None:
    with pytest.raises(KeyRefused) as caught:
        KeyRing(tmp_path / "certs").import_files("imported", **write_pair(tmp_path, make()))
    assert caught.value.code == code
    assert not (tmp_path / "certs").exists()


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    files = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), other)
    with pytest.raises(KeyRefused) as caught:
        KeyRing(tmp_path / "certs").import_files("imported", **files)
    assert caught.value.code == "certificate-mismatch"


@pytest.mark.parametrize("swapped", [True, False])
def test_k2_what_is_no_key_is_said_without_its_content(tmp_path: Path, swapped: bool) -> None:
    files = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    if swapped:
        files = {"key_file": files["certificate_file"], "certificate_file": files["key_file"]}
    else:
        files["key_file"].write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    with pytest.raises(KeyRefused) as caught:
        KeyRing(tmp_path / "certs").import_files("imported", **files)
    assert "c2VjcmV0" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


def test_a_name_that_is_taken_stays_what_it_is(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "certs")
    key_path, certificate_path = ring.create("default", kind="ec-p256", now=NOW)
    before = key_path.read_bytes(), certificate_path.read_bytes()
    with pytest.raises(KeyRefused, match="exists already"):
        ring.import_files("default", **write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    assert (key_path.read_bytes(), certificate_path.read_bytes()) == before


def test_a_disk_that_is_full_leaves_no_half_key(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from saml_bridge.keys.ring import write_private;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "write_private(Path(sys.argv[1]), b'x' * 1000)"
    )
    path = tmp_path / "one.key.pem"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "OSError" in done.stderr
    assert not path.exists()


def test_what_others_are_told_of_a_locked_key_needs_no_passphrase(tmp_path: Path) -> None:
    KeyRing(tmp_path, RIGHT).create("locked", kind="ec-p256", now=NOW, encrypt=True)
    ring = KeyRing(tmp_path)
    published = ring.find_published("locked")
    key = KeyRing(tmp_path, RIGHT).find("locked")
    assert (published.certificate, published.public_key) == (key.certificate, key.public_key)
    assert not hasattr(published, "private_key")
    with pytest.raises(KeyRefused):
        ring.find("locked")
    (tmp_path / "locked.cert.pem").unlink()
    assert ring.find_published("locked") is published, "it is read once"
    with pytest.raises(KeyRefused, match="No such file"):
        KeyRing(tmp_path).find_published("locked")
    with pytest.raises(KeyRefused, match="no key name"):
        ring.find_published("../locked")
