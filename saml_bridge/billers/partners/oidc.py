"""The configuration of a relying party of OpenID Connect.

Owns: the schema, the rules over several settings, the words of a change. Does not own: public keys
(`keys.partner_keys`), rules that need keys, secrets or values of a mapping (`protocols.oidc.receiver`).
Called through: `index`. Pure.

Rules over several values are for settings that could be read whole: a default would stand for a value that is there
and wrong. Rules within one list hold for every item that could be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args
from urllib.parse import urlsplit

from saml_bridge.billers.file.fields import (
    Choice,
    Flag,
    KeyText,
    Matching,
    ReturnUrl,
    SecretName,
    Slug,
    Text,
    Url,
    WholeNumber,
)
from saml_bridge.billers.file.strict_schema import ListOf, Part, StrictSchema
from saml_bridge.billers.partners.entry import ConfigurationEntry, KnownMetadata
from saml_bridge.billers.partners.identifier import SubjectSchema, compare_subjects
from saml_bridge.billers.partners.public_keys import PublicKeySetting
from saml_bridge.billers.partners.settings_rules import check_presence, check_query
from saml_bridge.billers.wording import (
    compare_items,
    compare_key_texts,
    compare_order,
    compare_values,
    shorten,
    show_value,
)
from saml_bridge.keys.partner_keys import normalize_jwks
from saml_bridge.model.document import AttributeMapping, ClientAuth, Link, OidcSettings, Partner, Scope
from saml_bridge.model.findings import check_unique, find_settings, get, list_items, refuse, warn
from saml_bridge.model.values import Finding
from saml_bridge.protocols.oidc.discovery import STANDARD_SCOPES

OPENID_SCOPES: Final[Mapping[str, str]] = {
    "openid": "asks for a sign-on by OpenID Connect",
    "offline_access": "asks for refresh tokens, which are not given",
    **{name: f"asks for {', '.join(sorted(claims)[:3])}" for name, claims in STANDARD_SCOPES.items()},
}
"""The scopes of OpenID Connect's own (Core 1.0, 3.1.2.1, 5.4 and 11)."""

_RESPONSE_PARAMETERS: Final = ("code", "state", "iss", "error", "error_description", "error_uri")
_INITIATE_PARAMETERS: Final = ("iss", "login_hint", "target_link_uri")
_LOGOUT_PARAMETERS: Final = ("iss", "sid")
_PORTS: Final = {"http": 80, "https": 443}
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}")  # RFC 6749, 3.3
_CLIENT_ID = re.compile(r"[!-~]{1,255}")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_OIDC_LABELS: Final = {
    "client_id": "client ID",
    "client_auth": "client authentication",
    "secret": "client secret's name",
    "jwks_uri": "address of its public keys",
    "initiate_login_uri": "address that starts a sign-on",
    "sector_identifier": "host that pairwise subjects are made for",
    "key": "signing key",
    "id_token_algorithm": "signature algorithm of ID tokens",
    "userinfo_algorithm": "signature algorithm of UserInfo",
    "claims_in_id_token": "release of claims in the ID token",
    "require_nonce": "demand for a nonce",
    "require_pushed_requests": "demand for pushed requests",
    "access_token_seconds": "lifetime of access tokens in seconds",
    "id_token_seconds": "lifetime of ID tokens in seconds",
    "frontchannel_logout_uri": "address of front-channel logout",
    "backchannel_logout_uri": "address of back-channel logout",
    "default_link": "link for sign-ons that the partner starts",
}


class ScopeSchema(StrictSchema):
    makes = Scope

    name = Matching(_SCOPE, "text: a scope, of visible characters without quotes and backslashes", required=True)
    claims = ListOf(Text(), most=100, required=True)


