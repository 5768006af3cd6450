"""The marshmallow schemas of the configuration document, from a whole file down to one rule.

Owns: the keys of each part, both ways (plain data to dataclasses and back). Does not own: single values (`fields`), the
settings of one protocol (`billers.partners`), rules over several values (`billers.checks`), YAML (`model.yaml_lines`).
Defaults stand in `model.document` alone. Called by: `load`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, get_args

from marshmallow import ValidationError, post_load, validates_schema

from saml_bridge.billers.file.fields import (
    CallbackUri,
    Choice,
    EntityId,
    Flag,
    Label,
    Labels,
    Matching,
    Origin,
    Prefix,
    Problem,
    ReturnUrl,
    Slug,
    Text,
    TransformField,
    Url,
    WholeNumber,
)
from saml_bridge.billers.file.strict_schema import ListOf, Part, StrictSchema
from saml_bridge.billers.partners.index import ENTRIES
from saml_bridge.model.document import (
    AttributeMapping,
    Biller,
    CarriageReturn,
    Condition,
    Idp,
    IdpContact,
    IdpLogo,
    KeyNames,
    Link,
    NameFormat,
    Partner,
    Portal,
    Protocol,
    Rule,
    TokenKeys,
    Tokens,
    ValueType,
)


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


PROTOCOL_SCHEMAS: Final[Mapping[str, type[StrictSchema]]] = {name: entry.schema for name, entry in ENTRIES.items()}
"""The schema of the settings of each protocol, by the key that they stand under."""


class PartnerSchema(StrictSchema):
    """A partner, with the settings of its protocol under the protocol's name.

    Settings of another protocol are refused.
    """

    makes = Partner
    only_when_given = frozenset(PROTOCOL_SCHEMAS)

    class Meta(StrictSchema.Meta):
        include: ClassVar = {name: Part(schema) for name, schema in PROTOCOL_SCHEMAS.items()}

    slug = Slug(required=True)
    name = Label(required=True)
    protocol = Choice(get_args(Protocol), required=True)
    origins = ListOf(Origin())

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
    """A biller of a file.

    `based_on` is the revision that the file was exported from, None when it does not say.
    """

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
