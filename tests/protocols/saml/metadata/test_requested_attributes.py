"""A partner's wishes for attributes, compared with what a mapping makes of them."""

from __future__ import annotations

import pytest

from saml_bridge.model.document import AttributeMapping, Rule
from saml_bridge.model.values import Finding, Severity
from saml_bridge.protocols.saml.metadata.requested_attributes import MOST_NAMED, check_requested_attributes
from saml_bridge.protocols.saml.metadata.service_provider import RequestedAttribute, SpMetadata
from tests.protocols.saml.issuing import BASIC, URI, make_metadata
from tests.protocols.saml.metadata.test_judge import ACS, make_entity, make_role, parse

MAIL = "urn:oid:0.9.2342.19200300.100.1.3"
UNSPECIFIED = "urn:oasis:names:tc:SAML:2.0:attrname-format:unspecified"


def find(
    *wishes: RequestedAttribute, rules: tuple[Rule, ...] = (), metadata: SpMetadata | None = None
) -> list[Finding]:
    metadata = metadata or make_metadata(requested_attributes=wishes)
    return list(check_requested_attributes(metadata, AttributeMapping("usage", rules), where="links[0].mapping"))


def codes(*wishes: RequestedAttribute, rules: tuple[Rule, ...] = ()) -> dict[str, Severity]:
    return {one.code: one.severity for one in find(*wishes, rules=rules)}


def test_m20_a_required_attribute_that_no_rule_sends_is_warned_of() -> None:
    [finding] = find(
        RequestedAttribute(MAIL, URI, "mail", True), rules=(Rule("accountNumber", from_="account.number"),)
    )
    assert (finding.code, finding.severity) == ("attribute-required-unsent", Severity.WARNING)
    assert (finding.where, f"{MAIL} (mail)" in finding.message, "usage" in finding.message) == (
        "links[0].mapping",
        True,
        True,
    )


def test_m20_an_optional_one_is_a_note() -> None:
    assert codes(RequestedAttribute("phone")) == {"attribute-optional-unsent": Severity.NOTE}


@pytest.mark.parametrize("name_format", [None, UNSPECIFIED, URI])
@pytest.mark.parametrize("required", [True, False])
def test_what_a_rule_sends_is_not_told(name_format: str | None, required: bool) -> None:
    wish = RequestedAttribute(MAIL, name_format, "mail", required)
    assert codes(wish, rules=(Rule(MAIL, from_="payer.email", name_format="uri"),)) == {}


def test_another_name_format_is_told() -> None:
    """Shibboleth goes by name and format together."""
    rules = (Rule(MAIL, from_="payer.email"),)
    [finding] = find(RequestedAttribute(MAIL, URI, "mail", True), rules=rules)
    assert (finding.code, finding.severity) == ("attribute-format-differs", Severity.WARNING)
    assert "name_format of the rule to uri" in finding.fix
    assert codes(RequestedAttribute(MAIL, BASIC), rules=rules) == {"attribute-format-differs": Severity.NOTE}
    both = (*rules, Rule(MAIL, from_="payer.email", name_format="uri"))
    assert codes(RequestedAttribute(MAIL, URI, "mail", True), rules=both) == {}


def test_names_are_compared_to_the_letter() -> None:
    assert codes(RequestedAttribute("Mail", required=True), rules=(Rule("mail", from_="payer.email"),)) == {
        "attribute-required-unsent": Severity.WARNING
    }


def test_many_wishes_are_one_line() -> None:
    wishes = [RequestedAttribute(f"a{number}", required=True) for number in range(MOST_NAMED + 3)]
    [finding] = find(*wishes)
    assert f"a{MOST_NAMED - 1} and 3 more" in finding.message


@pytest.mark.parametrize(
    ("marks", "default"),
    [((None, None), 0), ((None, "true"), 1), (("false", None), 1), (("false", "false"), 0), (("true", "true"), 0)],
)
def test_the_service_that_counts_by_default_is_the_one_that_is_held_against(
    marks: tuple[str | None, str | None], default: int
) -> None:
    said = ["" if mark is None else f'isDefault="{mark}"' for mark in marks]
    services = "".join(
        f'<md:AttributeConsumingService index="{index}" {mark}>'
        f'<md:ServiceName xml:lang="en">S</md:ServiceName><md:RequestedAttribute Name="a{index}" isRequired="true"/>'
        "</md:AttributeConsumingService>"
        for index, mark in enumerate(said)
    )
    metadata = parse(make_entity(make_role(ACS + services)))
    assert [one.name for one in metadata.requested_attributes] == ["a0", "a1"]
    [finding] = find(metadata=metadata)
    assert f"a{default}" in finding.message
    assert f"a{1 - default}" not in finding.message
