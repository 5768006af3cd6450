"""What changes between two documents of a biller, in words that the one who approves them understands.

Owns: the comparison and its sentences. Does not own: loading and checking (`config`). Pure; the same two documents give
the same changes in the same order. Called by: the registry (audit), `saml-bridge plan` and `apply`, the console.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import SequenceMatcher
from typing import Any, Final, TypeVar

from saml_bridge.model.document import (
    AttributeMapping,
    BackchannelSettings,
    Biller,
    CarriageReturn,
    Condition,
    EncryptedTokenSettings,
    Idp,
    IdpContact,
    IdpLogo,
    JwtSettings,
    Link,
    OidcSettings,
    Partner,
    ProtocolSettings,
    Rule,
    SamlSettings,
    Scope,
    SubjectSettings,
    TransformCall,
    ValueType,
    holds_secret,
)

LONGEST_SHOWN: Final = 120

FindAcs = Callable[[Partner], str | None]
"""The location that responses to a partner go to, or None when it cannot be told."""

DescribeMetadata = Callable[[Partner, Partner], Sequence[str]]
"""What differs between the metadata of a partner before and after, a sentence each."""

Part = TypeVar("Part", Partner, AttributeMapping, Link)


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `part` is what of the biller changes (`link usage`, `portal`), empty for the biller itself."""

    biller: str
    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part} of {self.biller}: {self.what}" if self.part else f"{self.biller}: {self.what}"


@dataclass(frozen=True, slots=True)
class _Metadata:
    """What is known of partners' metadata here, where only its hash is."""

    find_acs: FindAcs
    describe: DescribeMetadata


def plan(
    old: Biller | None,
    new: Biller,
    *,
    find_acs: FindAcs = lambda _: None,
    describe_metadata: DescribeMetadata = lambda _old, _new: (),
) -> tuple[Change, ...]:
    """Everything that publishing `new` in place of `old` changes; empty when nothing does. None: the biller is new."""
    if old is None:
        return tuple(Change(new.slug, part, what) for part, what in _describe_new(new, find_acs))
    known = _Metadata(find_acs, describe_metadata)
    return tuple(Change(new.slug, part, what) for part, what in _compare(old, new, known))


def _describe_new(new: Biller, find_acs: FindAcs) -> Iterator[tuple[str, str]]:
    yield "", f"biller added: {new.name}"
    for partner in new.partners:
        yield f"partner {partner.slug}", _added_partner(partner, find_acs)
    for mapping in new.mappings:
        yield f"mapping {mapping.slug}", _added_mapping(mapping)
    for link in new.links:
        yield f"link {link.slug}", _added_link(link)


def _compare(old: Biller, new: Biller, known: _Metadata) -> Iterator[tuple[str, str]]:
    names = {"name": "name"}
    yield from (("", what) for what in _diff(old, new, names))
    labels = {"sign_in_url": "sign-in URL", "return_parameter": "return parameter", "home_url": "home URL"}
    labels["logout_callback"] = "logout callback"
    yield from (("portal", what) for what in _diff(old.portal, new.portal, labels))
    yield from (("portal", what) for what in _diff_items("origin", old.portal.origins, new.portal.origins))
    yield from (("identity provider", what) for what in _diff(old.idp, new.idp, {"entity_id": "entity ID"}))
    keys = {"current": "current key", "next": "next key", "previous": "previous key"}
    yield from (("identity provider", what) for what in _diff(old.idp.keys, new.idp.keys, keys))
    yield from (("identity provider", what) for what in _compare_presentation(old.idp, new.idp))
    yield from (("tokens", what) for what in _diff(old.tokens.keys, new.tokens.keys, keys))
    yield from _compare_parts(
        "partner",
        old.partners,
        new.partners,
        added=lambda partner: _added_partner(partner, known.find_acs),
        compare=lambda before, after: _compare_partners(before, after, known),
    )
    yield from _compare_parts("mapping", old.mappings, new.mappings, added=_added_mapping, compare=_compare_mappings)
    yield from _compare_parts("link", old.links, new.links, added=_added_link, compare=_compare_links)


