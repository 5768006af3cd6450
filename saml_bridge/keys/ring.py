"""The key ring: signing keys as PEM files in the certificates folder.

Owns: where a key lies (`NAME.key.pem`, `NAME.cert.pem`), who may read it, making a new one and taking one over. Does
not own: signing (`saml/sign.py`), which biller uses which key (the configuration document says so), and how one key
takes over from another (`rollover.py`).
"""

from __future__ import annotations

import base64
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
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from saml_bridge.keys.signing_key import (
    PrivateKey,
    PublishedKey,
    SigningKey,
    is_encrypted,
    load_published_key,
    load_signing_key,
)
from saml_bridge.model.errors import BridgeError, KeyRefused
from saml_bridge.model.nearest import suggest

KeyKind = Literal["rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ed25519"]

_KEY_SUFFIX = ".key.pem"
_UNLOCK = "set SAML_BRIDGE_KEY_PASSPHRASE to the one that it was encrypted with"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LIFETIME = timedelta(days=3650)
_MAKERS: dict[KeyKind, Callable[[], PrivateKey]] = {
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


class KeyRing:
    """Reads keys by name and keeps them.

    Loading a key costs far more than using it. `passphrase` opens the keys that are encrypted. A key that could not be
    read is tried again at the next question, so what is made or mended while the service runs is found.
    """

    def __init__(self, folder: Path, passphrase: str | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase.encode() if passphrase else None
        self._loaded: dict[str, SigningKey] = {}
        self._published: dict[str, PublishedKey] = {}
        self._lock = Lock()

    def find(self, name: str) -> SigningKey:
        """The key of this name.

        Raises KeyRefused: no such key, readable by others, locked, or not fit to sign.
        """
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def find_published(self, name: str) -> PublishedKey:
        """The public side of the key of this name, from its certificate alone.

        Its private key may be locked. Raises KeyRefused: no such certificate, or not one of a key that is fit to sign.
        """
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            if name not in self._published:
                _, path = _paths(self.folder, name)
                self._published[name] = load_published_key(name, _read_bytes(name, path))
            return self._published[name]

    def list_names(self) -> tuple[str, ...]:
        """The names of all keys in the folder, sorted; those that would be refused too."""
        return tuple(sorted(path.name.removesuffix(_KEY_SUFFIX) for path in self.folder.glob(f"*{_KEY_SUFFIX}")))

    def check_modes(self) -> None:
        """Refuses a folder with a key that others than its owner may read.

        Raises KeyRefused.
        """
        for name in self.list_names():
            check_private(self.folder / f"{name}{_KEY_SUFFIX}")

    def create(self, name: str, *, kind: KeyKind, now: datetime, encrypt: bool = False) -> tuple[Path, Path]:
        """Makes a key and a self-signed certificate of ten years.

        Gives both paths; never writes over either. Raises KeyRefused when the name is taken or is no name, and when it
        is to be encrypted without a passphrase.
        """
        paths, encryption = self._prepare(name, encrypt=encrypt)
        key = _MAKERS[kind]()
        self._store(paths, key, _certify(key, name, now), encryption)
        return paths

    def import_files(self, name: str, *, key_file: Path, certificate_file: Path, encrypt: bool = False) -> SigningKey:
        """Takes a copy of a key and its certificate that were made elsewhere.

        They are judged as `find` does. An encrypted key stays so, under the same passphrase. Raises KeyRefused: also
        for a key and a certificate that do not belong together, and for a name that is taken. OSError for files that
        cannot be read.
        """
        key_pem, certificate_pem = key_file.read_bytes(), certificate_file.read_bytes()
        key = self._open(name, key_pem, certificate_pem)
        paths, encryption = self._prepare(name, encrypt=encrypt or is_encrypted(key_pem))
        certificate = x509.load_der_x509_certificate(base64.b64decode(key.certificate))
        self._store(paths, key.private_key, certificate, encryption)
        return key

    def _prepare(self, name: str, *, encrypt: bool) -> tuple[tuple[Path, Path], KeySerializationEncryption]:
        paths = _paths(self.folder, name)
        for path in paths:
            if path.exists():
                raise KeyRefused(f"{path} exists already and is not written over: choose another name")
        if not encrypt:
            return paths, NoEncryption()
        if self._passphrase is None:
            detail = f"key {name}: is to be encrypted, and SAML_BRIDGE_KEY_PASSPHRASE is not set"
            raise KeyRefused(detail, code="key-passphrase-missing")
        return paths, BestAvailableEncryption(self._passphrase)

    def _store(
        self,
        paths: tuple[Path, Path],
        key: PrivateKey,
        certificate: x509.Certificate,
        encryption: KeySerializationEncryption,
    ) -> None:
        """The certificate first: a key is in the ring from the moment that it is complete."""
        key_path, certificate_path = paths
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(certificate_path, certificate.public_bytes(Encoding.PEM), mode=0o644)
        try:
            write_private(key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        except (BridgeError, OSError):
            certificate_path.unlink()
            raise

    def _load(self, name: str) -> SigningKey:
        key_path, certificate_path = _paths(self.folder, name)
        nearest = "" if key_path.exists() else suggest(name, self.list_names())
        if nearest:
            raise KeyRefused(f"there is no key {name!r} in {self.folder}{nearest}")
        check_private(key_path)
        return self._open(name, _read_bytes(name, key_path), _read_bytes(name, certificate_path))

    def _open(self, name: str, key_pem: bytes, certificate_pem: bytes) -> SigningKey:
        try:
            return load_signing_key(name, key_pem=key_pem, certificate_pem=certificate_pem, password=self._passphrase)
        except KeyRefused as refused:
            if refused.code.startswith("key-passphrase"):
                raise KeyRefused(f"{refused.detail}: {_UNLOCK}", code=refused.code) from refused
            raise


def check_private(path: Path) -> None:
    """Refuses a file that is absent or that others than its owner may read.

    Raises KeyRefused.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        made = "if there never was one, make it with 'saml-bridge init' or 'saml-bridge keys create'"
        raise KeyRefused(f"there is no {path}: bring it back from the backup; {made}") from error
    except OSError as error:
        raise KeyRefused(f"cannot look at {path}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyRefused(f"{path} has mode {mode:04o}, others can read it: run 'chmod 600 {path}'")


def create_key(folder: Path, name: str, *, kind: KeyKind, now: datetime) -> tuple[Path, Path]:
    """`KeyRing.create` in a folder, not encrypted."""
    return KeyRing(folder).create(name, kind=kind, now=now)


def write_private(path: Path, content: bytes) -> None:
    """Writes a new file that its owner alone may read.

    Its mode is 0600 from its first moment. Raises KeyRefused if it exists.
    """
    _write_new(path, content, mode=0o600)


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise KeyRefused(f"{path} exists already and is not written over") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:  # such as a full disk: half a file must not stand in the way of the whole one
        path.unlink()
        raise


def _read_bytes(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyRefused(f"key {name!r}: cannot read {error.filename}: {error.strerror}") from error


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    if not _NAME.fullmatch(name):
        raise KeyRefused(f"{name!r} is no key name: use lower-case letters, digits and hyphens")
    return folder / f"{name}{_KEY_SUFFIX}", folder / f"{name}.cert.pem"


def _certify(key: PrivateKey, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"saml_bridge {name}")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
