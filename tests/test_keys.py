import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from saml_bridge.errors import KeyRefused
from saml_bridge.keys import KeyRing, create_key

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "family", "bits"), [("rsa-2048", "rsa", 2048), ("rsa-3072", "rsa", 3072), ("ec-p256", "ec", 256)]
)
def test_a_new_key_is_private_and_can_be_found(tmp_path: Path, kind: str, family: str, bits: int) -> None:
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
