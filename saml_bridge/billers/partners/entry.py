"""The entry of one protocol in the configuration of billers.

Owns: the parts that a protocol gives for the settings of its partners in a file. Does not own: any protocol (one file
each, with an `ENTRY`), sign-ons (`protocols`). Called by: `index`, and each protocol of this room.

Settings of these names mean the same in every protocol: `key` names a key of the ring, `secret` a partner's secret,
`default_link` the link for a sign-on that the partner starts, `subject` the payer's identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from saml_bridge.billers.file.strict_schema import StrictSchema
from saml_bridge.billers.partners.public_keys import PublicKeySetting
from saml_bridge.model.document import Partner, Protocol
from saml_bridge.model.values import Finding

FindAcs = Callable[[Partner], str | None]
"""The location that responses to a partner go to, or None when it cannot be told."""

DescribeMetadata = Callable[[Partner, Partner], Sequence[str]]
"""The differences between the metadata of a partner before and after, a sentence each."""


@dataclass(frozen=True, slots=True)
class KnownMetadata:
    """The knowledge of partners' metadata that a comparison has, where documents hold hashes alone."""

    find_acs: FindAcs
    describe: DescribeMetadata


def _find_nothing(_: Any, _where: str) -> Iterator[Finding]:
    yield from ()


def _list_no_carriers(_: Any) -> tuple[str, ...]:
    return ()


def _find_own_sector(partner: Partner) -> str | None:
    return partner.slug


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationEntry:
    """The configuration of partners that speak one protocol.

    `schema` loads the settings. `describe` says in words how payers sign on; `compare` gives a sentence for each change
    between two partners of this protocol.

    `check` judges a partner whose settings could be read whole (partner, place of the settings). `check_biller` judges
    all partners of a biller together, as far as they could be read (biller, its path with a dot at the end, or empty).

    `urls` are the settings that hold a URL, or a list of URLs, which must be https. `called_urls` are those that our
    server calls. `issuer` is the setting that names the biller to the partner, `public_keys` the one with
    the partner's public keys. `find_sector` gives the sector that
    pairwise subjects are made for, None where it cannot be told. `list_callback_carriers` gives the settings that
    could say where a callback URI stands, empty where the protocol always says it.
    """

    protocol: Protocol
    settings: type
    schema: type[StrictSchema]
    describe: Callable[[Partner, KnownMetadata], str]
    compare: Callable[[Partner, Partner, KnownMetadata], Iterator[str]]
    check: Callable[[Partner, str], Iterator[Finding]] = _find_nothing
    check_biller: Callable[[Any, str], Iterator[Finding]] = _find_nothing
    urls: tuple[str, ...] = ()
    called_urls: tuple[str, ...] = ()
    issuer: str | None = None
    public_keys: PublicKeySetting | None = None
    find_sector: Callable[[Partner], str | None] = _find_own_sector
    list_callback_carriers: Callable[[Any], tuple[str, ...]] = _list_no_carriers