def _compare_presentation(old: Idp, new: Idp) -> Iterator[str]:
    """What our metadata shows of the biller."""
    if old.logo != new.logo:
        yield f"logo changes from {_name_logo(old.logo)} to {_name_logo(new.logo)}"
    yield from _diff_items("contact", *([_name_contact(one) for one in idp.contacts] for idp in (old, new)))


def _name_logo(logo: IdpLogo | None) -> str:
    return "none" if logo is None else f"{_show(logo.url)} ({logo.width} by {logo.height})"


def _name_contact(contact: IdpContact) -> str:
    return f"{contact.type} {contact.email}" + (f" ({contact.name})" if contact.name else "")


def _compare_parts(
    kind: str,
    old: Sequence[Part],
    new: Sequence[Part],
    *,
    added: Callable[[Part], str],
    compare: Callable[[Part, Part], Iterator[str]],
) -> Iterator[tuple[str, str]]:
    before = {part.slug: part for part in old}
    after = {part.slug: part for part in new}
    for slug in before:
        if slug not in after:
            yield f"{kind} {slug}", "removed"
    for slug, part in after.items():
        if slug in before:
            yield from ((f"{kind} {slug}", what) for what in compare(before[slug], part))
        else:
            yield f"{kind} {slug}", added(part)
    yield from (("", what) for what in _compare_order(f"{kind}s", list(before), list(after)))


