"""What several values of one partner's settings must be together, for every protocol but SAML.

Owns: those rules, and what a partner and its links must be to each other. Does not own: single values (`schemas.py`),
public keys (`key_texts.py`), URLs that must be https (`checks.py`), what depends on keys, secrets or the mapping's
values (each protocol's own check, see `protocols.py`). Called by `checks.py`. Pure.

Rules over several values are for settings that could be read whole: a default would stand for a value that is there
and wrong. Those within one list hold for whatever could be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from saml_bridge.model.document import (
    AttributeMapping,
    BackchannelSettings,
    EncryptedTokenSettings,
    JwtSettings,
    Link,
    OidcSettings,
    Partner,
    SubjectSettings,
    holds_secret,
)
from saml_bridge.model.findings import check_unique, find_settings, get, list_items, refuse, warn
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.claims import RESERVED_CLAIMS
from saml_bridge.protocols.oidc.discovery import STANDARD_SCOPES

OPENID_SCOPES: Final[Mapping[str, str]] = {
    "openid": "asks for a sign-on by OpenID Connect",
    "offline_access": "asks for refresh tokens, which are not given",
    **{name: f"asks for {', '.join(sorted(claims)[:3])}" for name, claims in STANDARD_SCOPES.items()},
}
"""The scopes of OpenID Connect's own (Core 1.0, 3.1.2.1, 5.4 and 11)."""

OWN_HEADERS: Final = frozenset(
    {
        *("authorization", "host", "content-length", "content-type", "cookie", "connection", "transfer-encoding"),
        *("te", "trailer", "upgrade", "expect", "proxy-authorization", "accept", "accept-encoding"),
    }
)
"""Headers that the call itself sets, or that say how it is carried (RFC 9110, 7.6.1)."""

_RESPONSE_PARAMETERS: Final = ("code", "state", "iss", "error", "error_description", "error_uri")
_INITIATE_PARAMETERS: Final = ("iss", "login_hint", "target_link_uri")
_LOGOUT_PARAMETERS: Final = ("iss", "sid")
_PORTS: Final = {"http": 80, "https": 443}
_SET_SECRET: Final = "Name one, and set its value with 'saml-bridge secrets set'."


def check_partners(biller: Any, where: str) -> Iterator[Finding]:
    """Every rule over the partners of a biller that speak another protocol than SAML; `where` as in `check_parts`."""
    for position, partner in list_items(biller, "partners"):
        place = f"{where}partners[{position}]"
        yield from _check_redirect_uris(find_settings(partner, "oidc"), f"{place}.oidc")
        if isinstance(partner, Partner) and (check := _CHECKS.get(type(partner.settings))):
            yield from check(partner, f"{place}.{partner.protocol}")
            name = get(partner.settings, "key")
            yield from _check_not_for_xml(biller, name, "key", f"{place}.{partner.protocol}.key")
    yield from _check_client_ids(biller, where)
    yield from _check_shared_sectors(biller, where)
    yield from _check_shared_secrets(biller, where)
    yield from _check_token_keys(biller, where)
    yield from _check_relying_parties(biller, where)
    yield from _check_dropped_callbacks(biller, where)


# OpenID Connect


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
        yield from _check_query(uri, _RESPONSE_PARAMETERS, "redirect_uris", f"{where}.redirect_uris[{at}]")
    for name, added in (
        ("initiate_login_uri", _INITIATE_PARAMETERS),
        ("post_logout_redirect_uris", ("state",)),
        ("frontchannel_logout_uri", _LOGOUT_PARAMETERS),
    ):
        found = get(oidc, name)
        for uri in found if isinstance(found, tuple | list) else (found,):
            if uri is not None:
                yield from _check_query(uri, added, name, f"{where}.{name}")


def _check_query(uri: str, added: Iterable[str], name: str, where: str) -> Iterator[Finding]:
    """A parameter that is added to a URL must not stand there already: readers differ in which of two they take."""
    twice = sorted(_list_query(uri).intersection(added))
    if twice:
        message = f"{name}: the query of {uri[:200]!r} has {', '.join(twice)}, which is added to it"
        yield refuse("parameter-twice", message, "Remove it from the URL.", where)


