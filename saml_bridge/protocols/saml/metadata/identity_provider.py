"""Our own metadata: what a partner needs to know about a biller as identity provider.

Owns: the content of that document, and its signature.

Does not own: the values in it (`billers.own_metadata`, which calls this), and the end of its validity. Pure.

Built with pysaml2's schema classes. HTTP-Artifact is not offered, so there is no ArtifactResolutionService.

Specification: SAML 2.0 Metadata, sections 2.3.2 and 2.4.3; the name and the picture after the Metadata Extensions for
Login and Discovery User Interface, section 2.1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from lxml import etree
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP, element_to_extension_element, md, xmldsig
from saml2.extension import mdui
from saml2.s_utils import factory
from saml2.saml import (
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_PERSISTENT,
    NAMEID_FORMAT_TRANSIENT,
    NAMEID_FORMAT_UNSPECIFIED,
)

from saml_bridge.keys.signing_key import PublishedKey, SigningKey, fit_algorithm
from saml_bridge.model.document import IdpContact, IdpLogo, SignatureAlgorithm
from saml_bridge.model.values import B64Str
from saml_bridge.protocols.saml.response import format_instant
from saml_bridge.protocols.saml.xml.names import SAMLP
from saml_bridge.protocols.saml.xml.sign import canonicalize, prepare_signer

NAME_ID_FORMATS = (
    NAMEID_FORMAT_PERSISTENT,
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_TRANSIENT,
    NAMEID_FORMAT_UNSPECIFIED,
)
CACHE_DURATION = "P1D"
_PREFIXES = {"md": md.NAMESPACE, "ds": xmldsig.NAMESPACE, "mdui": mdui.NAMESPACE}
_ALGORITHM: SignatureAlgorithm = "rsa-sha256"


@dataclass(frozen=True, slots=True)
class IdpDescription:
    """The content of our metadata.

    `key` is the one that signs, the metadata too; `other_keys` are published beside it. `valid_until` is aware UTC.
    `wants_signed_requests` is what partners are told of their sign-on requests.
    """

    entity_id: str
    sso_url: str
    slo_url: str
    key: SigningKey
    name: str
    home_url: str
    valid_until: datetime
    other_keys: tuple[PublishedKey, ...] = ()
    logo: IdpLogo | None = None
    contacts: tuple[IdpContact, ...] = ()
    wants_signed_requests: bool = False


def build_idp_metadata(description: IdpDescription) -> bytes:
    """One signed EntityDescriptor as UTF-8 XML.

    Its ID is made of its content, so the same content has the same ID.

    Raises SignatureFault.
    """
    root = etree.fromstring(_describe(description).to_string(_PREFIXES))
    etree.cleanup_namespaces(root, top_nsmap=_PREFIXES)
    root.set("ID", "_" + hashlib.sha256(canonicalize(root)).hexdigest()[:40])
    key = description.key
    prepare_signer(key, fit_algorithm(_ALGORITHM, key.kind)).sign(root, position=0)
    document: bytes = etree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return document


def _describe(description: IdpDescription) -> md.EntityDescriptor:
    name, home_url = description.name, description.home_url
    return md.EntityDescriptor(
        entity_id=description.entity_id,
        valid_until=format_instant(description.valid_until),
        cache_duration=CACHE_DURATION,
        idpsso_descriptor=[_describe_role(description)],
        organization=md.Organization(
            organization_name=[md.OrganizationName(text=name, lang="en")],
            organization_display_name=[md.OrganizationDisplayName(text=name, lang="en")],
            organization_url=[md.OrganizationURL(text=home_url, lang="en")],
        ),
        contact_person=[_describe_contact(contact) for contact in description.contacts],
    )


def _describe_role(description: IdpDescription) -> md.IDPSSODescriptor:
    return md.IDPSSODescriptor(
        want_authn_requests_signed="true" if description.wants_signed_requests else "false",
        protocol_support_enumeration=SAMLP,
        extensions=md.Extensions(extension_elements=[element_to_extension_element(_describe_display(description))]),
        key_descriptor=[_describe_key(certificate) for certificate in _list_certificates(description)],
        single_logout_service=[
            md.SingleLogoutService(binding=binding, location=description.slo_url)
            for binding in (BINDING_HTTP_REDIRECT, BINDING_HTTP_POST, BINDING_SOAP)
        ],
        name_id_format=[factory(md.NameIDFormat, text=one) for one in NAME_ID_FORMATS],
        single_sign_on_service=[
            md.SingleSignOnService(binding=binding, location=description.sso_url)
            for binding in (BINDING_HTTP_REDIRECT, BINDING_HTTP_POST)
        ],
    )


def _describe_display(description: IdpDescription) -> mdui.UIInfo:
    logo = description.logo
    return mdui.UIInfo(
        display_name=[mdui.DisplayName(text=description.name, lang="en")],
        logo=[] if logo is None else [mdui.Logo(text=logo.url, width=str(logo.width), height=str(logo.height))],
    )


def _list_certificates(description: IdpDescription) -> tuple[B64Str, ...]:
    """The certificate of the key that signs first, each once."""
    return tuple(dict.fromkeys(key.certificate for key in (description.key, *description.other_keys)))


def _describe_key(certificate: B64Str) -> md.KeyDescriptor:
    data = xmldsig.X509Data(x509_certificate=xmldsig.X509Certificate(text=certificate))
    return md.KeyDescriptor(use="signing", key_info=xmldsig.KeyInfo(x509_data=[data]))


def _describe_contact(contact: IdpContact) -> md.ContactPerson:
    return md.ContactPerson(
        contact_type=contact.type,
        given_name=None if contact.name is None else md.GivenName(text=contact.name),
        email_address=[md.EmailAddress(text=f"mailto:{contact.email}")],
    )
