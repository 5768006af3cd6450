"""Signing out at one demo partner, on pysaml2's client.

Owns: what a sign-out message must be to be acted on, and the partner's own messages. Does not own: the sessions that
end (`memory`), pages (`partners`), keys and metadata (`service_provider`). On top of pysaml2's checks it
refuses what pysaml2 leaves to its caller: an unsigned answer, a message for another address or another time.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lxml import etree
from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT, BINDING_SOAP
from saml2.response import StatusError
from saml2.s_utils import success_status_factory
from saml2.saml import NameID
from saml2.sigver import SignatureError, verify_redirect_signature
from saml2.time_util import in_a_while

from saml_bridge.demo.crypto import DS, LOGOUT_REQUEST, LOGOUT_RESPONSE, MAX_BYTES, SAMLP, parse_message
from saml_bridge.demo.memory import Ended
from saml_bridge.demo.service_provider import (
    RSA_SHA256,
    SHA256,
    Received,
    ResponseRefused,
    ServiceProvider,
    find_location,
)

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
PARTIAL = "urn:oasis:names:tc:SAML:2.0:status:PartialLogout"
REASON = "urn:oasis:names:tc:SAML:2.0:logout:user"
AGE = timedelta(minutes=10)
"""How far from now a message may say that it was made."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it came.

    It is the value of its field, or the body over SOAP, with the fields beside it.
    """

    binding: str
    message: str
    relay_state: str | None = None
    sig_alg: str | None = None
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send by the browser.

    It goes to a URL that carries it, or with these fields of a form.
    Over SOAP it is the `body` of the answer.
    """

    url: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """The utility's answer to the request of this ID.

    `complete` is False when another portal goes on.
    """

    request_id: str
    done: bool
    complete: bool


def ask_sign_out(provider: ServiceProvider, received: Received) -> tuple[str, Outgoing]:
    """A signed request to end the session at the utility that began it.

    Gives its ID, and the message.
    Raises ResponseRefused when the utility offers no single logout.
    """
    own = BINDING_HTTP_POST if BINDING_HTTP_POST in provider.wants.logout else BINDING_HTTP_REDIRECT
    name_id = NameID(
        text=received.name_id,
        format=received.name_id_format or None,
        name_qualifier=received.name_qualifier,
        sp_name_qualifier=received.sp_name_qualifier,
    )
    with provider.using_client() as client:
        binding, url = client.pick_binding("single_logout_service", [own], "idpsso", entity_id=received.issuer)
        request_id, request = client.create_logout_request(
            url,
            received.issuer,
            name_id=name_id,
            reason=REASON,
            expire=in_a_while(minutes=5),
            session_indexes=[received.session_index] if received.session_index else None,
            sign=binding == BINDING_HTTP_POST,
            sign_alg=RSA_SHA256,
            digest_alg=SHA256,
        )
        return str(request_id), _send(client, binding, url, "SAMLRequest", request, None)


def answer_request(provider: ServiceProvider, incoming: Incoming, end: Callable[[Ended], object]) -> Outgoing:
    """Act on a utility's sign-out request: `end` ends the sessions. The signed answer. Raises ResponseRefused.

    A session that is not there (any more) is no failure: what was asked for is so (SAML core section 3.7.3.2).
    """
    text = _open(incoming)
    _parse(text, LOGOUT_REQUEST)
    by_soap = incoming.binding == BINDING_SOAP
    with provider.using_client() as client:
        request = client.parse_logout_request(
            text if by_soap else incoming.message,
            None if by_soap else incoming.binding,  # pysaml2 would rename prefixes of what it takes out of an envelope
            relay_state=incoming.relay_state,
            sigalg=incoming.sig_alg,
            signature=incoming.signature,
        ).message
        _check_times(provider, request.issue_instant, request.not_on_or_after)
        if request.destination != (provider.soap_url if by_soap else provider.slo_url):
            raise ResponseRefused("the request is meant for another address")
        if request.name_id is None:
            raise ResponseRefused("the request does not say in plain text who is to be signed out")
        end(
            Ended(
                issuer=request.issuer.text.strip(),
                name_id=request.name_id.text,
                name_id_format=request.name_id.format or "",
                session_indexes=tuple(one.text for one in request.session_index),
            )
        )
        return _build_answer(client, request, incoming)


