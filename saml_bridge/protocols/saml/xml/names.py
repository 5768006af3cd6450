"""The names in SAML's XML: namespaces as URIs, and the form of an ID.

Owns: the names that several modules share. Does not own: the names of single algorithms.
"""

from __future__ import annotations

import re
from typing import Final

SAML: Final = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP: Final = "urn:oasis:names:tc:SAML:2.0:protocol"
DS: Final = "http://www.w3.org/2000/09/xmldsig#"
DS_MORE: Final = "http://www.w3.org/2001/04/xmldsig-more#"
XENC: Final = "http://www.w3.org/2001/04/xmlenc#"
XENC11: Final = "http://www.w3.org/2009/xmlenc11#"
EXCLUSIVE_C14N: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"

NCNAME: Final = re.compile(r"[^\W\d][\w.-]*")
"""A name without a colon, the form of every ID (Namespaces in XML, section 3)."""