def _list_query(uri: str) -> set[str]:
    return {name for name, _ in parse_qsl(urlsplit(uri).query, keep_blank_values=True)}


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
        yield from _check_presence(oidc, where, why, unwanted=("secret",))
        if (oidc.jwks is None) == (oidc.jwks_uri is None):
            found = "neither" if oidc.jwks is None else "both"
            message = f"jwks: {why} needs the partner's public keys, as jwks or at jwks_uri, and {found} is given"
            yield refuse("config-value", message, "Give exactly one of jwks and jwks_uri.", f"{where}.jwks")
    elif oidc.client_auth == "none":
        yield from _check_presence(oidc, where, why, unwanted=("secret", "jwks", "jwks_uri"))
    else:
        yield from _check_presence(oidc, where, why, needed=("secret",), unwanted=("jwks", "jwks_uri"))


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


# Signed links and encrypted tokens


def _check_jwt(partner: Partner, where: str) -> Iterator[Finding]:
    jwt: Any = partner.settings
    why = f"algorithm {jwt.algorithm}"
    if jwt.algorithm == "HS256":
        yield from _check_presence(jwt, where, why, needed=("secret",), unwanted=("key",))
    else:
        yield from _check_presence(jwt, where, why, unwanted=("secret",))
    yield from _check_carrying(jwt, where, jwt.url)
    yield from _check_callback_claim(jwt, where, RESERVED_CLAIMS)


def _check_encrypted_token(partner: Partner, where: str) -> Iterator[Finding]:
    token: Any = partner.settings
    if token.format == "multipass":
        unwanted = ("encryption_key", "key", "issuer", "audience")
        yield from _check_presence(token, where, "format multipass", needed=("secret",), unwanted=unwanted)
        message = "format: multipass has keys of 128 bits out of one shared secret, and no issuer, audience or end"
        yield warn("multipass-weaker", message, "Use jwe, unless the partner takes nothing else.", f"{where}.format")
    elif token.key_management == "dir":
        yield from _check_presence(
            token, where, "key_management dir", needed=("secret",), unwanted=("encryption_key", "key")
        )
    else:
        why = f"key_management {token.key_management}"
        yield from _check_presence(token, where, why, needed=("encryption_key",), unwanted=("secret",))
    if token.carry == "path" and urlsplit(token.url).query:
        message = f"url: {token.url[:200]!r} has a query, and with carry path the token is appended to it"
        yield refuse("config-value", message, "Remove the query, or carry the token otherwise.", f"{where}.url")
    yield from _check_carrying(token, where, token.url)
    own = RESERVED_CLAIMS if token.format == "jwe" else frozenset({"created_at", "sub"})
    yield from _check_callback_claim(token, where, own)


def _check_carrying(settings: Any, where: str, url: str | None) -> Iterator[Finding]:
    """Every parameter that the browser carries stands once, the ones in the URL included."""
    names = [] if settings.carry in ("path", "redirect") else [("token_parameter", settings.token_parameter)]
    if settings.callback_parameter is not None:
        names.append(("callback_parameter", settings.callback_parameter))
    names += [(f"parameters.{name}", name) for name in get(settings, "parameters") or ()]
    there = dict.fromkeys(_list_query(url or ""), "the query of the URL") if settings.carry != "post" else {}
    for place, name in names:
        if name in there:
            message = f"{place.partition('.')[0]}: the parameter {name!r} stands in {there[name]} already"
            yield refuse("parameter-twice", message, "Choose another name, or remove one.", f"{where}.{place}")
        there.setdefault(name, place.partition(".")[0])


def _check_callback_claim(settings: Any, where: str, own: frozenset[str]) -> Iterator[Finding]:
    claim = settings.callback_claim
    if claim in own:
        message = f"callback_claim: {claim!r} is a claim that says what a token is or is good for"
        yield refuse("config-value", message, "Choose another name.", f"{where}.callback_claim")
    if claim is not None and settings.callback_parameter is not None:
        message = (
            f"callback_parameter: the callback URI is carried twice, protected in the claim {claim!r}"
            f" and unprotected as the parameter {settings.callback_parameter!r}"
        )
        fix = "Set callback_parameter to null, unless the partner reads it."
        yield Finding("callback-twice", Severity.NOTE, message, fix, f"{where}.callback_parameter")


# Back-channel tokens


_AUTH_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "basic": ("username", "secret"),
    "bearer": ("secret",),
    "header": ("secret", "auth_header"),
}


