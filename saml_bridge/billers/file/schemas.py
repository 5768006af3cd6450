"""The marshmallow schemas of the configuration document: what each key may be, and its place when written.

Owns: the shape and types of single values, both ways (plain data to dataclasses and back). Does not own: rules about
several values together (`checks.py`), YAML (`yaml_text.py`). Defaults stand in `document.py` alone.

Every error is a `Problem` in marshmallow's tree of messages, so that all of them are reported at once, each with its
path. What could be read in spite of errors stays in `valid_data`, with None for the items of a list that could not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NoReturn, get_args
from urllib.parse import urlsplit

from marshmallow import RAISE, Schema, ValidationError, fields, post_dump, post_load, validates_schema

from saml_bridge.mapping.callback_uri import parse_callback
from saml_bridge.mapping.characters import find_unseen, is_blank
from saml_bridge.mapping.transforms import describe, dump_transform, parse_transform
from saml_bridge.model.document import (
    AttributeMapping,
    BackchannelSettings,
    Biller,
    CarriageReturn,
    Carry,
    ClientAuth,
    Condition,
    EncryptedTokenSettings,
    EncryptionAlgorithm,
    EncryptWhen,
    Idp,
    IdpContact,
    IdpLogo,
    JwtSettings,
    KeyManagement,
    KeyNames,
    Link,
    LinkAlgorithm,
    NameFormat,
    NameIdFormat,
    NameIdSettings,
    OidcSettings,
    Partner,
    Portal,
    Protocol,
    Rule,
    SamlSettings,
    Scope,
    SignatureAlgorithm,
    SignWhat,
    SubjectSettings,
    SubjectType,
    TokenAlgorithm,
    TokenFormat,
    TokenKeys,
    Tokens,
    ValueType,
    Wish,
)
from saml_bridge.model.nearest import find_nearest, suggest

MAX_ITEMS: Final = 500
MAX_NAME: Final = 200
MAX_URL: Final = 2048
MAX_ENTITY_ID: Final = 1024
MAX_CERTIFICATE: Final = 16_384
MAX_KEYS: Final = 65_536
RELAY_STATE_IDENTIFIER: Final = "identifier:"

_SLUG = re.compile(r"[a-z0-9-]{1,64}")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_PLAIN = re.compile(r"[!-~]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
_NOT_IN_URLS = re.compile(r"[\"'<>\\^`{|}]")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Z]{2})?")
_HEADER = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}")  # RFC 6749, 3.3
_CLIENT_ID = re.compile(r"[!-~]{1,255}")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of one value, before its place is known."""

    code: str
    message: str
    fix: str = ""


def _complain(code: str, message: str, fix: str = "") -> NoReturn:
    raise ValidationError([Problem(code, message, fix)])


def show(value: object) -> str:
    """A value as a finding quotes it: short, and on one line."""
    if isinstance(value, str) and value:
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {value}"
    if isinstance(value, bool):
        return str(value).lower()
    return "a mapping" if isinstance(value, Mapping) else describe(value)


class _Value(fields.Field[Any]):
    """Base of the fields below: says what is allowed, whatever is wrong."""

    allowed: str = "a value"

    def make_error(self, key: str, **_: Any) -> ValidationError:
        if key == "required":
            return ValidationError([Problem("config-missing", f"is missing; expected {self.allowed}")])
        return ValidationError([Problem("config-type", f"expected {self.allowed}, found nothing")])

    def refuse(self, value: object, code: str = "config-value", fix: str = "") -> NoReturn:
        """Raise for a value that is not what is allowed."""
        hint = "Put it in quotes." if isinstance(value, bool | int | float) and self.allowed.startswith("text") else fix
        _complain(code, f"expected {self.allowed}, found {show(value)}", hint)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return value

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return self.read(value)

    def read(self, value: Any) -> Any:
        """The value, checked. Raises ValidationError."""
        raise NotImplementedError


class Text(_Value):
    """Any text; what may stand in it is judged where it is used."""

    allowed = "text"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            self.refuse(value, "config-type")
        return value


