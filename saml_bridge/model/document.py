"""The configuration document of one biller, as frozen dataclasses. Standard library only.

Owns: the shape that `billers.file` loads into and that `mapping`, `protocols` and `flows` read.
Does not own: validation, defaults in files, storage. Called by: every layer above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Protocol = Literal["saml", "oidc", "jwt", "encrypted_token", "backchannel_token"]
ValueType = Literal["text", "integer", "number", "boolean"]
SubjectType = Literal["pairwise", "public"]
ClientAuth = Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"]
TokenAlgorithm = Literal["RS256", "ES256", "EdDSA"]
LinkAlgorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]
TokenFormat = Literal["jwe", "multipass"]
KeyManagement = Literal["RSA-OAEP-256", "dir"]
Carry = Literal["post", "query"]
NameIdFormat = Literal["persistent", "email", "transient", "unspecified"]
SignWhat = Literal["both", "assertion", "response"]
SignatureAlgorithm = Literal["rsa-sha256", "rsa-sha384", "rsa-sha512", "ecdsa-sha256", "ecdsa-sha384", "ecdsa-sha512"]
EncryptWhen = Literal["never", "when_offered", "always"]
EncryptionAlgorithm = Literal["aes128-gcm", "aes256-gcm", "aes128-cbc", "aes256-cbc"]
Wish = Literal["honour", "ignore"]
NameFormat = Literal["basic", "uri", "unspecified"]
CarriageReturn = Literal["fold", "refuse"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of a session, or a combination of tests.

    Exactly one is given: a test of a field (`field` with `in_`, `equals` or `exists`), `all`, `any`, or `not_`.
    """

    field: str | None = None
    in_: tuple[str, ...] | None = None
    equals: str | None = None
    exists: bool | None = None
    all: tuple[Condition, ...] | None = None
    any: tuple[Condition, ...] | None = None
    not_: Condition | None = None


@dataclass(frozen=True, slots=True)
class TransformCall:
    """A transform by name with its parameters, as written: `pad_left: {width: 10}`."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """Makes one attribute from exactly one of `from_`, `template` and `constant`.

    `value_type` and `as_list` are for protocols that carry JSON: what type a value has there, and whether it stands in
    an array even when it is one. SAML carries text. `carriage_return` says what becomes of one in a value: a space, or
    a refusal.
    """

    attribute: str
    from_: str | None = None
    template: str | None = None
    constant: str | None = None
    each: str | None = None
    transforms: tuple[TransformCall, ...] = ()
    required: bool = False
    when: Condition | None = None
    name_format: NameFormat = "unspecified"
    friendly_name: str | None = None
    value_type: ValueType = "text"
    as_list: bool = False
    carriage_return: CarriageReturn = "fold"


@dataclass(frozen=True, slots=True)
class AttributeMapping:
    """An ordered set of rules."""

    slug: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class NameIdSettings:
    """The payer's identifier for a service provider.

    It is made from exactly one of `from_` and `template`.
    """

    format: NameIdFormat = "persistent"
    from_: str | None = "payer.id"
    template: str | None = None
    transforms: tuple[TransformCall, ...] = ()


@dataclass(frozen=True, slots=True)
class SamlSettings:
    """The settings of SAML 2.0 with one service provider.

    `metadata` is always `sha256:` and 64 hexadecimal digits here. `metadata_url` or `mdq_url` (a base URL, with
    `entity_id`) is where newer metadata is fetched from, `metadata_signer` the one certificate (base64 of its DER) that
    must have signed it there. `entity_id` picks one entity of an aggregate. `acs` is an index, a location or None
    (chosen from the metadata). `relay_state` is `callback_uri`, `none` or `identifier:TEXT`. `encryption_algorithm`
    None is the best of those that the partner's metadata lists.

    `expired_metadata` decides a launch after the metadata's validUntil: None warns for metadata registered as a file
    and refuses for fetched. `default_link` serves sign-ons that the partner starts. `name_id_policy` and
    `requested_authn_context` decide if a request's wishes of these names count. `signing_key` picks one of the biller's
    keys to sign for this partner. `our_entity_id` is the name that this partner insists on for the biller.
    """

    metadata: str = ""
    metadata_url: str | None = None
    mdq_url: str | None = None
    metadata_signer: str | None = None
    entity_id: str | None = None
    our_entity_id: str | None = None
    acs: int | str | None = None
    name_id: NameIdSettings = NameIdSettings()
    sign: SignWhat = "both"
    signature_algorithm: SignatureAlgorithm = "rsa-sha256"
    encrypt: EncryptWhen = "when_offered"
    encryption_algorithm: EncryptionAlgorithm | None = None
    relay_state: str = "callback_uri"
    lifetime_seconds: int = 300
    skew_seconds: int = 60
    expired_metadata: Literal["warn", "refuse"] | None = None
    default_link: str | None = None
    require_signed_requests: bool = False
    name_id_policy: Wish = "honour"
    requested_authn_context: Wish = "honour"
    allow_unsigned_logout: bool = False
    signing_key: Literal["current", "next"] = "current"

    @property
    def refuses_expired(self) -> bool:
        """Tells if a launch is refused once the metadata's validUntil has passed."""
        return self.expired_metadata == "refuse" or (self.expired_metadata is None and self.is_fetched)

    @property
    def is_fetched(self) -> bool:
        """Tells if newer metadata is fetched from an address."""
        return bool(self.metadata_url or self.mdq_url)


