"""Makes the test-only keys beside this file: NAME.key.pem and NAME.cert.pem. Run by hand; the results are committed."""

import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
MAKERS = {
    "idp-rsa": lambda: rsa.generate_private_key(65537, 2048),
    "idp-rsa-next": lambda: rsa.generate_private_key(65537, 2048),
    "idp-rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "idp-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "idp-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "sp-signing": lambda: rsa.generate_private_key(65537, 2048),
    "sp-encryption": lambda: rsa.generate_private_key(65537, 2048),
    "attacker": lambda: rsa.generate_private_key(65537, 2048),
    "portal-rsa": lambda: rsa.generate_private_key(65537, 2048),
    "portal-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "portal-ed25519": lambda: ed25519.Ed25519PrivateKey.generate(),
}


def make_certificate(name, key):
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"TEST ONLY {name}")])
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, digest)
    )


for name, make in MAKERS.items():
    key = make()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = HERE / f"{name}.key.pem"
    path.write_bytes(pem)
    os.chmod(path, 0o600)
    (HERE / f"{name}.cert.pem").write_bytes(make_certificate(name, key).public_bytes(Encoding.PEM))
