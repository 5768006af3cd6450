"""Our own metadata: what a partner needs to know about a biller as identity provider.

Pure. Called by the metadata page, the command line and the demo. Built with pysaml2's schema classes
(SAML 2.0 metadata, section 2.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, md, xmldsig
from saml2.s_utils import factory
from saml2.saml import (
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_PERSISTENT,
    NAMEID_FORMAT_TRANSIENT,
    NAMEID_FORMAT_UNSPECIFIED,
)

from saml_bridge.values import B64Str

NAME_ID_FORMATS = (
    NAMEID_FORMAT_PERSISTENT,
    NAMEID_FORMAT_EMAILADDRESS,
    NAMEID_FORMAT_TRANSIENT,
    NAMEID_FORMAT_UNSPECIFIED,
)


def build_idp_metadata(
    *, entity_id: str, sso_url: str, certificates: Sequence[B64Str], name: str, home_url: str
) -> bytes:
    """One EntityDescriptor as UTF-8 XML: signing certificates, name ID formats, single sign-on endpoints.

    The endpoints are there although only unsolicited responses are issued: Shibboleth and python3-saml refuse
    identity-provider metadata without one.
    """
    descriptor = md.EntityDescriptor(
        entity_id=entity_id,
        idpsso_descriptor=[
            md.IDPSSODescriptor(
                want_authn_requests_signed="false",
                protocol_support_enumeration="urn:oasis:names:tc:SAML:2.0:protocol",
                key_descriptor=[_describe_key(certificate) for certificate in certificates],
                name_id_format=[factory(md.NameIDFormat, text=one) for one in NAME_ID_FORMATS],
                single_sign_on_service=[
                    md.SingleSignOnService(binding=binding, location=sso_url)
                    for binding in (BINDING_HTTP_REDIRECT, BINDING_HTTP_POST)
                ],
            )
        ],
        organization=md.Organization(
            organization_name=[md.OrganizationName(text=name, lang="en")],
            organization_display_name=[md.OrganizationDisplayName(text=name, lang="en")],
            organization_url=[md.OrganizationURL(text=home_url, lang="en")],
        ),
    )
    document: bytes = descriptor.to_string({"md": md.NAMESPACE, "ds": xmldsig.NAMESPACE})
    return document


def _describe_key(certificate: B64Str) -> md.KeyDescriptor:
    data = xmldsig.X509Data(x509_certificate=xmldsig.X509Certificate(text=certificate))
    return md.KeyDescriptor(use="signing", key_info=xmldsig.KeyInfo(x509_data=[data]))
