"""The check that lxml and xmlsec carry the same libxml2.

They hand each other documents in memory; two copies of libxml2 with different layouts crash or read wrongly.

Called by: `app.wiring`, when the service starts.
"""

from __future__ import annotations

import xmlsec
from lxml import etree

from saml_bridge.model.errors import SettingsInvalid


def check_libraries() -> None:
    """Checks that both carry one version of libxml2.

    Raises SettingsInvalid, which names both versions.
    """
    of_lxml, of_xmlsec = etree.LIBXML_VERSION, xmlsec.get_libxml_version()
    if of_lxml != of_xmlsec:
        shown = [".".join(map(str, version)) for version in (of_lxml, of_xmlsec)]
        raise SettingsInvalid(
            f"lxml brings libxml2 {shown[0]} and xmlsec brings {shown[1]}; they must be the same. "
            "Install both from the lock file: pip install -r requirements/runtime.lock"
        )
