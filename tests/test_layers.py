"""A module imports only from its own layer and those below it; a pure module only from what is listed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "saml_bridge"

LAYERS: list[set[str]] = [
    {"values", "errors", "document", "nearest", "built_once", "__init__"},
    {
        *("characters", "identifiers"),
        *("fields", "callback", "conditions", "transforms", "mapping", "config", "changes", "saml"),
        *(
            "receivers",
            "protocols",
            "json_text",
            "comparisons",
            "claims",
            "pairwise",
            "carried_token",
            "signed_link",
            "encrypted_token",
            "backchannel_token",
            "oidc",
        ),
        *("token_keys", "catalog", "fixes"),
    },
    {
        *("settings", "logs", "db", "keys", "sessions", "audit", "registry", "migrations", "sealing"),
        *("sources", "fetching", "metadata_source", "exchanges", "partner_sessions", "rehearsals", "refreshes"),
        *("ended_sessions", "connection_faults"),
        "portal_keys",
        "partner_secrets",
        "partner_calls",
        "grants",
    },
    {
        "launch",
        "sign_on",
        "saml_sign_on",
        "logout",
        "publishing",
        "refreshing",
        "rollover",
        "identity",
        "links",
        "tickets",
        "posted",
        "authorization",
        "token_exchange",
        "provider",
    },
    {"web", "cli", "metadata_report", "key_report", "terminal", "demo", "schedule"},
    {"app", "installation"},
]
PURE_PACKAGES = {"lxml", "xmlsec", "saml2", "marshmallow", "joserfc", "cryptography", "re2", "yaml", "authlib"}
NO_FLASK_BELOW = 4
FLASK_ALLOWED = {"db", "migrations"}
WIRING = {("cli", "app"), ("cli", "installation"), ("demo", "app"), ("demo", "installation")}


def _layer_of(module: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if module in names)


def _module_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Full names of everything that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


SOURCES = sorted(path for path in ROOT.rglob("*.py"))


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {_module_of(path) for path in SOURCES} <= known


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    module = _module_of(path)
    level = _layer_of(module)
    for name in _imports(path):
        package, _, rest = name.partition(".")
        if package == "saml_bridge" and rest:
            target = rest.split(".")[0]
            allowed = (module, target) in WIRING or (ROOT / target).with_suffix(".py").exists() is False
            if target in set().union(*LAYERS):
                assert _layer_of(target) <= level or (module, target) in WIRING, f"{module} imports {target}"
            else:
                assert allowed, f"{module} imports {name}"
        elif package == "flask" or package.startswith("flask_"):
            assert level >= NO_FLASK_BELOW or module in FLASK_ALLOWED, f"{module} imports {package}"
        elif level == 0:
            assert package in sys.stdlib_module_names | {"saml_bridge"}, f"{module} imports {package}"
        elif level == 1:
            assert package in sys.stdlib_module_names | PURE_PACKAGES | {"saml_bridge"}, f"{module} imports {package}"


def test_only_the_saml_core_and_the_demo_partners_use_xmlsec() -> None:
    users = {_module_of(path) for path in SOURCES if any(name.split(".")[0] == "xmlsec" for name in _imports(path))}
    assert users <= {"saml", "demo"}


def test_demo_partners_do_not_use_our_saml_core() -> None:
    for path in (ROOT / "demo").glob("*.py"):
        assert not any(name.startswith("saml_bridge.saml") for name in _imports(path)), path


def test_pure_modules_read_no_clock_and_no_randomness() -> None:
    for path in SOURCES:
        if _layer_of(_module_of(path)) > 1:
            continue
        assert not {"random", "secrets", "uuid", "socket", "time"} & {n.split(".")[0] for n in _imports(path)}, path
        assert "datetime.now(" not in path.read_text(encoding="utf-8"), path
        assert "os.urandom" not in path.read_text(encoding="utf-8"), path
