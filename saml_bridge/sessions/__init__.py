"""Session sources: each answers "who is this?" from what a request carries.

| module | what |
| --- | --- |
| `source` | the `SessionSource` protocol, and the checks that every source shares |
| `credentials` | which token a request carries |
| `jwt` | a JWT that the portal signs |
| `jwks` | the portal's public keys |
| `introspection` | the answer of the portal's introspection endpoint |
| `endpoint` `deadlines` `breaker` | asking that endpoint: connections, time limits, leaving it alone while it fails |
| `files` | a file, for the command line |
| `book` `opening` `sources_file` | which source serves which biller, and making it from settings |
| `locations` | which addresses of the portal are taken |
| `json_text` | JSON, read strictly |

Owns: who the payer is, as far as the portal tells. Does not own: the shape of the session document (`fields.py`), and
whether the session belongs to a launch's biller, may see its link, or is an agent's (`launch.py`). Called by the launch
and by the command line; wired in `app.py`.
"""

from saml_bridge.json_text import JsonRefused, parse_json
from saml_bridge.sessions.book import SourceBook
from saml_bridge.sessions.credentials import MAX_TOKEN_BYTES
from saml_bridge.sessions.files import MAX_FILE_BYTES, FileSource
from saml_bridge.sessions.introspection import IntrospectionSource
from saml_bridge.sessions.jwks import MAX_JWKS_BYTES, Jwks, UrlReader, open_jwks
from saml_bridge.sessions.jwt import JwtSource
from saml_bridge.sessions.source import DEFAULT_LEEWAY, SessionSource, check_current, read_session

__all__ = [
    "DEFAULT_LEEWAY",
    "MAX_FILE_BYTES",
    "MAX_JWKS_BYTES",
    "MAX_TOKEN_BYTES",
    "FileSource",
    "IntrospectionSource",
    "JsonRefused",
    "Jwks",
    "JwtSource",
    "SessionSource",
    "SourceBook",
    "UrlReader",
    "check_current",
    "open_jwks",
    "parse_json",
    "read_session",
]
