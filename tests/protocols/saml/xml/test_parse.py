"""Reading XML from outside: accepted, or refused in plain words; the schemas."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.model.errors import XmlRefused
from saml_bridge.protocols.saml.xml.parse import (
    MESSAGE_LIMITS,
    METADATA_LIMITS,
    XmlLimits,
    list_schema_errors,
    parse_xml,
    read_text,
)
from tests.protocols.saml.corpus import read_case
from tests.work import count_work, counting_work

SMALL = XmlLimits(max_bytes=10_000, max_depth=8, max_attributes=4)
PNG = b"\x89PNG\r\n\x1a\n\x00\x00"


def refusal(data: bytes, limits: XmlLimits = METADATA_LIMITS) -> XmlRefused:
    with pytest.raises(XmlRefused) as caught:
        parse_xml(data, limits=limits)
    (finding,) = caught.value.findings
    assert finding.refuses
    assert finding.code == caught.value.code
    assert finding.message == caught.value.detail
    assert finding.fix
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        "<a>å</a>".encode(),
        b"\xef\xbb\xbf" + "<a>å</a>".encode(),
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>' + "<a>å</a>".encode(),
        "<?xml version='1.0' encoding='UTF-16'?><a>å</a>".encode("utf-16"),
        b"\xfe\xff" + '<?xml version="1.0"?><a>å</a>'.encode("utf-16-be"),
        '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?><a>å</a>'.encode("latin-1"),
        b'<?xml version="1.0" encoding="US-ASCII"?><a>&#229;</a>',
        b"<!-- first --><!-- <!DOCTYPE a> --><a>&#xe5;</a><!-- last -->",
    ],
)
def test_accepted_encodings_give_the_same_text(data: bytes) -> None:
    assert parse_xml(data, limits=SMALL).text == "å"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "xml-empty"),
        (b" \r\n\t ", "xml-empty"),
        (b"<a>" + b" " * 10_000 + b"</a>", "xml-too-large"),
        (b"\x1f\x8b\x08\x00", "xml-gzip"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "xml-encoding"),
        (b'<?xml version="1.0" encoding="UTF-16"?><a/>', "xml-encoding"),
        (b'<?xml version="1.0" encoding="windows-1252"?><a/>', "xml-encoding"),
        ("<a/>".encode("utf-16-le"), "xml-encoding"),
        ("<a/>".encode("utf-32"), "xml-encoding"),
        (b"\xff\xfe" + '<?xml version="1.0" encoding="utf-8"?><a/>'.encode("utf-16-le"), "xml-encoding"),
        (b"\xff\xfe<", "xml-encoding"),
        (b'\xef\xbb\xbf<?xml version="1.0" encoding="iso-8859-1"?><a/>', "xml-encoding"),
        (b'<?xml version="1.0" encoding="us-ascii"?><a>\xe5</a>', "xml-encoding"),
        (b"<a>\xc0\xbc</a>", "xml-encoding"),
        (b"<a>\xed\xa0\x80</a>", "xml-encoding"),
        (b"<a>\x00</a>", "xml-encoding"),
        ("<a>\x00</a>".encode("utf-16"), "xml-null"),
        (b'<?xml version="1.1"?><a/>', "xml-version"),
        (b'<?xml encoding="utf-8"?><a/>', "xml-malformed"),
        (b'\n<?xml version="1.0"?><a/>', "xml-malformed"),
        (b"<a>", "xml-malformed"),
        (b"<a/><b/>", "xml-malformed"),
        (b"<a/>text", "xml-malformed"),
        (b"<a b='1' b='2'/>", "xml-malformed"),
        (b"<a>&nbsp;</a>", "xml-malformed"),
        (b"<a>&#1;</a>", "xml-malformed"),
        (b"<a>\xef\xbf\xbf</a>", "xml-malformed"),
        (b"<x:a/>", "xml-malformed"),
        (b"<!DOCTYPE a><a/>", "xml-doctype"),
        (b"<!-- x -->\n<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "xml-doctype"),
        (b"<?pi?><a/>", "xml-processing-instruction"),
        (b"<a><?pi?></a>", "xml-processing-instruction"),
        (b"<a/><?pi?>", "xml-processing-instruction"),
        (b'<a><i:include xmlns:i="http://www.w3.org/2001/XInclude" href="x"/></a>', "xml-xinclude"),
        (b"<a>" * 9 + b"</a>" * 9, "xml-depth"),
        (b"<a a='' b='' c='' d='' e=''/>", "xml-attributes"),
        (b"<a " + b" ".join(b"xmlns:n%d='u'" % one for one in range(5)) + b"/>", "xml-attributes"),
        (b"<a ID='x'><b ID='x'/></a>", "xml-duplicate-id"),
        (b"<a ID='x'><b Id='x'/></a>", "xml-duplicate-id"),
        (b"<a ID='x'><b xml:id='x'/></a>", "xml-duplicate-id"),
        (b"<!DOCTYPE html><html></html>", "xml-html"),
        (b" <HTML><head>", "xml-html"),
        (b'{"keys": []}', "xml-not-xml"),
        (b"-----BEGIN CERTIFICATE-----\nMIIC", "xml-not-xml"),
        (PNG, "xml-not-xml"),
        (b"%PDF-1.7", "xml-not-xml"),
        (b"PK\x03\x04", "xml-not-xml"),
        (b"https://sp.example.com/metadata", "xml-not-xml"),
    ],
)
def test_refused_with_a_stable_code(data: bytes, code: str) -> None:
    assert refusal(data, SMALL).code == code


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>", "HTML page"),
        (b"[1]", "JSON"),
        (b"-----BEGIN PRIVATE KEY-----", "private key"),
        (b"-----BEGIN CERTIFICATE-----", "PEM"),
        (PNG, "picture"),
        (b"<a></b>", "closed by another name"),
        (b"<a>", "ends before"),
        (b"<a>\n&nbsp;</a>", "(line 2, column 7)"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "utf-7"),
    ],
)
def test_common_mistakes_are_named(data: bytes, words: str) -> None:
    assert words in refusal(data).detail


def test_limits_are_inclusive() -> None:
    assert parse_xml(b"<a>" * 8 + b"</a>" * 8, limits=SMALL).tag == "a"
    assert len(parse_xml(b"<a a='' b='' c='' d=''/>", limits=SMALL).attrib) == 4
    assert parse_xml(b"<a>" + b" " * 9_993 + b"</a>", limits=SMALL).tag == "a"


def test_limits_of_the_kinds_of_documents() -> None:
    assert XmlLimits(5 * 1024 * 1024, 64, 256) == METADATA_LIMITS
    assert XmlLimits(64 * 1024, 32, 32, MESSAGE_LIMITS.fix) == MESSAGE_LIMITS


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x1f\x8b\x08", PNG, b"<html>", b"{}", b"plain text", b"<a>", b"<a/><b/>", b"\xff\xff", b"<a>\0</a>"),
        *(
            b'<?xml version="1.1"?><a/>',
            b'<?xml version="1.0" encoding="utf-7"?><a/>',
            b"<!DOCTYPE a><a/>",
            b"<?x?><a/>",
        ),
        *(b"<a>" * 100 + b"</a>" * 100, b'<a ID="x"><b ID="x"/></a>', b"<a>" + b" " * 70_000 + b"</a>"),
    ],
)
def test_a_fix_fits_what_was_refused_a_file_or_a_message_on_the_wire(data: bytes) -> None:
    of_message = refusal(data, MESSAGE_LIMITS)
    assert "file" not in of_message.diagnosis().replace("profile", "")
    assert "developers" in of_message.diagnosis()
    [of_file] = refusal(data + b" " * (6_000_000 if len(data) > 64 * 1024 else 0)).findings
    assert "developers" not in of_file.fix
    assert of_message.diagnosis().count(of_message.detail) == 1


def test_x2_no_connection_for_an_external_entity() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.05)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        for prolog in (f'<!DOCTYPE a SYSTEM "{url}">', f'<!DOCTYPE a [<!ENTITY % p SYSTEM "{url}"> %p;]>'):
            assert refusal(f"{prolog}<a/>".encode()).code == "xml-doctype"
        with pytest.raises(TimeoutError):
            listener.accept()


def test_x20_schema_hints_of_a_document_are_not_followed() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.05)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.xsd"
        hint = f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:x {url}"'
        root = parse_xml(f'<a {hint}><b xmlns="urn:x"/></a>'.encode(), limits=MESSAGE_LIMITS)
        assert list_schema_errors(root, "protocol")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_x4_entity_bombs_are_refused_at_once() -> None:
    for name in ("billion-laughs", "quadratic-blowup", "recursive"):
        data = read_case(f"bad/entity-{name}")
        with counting_work() as work:
            assert refusal(data).code == "xml-doctype"
        assert work.calls < 1000


def test_x9_no_depth_makes_a_recursion_error() -> None:
    for depth in (65, 255, 257, 20_000, 500_000):
        assert refusal(b"<a>" * depth + b"</a>" * depth).code == "xml-depth"
    assert refusal(b"<a>" * 1_000_000).code in ("xml-depth", "xml-malformed")


@pytest.mark.parametrize(
    "data",
    [
        b"<a " + b" ".join(b"a%d='1'" % one for one in range(100_000)) + b"/>",
        b"<a " + b" ".join(b"xmlns:n%d='u:%d'" % (one, one) for one in range(100_000)) + b"/>",
    ],
)
def test_x10_floods_on_one_element_are_refused_at_once(data: bytes) -> None:
    with counting_work() as work:
        assert refusal(data).code == "xml-attributes"
    assert work.calls < 1000


@pytest.mark.parametrize("part", [b"<b/>", b"<!---->b", b"&amp;", b"<![CDATA[a]]>b", b"<b c='1'/>"])
def test_x10_wide_documents_cost_linear_time(part: bytes) -> None:
    def judge(size: int) -> None:
        data = b"<a>" + part * (size // len(part)) + b"</a>"
        list_schema_errors(parse_xml(data, limits=METADATA_LIMITS), "metadata")

    small, large = (count_work(lambda size=size: judge(size)) for size in (1_000_000, 4_000_000))  # type: ignore[misc]
    assert large < 4.1 * small + 1000


def test_x21_no_text_of_the_document_or_the_parser_in_a_refusal() -> None:
    for data in (b"<secret></other>", b"<a>&secret;</a>", b"<secret:a/>", b"<a secret='1' secret='2'/>", b"secret"):
        detail = refusal(data).detail
        assert "secret" not in detail
        assert "<string>" not in detail


@pytest.mark.parametrize("data", [b"<a>x<!-- --></a>", b"<a><b/>x</a>", b"<a><!-- --></a>", b"<a>x<!-- -->y</a>"])
def test_x17_a_value_with_anything_inside_is_refused(data: bytes) -> None:
    with pytest.raises(XmlRefused) as caught:
        read_text(parse_xml(data, limits=SMALL))
    assert caught.value.code == "xml-value-not-text"


def test_text_is_read_untrimmed() -> None:
    assert read_text(parse_xml(b"<a> x &amp;<![CDATA[<y>]]>\n</a>", limits=SMALL)) == " x &<y>\n"
    assert read_text(parse_xml(b"<a/>", limits=SMALL)) == ""


def test_schema_accepts_real_metadata_and_names_what_breaks_it() -> None:
    root = parse_xml(read_case("good/world-sp1-signed-requests"), limits=METADATA_LIMITS)
    assert list_schema_errors(root, "metadata") == ()
    root[0].set("WantAssertionsSigned", "perhaps")
    errors = list_schema_errors(root, "metadata")
    assert len(errors) >= 1
    assert "WantAssertionsSigned" in errors[0]
    assert "line " in errors[0]
    assert "urn:oasis" not in errors[0]


def test_schema_lines_are_short_and_few() -> None:
    metadata = '<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata"'
    wide = f"{metadata} entityID='{'x' * 5000}'>{'<b/>' * 1000}</EntityDescriptor>"
    errors = list_schema_errors(etree.fromstring(wide), "metadata")
    assert 0 < len(errors) <= 200
    assert all(len(line) < 330 and line.isprintable() for line in errors)


def test_schemas_of_protocol_and_assertion_validate_too() -> None:
    issuer = '<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">https://idp.example.com</saml:Issuer>'
    status = '<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>'
    head = (
        'xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_1" Version="2.0" IssueInstant="2026-01-15T12:00:00Z"'
    )
    whole = etree.fromstring(f"<samlp:Response {head}>{issuer}{status}</samlp:Response>")
    assert list_schema_errors(whole, "protocol") == ()
    assert list_schema_errors(etree.fromstring(f"<samlp:Response {head}>{issuer}</samlp:Response>"), "protocol")
    assert list_schema_errors(etree.fromstring(issuer), "assertion") == ()


def test_schema_validation_is_thread_safe() -> None:
    valid = parse_xml(read_case("good/world-sp1-signed-requests"), limits=METADATA_LIMITS)
    invalid = parse_xml(read_case("bad/acs-index-text"), limits=METADATA_LIMITS)
    expected = list_schema_errors(invalid, "metadata")
    wrong: list[object] = []

    def work() -> None:
        for _ in range(30):
            if list_schema_errors(valid, "metadata") != () or list_schema_errors(invalid, "metadata") != expected:
                wrong.append("mixed up")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert expected
    assert wrong == []


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-16")))
def test_arbitrary_bytes_raise_nothing_else(data: bytes) -> None:
    with suppress(XmlRefused):
        assert parse_xml(data, limits=SMALL).tag


@given(st.text(st.sampled_from("<>/a&;!-?[]\"'= x:"), max_size=60))
def test_arbitrary_markup_raises_nothing_else(text: str) -> None:
    with suppress(XmlRefused):
        assert parse_xml(text.encode(), limits=SMALL).tag


@pytest.mark.parametrize("text", ["&#0;", "&#1;", "&#xFFFE;", "&#xD800;", "\x01", "\x00", "￿"])
def test_x15_a_character_that_xml_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(XmlRefused):
        parse_xml(f"<a>{text}</a>".encode("utf-8", "surrogatepass"), limits=METADATA_LIMITS)


def test_x15_xml_1_1_is_refused() -> None:
    with pytest.raises(XmlRefused):
        parse_xml(b'<?xml version="1.1"?><a/>', limits=METADATA_LIMITS)
