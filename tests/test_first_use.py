"""What is built at its first use and shared: many threads that use it first, in one moment, in fresh processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.world import KEYS, World

PROCESSES = 40
THREADS = 8


@pytest.fixture
def database_url(tmp_path: Path, migrated_sqlite: Path) -> str:
    """One kind of database: nothing of it is built at the first use."""
    shutil.copyfile(migrated_sqlite, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


def test_a20_threads_that_use_a_fresh_process_first_at_once_are_all_answered(world: World) -> None:
    key = RSAKey.import_key((KEYS / "portal-rsa.key.pem").read_text(), {"kid": "portal", "use": "sig", "alg": "RS256"})
    (world.folder / "jwks.json").write_text(json.dumps(KeySet([key]).as_dict(private=False)))
    claims = {**world.session(), "iss": "https://pay.example", "aud": "saml-bridge", "iat": int(time.time())}
    settings = world.settings
    environment = {
        "BASE_URL": settings.base_url,
        "DATABASE_URL": settings.database_url,
        "CERTS_DIR": str(settings.certs_dir),
        "INSTANCE_DIR": str(settings.instance_dir),
        "SECRET_KEY": settings.secret_key,
        "SESSION_SOURCE": "jwt",
        "SESSION_JWKS": str(world.folder / "jwks.json"),
        "SESSION_ISSUER": "https://pay.example",
        "SESSION_AUDIENCE": "saml-bridge",
    }
    order = {
        "environment": {f"SAML_BRIDGE_{name}": value for name, value in environment.items()},
        "cookie": jwt.encode({"alg": "RS256", "kid": "portal"}, claims, key),
        "processes": PROCESSES,
        "threads": THREADS,
    }
    (world.folder / "order.json").write_text(json.dumps(order))
    command = [sys.executable, "-m", "tests.first_use", str(world.folder / "order.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout) == {"answered": PROCESSES * THREADS}, done.stderr[-4000:]
