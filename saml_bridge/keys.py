"""The key ring: signing keys as PEM files in the certificates folder.

Owns: where a key lies (`NAME.key.pem`, `NAME.cert.pem`), who may read it, making a new one. Does not own: signing
(`saml/sign.py`), and which biller uses which key (the configuration document says so).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from saml_bridge.errors import KeyRefused
from saml_bridge.saml.sign import SigningKey, load_signing_key

KeyKind = Literal["rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LIFETIME = timedelta(days=3650)
_MAKERS: dict[KeyKind, Callable[[], rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]] = {
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
}


class KeyRing:
    """Reads keys by name and keeps them, since loading a key costs far more than using it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, SigningKey] = {}
        self._lock = Lock()

    def find(self, name: str) -> SigningKey:
        """The key of this name. Raises KeyRefused: no such key, readable by others, or not fit to sign."""
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def list_names(self) -> tuple[str, ...]:
        """The names of all keys in the folder, sorted; those that would be refused too."""
        return tuple(sorted(path.name.removesuffix(".key.pem") for path in self.folder.glob("*.key.pem")))

    def _load(self, name: str) -> SigningKey:
        key_path, certificate_path = _paths(self.folder, name)
        check_private(key_path)
        try:
            key_pem, certificate_pem = key_path.read_bytes(), certificate_path.read_bytes()
        except OSError as error:
            raise KeyRefused(f"key {name!r}: cannot read {error.filename}: {error.strerror}") from error
        return load_signing_key(name, key_pem=key_pem, certificate_pem=certificate_pem)


def check_private(path: Path) -> None:
    """Refuse a file that is not there or that anybody but its owner may read. Raises KeyRefused."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise KeyRefused(f"there is no {path}: make it with 'saml-bridge init' or 'saml-bridge keys create'") from error
    except OSError as error:
        raise KeyRefused(f"cannot look at {path}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyRefused(f"{path} has mode {mode:04o}, others can read it: run 'chmod 600 {path}'")


def create_key(folder: Path, name: str, *, kind: KeyKind, now: datetime) -> tuple[Path, Path]:
    """Make a key and a self-signed certificate of ten years. Gives both paths; never writes over a key.

    Raises KeyRefused when the name is taken or is no name.
    """
    key_path, certificate_path = _paths(folder, name)
    key = _MAKERS[kind]()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate_path.write_bytes(_certify(key, name, now).public_bytes(Encoding.PEM))
    return key_path, certificate_path


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone may read (0600 from its first moment). Raises KeyRefused if it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyRefused(f"{path} exists already and is not written over") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    if not _NAME.fullmatch(name):
        raise KeyRefused(f"{name!r} is no key name: use lower-case letters, digits and hyphens")
    return folder / f"{name}.key.pem", folder / f"{name}.cert.pem"


def _certify(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"saml_bridge {name}")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
