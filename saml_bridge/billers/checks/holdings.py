"""The names and the keys that each biller of an installation has for itself alone.

Owns: the one check of every setting that names an issuer, in all protocols, and of every key's one use, over all
billers together. Does not own: rules of one document (`document`, `partners`), and whether keys can be used
(`publication`, `keys`). Called by: `billers.registry`, before a publication and for `saml-bridge doctor`.

Billers share a key ring, so a name that two of them went by would let one speak as the other. A key that signs XML for
one and tokens for another would let a message of one use be passed off as the other. Names are compared to the letter,
as those who read them do. Only addresses of this service are understood however they are written.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from saml_bridge.billers.partners.index import ENTRIES
from saml_bridge.keys.signing_key import PublishedKey
from saml_bridge.model.document import KeyNames, TokenKeys
from saml_bridge.model.errors import KeyRefused
from saml_bridge.model.findings import find_settings, get, list_items
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.interface import find_one_way_issuer, find_token_issuer

Use = Literal["XML", "tokens"]

_SIGNS: Final = {"XML": "SAML messages (idp.keys)", "tokens": "tokens"}
_ROLES: Final = ("current", "next", "previous")
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Name:
    """A name that a biller goes by.

    It has the setting's key, its value, and its place in the document.
    """

    key: str
    value: str
    where: str


@dataclass(frozen=True, slots=True)
class UsedKey:
    """A key of the ring, by its name, with its use.

    `where` is the place in the document that names it.
    """

    name: str
    use: Use
    where: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """The names and keys of one biller (a slug). `issuer` is its entity ID."""

    slug: str
    issuer: str
    names: tuple[Name, ...]
    keys: tuple[UsedKey, ...]


def find_default_issuer(slug: str, base_url: str) -> str:
    """The entity ID of a biller that names none: the address of its metadata."""
    return f"{base_url}/saml/{slug}/metadata"


def list_holdings(biller: Any, base_url: str) -> Holdings:
    """The names and keys of a biller.

    `biller` is its document, or the same as it is stored, without having been read as a whole.
    """
    slug = get(biller, "slug")
    issuer = get(get(biller, "idp"), "entity_id") or find_default_issuer(slug, base_url)
    names = (Name("entity_id", issuer, "idp.entity_id"), *_list_names(biller, issuer))
    return Holdings(slug, issuer, names, tuple(_list_keys(biller)))


def _list_names(biller: Any, issuer: str) -> Iterator[Name]:
    for position, partner in list_items(biller, "partners"):
        for protocol, entry in ENTRIES.items():
            named = get(find_settings(partner, protocol), entry.issuer) if entry.issuer else None
            if entry.issuer is None or named is None or (entry.issuer == "our_entity_id" and named == issuer):
                continue
            yield Name(entry.issuer, named, f"partners[{position}].{protocol}.{entry.issuer}")


def _list_keys(biller: Any) -> Iterator[UsedKey]:
    uses: tuple[tuple[Use, str, str], ...] = (
        ("XML", "idp", KeyNames().current),
        ("tokens", "tokens", TokenKeys().current),
    )
    for use, part, default in uses:
        keys = get(get(biller, part), "keys")
        for role in _ROLES:
            name = get(keys, role) or (default if role == "current" else None)
            if name is not None:
                yield UsedKey(name, use, f"{part}.keys.{role}")
    for position, partner in list_items(biller, "partners"):
        for protocol in ENTRIES:
            name = get(find_settings(partner, protocol), "key")
            if name is not None:
                yield UsedKey(name, "tokens", f"partners[{position}].{protocol}.key")


class Installation:
    """The holdings of all billers, each to be checked against the others."""

    def __init__(
        self, holdings: Iterable[Holdings], *, base_url: str, find_published: Callable[[str], PublishedKey]
    ) -> None:
        self._base_url = base_url
        self._find_published = find_published
        self._identities: dict[str, str] = {}
        self._names: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._keys: defaultdict[tuple[Use, str], set[tuple[str, str]]] = defaultdict(set)
        for one in holdings:
            for name in one.names:
                self._names[name.value].add((one.slug, name.key))
            for key in one.keys:
                self._keys[key.use, self._identify(key.name)].add((one.slug, key.name))

    def check(self, one: Holdings) -> Iterator[Finding]:
        """A finding for each name and key that is another biller's, or has two uses."""
        for name in one.names:
            yield from self._check_address(one.slug, name)
            yield from self._check_taken(one.slug, name)
        for key in one.keys:
            yield from self._check_use(one.slug, key)

    def _check_address(self, slug: str, name: Name) -> Iterator[Finding]:
        """An address of a biller is that biller's, whether it is there already or not."""
        room, owner = self._find_owner(name.value) or ("", slug)
        if owner != slug:
            what, code = "is an address of another biller of this service", "issuer-foreign"
        elif room == "oidc" and _spell(name.value) == _spell(find_token_issuer(self._base_url, slug)):
            what, code = "is the issuer of this biller's ID tokens, and of nothing else", "issuer-of-id-tokens"
        elif room == "saml" and not self._is_own_entity(slug, name):
            what, code = "is an address of this service that stands for something else", "issuer-foreign"
        else:
            return
        if name.key == "issuer":
            fix = f"Leave issuer out; it is then {find_one_way_issuer(self._base_url, slug)}."
        else:
            then = "it is" if name.key == "entity_id" else "the entity ID is"
            fix = f"Leave {name.key} out; {then} then {find_default_issuer(slug, self._base_url)}."
        yield Finding(code, Severity.ERROR, f"{name.key}: {name.value!r} {what}", fix, name.where)

    def _find_owner(self, value: str) -> tuple[str, str] | None:
        """Below which of our rooms a name lies, and the slug there; None for a name that is no address of ours."""
        spelled = _spell(value)
        for room in ("oidc", "saml"):
            start = _spell(f"{self._base_url}/{room}") + "/"
            if spelled.startswith(start):
                return room, spelled.removeprefix(start).partition("/")[0]
        return None

    def _is_own_entity(self, slug: str, name: Name) -> bool:
        own = find_default_issuer(slug, self._base_url)
        return name.value == own or (name.key != "entity_id" and name.value.startswith(f"{own}/"))

    def _check_taken(self, slug: str, name: Name) -> Iterator[Finding]:
        """No two billers go by one name. Only two partners may insist on the same one for two billers."""
        others = {key for other, key in self._names[name.value] if other != slug}
        if not others or (name.key == "our_entity_id" and others == {"our_entity_id"}):
            return
        message = f"{name.key}: {name.value!r} is another biller's"
        fix = f"Leave {name.key} out, or choose one that no other biller has."
        yield Finding("issuer-taken", Severity.ERROR, message, fix, name.where)

    def _check_use(self, slug: str, key: UsedKey) -> Iterator[Finding]:
        """One key under one name in one document is found with that document alone; here are all other ways."""
        other_use: Use = "tokens" if key.use == "XML" else "XML"
        shared = sorted(self._keys.get((other_use, self._identify(key.name)), ()))
        twins = [name for owner, name in shared if owner == slug and name != key.name] if key.use == "tokens" else []
        others = [name for owner, name in shared if owner != slug]
        if not twins and not others:
            return
        twin = (twins or others)[0]
        same = f"{key.name!r} is the key {twin!r} by another name, which" if twin != key.name else f"{key.name!r}"
        message = f"key: {same} signs {_SIGNS[other_use]}{'' if twins else ' of another biller'}"
        what = "tokens" if key.use == "tokens" else "XML"
        fix = f"Make another key for {what} with 'saml-bridge keys create', and name it here."
        yield Finding("key-shared", Severity.ERROR, message, fix, key.where)

    def _identify(self, name: str) -> str:
        """What is the same for one key under all its names: its public part, or its name where that cannot be read."""
        if name not in self._identities:
            try:
                public = self._find_published(name).public_key
                self._identities[name] = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
            except KeyRefused:
                self._identities[name] = name
        return self._identities[name]


def _spell(address: str) -> str:
    """An address as one that is written otherwise and leads to the same place: only for addresses of this service."""
    try:
        parts = urlsplit(unquote(address).strip().replace("\\", "/"))  # browsers read a backslash so
        port = "" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}"
    except ValueError:
        return address
    path = posixpath.normpath("/" + parts.path.lstrip("/"))
    host = (parts.hostname or "").removesuffix(".")  # the same name, from the root of all names
    return f"{parts.scheme}://{host}{port}{path}".lower()
