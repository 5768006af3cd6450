"""The files that a document names, read into it: metadata, pinned signers and public keys.

Owns: replacing their paths by hashes, certificates and keys, and the checks of the results. Does not own: opening files
and fetching (passed in), keys as text (`keys.partner_keys`), metadata (`protocols.saml.metadata`).
Called by: `load`, `billers.publishing`, `billers.partner_metadata`, `app.installation`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, Final

from saml_bridge.billers.file.placed_findings import raise_refusals
from saml_bridge.billers.partners.index import find_entry
from saml_bridge.keys.partner_keys import is_key_text
from saml_bridge.model.document import Biller, Partner, SamlSettings
from saml_bridge.model.errors import BridgeError, ConfigInvalid, MetadataRefused, XmlRefused
from saml_bridge.model.values import Finding, Severity, Sha256Hex
from saml_bridge.protocols.saml.metadata.aggregate import read_metadata
from saml_bridge.protocols.saml.xml.certificates import Certificate, CertificateBroken, parse_certificate_text
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS

HASH_PREFIX: Final = "sha256:"
_LONGEST_PATH: Final = 255


def check_signer(settings: SamlSettings, where: str) -> Iterator[Finding]:
    """Checks that the pinned signer of a partner's metadata is a certificate that can verify."""
    if settings.metadata_signer is None:
        return
    try:
        usable = parse_certificate_text(settings.metadata_signer).may_verify
        problem = "" if usable else "the key of the certificate cannot verify: RSA of 1024 bits or more and EC can"
    except CertificateBroken as broken:
        problem = str(broken)
    if problem:
        fix = "Name the PEM file of the certificate that the federation or the partner signs its metadata with."
        yield Finding("metadata-signer-broken", Severity.ERROR, f"metadata_signer: {problem}", fix, where)


def read_signer(settings: SamlSettings) -> Certificate | None:
    """The pinned signer of a checked document, or None. Raises CertificateBroken."""
    return None if settings.metadata_signer is None else parse_certificate_text(settings.metadata_signer)


def resolve_metadata(
    biller: Biller,
    open_file: Callable[[str], BinaryIO],
    *,
    fetch: Callable[[Partner], tuple[Sha256Hex, bytes | None]] | None = None,
) -> tuple[Biller, dict[Sha256Hex, bytes]]:
    """Replaces paths of metadata files by hashes.

    The result is the document, and the contents by their hashes.

    `open_file` gets a path as written and may raise OSError; of a file that is too large to be kept as a whole, the
    partner's entity is taken. `fetch` gives the hash of the metadata of a partner that names an address and no file,
    with the content unless that is stored already; it may raise BridgeError. Paths of pinned signers are replaced by
    their certificates, and paths of partners' public keys by the keys.

    Raises:
        ConfigInvalid: A file cannot be used; with a finding a file.
    """
    contents: dict[Sha256Hex, bytes] = {}
    findings: list[Finding] = []
    partners: list[Partner] = []
    for position, partner in enumerate(biller.partners):
        place = f"{biller.slug}: partners[{position}].{partner.protocol}"
        try:
            if not partner.speaks_saml:
                partners.append(_resolve_keys(partner, open_file, place))
                continue
            settings = _resolve_signer(partner.saml, open_file, place)
            if settings.metadata == "" and fetch is not None:
                digest, content = _fetch_metadata(replace(partner, settings=settings), fetch, place)
            elif not settings.metadata.startswith(HASH_PREFIX):
                content = _read_metadata(settings, open_file, place)
                digest = Sha256Hex(hashlib.sha256(content).hexdigest())
            else:
                digest, content = Sha256Hex(settings.metadata.removeprefix(HASH_PREFIX)), None
        except ConfigInvalid as refused:
            findings += [replace(one, about=partner.slug) for one in refused.findings]
            continue
        if content is not None:
            contents[digest] = content
        partners.append(replace(partner, settings=replace(settings, metadata=f"{HASH_PREFIX}{digest}")))
    raise_refusals(findings)
    return replace(biller, partners=tuple(partners)), contents