def _check_backchannel(partner: Partner, where: str) -> Iterator[Finding]:
    call: Any = partner.settings
    needed = _AUTH_NEEDS[call.auth]
    unwanted = [name for name in ("username", "secret", "auth_header") if name not in needed]
    yield from _check_presence(call, where, f"auth {call.auth}", needed=needed, unwanted=unwanted)
    if call.auth == "basic" and call.username is not None and ":" in call.username:
        message = "username: has a colon, which would end it (RFC 7617, 2)"
        yield refuse("config-value", message, "Name another account, or another way to sign in.", f"{where}.username")
    yield from _check_answer(partner, call, where)
    yield from _check_headers(call, where)
    yield from _check_carrying(call, where, call.landing_url)
    if call.method == "GET":
        message = "method: a GET carries the payer's values in the address, which servers write to their logs"
        fix = "Use POST, unless the partner takes nothing else."
        if call.body == "json":
            message += "; there is no body, so body: json counts for nothing"
        yield Finding("get-carries-values", Severity.NOTE, message, fix, f"{where}.method")


def _check_answer(partner: Partner, call: BackchannelSettings, where: str) -> Iterator[Finding]:
    """What the answer holds decides how the browser goes on."""
    if (call.token_at is None) == (call.url_at is None):
        found = "neither" if call.token_at is None else "both"
        message = f"token_at: expected the place of a token or of a URL (url_at) in the answer, and {found} is given"
        yield refuse("config-value", message, "Give exactly one of token_at and url_at.", f"{where}.token_at")
    elif call.url_at is not None:
        if call.carry != "redirect":
            message = f"carry: expected redirect, since url_at gives an address to go to, found {call.carry!r}"
            yield refuse("config-value", message, "Set carry to redirect.", f"{where}.carry")
        yield from _check_presence(call, where, "url_at", unwanted=("landing_url", "callback_parameter"))
        if not partner.origins:
            message = "origins: is empty, and the address in the answer must be on one of the partner's origins"
            fix = "Add the origins that the partner's answers lead to, such as https://sso.example.com."
            yield refuse("config-missing", message, fix, f"{where.rpartition('.')[0]}.origins")
    else:
        if call.carry == "redirect":
            message = "carry: expected post or query, since token_at gives a token to carry, found 'redirect'"
            yield refuse("config-value", message, "Set carry to post or query.", f"{where}.carry")
        yield from _check_presence(call, where, "token_at", needed=("landing_url",))


def _check_headers(call: BackchannelSettings, where: str) -> Iterator[Finding]:
    if call.auth_header is not None and call.auth_header.lower() in OWN_HEADERS - {"authorization"}:
        message = f"auth_header: {call.auth_header!r} is set by the call itself"
        yield refuse("header-own", message, "Name another header.", f"{where}.auth_header")
    first: dict[str, str] = {} if call.auth_header is None else {call.auth_header.lower(): "auth_header"}
    for name, value in call.headers.items():
        place = f"{where}.headers.{name}"
        if name.lower() in OWN_HEADERS:
            message = f"headers: {name!r} is set by the call itself"
            fix = "Remove it; auth says how to sign in, and body says the content's type."
            yield refuse("header-own", message, fix, place)
        elif name.lower() in first:
            message = f"headers: {name!r} stands already as {first[name.lower()]!r}"
            yield refuse("config-not-unique", message, "Remove one.", place)
        elif holds_secret(name):
            message = f"headers: {name!r} looks like a credential, and everyone who reads the configuration reads it"
            fix = f"Set auth to header, auth_header to {name}, and the value with 'saml-bridge secrets set'."
            yield warn("header-secret", message, fix, place)
        if not value.isascii():
            message = f"headers: the value of {name!r} has letters outside ASCII, which no header carries safely"
            yield refuse("config-value", message, "Write it in ASCII.", place)
        first.setdefault(name.lower(), name)


# All of them


_CHECKS: Final[Mapping[type, Callable[[Partner, str], Iterator[Finding]]]] = {
    OidcSettings: _check_oidc,
    JwtSettings: _check_jwt,
    EncryptedTokenSettings: _check_encrypted_token,
    BackchannelSettings: _check_backchannel,
}


def _check_presence(
    settings: Any, where: str, why: str, *, needed: Iterable[str] = (), unwanted: Iterable[str] = ()
) -> Iterator[Finding]:
    """Which settings must be there and which must not; `why` is the setting that says so, with its value."""
    for name in needed:
        if getattr(settings, name) is None:
            fix = _SET_SECRET if name == "secret" else f"Add {name}."
            yield refuse("config-missing", f"{name}: is missing; {why} needs it", fix, f"{where}.{name}")
    for name in unwanted:
        if getattr(settings, name) is not None:
            message = f"{name}: is given, and {why} has no use for it"
            yield refuse("config-value", message, f"Remove {name}.", f"{where}.{name}")