class Label(Text):
    """Text that people read: one line, nothing invisible."""

    allowed = f"text of 1 to {MAX_NAME} characters on one line"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if is_blank(text) or len(text) > MAX_NAME:
            self.refuse(value)
        if unseen := find_unseen(text):
            _complain("config-text", f"{unseen}, which cannot be seen", "Remove it.")
        if text != text.strip():
            _complain("config-text", "has white space at an end", "Remove it.")
        return text


class Matching(Text):
    """Text of one pattern."""

    def __init__(self, pattern: re.Pattern[str], allowed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pattern, self.allowed = pattern, allowed

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not self.pattern.fullmatch(text):
            self.refuse(value)
        return text


class Slug(Matching):
    """A name that stands in addresses."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(_SLUG, "text of 1 to 64 lower-case letters, digits and hyphens", **kwargs)


class SecretName(Slug):
    """The name under which a secret is kept. A secret itself that was put here by mistake is not told again."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed = "text of 1 to 64 lower-case letters, digits and hyphens: the name of a secret, not the secret"

    def refuse(self, value: object, code: str = "config-value", fix: str = "") -> NoReturn:  # noqa: ARG002 not told
        how = (
            "Keep the secret by 'saml-bridge secrets set BILLER NAME' and write NAME here; replace one that stood here."
        )
        _complain(code, f"expected {self.allowed}", how)


class Choice(Text):
    """One of a few words."""

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = tuple(words)
        self.allowed = f"one of {', '.join(self.words)}" if len(self.words) > 1 else self.words[0]

    def read(self, value: Any) -> str:
        if value not in self.words:
            nearest = find_nearest(str(value), self.words)
            self.refuse(value, fix=f"Did you mean {nearest}?" if nearest else "")
        return str(value)


class WholeNumber(_Value):
    """A whole number in a range; true and false are none."""

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most
        self.allowed = f"a whole number from {least} to {most}" if least < most else f"the number {least}"

    def read(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(value, "config-type")
        if not self.least <= value <= self.most:
            self.refuse(value)
        return value


class Flag(_Value):
    """A switch."""

    allowed = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            self.refuse(value, "config-type", "Write true or false, without quotes.")
        return value


class Url(Text):
    """An http or https URL that every browser reads in the same way. Whether http is allowed: see `checks.py`."""

    allowed = "an https URL"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if complaint := self.complain(text):
            self.refuse(value, "config-url", f"{complaint[0].upper()}{complaint[1:]}.")
        return text

    def complain(self, text: str) -> str | None:
        """What is wrong with a URL, as a part of a sentence."""
        if not text or len(text) > MAX_URL:
            return f"it must have 1 to {MAX_URL} characters"
        if not _PLAIN.fullmatch(text) or _NOT_IN_URLS.search(text):
            return "spaces, quotes, brackets, and letters outside ASCII are written with % and two digits"
        try:
            parts, port = urlsplit(text), urlsplit(text).port
        except ValueError:
            return "its host or port cannot be read"
        if parts.scheme not in ("https", "http"):
            return "it must begin with https://"
        if "@" in parts.netloc:
            return "a name or password must not stand in it"
        host = parts.netloc.rsplit(":", 1)[0] if port is not None else parts.netloc
        if not _HOST.fullmatch(host) or port == 0:
            return "its host or port cannot be read"
        return None


class CallbackUri(Url):
    """A URL with fields of the session in braces after its origin."""

    allowed = "an https URL, with fields in braces after its origin"

    def complain(self, text: str) -> str | None:
        if len(text) > MAX_URL:
            return super().complain(text)
        try:
            template = parse_callback(text)
        except ValueError as error:
            return str(error)
        return super().complain(template.fill(["0"] * len(template.paths)))


class Prefix(Url):
    """The start of URLs: an origin and a path."""

    allowed = "an https URL without query and fragment"

    def complain(self, text: str) -> str | None:
        if "?" in text or "#" in text:
            return "a query or fragment is not compared, so it must not stand here"
        return super().complain(text)


class ReturnUrl(Url):
    """A URL that parameters are added to."""

    allowed = "an https URL without fragment"

    def complain(self, text: str) -> str | None:
        return "nothing can be added after a fragment" if "#" in text else super().complain(text)


class Origin(Url):
    """Scheme, host and port."""

    allowed = "an origin such as https://sso.example.com"

    def complain(self, text: str) -> str | None:
        complaint = super().complain(text)
        if complaint is None and urlsplit(text)[2:] != ("", "", ""):
            return "nothing may follow the host and port, not even a slash"
        return complaint


class Texts(_Value):
    """Names and their fixed texts."""

    allowed = "a mapping from names to texts"
    counted = "entries"
    most: Final = 50

    def read(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            self.refuse(value, "config-type")
        if len(value) > self.most:
            _complain("config-size", f"expected at most {self.most} {self.counted}, found {len(value)}")
        errors: dict[Any, Any] = {}
        for name, text in value.items():
            try:
                self.check(name, text)
            except ValidationError as error:
                errors[str(name)] = error.messages
        if errors:
            raise ValidationError(errors)
        return dict(value)

    def check(self, name: Any, text: Any) -> None:
        """One name and its text. Raises ValidationError."""
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            _complain("config-value", f"expected a name of letters, digits and -_.~, found {show(name)}")
        if not isinstance(text, str) or len(text) > MAX_URL or find_unseen(text):
            _complain("config-value", f"expected text on one line, found {show(text)}")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return dict(value)


class Labels(Texts):
    """A label in further languages, by language tag (RFC 5646: language, and a region where it matters)."""

    allowed = "a mapping from languages such as es or fr-CA to texts"
    counted = "languages"

    def check(self, name: Any, text: Any) -> None:
        if not isinstance(name, str) or not _LANGUAGE.fullmatch(name):
            _complain("config-value", f"expected a language such as es or fr-CA, found {show(name)}")
        Label().read(text)


class EntityId(Matching):
    """A name that federations know an entity by (saml-core-2.0-os, 8.3.6)."""

    def __init__(self, **kwargs: Any) -> None:
        pattern = re.compile(rf"[!-~]{{1,{MAX_ENTITY_ID}}}")
        super().__init__(pattern, f"text of 1 to {MAX_ENTITY_ID} characters without spaces, such as a URL", **kwargs)


def _refuse_foreign_path(text: str) -> None:
    """A path from the root, or from a drive: it would mean another file on another machine."""
    if text.startswith("/") or _DRIVE.match(text):
        name = re.split(r"[/\\]", text.rstrip("/\\"))[-1][:60]
        fix = f"Write {name!r} for a file beside this one, or '../{name}' for one in the folder above."
        message = f"expected a path relative to this file, such as one beside this one, found the absolute {show(text)}"
        _complain("config-path", message, fix)


class MetadataReference(Text):
    """A stored metadata file by its hash, or a path in a configuration file."""

    allowed = "text: the path of a metadata file beside this one, or sha256: and 64 hexadecimal digits"

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not text:  # to be fetched; `checks.py` asks for an address then
            return text
        _refuse_foreign_path(text)
        is_path = len(text) <= MAX_URL and text.isprintable() and "\\" not in text
        if not (_SHA256.fullmatch(text) or (is_path and not text.lower().startswith("sha256:"))):
            self.refuse(value)
        return text


class SignerReference(Text):
    """The certificate that must have signed fetched metadata: in base64 or PEM, or a PEM file's path in a file."""

    allowed = "text: the path of a PEM certificate beside this file, or the certificate itself in base64"

    def read(self, value: Any) -> str:
        text = super().read(value)
        _refuse_foreign_path(text)
        if not 0 < len(text) <= MAX_CERTIFICATE or "PRIVATE KEY" in text or "\\" in text:
            self.refuse(value)
        return text


class AcsReference(Url):
    """The index or location of an assertion consumer service."""

    allowed = "an index (a whole number), a location (a URL) or null"

    def read(self, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
            return value
        return super().read(value)


class RelayState(Text):
    """What stands in RelayState: the link's callback URI, nothing, or a fixed text."""

    allowed = f"callback_uri, none or {RELAY_STATE_IDENTIFIER}TEXT"

    def read(self, value: Any) -> str:
        text = super().read(value)
        identifier = text.removeprefix(RELAY_STATE_IDENTIFIER)
        if text in ("callback_uri", "none"):
            return text
        if identifier == text or is_blank(identifier) or find_unseen(identifier):
            self.refuse(value)
        return text


class Parameter(Matching):
    """The name of a parameter in a query or form."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(re.compile(r"[A-Za-z0-9_.~-]{1,64}"), "text: the name of a parameter", **kwargs)


class Pointer(Matching):
    """A JSON Pointer (RFC 6901)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            re.compile(r"(?:/(?:[^~/]|~[01]){0,200}){1,20}"), "text: a JSON Pointer such as /token", **kwargs
        )


class KeyText(Text):
    """Public keys: JSON Web Keys, as text or as the mapping that they are, or PEM, or their file's path in a file."""

    allowed = (
        f"text of up to {MAX_KEYS} characters: public keys, as JSON Web Keys or PEM,"
        " or the path of such a file beside this one"
    )

    def read(self, value: Any) -> str:
        text = super().read(json.dumps(value, separators=(",", ":")) if isinstance(value, Mapping) else value)
        if "PRIVATE KEY" in text:
            fix = "Give the public key alone; a private key that was sent around is no longer safe to use."
            _complain("config-value", "expected public keys, found a private one", fix)
        _refuse_foreign_path(text)
        if not 0 < len(text) <= MAX_KEYS:
            self.refuse(value)
        return text


class TransformField(_Value):
    """A transform as it is written; its name and parameters are judged with the mapping."""

    allowed = "the name of a transform, or one name with its parameters"

    def read(self, value: Any) -> Any:
        try:
            return parse_transform(value)
        except ValueError as error:
            _complain("transform-shape", str(error))

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        return dump_transform(value)


class ListOf(fields.List[Any]):
    """A list; of one with errors the good items keep their places in `valid_data`."""

    def __init__(self, inner: fields.Field[Any], *, most: int = MAX_ITEMS, **kwargs: Any) -> None:
        super().__init__(inner, **kwargs)
        self.most = most

    def make_error(self, key: str, **_: Any) -> ValidationError:
        words = "is missing; expected a list" if key == "required" else "expected a list, found nothing"
        return ValidationError([Problem("config-missing" if key == "required" else "config-type", words)])

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 marshmallow's
        if not isinstance(value, list | tuple):
            _complain("config-type", f"expected a list, found {show(value)}")
        if len(value) > self.most:
            _complain("config-size", f"expected at most {self.most} entries, found {len(value)}")
        result: list[Any] = []
        errors: dict[int, Any] = {}
        for position, item in enumerate(value):
            try:
                result.append(self.inner.deserialize(item))
            except ValidationError as error:
                errors[position] = error.messages
                result.append(error.valid_data)
        if errors:
            # the stubs name fewer types than marshmallow's trees have
            messages: Any = errors
            valid: Any = result
            raise ValidationError(messages, valid_data=valid)
        return tuple(result)


class Part(fields.Nested):
    """A mapping with keys of its own."""

    def make_error(self, key: str, **_: Any) -> ValidationError:
        if key == "required":
            return ValidationError([Problem("config-missing", "is missing; expected a mapping")])
        return ValidationError([Problem("config-type", "expected a mapping, found nothing")])


class StrictSchema(Schema):
    """Base of all schemas: unknown keys are refused with the nearest that exists; loads a dataclass."""

    error_messages = {"unknown": "unknown", "type": "type"}  # noqa: RUF012 marshmallow types it as an instance's
    makes: ClassVar[type]
    only_when_given: ClassVar[frozenset[str]] = frozenset()

    class Meta:
        unknown = RAISE

    def handle_error(self, error: ValidationError, data: Any, **_: Any) -> None:
        """Put words to what marshmallow itself found."""
        messages: dict[Any, Any] = error.messages  # type: ignore[assignment]  # a schema's are always a dict
        known = [one.data_key or name for name, one in self.fields.items()]
        for key, found in messages.items():
            if found == ["type"]:
                messages[key] = [Problem("config-type", f"expected a mapping, found {show(data)}")]
            elif found == ["unknown"]:
                fix = f"Allowed: {', '.join(known)}."
                messages[key] = [Problem("config-key-unknown", f"there is no such key{suggest(str(key), known)}", fix)]

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Any:
        return self.makes(**data)

    @post_dump
    def leave_out(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {key: value for key, value in data.items() if value is not None or key not in self.only_when_given}


class ConditionSchema(StrictSchema):
    makes = Condition
    only_when_given = frozenset({"field", "in", "equals", "exists", "all", "any", "not"})

    field = Text(allow_none=True)
    in_ = ListOf(Text(), data_key="in", allow_none=True)
    equals = Text(allow_none=True)
    exists = Flag(allow_none=True)
    all = ListOf(Part(lambda: ConditionSchema()), allow_none=True)
    any = ListOf(Part(lambda: ConditionSchema()), allow_none=True)
    not_ = Part(lambda: ConditionSchema(), data_key="not", allow_none=True)


class RuleSchema(StrictSchema):
    makes = Rule
    only_when_given = frozenset({"each", "from", "template", "constant"})

    attribute = Text(required=True)
    each = Text(allow_none=True)
    from_ = Text(data_key="from", allow_none=True)
    template = Text(allow_none=True)
    constant = Text(allow_none=True)
    transforms = ListOf(TransformField())
    required = Flag()
    when = Part(ConditionSchema, allow_none=True)
    name_format = Choice(get_args(NameFormat))
    friendly_name = Text(allow_none=True)
    value_type = Choice(get_args(ValueType), data_key="type")
    as_list = Flag(data_key="list")
    carriage_return = Choice(get_args(CarriageReturn))


class MappingSchema(StrictSchema):
    makes = AttributeMapping

    slug = Slug(required=True)
    rules = ListOf(Part(RuleSchema), required=True)


class IdentifierSchema(StrictSchema):
    """Where a payer's identifier comes from; a template takes the place of the field that is the default."""

    only_when_given = frozenset({"from", "template"})

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Any:
        field = {"from_": None} if data.get("template") is not None else {}
        return self.makes(**{**field, **data})


class NameIdSchema(IdentifierSchema):
    makes = NameIdSettings

    format = Choice(get_args(NameIdFormat))
    from_ = Text(data_key="from", allow_none=True)
    template = Text(allow_none=True)
    transforms = ListOf(TransformField())


class SamlSchema(StrictSchema):
    makes = SamlSettings

    metadata = MetadataReference()
    metadata_url = Url(allow_none=True)
    mdq_url = Prefix(allow_none=True)
    metadata_signer = SignerReference(allow_none=True)
    entity_id = EntityId(allow_none=True)
    our_entity_id = EntityId(allow_none=True)
    acs = AcsReference(allow_none=True)
    name_id = Part(NameIdSchema)
    sign = Choice(get_args(SignWhat))
    signature_algorithm = Choice(get_args(SignatureAlgorithm))
    encrypt = Choice(get_args(EncryptWhen))
    encryption_algorithm = Choice(get_args(EncryptionAlgorithm), allow_none=True)
    relay_state = RelayState()
    lifetime_seconds = WholeNumber(30, 300)
    skew_seconds = WholeNumber(0, 300)
    expired_metadata = Choice(("warn", "refuse"), allow_none=True)
    default_link = Slug(allow_none=True)
    require_signed_requests = Flag()
    name_id_policy = Choice(get_args(Wish))
    requested_authn_context = Choice(get_args(Wish))
    allow_unsigned_logout = Flag()
    signing_key = Choice(("current", "next"))


class SubjectSchema(IdentifierSchema):
    makes = SubjectSettings

    type = Choice(get_args(SubjectType))
    from_ = Text(data_key="from", allow_none=True)
    template = Text(allow_none=True)
    transforms = ListOf(TransformField())


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


class JwtSchema(StrictSchema):
    makes = JwtSettings

    url = ReturnUrl(required=True)
    algorithm = Choice(get_args(LinkAlgorithm))
    secret = SecretName(allow_none=True)
    key = Slug(allow_none=True)
    carry = Choice(get_args(Carry))
    token_parameter = Parameter()
    callback_parameter = Parameter(allow_none=True)
    callback_claim = Label(allow_none=True)
    parameters = Texts()
    issuer = Label(allow_none=True)
    audience = Label(allow_none=True)
    subject = Part(SubjectSchema, allow_none=True)
    lifetime_seconds = WholeNumber(10, 300)


class EncryptedTokenSchema(StrictSchema):
    makes = EncryptedTokenSettings

    url = ReturnUrl(required=True)
    format = Choice(get_args(TokenFormat))
    key_management = Choice(get_args(KeyManagement))
    encryption_key = KeyText(allow_none=True)
    secret = SecretName(allow_none=True)
    key = Slug(allow_none=True)
    algorithm = Choice(get_args(TokenAlgorithm))
    carry = Choice(("post", "query", "path"))
    token_parameter = Parameter()
    callback_parameter = Parameter(allow_none=True)
    callback_claim = Label(allow_none=True)
    parameters = Texts()
    issuer = Label(allow_none=True)
    audience = Label(allow_none=True)
    subject = Part(SubjectSchema, allow_none=True)
    lifetime_seconds = WholeNumber(10, 300)


class BackchannelSchema(StrictSchema):
    makes = BackchannelSettings

    url = Url(required=True)
    method = Choice(("POST", "PUT", "GET"))
    body = Choice(("json", "form"))
    headers = Texts()
    auth = Choice(("none", "basic", "bearer", "header"))
    auth_header = Matching(_HEADER, "text: the name of a header", allow_none=True)
    username = Label(allow_none=True)
    secret = SecretName(allow_none=True)
    token_at = Pointer(allow_none=True)
    url_at = Pointer(allow_none=True)
    carry = Choice(("redirect", "post", "query"))
    landing_url = ReturnUrl(allow_none=True)
    token_parameter = Parameter()
    callback_parameter = Parameter(allow_none=True)
    callback_in_body = Label(allow_none=True)
    total_seconds = WholeNumber(1, 10)


PROTOCOL_SCHEMAS: Final[Mapping[str, type[StrictSchema]]] = {
    "saml": SamlSchema,
    "oidc": OidcSchema,
    "jwt": JwtSchema,
    "encrypted_token": EncryptedTokenSchema,
    "backchannel_token": BackchannelSchema,
}


class PartnerSchema(StrictSchema):
    """The settings of a partner's protocol stand under its name; those of another protocol are refused."""

    makes = Partner
    only_when_given = frozenset(PROTOCOL_SCHEMAS)

    slug = Slug(required=True)
    name = Label(required=True)
    protocol = Choice(get_args(Protocol), required=True)
    origins = ListOf(Origin())
    saml = Part(SamlSchema)
    oidc = Part(OidcSchema)
    jwt = Part(JwtSchema)
    encrypted_token = Part(EncryptedTokenSchema)
    backchannel_token = Part(BackchannelSchema)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_protocol(self, data: Mapping[str, Any], original: Any, **_: Any) -> None:
        """Exactly the settings of the protocol are there."""
        protocol = data.get("protocol")
        if protocol is None:
            return
        problems: dict[str, list[Problem]] = {}
        for name in PROTOCOL_SCHEMAS:
            if name in original and name != protocol:
                fix = f"Remove it, or set protocol to {name}."
                problems[name] = [Problem("config-value", f"is given, and the protocol is {protocol}", fix)]
        if protocol not in original:
            problems[protocol] = [Problem("config-missing", "is missing; expected a mapping")]
        if problems:
            raise ValidationError(problems)

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> Partner:
        rest = {key: value for key, value in data.items() if key not in PROTOCOL_SCHEMAS}
        return Partner(settings=data[data["protocol"]], **rest)

    def get_attribute(self, obj: Any, attr: str, default: Any) -> Any:
        """Of a partner's settings, those of its protocol."""
        if attr in PROTOCOL_SCHEMAS:
            return obj.settings if obj.protocol == attr else None
        return super().get_attribute(obj, attr, default)


class LinkSchema(StrictSchema):
    makes = Link

    slug = Slug(required=True)
    label = Label(required=True)
    labels = Labels()
    partner = Slug(required=True)
    mapping = Slug(required=True)
    callback_uri = CallbackUri(allow_none=True)
    callback_allow = ListOf(Prefix())
    icon = Slug(allow_none=True)
    opens = Choice(("same_tab", "new_tab"))
    visible_when = Part(ConditionSchema, allow_none=True)
    allow_impersonation = Flag()
    enabled = Flag()


class PortalSchema(StrictSchema):
    makes = Portal

    sign_in_url = ReturnUrl(required=True)
    return_parameter = Matching(re.compile(r"[A-Za-z0-9_.-]{1,64}"), "text: the name of a query parameter")
    home_url = Url(required=True)
    logout_callback = Url(allow_none=True)
    origins = ListOf(Origin(), most=50)


class KeyNamesSchema(StrictSchema):
    makes = KeyNames

    current = Slug()
    next = Slug(allow_none=True)
    previous = Slug(allow_none=True)


class LogoSchema(StrictSchema):
    makes = IdpLogo

    url = Url(required=True)
    width = WholeNumber(1, 10_000, required=True)
    height = WholeNumber(1, 10_000, required=True)


class ContactSchema(StrictSchema):
    makes = IdpContact

    type = Choice(("technical", "support", "administrative", "billing", "other"), required=True)
    email = Matching(re.compile(r"[!-?A-~]{1,64}@[!-?A-~]{1,255}"), "text: an e-mail address", required=True)
    name = Label(allow_none=True)


class IdpSchema(StrictSchema):
    makes = Idp

    entity_id = EntityId(allow_none=True)
    keys = Part(KeyNamesSchema)
    logo = Part(LogoSchema, allow_none=True)
    contacts = ListOf(Part(ContactSchema), most=20)


class TokenKeysSchema(KeyNamesSchema):
    makes = TokenKeys


class TokensSchema(StrictSchema):
    makes = Tokens

    keys = Part(TokenKeysSchema)


class BillerSchema(StrictSchema):
    makes = Biller

    slug = Slug(required=True)
    name = Label(required=True)
    portal = Part(PortalSchema, required=True)
    idp = Part(IdpSchema)
    tokens = Part(TokensSchema)
    partners = ListOf(Part(PartnerSchema))
    mappings = ListOf(Part(MappingSchema))
    links = ListOf(Part(LinkSchema))


@dataclass(frozen=True, slots=True)
class FiledBiller:
    """A biller of a file. `based_on` is the revision that the file was exported from, None when it does not say."""

    biller: Biller
    based_on: int | None = None


class FiledBillerSchema(BillerSchema):
    """A biller in a file, which may say what revision it was exported from."""

    revision = WholeNumber(1, 2**31 - 1, allow_none=True)

    @post_load
    def make(self, data: Mapping[str, Any], **_: Any) -> FiledBiller:
        rest = {key: value for key, value in data.items() if key != "revision"}
        return FiledBiller(Biller(**rest), data.get("revision"))


class FileSchema(StrictSchema):
    """A configuration file."""

    makes = dict

    version = WholeNumber(1, 1, required=True)
    billers = ListOf(Part(FiledBillerSchema), most=20_000, required=True)
