"""The names of metadata's elements, in the form that lxml compares.

Owns: the namespaces of metadata, in braces, and the elements that several modules look for.
"""

from __future__ import annotations

from typing import Final

MD: Final = "{urn:oasis:names:tc:SAML:2.0:metadata}"
MDRPI: Final = "{urn:oasis:names:tc:SAML:metadata:rpi}"
MDUI: Final = "{urn:oasis:names:tc:SAML:metadata:ui}"

ENTITY: Final = f"{MD}EntityDescriptor"
GROUP: Final = f"{MD}EntitiesDescriptor"
SP_ROLE: Final = f"{MD}SPSSODescriptor"
