"""The words of partner metadata for people: names, descriptions, logos, links, organization, contacts.

Owns: reading these, made safe to be shown as text.

Does not own: showing them; they are escaped there as any text. Nothing here decides anything, and no URL in here is
ever fetched.

Called by: `entity`.

Specification: SAML V2.0 Metadata Extensions for Login and Discovery User Interface (mdui); saml-metadata-2.0-os, 2.3.2.
"""

from __future__ import annotations

from lxml import etree

from saml_bridge.model.comparisons import quote_value
from saml_bridge.model.urls import clean_text, find_fault, is_script
from saml_bridge.protocols.saml.metadata.element_names import MD, MDUI
from saml_bridge.protocols.saml.metadata.findings import Findings
from saml_bridge.protocols.saml.metadata.service_provider import Contact, LocalText, Logo, Organization

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_LONGEST_TEXT = 1000


def find_ui_info(role: etree._Element) -> etree._Element | None:
    """The `<mdui:UIInfo>` of a role, if it has one."""
    return role.find(f"{MD}Extensions/{MDUI}UIInfo")


def read_texts(parent: etree._Element | None, name: str) -> tuple[LocalText, ...]:
    """The texts of the children `name` (with namespace), cleaned, without empty ones."""
    children = () if parent is None else parent.findall(name)
    read = (LocalText(_read_language(child), read_display(child)) for child in children)
    return tuple(one for one in read if one.text)


def read_display(element: etree._Element) -> str:
    """The text of an element for people, cut to 1000 characters.

    Comments inside do not count.
    """
    parts = [element.text or "", *(child.tail or "" for child in element)]
    return clean_text("".join(parts))[:_LONGEST_TEXT]


def read_links(parent: etree._Element | None, name: str, findings: Findings) -> tuple[LocalText, ...]:
    """The http and https URLs of the children `name`.

    Others are left out with a warning; a script refuses the file elsewhere.
    """
    return tuple(one for one in read_texts(parent, name) if _may_link(one.text, name, findings))


def read_logos(ui_info: etree._Element | None, findings: Findings) -> tuple[Logo, ...]:
    """The https logos; embedded ones (data:) and others are left out with a finding."""
    logos = []
    for element in () if ui_info is None else ui_info.findall(f"{MDUI}Logo"):
        url = (element.text or "").strip()
        if url.lower().startswith("data:image/"):
            findings.note("logo-embedded", "A logo is embedded (data:) instead of linked. It is not shown.")
        elif _may_link(url, f"{MDUI}Logo", findings):
            if find_fault(url) is None:
                logos.append(
                    Logo(url, _read_size(element, "width"), _read_size(element, "height"), _read_language(element))
                )
            else:
                findings.note("logo-not-https", "A logo is not on https. It is not shown.")
    return tuple(logos)


def read_organization(entity: etree._Element, findings: Findings) -> Organization | None:
    element = entity.find(f"{MD}Organization")
    if element is None:
        return None
    return Organization(
        names=read_texts(element, f"{MD}OrganizationName"),
        display_names=read_texts(element, f"{MD}OrganizationDisplayName"),
        urls=read_links(element, f"{MD}OrganizationURL", findings),
    )


def read_contacts(entity: etree._Element) -> tuple[Contact, ...]:
    return tuple(_read_contact(element) for element in entity.findall(f"{MD}ContactPerson"))


def _read_contact(element: etree._Element) -> Contact:
    def all_of(name: str) -> tuple[str, ...]:
        return tuple(one.text for one in read_texts(element, f"{MD}{name}"))

    def first_of(name: str) -> str | None:
        return next(iter(all_of(name)), None)

    return Contact(
        kind=clean_text(element.get("contactType", "other")),
        company=first_of("Company"),
        given_name=first_of("GivenName"),
        surname=first_of("SurName"),
        emails=tuple(one.removeprefix("mailto:") for one in all_of("EmailAddress")),
        phones=all_of("TelephoneNumber"),
    )


def _read_language(element: etree._Element) -> str:
    return clean_text(element.get(_LANG, ""))


def _read_size(element: etree._Element, name: str) -> int | None:
    text = element.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def _may_link(url: str, name: str, findings: Findings) -> bool:
    """Tells if a URL may be shown as a link; a script refuses the file elsewhere."""
    fault = find_fault(url)
    if fault is None or fault.code == "http":
        return True
    if not is_script(url):
        shown, place = quote_value(url), etree.QName(name).localname
        message = f"The {place} {shown} {fault.words}. It is left out."
        findings.warn(
            "display-url-unusable", message, f"Nothing needs to be done; the partner could correct its {place}."
        )
    return False
