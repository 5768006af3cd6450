"""One entity out of an aggregate in one pass.

The verdicts are the same as from the whole file, its signature's included.
"""

from __future__ import annotations

import io
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import xmlsec
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from saml_bridge.model.errors import BridgeError, MetadataRefused, SignatureRefused, XmlRefused
from saml_bridge.model.values import Severity
from saml_bridge.protocols.saml.metadata import stream as xml_stream
from saml_bridge.protocols.saml.metadata.aggregate import pick_entity
from saml_bridge.protocols.saml.metadata.entity import EntityReport
from saml_bridge.protocols.saml.metadata.judge import MetadataReport, check_metadata
from saml_bridge.protocols.saml.xml.certificates import Certificate, parse_certificate
from saml_bridge.protocols.saml.xml.parse import METADATA_LIMITS, parse_xml
from saml_bridge.protocols.saml.xml.verify import METADATA_PROFILE, is_signed, read_own_certificates, verify_enveloped
from tests.bench.aggregates import MOST_GROWTH_BYTES, measure, write_aggregate
from tests.protocols.saml.corpus import CLOCK, CORPUS, Case, read_case, read_index, read_pin

MD = "urn:oasis:names:tc:SAML:2.0:metadata"
MDRPI = "urn:oasis:names:tc:SAML:metadata:rpi"
DS = "http://www.w3.org/2000/09/xmldsig#"
EXC = "http://www.w3.org/2001/10/xml-exc-c14n#"
MORE = "http://www.w3.org/2001/04/xmldsig-more#"
ENTITY = f"{{{MD}}}EntityDescriptor"
CASES = read_index()
SP = "https://sp.example.com/saml/metadata"


def pick(data: bytes, entity_id: str = SP, pinned: list[Certificate] | None = None) -> bytes:
    return pick_entity(io.BytesIO(data), entity_id, pinned=pinned)


def refusal(data: bytes, entity_id: str = SP, pinned: list[Certificate] | None = None) -> BridgeError:
    with pytest.raises((MetadataRefused, XmlRefused)) as caught:
        pick(data, entity_id, pinned)
    [finding] = caught.value.findings
    assert finding.code == caught.value.code
    assert finding.message
    assert finding.fix
    return caught.value


def outcome(look: Callable[[], object]) -> str:
    """The code of a refusal, or that there was none."""
    try:
        look()
    except BridgeError as refused:
        return refused.code
    return "accepted"


def list_entities(data: bytes) -> list[str]:
    try:
        root = parse_xml(data, limits=METADATA_LIMITS)
    except XmlRefused:
        return []
    return [name for one in root.iter(ENTITY) if (name := one.get("entityID"))]