def _check_shared_sectors(biller: Any, where: str) -> Iterator[Finding]:
    """Partners of one sector know a payer by the same pairwise subject (OpenID Connect Core 1.0, 8.1)."""
    seen: list[tuple[str, SubjectSettings, str]] = []
    for position, partner in list_items(biller, "partners"):
        subject = get(partner.settings, "subject") if isinstance(partner, Partner) else None
        if subject is None or subject.type != "pairwise" or (sector := _find_sector(partner)) is None:
            continue
        known = next((slug for *made_of, slug in seen if made_of == [sector, subject]), None)
        if known is None:
            seen.append((sector, subject, partner.slug))
        else:
            message = (
                f"subject: {partner.slug} and {known} get the same pairwise sub for a payer, of the sector {sector!r}"
            )
            fix = (
                "Name another sector_identifier at one of them before payers use it, unless they are one partner: "
                "later it changes the sub of all its payers."
            )
            named = get(partner.settings, "sector_identifier") is not None
            place = f"{partner.protocol}.{'sector_identifier' if named else 'subject'}"
            yield warn("sector-shared", message, fix, f"{where}partners[{position}].{place}")


def _find_sector(partner: Partner) -> str | None:
    """What pairwise subjects are made for: as in `oidc/receiver.py`, and one-way tokens for their partner's slug."""
    settings = partner.settings
    if not isinstance(settings, OidcSettings):
        return partner.slug
    hosts = {(parts.hostname or parts.scheme).lower() for parts in map(urlsplit, settings.redirect_uris)}
    return settings.sector_identifier or (next(iter(hosts)) if len(hosts) == 1 else None)


def _check_shared_secrets(biller: Any, where: str) -> Iterator[Finding]:
    """With one secret for two partners, each of them could speak as the other, or as us to the other."""
    first: dict[str, str] = {}
    for position, partner in list_items(biller, "partners"):
        if not isinstance(partner, Partner):
            continue
        name = get(partner.settings, "secret")
        if name in first:
            message = f"secret: {name!r} is also the secret of {first[name]}, so that each could speak for the other"
            place = f"{where}partners[{position}].{partner.protocol}.secret"
            yield warn("secret-shared", message, "Agree on a secret of its own with each partner.", place)
        elif name is not None:
            first[name] = partner.slug


def _check_token_keys(biller: Any, where: str) -> Iterator[Finding]:
    """Keys that sign XML sign nothing else; one key under two names is found where keys are read (`token_keys.py`)."""
    for use in ("current", "next", "previous"):
        name = get(get(get(biller, "tokens"), "keys"), use)
        yield from _check_not_for_xml(biller, name, use, f"{where}tokens.keys.{use}")


def _check_not_for_xml(biller: Any, name: str | None, key: str, where: str) -> Iterator[Finding]:
    names = get(get(biller, "idp"), "keys")
    if name is not None and name in [get(names, use) for use in ("current", "next", "previous")]:
        message = f"{key}: {name!r} signs SAML messages already (idp.keys), and a key has one use"
        yield refuse("key-shared", message, "Make another with 'saml-bridge keys create', and name it.", where)


def _check_dropped_callbacks(biller: Any, where: str) -> Iterator[Finding]:
    """A callback URI that the partner's settings carry nowhere."""
    dropping: dict[str, tuple[str, ...]] = {}
    for _, partner in list_items(biller, "partners"):
        names = _list_callback_carriers(partner.settings) if isinstance(partner, Partner) else ()
        if names and all(get(partner.settings, name) is None for name in names):
            dropping[partner.slug] = names
    for position, link in list_items(biller, "links"):
        if get(link, "callback_uri") is not None and (names := dropping.get(get(link, "partner"), ())):
            message = f"callback_uri is not sent, since the partner's settings have no {' and no '.join(names)}"
            fix = f"Set {' or '.join(names)}, or remove the callback URI."
            yield warn("callback-unused", message, fix, f"{where}links[{position}].callback_uri")


def _list_callback_carriers(settings: Any) -> tuple[str, ...]:
    """The settings that could say where a callback URI stands; none where the protocol always says it."""
    if isinstance(settings, JwtSettings | EncryptedTokenSettings):
        return ("callback_parameter", "callback_claim")
    if isinstance(settings, BackchannelSettings):
        return ("callback_in_body",) if settings.url_at is not None else ("callback_parameter", "callback_in_body")
    return ()