class OidcSchema(StrictSchema):
    makes = OidcSettings

    client_id = Matching(_CLIENT_ID, "text of 1 to 255 visible characters without spaces", required=True)
    redirect_uris = ListOf(ReturnUrl(), most=20, required=True)
    client_auth = Choice(get_args(ClientAuth))
    secret = SecretName(allow_none=True)
    jwks = KeyText(allow_none=True)
    jwks_uri = Url(allow_none=True)
    initiate_login_uri = ReturnUrl(allow_none=True)
    subject = Part(SubjectSchema)
    sector_identifier = Matching(_DOMAIN, "text: a host name such as example.com", allow_none=True)
    key = Slug(allow_none=True)
    id_token_algorithm = Choice(("RS256", "ES256"))
    userinfo_algorithm = Choice(("RS256", "ES256"), allow_none=True)
    claims_in_id_token = Flag()
    scopes = ListOf(Part(ScopeSchema), most=50)
    require_nonce = Flag()
    require_pushed_requests = Flag()
    access_token_seconds = WholeNumber(60, 3600)
    id_token_seconds = WholeNumber(30, 600)
    post_logout_redirect_uris = ListOf(ReturnUrl(), most=20)
    frontchannel_logout_uri = ReturnUrl(allow_none=True)
    backchannel_logout_uri = ReturnUrl(allow_none=True)
    default_link = Slug(allow_none=True)


def _check_oidc(partner: Partner, where: str) -> Iterator[Finding]:
    oidc: Any = partner.settings
    yield from _check_client_auth(oidc, where)
    if not oidc.redirect_uris:
        message = "redirect_uris: is empty; expected the address at the partner that codes are sent to"
        yield refuse("config-missing", message, "Add the partner's redirect URI.", f"{where}.redirect_uris")
    if oidc.userinfo_algorithm not in (None, oidc.id_token_algorithm):
        message = f"userinfo_algorithm: expected null or {oidc.id_token_algorithm}, which the one key signs with"
        fix = "Set it to the algorithm of ID tokens, or to null."
        yield refuse("config-value", message, fix, f"{where}.userinfo_algorithm")
    yield from _check_sector(oidc, where)
    yield from _check_frontchannel(oidc, where)
    yield from _check_scopes(oidc, where)


def _check_client_auth(oidc: OidcSettings, where: str) -> Iterator[Finding]:
    """OpenID Connect Core 1.0, 9."""
    why = f"client_auth {oidc.client_auth}"
    if oidc.client_auth == "private_key_jwt":
        yield from check_presence(oidc, where, why, unwanted=("secret",))
        if (oidc.jwks is None) == (oidc.jwks_uri is None):
            found = "neither" if oidc.jwks is None else "both"
            message = f"jwks: {why} needs the partner's public keys, as jwks or at jwks_uri, and {found} is given"
            yield refuse("config-value", message, "Give exactly one of jwks and jwks_uri.", f"{where}.jwks")
    elif oidc.client_auth == "none":
        yield from check_presence(oidc, where, why, unwanted=("secret", "jwks", "jwks_uri"))
    else:
        yield from check_presence(oidc, where, why, needed=("secret",), unwanted=("jwks", "jwks_uri"))


def _check_sector(oidc: OidcSettings, where: str) -> Iterator[Finding]:
    """OpenID Connect Core 1.0, 8.1."""
    hosts = sorted({urlsplit(uri).hostname or "" for uri in oidc.redirect_uris})
    if oidc.subject.type == "pairwise" and len(hosts) > 1 and oidc.sector_identifier is None:
        message = f"sector_identifier: is missing; the redirect URIs are on several hosts ({', '.join(hosts)[:200]})"
        fix = "Name the host that pairwise subjects are made for; it must never change."
        yield refuse("config-missing", message, fix, f"{where}.sector_identifier")
    if oidc.subject.type == "public" and oidc.sector_identifier is not None:
        message = "sector_identifier: is given, and a public subject does not depend on it"
        yield warn("config-unused", message, "Remove sector_identifier.", f"{where}.sector_identifier")


def _check_frontchannel(oidc: OidcSettings, where: str) -> Iterator[Finding]:
    """OpenID Connect Front-Channel Logout 1.0, 2."""
    uri = oidc.frontchannel_logout_uri
    if uri is not None and oidc.redirect_uris and _find_origin(uri) not in map(_find_origin, oidc.redirect_uris):
        message = f"frontchannel_logout_uri: {uri[:200]!r} has another scheme, host or port than each redirect URI"
        fix = "Name an address of the same origin as a redirect URI, or use backchannel_logout_uri."
        yield refuse("config-value", message, fix, f"{where}.frontchannel_logout_uri")