@pytest.fixture(params=[64, 65536])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes that are read at a time.

    A small piece makes every small file one of many pieces.
    """
    monkeypatch.setattr(xml_stream, "_PIECE_BYTES", request.param)
    monkeypatch.setattr(xml_stream, "HEAD_BYTES", max(request.param, 2048))
    return request.param


# What comes out


def same_verdict(whole: MetadataReport, picked: MetadataReport) -> None:
    assert [one.metadata for one in picked.entities] == [one.metadata for one in whole.entities]
    assert [list_findings(one) for one in picked.entities] == [list_findings(one) for one in whole.entities]


def list_findings(report: EntityReport) -> list[tuple[str, Severity, str]]:
    """The findings, without the line in the file."""
    return [(one.code, one.severity, re.sub(r"line \d+", "line", one.message)) for one in report.findings]


@pytest.mark.parametrize("case", [one for one in CASES if one.verdict == "accept"], ids=lambda case: case.name)
def test_what_is_picked_is_judged_like_the_whole_file(case: Case) -> None:
    names = list_entities(case.data)
    for name in (names[0], names[len(names) // 2], names[-1]):
        whole = check_metadata(case.data, now=CLOCK, entity_id=name)
        same_verdict(whole, check_metadata(pick(case.data, name), now=CLOCK, entity_id=name))


@pytest.mark.parametrize("case", [one for one in CASES if one.verdict == "reject"], ids=lambda case: case.name)
def test_x1_x5_x7_x8_x9_x10_x15_a_hostile_file_is_refused_as_from_a_tree(case: Case) -> None:
    names = list_entities(case.data) or [SP]
    expected = outcome(lambda: parse_xml(case.data, limits=METADATA_LIMITS))
    if expected != "accepted":
        assert refusal(case.data, names[0]).code == expected
        return
    for name in names[:3]:
        code = outcome(lambda name=name: pick(case.data, name))
        assert code in ("accepted", "entity-not-found", "entity-id-repeated", "metadata-root")
        whole = check_metadata(case.data, now=CLOCK, entity_id=name)
        if code == "accepted":
            same_verdict(whole, check_metadata(pick(case.data, name), now=CLOCK, entity_id=name))
        else:
            assert whole.refused


def group(*content: str, attributes: str = "", prefix: str = "md") -> str:
    name, declaration = (f"{prefix}:", f"xmlns:{prefix}") if prefix else ("", "xmlns")
    return f'<{name}EntitiesDescriptor {declaration}="{MD}"{attributes}>{"".join(content)}</{name}EntitiesDescriptor>'


def entity(name: str = SP, *, more: str = "", key: str = "sp-signing") -> str:
    """A service provider as small as one can be."""
    certificate = b64encode(read_pin(key).der).decode()
    return (
        f'<m:EntityDescriptor xmlns:m="{MD}" entityID="{name}">{more}<m:SPSSODescriptor '
        'protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><m:KeyDescriptor>'
        f'<ds:KeyInfo xmlns:ds="{DS}"><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data>'
        '</ds:KeyInfo></m:KeyDescriptor><m:AssertionConsumerService index="0" '
        'Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="https://sp.example.com/acs"/>'
        "</m:SPSSODescriptor></m:EntityDescriptor>"
    )


def other(at: int) -> str:
    return entity(f"https://other{at}.example.com/")


@pytest.mark.usefixtures("piece")
def test_groups_keep_what_they_say_of_validity_and_nothing_else() -> None:
    inner = group(other(1), entity(), other(2), attributes=' cacheDuration="PT1H" Name="inner" ID="b"')
    outer = ' validUntil="2026-01-16T00:00:00Z" Name="outer &lt;&amp;" ID="a" xml:lang="en"'
    data = group(other(0), "<!-- c -->", inner, group(other(3)), attributes=outer).encode()
    picked = pick(data)
    root = parse_xml(picked, limits=METADATA_LIMITS)
    assert dict(root.attrib) == {"validUntil": "2026-01-16T00:00:00Z"}
    assert [dict(one.attrib) for one in root] == [{"cacheDuration": "PT1H"}]
    assert list_entities(picked) == [SP]
    found = check_metadata(picked, now=CLOCK, entity_id=SP).find_provider()
    assert found == check_metadata(data, now=CLOCK, entity_id=SP).find_provider()
    expired = data.replace(b"2026-01-16", b"2026-01-14")
    with pytest.raises(MetadataRefused) as caught:
        check_metadata(pick(expired), now=CLOCK, entity_id=SP).find_provider()
    assert caught.value.code == "metadata-expired"


@pytest.mark.usefixtures("piece")
def test_m22_groups_keep_when_they_were_published() -> None:
    def published(at: str) -> str:
        info = f'<r:PublicationInfo xmlns:r="{MDRPI}" publisher="x" creationInstant="{at}"/>'
        return f"<md:Extensions>{info}</md:Extensions>"

    inner = group(published("2026-01-11T00:00:00Z"), *map(other, range(9)), entity(), other(10))
    data = group(published("2026-01-10T00:00:00Z"), group(published("2026-01-12T00:00:00Z"), other(11)), inner).encode()
    found = check_metadata(pick(data), now=CLOCK, entity_id=SP).find_provider()
    assert found == check_metadata(data, now=CLOCK, entity_id=SP).find_provider()
    assert found.created_at == datetime(2026, 1, 11, tzinfo=UTC)
    inner_alone = data.replace(b"2026-01-11T00:00:00Z", b"&lt;odd&#10;")
    same_verdict(
        check_metadata(inner_alone, now=CLOCK, entity_id=SP), check_metadata(pick(inner_alone), now=CLOCK, entity_id=SP)
    )


@pytest.mark.usefixtures("piece")
def test_the_entity_stands_as_it_stood() -> None:
    more = '<m:Extensions><x:a xmlns:x="urn:x" t="q:b">ä&#13;\n <![CDATA[<&]]><!-- c --></x:a></m:Extensions>'
    data = group(other(0), entity(more=more), attributes=' xmlns:q="urn:q" xmlns:xsi="urn:unused"').encode()
    [found] = parse_xml(pick(data), limits=METADATA_LIMITS).iter(ENTITY)
    [meant] = [one for one in parse_xml(data, limits=METADATA_LIMITS).iter(ENTITY) if one.get("entityID") == SP]
    assert found.nsmap["q"] == "urn:q"
    assert etree.tostring(found, method="c14n") == etree.tostring(meant, method="c14n", with_tail=False)


def test_a_file_of_one_entity_comes_back_byte_for_byte() -> None:
    data = read_case("good/world-sp1-signed-requests")
    assert pick(data) == data
    assert refusal(data, "https://elsewhere.example/").code == "entity-not-found"


@pytest.mark.usefixtures("piece")
def test_an_entity_that_is_not_there_is_said_so_with_those_that_are() -> None:
    data = group(*(other(at) for at in range(25)), attributes=' ID="a"').encode()
    refused = refusal(data)
    assert refused.code == "entity-not-found"
    assert SP in refused.detail
    assert "https://other0.example.com/, https://other1.example.com/" in refused.detail
    assert "other19" in refused.detail
    assert "and 5 more" in refused.detail
    assert refusal(group().encode()).code == "entity-not-found"


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("between", [0, 3, 40])
def test_m11_an_entity_that_stands_twice_is_refused(between: int) -> None:
    twice = [entity(), *(other(at) for at in range(between)), group(entity())]
    assert refusal(group(*twice).encode()).code == "entity-id-repeated"


@pytest.mark.usefixtures("piece")
def test_m3_only_entities_in_groups_count() -> None:
    hidden = f"<md:Extensions>{entity()}</md:Extensions>"
    data = group(other(0), hidden, entity(key="sp-encryption"), other(1)).encode()
    [found] = check_metadata(pick(data), now=CLOCK, entity_id=SP).find_provider().encryption_certificates[:1]
    assert found.der == read_pin("sp-encryption").der


# What is refused on the way


def flood(attribute: str) -> str:
    """An element with one attribute more than is read."""
    return f"<a {' '.join(attribute.format(at) for at in range(METADATA_LIMITS.max_attributes + 1))}/>"


FILLER = "".join(other(at) for at in range(30))


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("name", "code", "data"),
    [
        ("x5 doctype", "xml-doctype", '<!DOCTYPE a [<!ENTITY b "c">]>' + group(entity())),
        ("x5 doctype late", "xml-doctype", "<!-- c -->\n<!DOCTYPE a>" + group(entity())),
        ("x1 entity", "xml-malformed", group(entity(), FILLER, "&file;")),
        ("x8 instruction first", "xml-processing-instruction", "<?a b?>" + group(entity())),
        (
            "x8 instruction inside",
            "xml-processing-instruction",
            group(entity(), FILLER, other(7) + "<?a b?>" + other(8)),
        ),
        ("x8 instruction last", "xml-processing-instruction", group(entity(), FILLER) + "<?a b?>"),
        (
            "x7 xinclude",
            "xml-xinclude",
            group(entity(), FILLER, '<i:include xmlns:i="http://www.w3.org/2001/XInclude"/>'),
        ),
        ("x7 xinclude", "xml-xinclude", group(entity(more='<i:a xmlns:i="http://www.w3.org/2003/XInclude"/>'), FILLER)),
        ("x9 depth", "xml-depth", group(entity(), FILLER, "<a>" * 64 + "</a>" * 64, other(0))),
        ("x9 depth last", "xml-depth", group(entity(), FILLER, other(0), "<a>" * 64 + "</a>" * 64)),
        (
            "x9 depth of groups",
            "xml-depth",
            group(*["<md:EntitiesDescriptor>"] * 64, entity(), *["</md:EntitiesDescriptor>"] * 64),
        ),
        (
            "x10 attributes",
            "xml-attributes",
            group(entity(), FILLER, flood("a{}=''"), other(0)),
        ),
        (
            "x10 namespaces",
            "xml-attributes",
            group(entity(), FILLER, flood("xmlns:a{}='u'")),
        ),
        ("x15 null", "xml-encoding", group(entity(), FILLER, "\x00")),
        ("x15 control", "xml-malformed", group(entity(), FILLER, "&#1;")),
        ("x16 second root", "xml-malformed", group(entity(), FILLER) + group(other(1))),
        ("x16 text behind", "xml-malformed", group(entity(), FILLER) + "x"),
        ("x19 duplicate", "xml-duplicate-id", group(FILLER, entity(more='<a ID="x"/><b ID="x"/>'))),
        ("x23 truncated", "xml-malformed", group(entity(), FILLER)[:-5]),
        ("x23 truncated much", "xml-malformed", group(entity(), FILLER)[:9000]),
        ("html", "xml-html", "<html><body>Sign in</body></html>"),
        ("json", "xml-not-xml", "{}"),
        ("empty", "xml-empty", " "),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_x5_x7_x8_x9_x10_x15_x16_x19_x23_are_refused_anywhere_in_the_file(name: str, code: str, data: str) -> None:
    encoded = data.encode()
    assert outcome(lambda: parse_xml(encoded, limits=METADATA_LIMITS)) == code
    assert refusal(encoded).code in (code, "xml-null" if name == "x15 null" else code)


@pytest.mark.usefixtures("piece")
def test_x14_encodings_give_the_same_and_lies_about_them_are_refused() -> None:
    text = group(FILLER, entity(more="<m:Extensions><a>Zürich</a></m:Extensions>"), attributes=' ID="a"')
    meant = pick(text.encode())
    assert "Zürich" in meant.decode()
    for codec, declared in (("utf-8-sig", ""), ("utf-16", ""), ("iso-8859-1", "ISO-8859-1"), ("utf-8", "UTF-8")):
        declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
        assert pick((declaration + text).encode(codec)) == meant
    assert refusal(text.encode("latin-1")).code == "xml-encoding"
    assert refusal(b'<?xml version="1.0" encoding="us-ascii"?>' + text.encode()).code == "xml-encoding"
    assert refusal(text.encode("utf-16-le")).code == "xml-encoding"
    assert refusal(text.encode() + b"<!-- \xff -->").code == "xml-encoding"
    assert refusal(text.encode() + b"<!-- -->\xc3").code == "xml-encoding"


@pytest.mark.parametrize(
    "data",
    [
        b"<a>" + b"x" * (METADATA_LIMITS.max_bytes + 70_000),
        b"<!--" + b"x" * 70_000 + b"-->" + group(entity()).encode(),
        group(attributes=f' a="{"x" * 70_000}"').encode(),
        group("<a>x</a>" * 700_000, entity()).encode(),
        group("<a>" + "x" * 5_400_000 + "</a>", entity()).encode(),
        group(entity(more="<!-- c -->" * 600_000)).encode(),
        group(other(1), "x" * 5_400_000, entity()).encode(),
    ],
    ids=["endless root", "prolog", "first tag", "many elements", "long text", "large entity", "text between"],
)
def test_x11_what_would_fill_the_memory_is_refused(data: bytes) -> None:
    assert refusal(data).code in ("xml-too-large", "xml-prolog", "xml-malformed", "metadata-root")


def test_unusual_tags_are_read_to_the_end_of_a_large_file() -> None:
    """Closing tags with a blank in them, and entities without content.

    There is nothing to cut the file after.
    """
    odd = other(1).replace("</m:EntityDescriptor>", "</m:EntityDescriptor\n>")
    empty = f'<m:EntityDescriptor xmlns:m="{MD}" entityID="https://empty.example/"/>\n'
    data = group(*[odd] * 2400, *[empty] * 60_000, entity()).encode()
    assert len(data) > 1.8 * METADATA_LIMITS.max_bytes
    assert list_entities(pick(data)) == [SP]


def test_metadata_of_another_kind_is_refused() -> None:
    assert refusal(b"<a/>").code == "metadata-root"
    assert refusal(group().replace(MD, "urn:other").encode()).code == "metadata-root"


# The signature


def signature(
    *,
    uri: str = "#_a",
    method: str = "rsa-sha256",
    prefixes: str | None = None,
    comments: bool = False,
    digest: str = "http://www.w3.org/2001/04/xmlenc#sha256",
    info_prefixes: str | None = None,
) -> str:
    def listing(names: str | None) -> str:
        return "" if names is None else f'<e:InclusiveNamespaces xmlns:e="{EXC}" PrefixList="{names}"/>'

    c14n = EXC + ("WithComments" if comments else "")
    return (
        f'<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo>'
        f'<ds:CanonicalizationMethod Algorithm="{c14n}">{listing(info_prefixes)}</ds:CanonicalizationMethod>'
        f'<ds:SignatureMethod Algorithm="{MORE}{method}"/><ds:Reference URI="{uri}"><ds:Transforms>'
        f'<ds:Transform Algorithm="{DS}enveloped-signature"/><ds:Transform Algorithm="{c14n}">{listing(prefixes)}'
        f'</ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue/></ds:Reference>'
        "</ds:SignedInfo>\n<ds:SignatureValue/></ds:Signature>"
    )


def sign(text: str, key: str = "federation-signer") -> bytes:
    root = etree.fromstring(text.encode())
    context = xmlsec.SignatureContext()
    context.key = xmlsec.Key.from_file(str(CORPUS / "keys" / f"{key}.key.pem"), xmlsec.constants.KeyDataFormatPem)
    context.register_id(root, "ID")
    context.sign(root.find(f"{{{DS}}}Signature"))
    return etree.tostring(root.getroottree())


def verify_whole(data: bytes, pinned: list[Certificate]) -> None:
    verify_enveloped(parse_xml(data, limits=METADATA_LIMITS), pinned, profile=METADATA_PROFILE)


def verify_with_xmlsec(data: bytes, pinned: list[Certificate]) -> None:
    """The verdict of xmlsec on a signature of any structure.

    It follows the document, so not for hostile ones.
    """
    root = parse_xml(data, limits=METADATA_LIMITS)
    for certificate in pinned:
        context = xmlsec.SignatureContext()
        context.key = xmlsec.Key.from_memory(certificate.der, xmlsec.constants.KeyDataFormatCertDer)
        if root.get("ID") is not None:
            context.register_id(root, "ID")
        with suppress(xmlsec.Error):
            context.verify(root.find(f"{{{DS}}}Signature"))
            return
    raise SignatureRefused("no key", code="signature-invalid")


def agree(data: bytes, pinned: list[Certificate], entity_id: str = SP) -> str:
    """The one verdict on a signature, of the whole, of the stream and of xmlsec.

    Broken XML is refused by all.
    """
    whole, streamed = outcome(lambda: verify_whole(data, pinned)), outcome(lambda: pick(data, entity_id, pinned))
    if streamed in ("entity-not-found", "entity-id-repeated"):
        streamed = "accepted"  # the signature comes first
    if whole.startswith("xml-") or streamed.startswith(("xml-", "metadata-root")):
        assert whole != "accepted" or streamed == "xml-duplicate-id"
        assert streamed != "accepted" or whole == "xml-duplicate-id"
        return "xml-refused"
    assert streamed == whole
    if whole in ("accepted", "signature-invalid"):  # the structure is in order
        assert outcome(lambda: verify_with_xmlsec(data, pinned)) == whole
    return whole


@pytest.fixture(scope="module")
def federation() -> list[Certificate]:
    return [read_pin("federation-signer")]


def is_signed_file(case: Case) -> bool:
    try:
        return is_signed(parse_xml(case.data, limits=METADATA_LIMITS))
    except XmlRefused:
        return False


SIGNED = [case for case in CASES if is_signed_file(case)]


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("case", SIGNED, ids=lambda case: case.name)
def test_m16_signed_files_of_the_corpus_get_the_verdict_of_xmlsec(case: Case) -> None:
    root = parse_xml(case.data, limits=METADATA_LIMITS)
    own = [parse_certificate(one) for one in root.xpath("//ds:X509Certificate", namespaces={"ds": DS}) and _own(root)]
    for pinned in ([read_pin("federation-signer")], [read_pin("ec-p256")], own, []):
        agree(case.data, pinned, next(iter(list_entities(case.data)), SP))


def _own(root: etree._Element) -> tuple[bytes, ...]:
    try:
        return read_own_certificates(root)
    except SignatureRefused:
        return ()


def test_m16_the_corpus_has_aggregates_of_both_kinds(federation: list[Certificate]) -> None:
    verdicts = {case.name: outcome(lambda case=case: verify_whole(case.data, federation)) for case in SIGNED}
    assert verdicts["good/signed-aggregate"] == "accepted"
    assert len([one for one in verdicts.values() if one != "accepted"]) > 10


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("name", ["good/aggregate-switch-aaitest-262sp", "bad/signed-unsigned-when-pinned"])
def test_s1_m16_an_unsigned_file_is_refused(federation: list[Certificate], name: str) -> None:
    data = read_case(name)
    assert refusal(data, list_entities(data)[0], federation).code.startswith("signature-")


def spread(*, prefix: str = "md", nested: bool = True, **options: str | bool | None) -> str:
    """An aggregate with all that makes canonical forms hard: comments, white space, prefixes, entities, CDATA."""
    sig = signature(**options)  # type: ignore[arg-type]  # each test names what it changes
    odd = (
        '<m:Extensions xmlns:u="urn:u" xmlns:n="urn:n">é&#13;&#9;&lt;&amp;"<![CDATA[<x>&]]><!-- c -->'
        '<n:a b="&#10;&quot;ü"'
        ' u:c="1" a="2" xmlns="urn:d"><x xmlns=""/><md:y/></n:a>  </m:Extensions>'
    )
    inner = group("\n t ", other(1), "<!-- c -->\r\n", other(2), attributes=' Name="in" xmlns:q="urn:q"', prefix=prefix)
    deep = group(group(other(3), "\n", group(other(4), prefix="z"), " "), other(5), prefix=prefix) if nested else ""
    declared = f' xmlns:md="{MD}"' if prefix != "md" else ""
    attributes = f'{declared} ID="_a" Name="&lt;é&#10;" xmlns:p="urn:p" xmlns:u="urn:u" p:b="1" xml:lang="en"'
    content = ("\n lead <!-- first -->\n ", sig, "\n\n tail ", other(0), "\n<!-- c -->  ", entity(more=odd))
    last = ("<md:Extensions>\n<a/></md:Extensions>", other(6), "\r\n \n", deep, " end<!-- last -->\n")
    return f"<!-- before -->{group(*content, inner, *last, attributes=attributes, prefix=prefix)}<!-- behind -->"


VARIANTS: list[tuple[str, dict[str, str | bool | None], str]] = [
    ("plain", {}, "federation-signer"),
    ("whole document", {"uri": ""}, "federation-signer"),
    ("with comments", {"comments": True}, "federation-signer"),
    ("with comments, whole document", {"comments": True, "uri": ""}, "federation-signer"),
    ("inclusive prefixes", {"prefixes": "p u md absent"}, "federation-signer"),
    ("inclusive default prefix", {"prefixes": "#default p"}, "federation-signer"),
    ("inclusive prefixes, default namespace", {"prefixes": "#default u xs", "prefix": ""}, "federation-signer"),
    ("inclusive prefixes of SignedInfo", {"info_prefixes": "p md #default"}, "federation-signer"),
    ("inclusive prefixes of both", {"info_prefixes": "u", "prefixes": "u", "prefix": ""}, "federation-signer"),
    (
        "inclusive default prefix of both",
        {"info_prefixes": "#default", "prefixes": "#default", "prefix": ""},
        "federation-signer",
    ),
    ("default namespace", {"prefix": ""}, "federation-signer"),
    ("flat", {"nested": False}, "federation-signer"),
    ("sha512", {"method": "rsa-sha512", "digest": "http://www.w3.org/2001/04/xmlenc#sha512"}, "federation-signer"),
    ("sha384", {"method": "rsa-sha384", "digest": f"{MORE}sha384"}, "federation-signer"),
    ("ecdsa", {"method": "ecdsa-sha256"}, "ec-p256"),
]


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(("name", "options", "key"), VARIANTS, ids=[name for name, _, _ in VARIANTS])
def test_m16_every_form_of_signature_gets_the_verdict_of_xmlsec(
    name: str, options: dict[str, str | bool | None], key: str
) -> None:
    data = sign(spread(**options), key)
    assert agree(data, [read_pin(key)]) == "accepted"
    assert agree(data, [read_pin("sp-signing"), read_pin(key)]) == "accepted"
    assert agree(data, [read_pin("sp-signing")]) != "accepted"
    assert list_entities(pick(data, SP, [read_pin(key)])) == [SP]


def changed(data: bytes, old: str, new: str) -> bytes:
    assert old.encode() in data
    return data.replace(old.encode(), new.encode(), 1)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (' Name="in"', ' Name="IN"'),
        (' Name="in"', ""),
        ("\n t ", "\n t  "),
        (" end", " End"),
        ("\n\n tail ", "\n tail "),
        (" lead ", " lea "),
        ("sp.example.com/acs", "sp.example.org/acs"),
        ("https://other6.", "https://other7."),
        ("</md:EntitiesDescriptor><!-- behind", " </md:EntitiesDescriptor><!-- behind"),
        ("<md:Extensions>\n<a/>", "<md:Extensions>\n<b/>"),
        ('ID="_a"', 'ID="_a" validUntil="2036-01-01T00:00:00Z"'),
        ('xmlns:p="urn:p"', 'xmlns:p="urn:P"'),
        ('xml:lang="en"', 'xml:lang="de"'),
        ("<md:y/>", "<md:y/><md:y/>"),
        ("<md:y/>", "<u:y/>"),
        ("#rsa-sha256", "#rsa-sha512"),
        ('xml-exc-c14n#"/>', 'xml-exc-c14n#WithComments"/>'),
        ("<!-- first -->", f'<ds:Signature xmlns:ds="{DS}"/>'),
        (" end", f' end<ds:Signature xmlns:ds="{DS}"/>'),
        ("<md:y/>", f'<ds:Signature xmlns:ds="{DS}"/>'),
    ],
)
def test_s14_s18_an_altered_aggregate_is_refused(federation: list[Certificate], old: str, new: str) -> None:
    data = sign(spread())
    assert agree(changed(data, old, new), federation) != "accepted"


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<!-- first -->", ""),
        ("<!-- c -->", "<!-- another -->"),
        (' xmlns:p="urn:p"', '   xmlns:p = "urn:p"\n'),
        (' u:c="1" a="2"', ' a="2" u:c="1"'),
        ("<md:y/>", "<md:y></md:y>"),
        ("<!-- behind -->", ""),
        (' xmlns:q="urn:q"', ""),
    ],
)
def test_what_a_signature_does_not_cover_may_change(federation: list[Certificate], old: str, new: str) -> None:
    assert agree(changed(sign(spread()), old, new), federation) == "accepted"


def test_s18_every_byte_counts_that_counts_for_xmlsec(
    federation: list[Certificate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xml_stream, "_PIECE_BYTES", 64)
    monkeypatch.setattr(xml_stream, "HEAD_BYTES", 2048)
    data = sign(group("\n", signature(), "\n <!-- c -->", entity(), other(1), " \n", attributes=' ID="_a" a="b"'))
    verdicts = {agree(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], federation) for at in range(0, len(data), 2)}
    assert {"signature-invalid", "signature-structure", "signature-algorithm", "xml-refused"} <= verdicts


CONTENT = st.lists(
    st.sampled_from(
        [
            *("\n", " ", "text", "<!-- c -->", "&#13;", "&amp;", "<![CDATA[ ]]>", '<x xmlns="urn:x"/>', "<u:x>é</u:x>"),
            *(entity(), other(1), other(2), '<md:EntitiesDescriptor xmlns:u="urn:v">', "</md:EntitiesDescriptor>"),
            *('<EntitiesDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata">', "</EntitiesDescriptor>"),
            *(f'<md:EntityDescriptor entityID="{SP}"/>', "</md:EntityDescriptor\t>", "EntityDescriptor>"),
        ]
    ),
    max_size=24,
)


@given(content=CONTENT, size=st.sampled_from([64, 1500, 65536]), old=st.integers(0), data=st.data())
@settings(max_examples=150, deadline=None)
def test_m16_any_content_in_any_pieces_gets_the_verdict_of_xmlsec(
    content: list[str], size: int, old: int, data: st.DataObject
) -> None:
    federation = [read_pin("federation-signer")]
    text = group(
        signature(prefixes=data.draw(st.sampled_from([None, "u", "#default", "u md"]))),
        *content,
        attributes=' ID="_a" xmlns:u="urn:u"',
    )
    try:
        signed = sign(text)
    except etree.XMLSyntaxError:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xml_stream, "_PIECE_BYTES", size)
        patch.setattr(xml_stream, "HEAD_BYTES", max(size, 2048))
        assert agree(signed, federation) == "accepted"
        at = old % len(signed)
        agree(signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :], federation)


def test_s14_a_second_signature_far_behind_is_noticed(federation: list[Certificate]) -> None:
    late = f'<ds:Signature xmlns:ds="{DS}"/>'
    many = [other(at) for at in range(100)]
    assert refusal(sign(group(signature(), entity(), *many, late, attributes=' ID="_a"')), SP, federation).code == (
        "signature-structure"
    )
    moved = group(entity(), *many, signature(), attributes=' ID="_a"')
    assert refusal(sign(moved), SP, federation).code == "signature-missing"
    inside = sign(group(signature(), entity(), *many, attributes=' ID="_a"'))
    wrapped = group(other(1), *many, inside.decode(), attributes=' ID="_b"').encode()
    assert refusal(wrapped, SP, federation).code in ("signature-missing", "signature-structure")


def test_x18_a_document_without_canonical_form_is_refused(federation: list[Certificate]) -> None:
    data = sign(group(signature(), entity(), attributes=' ID="_a"'))
    relative = changed(data, "<m:SPSSODescriptor", '<m:SPSSODescriptor xmlns:r="relative" r:a="b"')
    assert agree(relative, federation) == "signature-invalid"


def test_s12_a_reference_to_something_else_is_not_followed(federation: list[Certificate]) -> None:
    for uri in ("#_b", "file:///etc/passwd", "http://127.0.0.1:9/", "#xpointer(/)"):
        data = sign(group(signature(), entity(), attributes=' ID="_a"')).replace(b'URI="#_a"', f'URI="{uri}"'.encode())
        assert refusal(data, SP, federation).code == "signature-structure"


def test_a_single_signed_entity_is_verified_as_before() -> None:
    data = read_case("good/signed-ecdsa-sha256")
    [name] = list_entities(data)
    assert pick(data, name, [read_pin("ec-p256")]) == data
    assert refusal(data, name, [read_pin("federation-signer")]).code == "signature-key-unusable"


# Cost


@pytest.mark.parametrize("signed", [False, True])
def test_m19_a_large_aggregate_takes_no_more_memory_than_a_small_one(tmp_path: Path, signed: bool) -> None:
    work = "pick-signed" if signed else "pick"
    peaks = {}
    for count in (100, 3000):
        path = tmp_path / f"{count}.xml"
        write_aggregate(path, count, signed=signed)
        peaks[count] = measure(work, path, count).peak_bytes
    assert (tmp_path / "3000.xml").stat().st_size > 3.5 * METADATA_LIMITS.max_bytes
    assert peaks[3000] - peaks[100] < MOST_GROWTH_BYTES / 2