def take_answer(provider: ServiceProvider, incoming: Incoming, asked: Mapping[str, str]) -> Answered:
    """Read a utility's answer. `asked` are the open requests: ID and entity ID. Raises ResponseRefused."""
    root = _parse(_open(incoming), LOGOUT_RESPONSE)
    issuer = root.findtext("{urn:oasis:names:tc:SAML:2.0:assertion}Issuer", "").strip()
    request_id = root.get("InResponseTo", "")
    if not issuer or asked.get(request_id) != issuer:
        raise ResponseRefused("the answer names no request of this portal to this utility")
    if root.get("Destination") != provider.slo_url:
        raise ResponseRefused("the answer is meant for another address")
    _check_times(provider, root.get("IssueInstant", ""), None)
    with provider.using_client() as client:
        if incoming.binding == BINDING_HTTP_REDIRECT:
            _verify_query(client, issuer, incoming)
        elif root.find(f"{{{DS}}}Signature") is None:
            raise ResponseRefused("the answer is not signed")
        with suppress(StatusError):  # the codes are read below: another portal that goes on is not a failure
            client.parse_logout_request_response(incoming.message, incoming.binding)
    codes = [one.get("Value") for one in root.iterfind(f"{{{SAMLP}}}Status//{{{SAMLP}}}StatusCode")]
    partial = PARTIAL in codes
    done = bool(codes) and (codes[0] == SUCCESS or partial)
    return Answered(request_id, done=done, complete=done and not partial)


def _verify_query(client: Any, issuer: str, incoming: Incoming) -> None:
    """The signature of an answer in an address, which pysaml2 does not look at by itself."""
    if incoming.sig_alg is None or incoming.signature is None:
        raise ResponseRefused("the answer is not signed")
    signed = {"SAMLResponse": incoming.message, "SigAlg": incoming.sig_alg, "Signature": incoming.signature}
    if incoming.relay_state is not None:
        signed["RelayState"] = incoming.relay_state
    certificates = [certificate for _, certificate in client.metadata.certs(issuer, "idpsso", "signing")]
    if not any(verify_redirect_signature(signed, client.sec.sec_backend, one) for one in certificates):
        raise ResponseRefused("the signature of the answer does not match the content and the key")


def _build_answer(client: Any, request: Any, incoming: Incoming) -> Outgoing:
    binding = incoming.binding
    response = client.create_logout_response(
        request,
        bindings=[binding],
        status=success_status_factory(),
        sign=binding != BINDING_HTTP_REDIRECT,
        sign_alg=RSA_SHA256,
        digest_alg=SHA256,
    )
    destination = client.response_args(request, [binding])["destination"]
    return _send(client, binding, destination, "SAMLResponse", response, incoming.relay_state)


def _send(client: Any, binding: str, url: str, name: str, message: Any, relay_state: str | None) -> Outgoing:
    """The message in the form of its binding; in an address it is signed here, elsewhere it is signed already."""
    if binding == BINDING_HTTP_POST:
        fields = [(name, base64.b64encode(str(message).encode()).decode())]
        return Outgoing(url, (*fields, ("RelayState", relay_state)) if relay_state else tuple(fields))
    is_redirect = binding == BINDING_HTTP_REDIRECT
    sent = client.apply_binding(
        binding,
        str(message),
        url,
        relay_state or "",
        response=name == "SAMLResponse",
        sign=is_redirect,
        sigalg=RSA_SHA256,
    )
    return Outgoing(find_location(sent)) if is_redirect else Outgoing(body=_as_bytes(sent["data"]))


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _open(incoming: Incoming) -> str:
    """The XML of a message, out of its binding and within bounds. Raises ResponseRefused."""
    if incoming.binding == BINDING_SOAP:
        return _open_envelope(incoming.message)
    try:
        packed = base64.b64decode("".join(incoming.message.split()), validate=True)
        if incoming.binding == BINDING_HTTP_REDIRECT:
            inflater = zlib.decompressobj(wbits=-15)
            packed = inflater.decompress(packed, MAX_BYTES)
            if not inflater.eof:
                raise ResponseRefused("the message is too large, or cut off")
        return packed.decode()
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ResponseRefused("the message cannot be unpacked") from error


def _open_envelope(body: str) -> str:
    """The one message in a SOAP body, with its prefixes as they were signed."""
    envelope = _parse(body, f"{{{SOAP}}}Envelope")
    contents = envelope.findall(f"{{{SOAP}}}Body/*")
    if len(contents) != 1:
        raise ResponseRefused("the envelope does not hold exactly one message")
    return str(etree.tostring(contents[0], encoding="unicode", with_tail=False))


def _parse(text: str, tag: str) -> Any:
    try:
        root = parse_message(text)
    except SignatureError as error:
        raise ResponseRefused(str(error)) from error
    if root.tag != tag:
        raise ResponseRefused(f"the message is not a {tag.rpartition('}')[2]}")
    return root


def _check_times(provider: ServiceProvider, made: str, until: str | None) -> None:
    now = provider.clock()
    try:
        if abs(datetime.fromisoformat(made) - now) > AGE:
            raise ResponseRefused("the message is too old, or from the future")
        if until is not None and datetime.fromisoformat(until) <= now:
            raise ResponseRefused("the request is past its end")
    except (ValueError, TypeError) as error:
        raise ResponseRefused("the message does not say in UTC when it was made") from error
