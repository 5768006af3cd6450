"""From a partner's address to the metadata of its one service provider.

Owns: which address is asked and how much is read, picking one entity out of a federation's file, and that the pinned
signer's signature was verified. Does not own: the connection (`network.client`), what the metadata is good for
(`protocols.saml.metadata.judge`), and what happens with it (`billers.publishing`, `refresh`, which call this).

Specification: Metadata Query Protocol (draft-young-md-query), section 3; its SAML profile (draft-young-md-query-saml).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Final, Protocol
from urllib.parse import quote

from saml_bridge.billers.file.resolve import read_signer
from saml_bridge.model.document import SamlSettings
from saml_bridge.model.errors import FetchRefused, MetadataRefused, XmlRefused
from saml_bridge.model.values import Finding, Severity
from saml_bridge.network.client import Answer
from saml_bridge.protocols.saml.metadata.aggregate import pick_entity
from saml_bridge.protocols.saml.metadata.judge import check_metadata
from saml_bridge.protocols.saml.metadata.service_provider import SpMetadata
from saml_bridge.protocols.saml.xml.certificates import CertificateBroken
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS

MAX_AGGREGATE_BYTES: Final = 128 * 1024 * 1024
ACCEPT: Final = "application/samlmetadata+xml"
"""All that a metadata query may name; a plain address gets the other names of XML, too."""


MOST_SHARED: Final = 4


class Fetches(Protocol):
    """A client for addresses of metadata, as far as it is needed here.

    `network.client.Fetcher` is one.
    """

    def get(self, url: str, *, into: BinaryIO, max_bytes: int, accept: str, etag: str | None = None) -> Answer: ...


class SharedFetcher:
    """One run's fetcher: partners that share an address share its answer, or its failure.

    A context manager.

    A federation's file of 100 MB serves many partners, and a server that hangs would hold each of them up. The last
    four answers are kept, in files.
    """

    def __init__(self, fetcher: Fetches) -> None:
        self._fetcher = fetcher
        self._bodies: dict[str, tuple[Answer, BinaryIO]] = {}
        self._unchanged: dict[tuple[str, str | None], Answer] = {}
        self._failures: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> SharedFetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, body in self._bodies.values():
            body.close()

    def get(self, url: str, *, into: BinaryIO, max_bytes: int, accept: str, etag: str | None = None) -> Answer:
        """Fetch an address once; a refusal of it is given again."""
        if url in self._failures:
            detail, code = self._failures[url]
            raise FetchRefused(detail, code=code)
        if (url, etag) in self._unchanged:
            return self._unchanged[url, etag]
        if url not in self._bodies:
            answer = self._fetch(url, max_bytes=max_bytes, accept=accept, etag=etag)
            if answer.status == 304:
                return answer
        answer, body = self._bodies[url]
        if etag is not None and answer.etag == etag:
            return replace(answer, status=304)
        if body.seek(0, 2) > max_bytes:
            raise FetchRefused(f"{url} answered with more than {max_bytes:,} bytes.", code="fetch-too-large")
        body.seek(0)
        shutil.copyfileobj(body, into)
        return answer

    def _fetch(self, url: str, *, max_bytes: int, accept: str, etag: str | None) -> Answer:
        body = TemporaryFile()  # noqa: SIM115  closed at the end of the run
        try:
            answer = self._fetcher.get(url, into=body, max_bytes=max_bytes, accept=accept, etag=etag)
        except BaseException as error:
            body.close()
            if isinstance(error, FetchRefused) and error.code != "fetch-too-large":
                self._failures[url] = error.detail, error.code  # not itself: it holds on to the connection
            raise
        if answer.status == 304:
            body.close()
            self._unchanged[url, etag] = answer
        else:
            if len(self._bodies) >= MOST_SHARED:
                self._bodies.pop(next(iter(self._bodies)))[1].close()
            self._bodies[url] = answer, body
        return answer


@dataclass(frozen=True, slots=True)
class FetchedMetadata:
    """Metadata that may be used.

    It has `content` as it is stored, its meaning, and the server's name for this version.
    """

    content: bytes
    metadata: SpMetadata
    etag: str | None


def find_address(settings: SamlSettings) -> str:
    """The URL that a partner's metadata is fetched from; empty when it is not fetched."""
    if settings.mdq_url:
        return f"{settings.mdq_url.rstrip('/')}/entities/{quote(settings.entity_id or '', safe='')}"
    return settings.metadata_url or ""


def fetch_metadata(
    fetcher: Fetches, settings: SamlSettings, *, now: datetime, etag: str | None = None, allow_http: bool = False
) -> FetchedMetadata | None:
    """Fetch, verify and judge a partner's metadata as of `now`.

    None when the server says that `etag` still holds.

    With `metadata_signer`, a document that this key did not sign is refused. Raises FetchRefused, and MetadataRefused
    with findings.
    """
    try:
        signer = read_signer(settings)
    except CertificateBroken as broken:
        raise _refuse("metadata-signer-broken", f"The pinned signer cannot be read: {broken}.") from broken
    pinned = None if signer is None else (signer,)
    from_aggregate = settings.entity_id is not None and not settings.mdq_url
    accept = ACCEPT if settings.mdq_url else f"{ACCEPT}, application/xml;q=0.9, text/xml;q=0.8, */*;q=0.1"
    most = MAX_AGGREGATE_BYTES if from_aggregate else METADATA_LIMITS.max_bytes
    with TemporaryFile() as file:
        answer = fetcher.get(find_address(settings), into=file, max_bytes=most, accept=accept, etag=etag)
        if answer.status == 304:
            return None
        file.seek(0)
        try:
            content = pick_entity(file, settings.entity_id or "", pinned=pinned) if from_aggregate else file.read()
        except XmlRefused as refused:
            raise MetadataRefused(refused.detail, code=refused.code, findings=refused.findings) from refused
    metadata = check_metadata(
        content,
        now=now,
        entity_id=settings.entity_id,
        allow_http=allow_http,
        pinned=None if from_aggregate else pinned,  # of an aggregate the whole was verified
    ).find_provider()
    return FetchedMetadata(content, metadata, answer.etag)


def _refuse(code: str, message: str) -> MetadataRefused:
    return MetadataRefused(message, code=code, findings=(Finding(code, Severity.ERROR, message),))