def _find_origin(uri: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(uri)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _check_scopes(oidc: OidcSettings, where: str) -> Iterator[Finding]:
    scopes = list(enumerate(oidc.scopes))
    yield from check_unique(scopes, "name", where=f"{where}.scopes")
    for position, scope in scopes:
        if scope.name in OPENID_SCOPES:
            message = f"name: {scope.name!r} is a scope of OpenID Connect's own, which {OPENID_SCOPES[scope.name]}"
            fix = "Choose another name, or leave the scope out."
            yield refuse("config-value", message, fix, f"{where}.scopes[{position}].name")


def check_biller(biller: Any, where: str) -> Iterator[Finding]:
    """The rules over a biller's relying parties and their links.

    They hold as far as the parts could be read.
    """
    for position, partner in list_items(biller, "partners"):
        yield from _check_redirect_uris(find_settings(partner, "oidc"), f"{where}partners[{position}].oidc")
    yield from _check_client_ids(biller, where)
    yield from _check_relying_parties(biller, where)


def _check_redirect_uris(oidc: Any, where: str) -> Iterator[Finding]:
    """Redirect URIs are compared to the letter (OpenID Connect Core 1.0, 3.1.2.1), so each stands for one address."""
    for name in ("redirect_uris", "post_logout_redirect_uris"):
        seen: set[str] = set()
        for at, uri in list_items(oidc, name):
            if uri in seen:
                message = f"{name}: {uri[:200]!r} is there twice"
                yield refuse("config-not-unique", message, "Remove one.", f"{where}.{name}[{at}]")
            if "*" in uri:
                message = f"{name}: {uri[:200]!r} has a *, and addresses are compared to the letter"
                yield refuse("config-value", message, "Name each address in full.", f"{where}.{name}[{at}]")
            seen.add(uri)
    for at, uri in list_items(oidc, "redirect_uris"):
        yield from check_query(uri, _RESPONSE_PARAMETERS, "redirect_uris", f"{where}.redirect_uris[{at}]")
    for name, added in (
        ("initiate_login_uri", _INITIATE_PARAMETERS),
        ("post_logout_redirect_uris", ("state",)),
        ("frontchannel_logout_uri", _LOGOUT_PARAMETERS),
    ):
        found = get(oidc, name)
        for uri in found if isinstance(found, tuple | list) else (found,):
            if uri is not None:
                yield from check_query(uri, added, name, f"{where}.{name}")


def _check_client_ids(biller: Any, where: str) -> Iterator[Finding]:
    clients = ((position, find_settings(partner, "oidc")) for position, partner in list_items(biller, "partners"))
    for finding in check_unique(clients, "client_id", where=f"{where}partners"):
        place = finding.where.replace("].client_id", "].oidc.client_id")
        fix = "Choose another; it is the partner's name with this biller."
        yield refuse("partner-not-unique", finding.message, fix, place)


def _check_relying_parties(biller: Any, where: str) -> Iterator[Finding]:
    """What relying parties and their links must be to each other."""
    for position, partner in list_items(biller, "partners"):
        oidc = find_settings(partner, "oidc")
        if not isinstance(oidc, OidcSettings):
            continue
        place = f"{where}partners[{position}].oidc"
        links = _list_links(biller, get(partner, "slug"))
        enabled = [link.slug for link in links if link.enabled]
        if enabled and oidc.initiate_login_uri is None:
            message = f"initiate_login_uri: is missing, so the link {enabled[0]!r} serves only what the partner starts"
            fix = "Name the address at the partner that starts a sign-on, such as its login page; or leave it so."
            yield warn("initiate-login-missing", message, fix, f"{place}.initiate_login_uri")
        if len(enabled) > 1 and oidc.default_link is None:
            message = f"default_link: is missing, and sign-ons that the partner starts could use {', '.join(enabled)}"
            fix = "Name one of them; until then such sign-ons are refused."
            yield warn("default-link-missing", message, fix, f"{place}.default_link")
        yield from _check_scopes_made(biller, oidc, links, place)


def _list_links(biller: Any, partner: Any) -> list[Link]:
    """The links to a partner that could be read whole."""
    return [link for _, link in list_items(biller, "links") if isinstance(link, Link) and link.partner == partner]


def _check_scopes_made(biller: Any, oidc: OidcSettings, links: list[Link], where: str) -> Iterator[Finding]:
    """A claim of a scope that no mapping makes is a misspelt one."""
    used = {link.mapping for link in links}
    mappings = [one for _, one in list_items(biller, "mappings") if get(one, "slug") in used]
    if not mappings or not all(isinstance(one, AttributeMapping) for one in mappings):
        return
    names = {rule.attribute for one in mappings for rule in one.rules}
    made = names | {name.partition(".")[0] for name in names}
    for position, scope in enumerate(oidc.scopes):
        for at, claim in enumerate(scope.claims):
            if claim not in made:
                message = f"claims: {claim!r} is made by no mapping of this partner's links"
                place = f"{where}.scopes[{position}].claims[{at}]"
                yield warn("scope-claim-unmade", message, "Correct it, or add a rule for it.", place)


def _find_sector(partner: Partner) -> str | None:
    """The sector of a relying party, as in `protocols.oidc.receiver` (OpenID Connect Core 1.0, 8.1)."""
    settings: Any = partner.settings
    hosts = {(parts.hostname or parts.scheme).lower() for parts in map(urlsplit, settings.redirect_uris)}
    return settings.sector_identifier or (next(iter(hosts)) if len(hosts) == 1 else None)


def _describe(partner: Partner, _: KnownMetadata) -> str:
    settings: Any = partner.settings
    uris = settings.redirect_uris
    shown = ", ".join(map(show_value, uris))
    return f"signs on by OpenID Connect, redirect URI{'s' if len(uris) > 1 else ''} {shown}"


def _compare(old_partner: Partner, new_partner: Partner, _: KnownMetadata) -> Iterator[str]:
    old: Any = old_partner.settings
    new: Any = new_partner.settings
    yield from compare_values(old, new, _OIDC_LABELS)
    yield from compare_items("redirect URI", old.redirect_uris, new.redirect_uris)
    yield from compare_items(
        "redirect URI after sign-out", old.post_logout_redirect_uris, new.post_logout_redirect_uris
    )
    yield from compare_key_texts("public keys", old.jwks, new.jwks)
    yield from compare_subjects(old.subject, new.subject)
    yield from _compare_scopes(old.scopes, new.scopes)


def _compare_scopes(old: Sequence[Scope], new: Sequence[Scope]) -> Iterator[str]:
    before, after = ({one.name: one.claims for one in scopes} for scopes in (old, new))
    yield from (f"scope {name} removed" for name in before if name not in after)
    for name, claims in after.items():
        if name not in before:
            yield f"scope {name} added: {_name_claims(claims)}"
        elif before[name] != claims:
            yield f"scope {name} gives {_name_claims(claims)} instead of {_name_claims(before[name])}"
    yield from compare_order("scopes", list(before), list(after))


def _name_claims(claims: Sequence[str]) -> str:
    return shorten(", ".join(claims)) or "no claims"


ENTRY: Final = ConfigurationEntry(
    protocol="oidc",
    settings=OidcSettings,
    schema=OidcSchema,
    describe=_describe,
    compare=_compare,
    check=_check_oidc,
    check_biller=check_biller,
    urls=(
        "jwks_uri",
        "initiate_login_uri",
        "frontchannel_logout_uri",
        "backchannel_logout_uri",
        "redirect_uris",
        "post_logout_redirect_uris",
    ),
    called_urls=("jwks_uri", "backchannel_logout_uri"),
    public_keys=PublicKeySetting(
        "jwks",
        normalize_jwks,
        "Ask the partner for its public keys as a JSON Web Key Set, or name its address as jwks_uri.",
    ),
    find_sector=_find_sector,
)