@dataclass(frozen=True, slots=True)
class SubjectSettings:
    """The payer's identifier for a partner, as text or hashed.

    `pairwise` is a keyed hash of the text for this partner. The text is made from exactly one of `from_` and
    `template`.
    """

    type: SubjectType = "pairwise"
    from_: str | None = "payer.id"
    template: str | None = None
    transforms: tuple[TransformCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """Top-level claims that are released only when the scope is asked for."""

    name: str
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """The settings of OpenID Connect 1.0 with one relying party.

    `secret` names a secret of this partner's that is kept sealed (`storage.partner_secrets`), `jwks` are the partner's
    public keys as JSON text, `jwks_uri` is where they are fetched from (`private_key_jwt` needs one of the two).
    `sector_identifier` is the host that pairwise subjects are made for where the redirect URIs have several; `key` is a
    name in the key ring, None for the biller's `tokens.keys.current`. Claims that no scope of `scopes` and none of
    OpenID Connect's own names are released with `openid`. `default_link` serves sign-ons that the partner starts.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    client_auth: ClientAuth = "client_secret_basic"
    secret: str | None = None
    jwks: str | None = None
    jwks_uri: str | None = None
    initiate_login_uri: str | None = None
    subject: SubjectSettings = SubjectSettings()
    sector_identifier: str | None = None
    key: str | None = None
    id_token_algorithm: Literal["RS256", "ES256"] = "RS256"
    userinfo_algorithm: Literal["RS256", "ES256"] | None = None
    claims_in_id_token: bool = False
    scopes: tuple[Scope, ...] = ()
    require_nonce: bool = False
    require_pushed_requests: bool = False
    access_token_seconds: int = 600
    id_token_seconds: int = 300
    post_logout_redirect_uris: tuple[str, ...] = ()
    frontchannel_logout_uri: str | None = None
    backchannel_logout_uri: str | None = None
    default_link: str | None = None


@dataclass(frozen=True, slots=True)
class SignedLinkSettings:
    """A signed link: a JWT that the browser carries to `url`.

    It goes in a form that posts itself or in the query. `secret` (HS256) names a secret of this partner's, `key` a key
    of the ring; without `key`, `tokens.keys.current` signs. Without `issuer`, the biller's issuer of such tokens stands
    in it. An unset parameter or claim is left out; `parameters` are further parameters with fixed values. `subject` is
    left unset where the partner wants no `sub`.
    """

    url: str
    algorithm: LinkAlgorithm = "RS256"
    secret: str | None = None
    key: str | None = None
    carry: Carry = "post"
    token_parameter: str = "jwt"
    callback_parameter: str | None = "return_to"
    callback_claim: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    issuer: str | None = None
    audience: str | None = None
    subject: SubjectSettings | None = SubjectSettings()
    lifetime_seconds: int = 120


@dataclass(frozen=True, slots=True)
class EncryptedTokenSettings:
    """An encrypted token that the browser carries to `url`.

    `jwe` is the better choice: with `dir` under the shared secret (32 bytes in base64url), or with `RSA-OAEP-256` under
    the partner's public key (`encryption_key`: a JWK or a PEM, as text), then signed by us inside. `multipass` is
    AES-128-CBC and HMAC-SHA256 under keys made of the shared secret. `carry: path` appends the token to `url`.
    """

    url: str
    format: TokenFormat = "jwe"
    key_management: KeyManagement = "RSA-OAEP-256"
    encryption_key: str | None = None
    secret: str | None = None
    key: str | None = None
    algorithm: TokenAlgorithm = "RS256"
    carry: Literal["post", "query", "path"] = "post"
    token_parameter: str = "token"
    callback_parameter: str | None = None
    callback_claim: str | None = "return_to"
    parameters: Mapping[str, str] = field(default_factory=dict)
    issuer: str | None = None
    audience: str | None = None
    subject: SubjectSettings | None = SubjectSettings()
    lifetime_seconds: int = 120


@dataclass(frozen=True, slots=True)
class BackchannelSettings:
    """A token or URL of the partner's server, which the browser then carries.

    `auth` says how we sign in there, with `username` and the secret that `secret` names; `header` puts the secret into
    the header `auth_header`. `body` is made of the mapping, `token_at` and `url_at` say where in the JSON answer the
    token or the URL stands, as a JSON Pointer (RFC 6901). With a URL the browser is redirected (`carry: redirect`);
    with a token it goes to `landing_url`. `methods` without a body put the mapping into the query.
    """

    url: str
    method: Literal["POST", "PUT", "GET"] = "POST"
    body: Literal["json", "form"] = "json"
    headers: Mapping[str, str] = field(default_factory=dict)
    auth: Literal["none", "basic", "bearer", "header"] = "basic"
    auth_header: str | None = None
    username: str | None = None
    secret: str | None = None
    token_at: str | None = None
    url_at: str | None = None
    carry: Literal["redirect", "post", "query"] = "post"
    landing_url: str | None = None
    token_parameter: str = "token"
    callback_parameter: str | None = None
    callback_in_body: str | None = None
    total_seconds: int = 5


_SECRET_WORDS: Final = re.compile(
    r"token|secret|passw|credential|authori[sz]ation|(?:^|[^a-z]|api|access)key", re.IGNORECASE
)


def holds_secret(name: str) -> bool:
    """Tells if a header or parameter of this name usually has a secret value."""
    return _SECRET_WORDS.search(name) is not None


ProtocolSettings = SamlSettings | OidcSettings | SignedLinkSettings | EncryptedTokenSettings | BackchannelSettings


@dataclass(frozen=True, slots=True)
class Partner:
    """The external portal.

    `settings` are those of its protocol, and stand under its name in a file. `origins` are further origins that its
    sign-on may redirect the browser to.
    """

    slug: str
    name: str
    protocol: Protocol
    settings: ProtocolSettings
    origins: tuple[str, ...] = ()

    @property
    def speaks_saml(self) -> bool:
        """Tells if `saml` can be asked for."""
        return isinstance(self.settings, SamlSettings)

    @property
    def saml(self) -> SamlSettings:
        """The settings of a partner that speaks SAML.

        Raises TypeError for another partner, which is the caller's mistake.
        """
        if not isinstance(self.settings, SamlSettings):
            raise TypeError(f"{self.slug} speaks {self.protocol}, not SAML")
        return self.settings


@dataclass(frozen=True, slots=True)
class Link:
    """The link that the payer clicks.

    `labels` are the label in further languages, by language tag. `callback_uri` may be a template with fields of the
    session (`mapping.callback_uri`).
    """

    slug: str
    label: str
    partner: str
    mapping: str
    labels: Mapping[str, str] = field(default_factory=dict)
    callback_uri: str | None = None
    callback_allow: tuple[str, ...] = ()
    icon: str | None = None
    opens: Literal["same_tab", "new_tab"] = "new_tab"
    visible_when: Condition | None = None
    allow_impersonation: bool = False
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Portal:
    """`return_parameter` is the query parameter of `sign_in_url` that takes the address to come back to.

    `logout_callback` is told, server to server, when a partner has ended a payer's session. `origins` are those of the
    portal's pages: they may read a payer's links, post launches and be returned to.
    """

    sign_in_url: str
    home_url: str
    return_parameter: str = "next"
    logout_callback: str | None = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyNames:
    """Names in the key ring.

    `next` is published before it signs, `previous` still is after it signed last.
    """

    current: str = "default"
    next: str | None = None
    previous: str | None = None

    @property
    def published(self) -> tuple[str, ...]:
        """The names of all keys that our metadata holds, each once.

        The one that signs stands first.
        """
        return tuple(dict.fromkeys(name for name in (self.current, self.next, self.previous) if name is not None))


@dataclass(frozen=True, slots=True)
class IdpLogo:
    """A picture of the biller in our metadata.

    It has an https URL, and a width and height in pixels.
    """

    url: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class IdpContact:
    """Whom partners may write to about this biller's sign-on."""

    type: Literal["technical", "support", "administrative", "billing", "other"]
    email: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Idp:
    entity_id: str | None = None
    keys: KeyNames = KeyNames()
    logo: IdpLogo | None = None
    contacts: tuple[IdpContact, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenKeys(KeyNames):
    """The keys that sign tokens."""

    current: str = "tokens"


@dataclass(frozen=True, slots=True)
class Tokens:
    """The keys of this biller for ID tokens and signed links, which are no XML.

    They are other keys than the `idp`'s.
    """

    keys: TokenKeys = TokenKeys()


@dataclass(frozen=True, slots=True)
class Biller:
    """One biller's whole configuration; slugs are unique within each of its lists."""

    slug: str
    name: str
    portal: Portal
    idp: Idp = Idp()
    tokens: Tokens = Tokens()
    partners: tuple[Partner, ...] = ()
    mappings: tuple[AttributeMapping, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def saml_partners(self) -> tuple[Partner, ...]:
        """Those partners that speak SAML."""
        return tuple(partner for partner in self.partners if partner.speaks_saml)

    def find_link(self, slug: str) -> Link | None:
        return next((link for link in self.links if link.slug == slug), None)

    def find_partner(self, slug: str) -> Partner | None:
        return next((partner for partner in self.partners if partner.slug == slug), None)

    def find_mapping(self, slug: str) -> AttributeMapping | None:
        return next((mapping for mapping in self.mappings if mapping.slug == slug), None)