def _compare_order(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    kept = [one for one in old if one in new]
    if kept != [one for one in new if one in old]:
        yield f"the order of {what} changes to {', '.join(new)}"


# Partners


_PARTNER_LABELS: Final = {"name": "name", "protocol": "protocol"}
_SAML_LABELS: Final = {
    "metadata_url": "address of the metadata",
    "mdq_url": "address for metadata queries",
    "entity_id": "entity ID in the metadata",
    "our_entity_id": "entity ID that the partner knows us by",
    "acs": "assertion consumer service",
    "sign": "signed part",
    "signature_algorithm": "signature algorithm",
    "encrypt": "encryption",
    "relay_state": "RelayState",
    "lifetime_seconds": "lifetime in seconds",
    "skew_seconds": "clock skew in seconds",
    "expired_metadata": "handling of expired metadata",
    "default_link": "link for sign-ons that the partner starts",
    "require_signed_requests": "demand for signed requests",
    "name_id_policy": "treatment of the name ID format that requests ask for",
    "requested_authn_context": "treatment of the authentication context that requests ask for",
    "allow_unsigned_logout": "acceptance of unsigned logout requests",
    "signing_key": "signing key",
}
_NAME_ID_LABELS: Final = {"format": "name ID format", "from_": "name ID field", "template": "name ID template"}
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
_TOKEN_LABELS: Final = {
    "url": "address",
    "format": "format",
    "key_management": "key management",
    "algorithm": "signature algorithm",
    "secret": "shared secret's name",
    "key": "signing key",
    "carry": "way of carrying",
    "token_parameter": "token's parameter",
    "callback_parameter": "callback URI's parameter",
    "callback_claim": "callback URI's claim",
    "issuer": "issuer",
    "audience": "audience",
    "lifetime_seconds": "lifetime in seconds",
}
"""Of signed links and encrypted tokens."""

_BACKCHANNEL_LABELS: Final = {
    "url": "address of the call",
    "method": "method",
    "body": "body",
    "auth": "authentication",
    "auth_header": "secret's header",
    "username": "user name",
    "secret": "secret's name",
    "token_at": "token's place in the answer",
    "url_at": "URL's place in the answer",
    "carry": "way of carrying",
    "landing_url": "address that payers land at",
    "token_parameter": "token's parameter",
    "callback_parameter": "callback URI's parameter",
    "callback_in_body": "callback URI's name in the body",
    "total_seconds": "time for the call in seconds",
}
_SUBJECT_LABELS: Final = {"type": "subject type", "from_": "subject field", "template": "subject template"}


def _added_partner(partner: Partner, find_acs: FindAcs) -> str:
    words = _describe_settings(partner, find_acs)
    return f"added: {partner.name}" + (f", {words}" if words else "")


def _describe_settings(partner: Partner, find_acs: FindAcs) -> str:
    """What a sign-on at this partner will do."""
    match partner.settings:
        case OidcSettings(redirect_uris=uris):
            shown = ", ".join(map(_show, uris))
            return f"signs on by OpenID Connect, redirect URI{'s' if len(uris) > 1 else ''} {shown}"
        case JwtSettings(url=url, algorithm=algorithm):
            return f"payers go to {_show(url)} with a signed link ({algorithm})"
        case EncryptedTokenSettings(url=url, format=form, key_management=management):
            kind = f"jwe, {management}" if form == "jwe" else form
            return f"payers go to {_show(url)} with an encrypted token ({kind})"
        case BackchannelSettings(url=url, landing_url=landing, carry=carry):
            if carry == "redirect":
                return f"an address is asked for at {_show(url)}, and payers go there"
            return f"a token is asked for at {_show(url)}, and payers go to {_show(landing)} with it"
        case _:
            location = find_acs(partner)
            return f"responses go to {location}" if location else ""


def _compare_partners(old: Partner, new: Partner, known: _Metadata) -> Iterator[str]:
    yield from _diff(old, new, _PARTNER_LABELS)
    yield from _diff_items("origin", old.origins, new.origins)
    if old.speaks_saml and new.speaks_saml:
        yield from _compare_saml(old, new, known)
    elif type(old.settings) is type(new.settings):
        yield from _compare_settings(old.settings, new.settings)
    elif words := _describe_settings(new, known.find_acs):
        yield f"now {words}"


def _compare_settings(old: ProtocolSettings, new: ProtocolSettings) -> Iterator[str]:
    """Settings of one protocol other than SAML."""
    match old, new:
        case OidcSettings(), OidcSettings():
            yield from _compare_oidc(old, new)
        case (JwtSettings(), JwtSettings()) | (EncryptedTokenSettings(), EncryptedTokenSettings()):
            yield from _compare_token(old, new)
        case BackchannelSettings(), BackchannelSettings():
            yield from _diff(old, new, _BACKCHANNEL_LABELS)
            yield from _diff_texts("header", old.headers, new.headers)


def _compare_oidc(old: OidcSettings, new: OidcSettings) -> Iterator[str]:
    yield from _diff(old, new, _OIDC_LABELS)
    yield from _diff_items("redirect URI", old.redirect_uris, new.redirect_uris)
    yield from _diff_items("redirect URI after sign-out", old.post_logout_redirect_uris, new.post_logout_redirect_uris)
    yield from _compare_keys("public keys", old.jwks, new.jwks)
    yield from _compare_subjects(old.subject, new.subject)
    yield from _compare_scopes(old.scopes, new.scopes)


def _compare_token(old: Any, new: Any) -> Iterator[str]:
    """A signed link, or an encrypted token."""
    yield from _diff(old, new, _TOKEN_LABELS)
    if isinstance(old, EncryptedTokenSettings):
        yield from _compare_keys("public key that tokens are encrypted to", old.encryption_key, new.encryption_key)
    yield from _diff_texts("parameter", old.parameters, new.parameters)
    yield from _compare_subjects(old.subject, new.subject)


def _compare_keys(what: str, old: str | None, new: str | None) -> Iterator[str]:
    """Keys are told apart by a hash of their text, which is too long to be read."""
    if old != new:
        yield f"{what} {'change' if what.endswith('s') else 'changes'} from {_name_keys(old)} to {_name_keys(new)}"


def _name_keys(text: str | None) -> str:
    return "none" if text is None else f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _compare_subjects(old: SubjectSettings | None, new: SubjectSettings | None) -> Iterator[str]:
    if old is not None and new is not None:
        yield from _compare_identifiers("subject", old, new, _SUBJECT_LABELS)
    elif old != new:
        shown = (
            f"now sent: {new.type}, from {_show(new.from_ or new.template)}" if new is not None else "no longer sent"
        )
        yield f"the subject is {shown}"


def _compare_identifiers(what: str, old: Any, new: Any, labels: Mapping[str, str]) -> Iterator[str]:
    """Name IDs or subjects. A transient name ID is new at each launch, so that none is lost."""
    yield from _diff(old, new, labels)
    yield from (f"{what} {change}" for change in _compare_transforms(old.transforms, new.transforms))
    if old != new and getattr(old, "format", None) != "transient":
        yield f"every payer's {what} can change by this: the partner then takes payers whom it knows for new ones"


def _compare_scopes(old: Sequence[Scope], new: Sequence[Scope]) -> Iterator[str]:
    before, after = ({one.name: one.claims for one in scopes} for scopes in (old, new))
    yield from (f"scope {name} removed" for name in before if name not in after)
    for name, claims in after.items():
        if name not in before:
            yield f"scope {name} added: {_name_claims(claims)}"
        elif before[name] != claims:
            yield f"scope {name} gives {_name_claims(claims)} instead of {_name_claims(before[name])}"
    yield from _compare_order("scopes", list(before), list(after))


def _name_claims(claims: Sequence[str]) -> str:
    return _cut(", ".join(claims)) or "no claims"


def _diff_texts(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Named texts; one whose name says that it holds a secret is not shown."""
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if holds_secret(name):
            yield f"{what} {name} {'removed' if after is None else 'added' if before is None else 'changes'}"
        else:
            yield f"{what} {name} changes from {_show(before)} to {_show(after)}"


def _compare_saml(old: Partner, new: Partner, known: _Metadata) -> Iterator[str]:
    yield from _compare_metadata(old, new, known.find_acs)
    yield from (f"metadata: {line}" for line in known.describe(old, new))
    if old.saml.metadata_signer != new.saml.metadata_signer:
        yield f"the pinned signer of its metadata is {'another' if new.saml.metadata_signer else 'no longer there'}"
    yield from _diff(old.saml, new.saml, _SAML_LABELS)
    before, after = (one.saml.encryption_algorithm or "the best that the partner lists" for one in (old, new))
    if before != after:
        yield f"encryption algorithm changes from {before} to {after}"
    yield from _compare_identifiers("name ID", old.saml.name_id, new.saml.name_id, _NAME_ID_LABELS)


def _compare_metadata(old: Partner, new: Partner, find_acs: FindAcs) -> Iterator[str]:
    before, after = find_acs(old), find_acs(new)
    moved = f"responses go to {after} instead of {before}" if before and after and before != after else ""
    if old.saml.metadata != new.saml.metadata:
        shown = f"metadata changes from {_short(old.saml)} to {_short(new.saml)}"
        unmoved = "; responses go to the same address" if before and before == after else ""
        yield shown + (f"; {moved}" if moved else unmoved)
    elif moved:
        yield moved


def _short(settings: SamlSettings) -> str:
    return settings.metadata[:19]


# Links


_LINK_LABELS: Final = {
    "label": "label",
    "partner": "partner",
    "mapping": "mapping",
    "callback_uri": "callback URI",
    "icon": "icon",
}


def _added_link(link: Link) -> str:
    state = "" if link.enabled else ", disabled"
    return f"added: {_quote(link.label)}, to partner {link.partner} with mapping {link.mapping}{state}"


def _compare_links(old: Link, new: Link) -> Iterator[str]:
    yield from _diff(old, new, _LINK_LABELS)
    for language in sorted({*old.labels, *new.labels}):
        before, after = old.labels.get(language), new.labels.get(language)
        if before != after:
            yield f"label in {language} changes from {_show(before)} to {_show(after)}"
    yield from _diff_items("allowed callback", old.callback_allow, new.callback_allow)
    if old.opens != new.opens:
        yield "opens in a new tab" if new.opens == "new_tab" else "opens in the same tab"
    yield from _compare_conditions("visible", "to every payer", old.visible_when, new.visible_when)
    if old.allow_impersonation != new.allow_impersonation:
        yield f"{'now works' if new.allow_impersonation else 'no longer works'} while an agent acts for the payer"
    if old.enabled != new.enabled:
        yield "enabled" if new.enabled else "disabled"


def _compare_conditions(state: str, always: str, old: Condition | None, new: Condition | None) -> Iterator[str]:
    if old != new:
        phrase = f"{state} {always}" if new is None else f"{state} only when {describe_condition(new)}"
        yield _place_adverb("now", phrase)


def describe_condition(condition: Condition) -> str:
    """A condition as part of a sentence."""
    if condition.not_ is not None:
        return f"not ({describe_condition(condition.not_)})"
    for parts, word in ((condition.all, " and "), (condition.any, " or ")):
        if parts is not None:
            return word.join(
                f"({describe_condition(part)})" if len(parts) > 1 else describe_condition(part) for part in parts
            )
    if condition.exists is not None:
        return f"{condition.field} has {'a value' if condition.exists else 'no value'}"
    if condition.equals is not None:
        return f"{condition.field} is {_quote(condition.equals)}"
    return f"{condition.field} is one of {', '.join(map(_quote, condition.in_ or ()))}"


# Mappings


def _added_mapping(mapping: AttributeMapping) -> str:
    return f"added: sends {', '.join(rule.attribute for rule in mapping.rules) or 'no attributes'}"


def _compare_mappings(old: AttributeMapping, new: AttributeMapping) -> Iterator[str]:
    before, after = _number_rules(old.rules), _number_rules(new.rules)
    for name in before:
        if name not in after:
            yield f"{name} is no longer sent"
    for name, rule in after.items():
        if name in before:
            yield from (f"{name} {what}" for what in _compare_rules(before[name], rule))
        else:
            yield f"{name} is now sent: {_describe_rule(rule)}"
    yield from _compare_order("attributes", list(before), list(after))


def _number_rules(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Rules by their attribute's name; the second of a name is `name (2)`, and so on."""
    numbered: dict[str, Rule] = {}
    for rule in rules:
        name, number = rule.attribute, 1
        while name in numbered:
            number += 1
            name = f"{rule.attribute} ({number})"
        numbered[name] = rule
    return numbered


_TYPES: Final[Mapping[ValueType, str]] = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


_CARRIAGE_RETURNS: Final[Mapping[CarriageReturn, str]] = {
    "fold": "sent with a space for each carriage return",
    "refuse": "refused with a carriage return in it",
}


def _describe_rule(rule: Rule) -> str:
    words = [_describe_source(rule), *(_words(call) for call in rule.transforms)]
    if rule.value_type != "text":
        words.append(f"as {_TYPES[rule.value_type]}")
    if rule.as_list:
        words.append("always as a list")
    if rule.carriage_return != "fold":
        words.append(_CARRIAGE_RETURNS[rule.carriage_return])
    if rule.required:
        words.append("required")
    if rule.when is not None:
        words.append(f"only when {describe_condition(rule.when)}")
    return ", ".join(words)


def _describe_source(rule: Rule) -> str:
    if rule.constant is not None:
        return f"the constant {_quote(rule.constant)}"
    source = f"the field {rule.from_}" if rule.template is None else f"the template {_quote(rule.template)}"
    return f"{source} of each of {rule.each}" if rule.each else source


def _compare_rules(old: Rule, new: Rule) -> Iterator[str]:
    before, after = _describe_source(old), _describe_source(new)
    if before != after:
        yield f"is made from {after} instead of {before}"
    yield from _compare_transforms(old.transforms, new.transforms)
    if old.required != new.required:
        yield "is now required" if new.required else "is no longer required"
    yield from _compare_conditions("is sent", "whenever there is a value", old.when, new.when)
    yield from _diff(old, new, {"name_format": "name format", "friendly_name": "friendly name"}, start="changes its ")
    if old.value_type != new.value_type:
        yield f"is now {_TYPES[new.value_type]} instead of {_TYPES[old.value_type]}"
    if old.as_list != new.as_list:
        yield "is now always a list" if new.as_list else "is now a list only when it has several values"
    if old.carriage_return != new.carriage_return:
        yield f"is now {_CARRIAGE_RETURNS[new.carriage_return]}"


def _compare_transforms(old: Sequence[TransformCall], new: Sequence[TransformCall]) -> Iterator[str]:
    before, after = [_key(call) for call in old], [_key(call) for call in new]
    if before == after:
        return
    if sorted(before) == sorted(after):
        yield f"applies its transforms in another order: {', '.join(call.name for call in new)}"
        return
    for tag, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from _replace_transforms(old[i:j], new[k:m])


def _key(call: TransformCall) -> str:
    return f"{call.name} {sorted(call.parameters.items(), key=lambda item: item[0])!r}"


def _replace_transforms(old: Sequence[TransformCall], new: Sequence[TransformCall]) -> Iterator[str]:
    gone, come = list(old), list(new)
    for call in old:
        same = next((other for other in come if other.name == call.name), None)
        if same is not None:
            gone.remove(call)
            come.remove(same)
            before, after = _words(call), _words(same)
            told = f" (before: {before})" if before != after else ", with other parameters"
            yield _place_adverb("now", after) + told
    yield from (_place_adverb("no longer", _words(call)) for call in gone)
    yield from (_place_adverb("now", _words(call)) for call in come)


def _place_adverb(adverb: str, phrase: str) -> str:
    return f"is {adverb} {phrase.removeprefix('is ')}" if phrase.startswith("is ") else f"{adverb} {phrase}"


_PHRASES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "strip": lambda _: "strips white space at both ends",
    "upper": lambda _: "is in capital letters",
    "lower": lambda _: "is in small letters",
    "strip_leading_zeros": lambda _: "strips leading zeros",
    "pad_left": lambda p: f"is padded on the left with {_quote(p.get('fill', '0'))} to {p.get('width')} characters",
    "prefix": lambda p: f"begins with {_quote(p.get('text'))}",
    "suffix": lambda p: f"ends with {_quote(p.get('text'))}",
    "substring": lambda p: (
        f"keeps {p['length'] if p.get('length') else 'all'} characters from position {p.get('start')}"
    ),
    "replace": lambda p: f"has {_quote(p.get('old'))} replaced by {_quote(p.get('new'))}",
    "digits_only": lambda _: "keeps digits only",
    "regex_extract": lambda p: (
        f"keeps {'group ' + _quote(p['group']) + ' of ' if p.get('group') else ''}"
        f"what matches {_quote(p.get('pattern'))}"
    ),
    "lookup": lambda p: (
        f"is looked up in a table of {len(p.get('table') or ())}"
        + (f", {_quote(p['default'])} when it is not there" if p.get("default") is not None else "")
    ),
    "date_format": lambda p: (
        f"is written as a date {_quote(p.get('to'))}" + (f", read as {_quote(p['from'])}" if p.get("from") else "")
    ),
    "hash_sha256": lambda _: "is hashed with SHA-256 and a salt",  # the salt is a secret
    "join": lambda p: f"is joined with {_quote(p.get('separator', ','))}",
    "first": lambda _: "keeps the first value only",
    "default": lambda p: f"is {_quote(p.get('value'))} when there is no value",
}


def _words(call: TransformCall) -> str:
    phrase = _PHRASES.get(call.name)
    return phrase(call.parameters) if phrase else f"applies {call.name}"


# Values


def _diff(old: Any, new: Any, labels: Mapping[str, str], *, start: str = "") -> Iterator[str]:
    """One sentence a value that differs, in the order of the dataclass's fields."""
    verb = "" if start else " changes"
    for name in (one.name for one in fields(old) if one.name in labels):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{start}{labels[name]}{verb} from {_show(before)} to {_show(after)}"


def _diff_items(what: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    yield from (f"{what} {one} removed" for one in old if one not in new)
    yield from (f"{what} {one} added" for one in new if one not in old)
    yield from _compare_order(f"{what}s", old, new)


def _show(value: object) -> str:
    if value is None:
        return "none"
    return _cut(str(value).lower() if isinstance(value, bool) else str(value))


def _quote(value: object) -> str:
    return f"'{_cut(str(value))}'"


def _cut(text: str) -> str:
    """On one line, and not too long to read."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 3]}..."