def _read_metadata(settings: SamlSettings, open_file: Callable[[str], BinaryIO], place: str) -> bytes:
    with _open_named(settings.metadata, open_file, "metadata", place) as file:
        try:
            return read_metadata(file, settings.entity_id)
        except (MetadataRefused, XmlRefused) as refused:
            findings = [replace(one, where=f"{place}.metadata") for one in refused.findings]
            raise ConfigInvalid(refused.detail, findings=findings) from refused


@contextmanager
def _open_named(path: str, open_file: Callable[[str], BinaryIO], key: str, place: str) -> Iterator[BinaryIO]:
    """A file that the document names under `key`; an unreadable one is a finding there."""
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        message = f"{key}: the file {path!r} cannot be read: {error.strerror or type(error).__name__}"
        fix = "Paths are relative to the configuration file."
        finding = Finding(f"{key.replace('_', '-')}-unreadable", Severity.ERROR, message, fix, f"{place}.{key}")
        raise ConfigInvalid(message, findings=[finding]) from None


def _fetch_metadata(
    partner: Partner, fetch: Callable[[Partner], tuple[Sha256Hex, bytes | None]], place: str
) -> tuple[Sha256Hex, bytes | None]:
    try:
        return fetch(partner)
    except BridgeError as error:
        key = "metadata_url" if partner.saml.metadata_url else "mdq_url"
        findings = [replace(one, where=f"{place}.{key}") for one in error.findings if one.refuses]
        told = Finding(error.code, Severity.ERROR, error.detail, "Or name a metadata file.", f"{place}.{key}")
        raise ConfigInvalid(error.detail, findings=findings or [told]) from error


def _resolve_signer(settings: SamlSettings, open_file: Callable[[str], BinaryIO], place: str) -> SamlSettings:
    """The settings with the certificate itself, as the base64 of its DER, from any form that it was written in."""
    text = settings.metadata_signer
    if text is None:
        return settings
    if "-----BEGIN" not in text and next(check_signer(settings, ""), None) is not None and _may_be_path(text):
        with _open_named(text, open_file, "metadata_signer", place) as file:
            content = file.read(METADATA_LIMITS.max_bytes)
        text = content.decode("latin-1") if b"-----BEGIN" in content else base64.b64encode(content).decode("ascii")
    settings = replace(settings, metadata_signer=text)
    findings = list(check_signer(settings, f"{place}.metadata_signer"))
    raise_refusals(findings)
    return replace(settings, metadata_signer=base64.b64encode(parse_certificate_text(text).der).decode("ascii"))


def _resolve_keys(partner: Partner, open_file: Callable[[str], BinaryIO], place: str) -> Partner:
    """The partner with the public keys themselves, in the one form that documents keep."""
    setting = find_entry(partner).public_keys
    text = setting.read(partner.settings) if setting else None
    if setting is None or text is None:
        return partner
    name = setting.name
    if not is_key_text(text) and _may_be_path(text):
        with _open_named(text, open_file, name, place) as file:
            text = file.read(METADATA_LIMITS.max_bytes).decode("utf-8", "replace")
    raise_refusals(setting.check(text, place))
    return _set_setting(partner, name, setting.normalize(text))


def check_public_keys(partner: Partner, where: str) -> Iterator[Finding]:
    """Checks that the public keys in a partner's settings can be used.

    `where` is the path of the settings.
    """
    setting = find_entry(partner).public_keys
    if setting is not None:
        yield from setting.check(setting.read(partner.settings), where)


def _set_setting(partner: Partner, name: str, value: str) -> Partner:
    changes: dict[str, Any] = {name: value}
    return replace(partner, settings=replace(partner.settings, **changes))


def _may_be_path(text: str) -> bool:
    return len(text) <= _LONGEST_PATH and text.isprintable()
