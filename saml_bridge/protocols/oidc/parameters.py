"""The parameters of relying parties' servers, read so that all readers agree.

Owns: the form and its bounds. Does not own: the meaning of a parameter. Called by `flows.tokens.token_endpoint`, and by
any other module that takes a relying party's form.

Specification: RFC 6749, 3.1, 3.2 and appendix B.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn
from urllib.parse import parse_qsl

from saml_bridge.model.comparisons import compare
from saml_bridge.model.errors import ClientRefused

FORM: Final = "application/x-www-form-urlencoded"
MAX_FORM_BYTES: Final = 64 * 1024
MOST_PARAMETERS: Final = 64

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def read_form(body: bytes, *, content_type: str | None) -> dict[str, str]:
    """The parameters of a POST's body, each there once.

    One without a value is as if it were left out (RFC 6749 3.2).

    Raises ClientRefused (`invalid_request`) with the codes `form-type`, `form-size` and those of `read_parameters`.
    """
    check_form(body, content_type=content_type)
    return read_parameters(body)


def check_form(body: bytes, *, content_type: str | None) -> None:
    """Checks that a body is a form that can be read.

    Raises ClientRefused with the codes `form-type` and `form-unreadable`.
    """
    kind, _, options = (content_type or "").partition(";")
    charset = options.strip().lower().replace('"', "")
    if kind.strip().lower() != FORM or charset not in ("", "charset=utf-8"):
        words = f"the body is not {FORM} in UTF-8"
        detail = f"{words}: {compare(content_type, FORM)}"
        raise ClientRefused(detail, error="invalid_request", code="form-type", description=words)
    if len(body) > MAX_FORM_BYTES:
        _refuse("form-size", f"the body is larger than {MAX_FORM_BYTES} bytes")


def read_parameters(encoded: bytes) -> dict[str, str]:
    """The parameters of a form's body or of a query, as `read_form`.

    Raises ClientRefused (`invalid_request`) with the codes `parameter-encoding`, `parameter-many` and
    `parameter-twice`.
    """
    pairs = read_pairs(encoded)
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("parameter-twice", "a parameter is there twice")
    return {name: value for name, value in found.items() if value}


def read_pairs(encoded: bytes) -> list[tuple[str, str]]:
    """The parameters as they stand there, in order.

    Raises ClientRefused as `read_parameters`, but for those twice.
    """
    try:
        text = encoded.decode("ascii")
        if _BAD_ESCAPE.search(text):
            raise ValueError
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict") if text else []
    except ValueError:
        _refuse("parameter-encoding", "the parameters are not percent-encoded UTF-8")
    if len(pairs) > MOST_PARAMETERS:
        _refuse("parameter-many", f"there are more than {MOST_PARAMETERS} parameters")
    return pairs


def _refuse(code: str, detail: str) -> NoReturn:
    raise ClientRefused(detail, error="invalid_request", code=code)
