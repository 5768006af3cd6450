"""The fix for each code that a record of a refusal can have.

A fix is a sentence or two for the people who run the service.

Owns: the fix of a code, and telling reason and fix apart in a record. Does not own: the reason, which the record has,
and fixes that are known where the refusal is made: findings bring theirs along, and those go first. Called by:
`cli.show_audit`, `cli.audit`, `app.installation`. Pure.

A code that is not listed has the fix of its ending, else of its family: what stands before a hyphen of it, the
longest first.
"""

from __future__ import annotations

import re
from typing import Final

from saml_bridge.model.errors import FIX, BridgeError

SEARCH_LOG: Final = "Search the log for the trace ID; it has the same line, and what happened around it."

_RESTART: Final = "Nothing is to be mended: the payer starts again at the bill portal."
_METADATA: Final = "Ask the partner for its current metadata, check it with 'saml-bridge metadata check' and apply it."
_OUR_METADATA: Final = (
    "Give the partner our current metadata ('saml-bridge metadata show'), and compare SAML_BRIDGE_BASE_URL with the "
    "address that browsers use."
)
_BRING_BACK: Final = (
    "Bring the files of this key back from the backup: NAME.key.pem and NAME.cert.pem, mode 600. Do not make a new key "
    "of that name, partners would not know it; to replace it for good see docs/keys.md."
)
_PARTNER_SENDS: Final = "Tell the partner's developers: their message breaks the rule that the reason names."
_SECRET: Final = "Set the secret that the partner shares with us: 'saml-bridge secrets set BILLER NAME'."
_SOURCE: Final = (
    "See that the portal answers, and what 'saml-bridge doctor' says of it. Payers can try again as soon as it does."
)

_FIXES: Final = {
    "account-not-in-session": "The payer signs in as the person who has that account, or the link names no account.",
    "acs-not-in-metadata": _METADATA,
    "acs": _PARTNER_SENDS,
    "answer": "Compare what the partner's server answers with the pointer in its settings; often url leads elsewhere.",
    "answer-url-not-allowed": "Add the origin to the partner's 'origins' if it is the partner's.",
    "assertion-replayed": "The partner sends one client assertion twice: each needs a jti of its own.",
    "authorization": _PARTNER_SENDS,
    "biller-unknown": "Compare the address with 'saml-bridge export' of the billers that there are.",
    "body": "Tell the portal's developers: the body of their call breaks the rule that the reason names.",
    "callback-field": "Correct the link's callback_uri, or have the portal's session say that field.",
    "callback-not-allowed": "Add the start of that address to the link's callback_allow if payers may land there.",
    "certificate": _BRING_BACK,
    "certificate-circle": _METADATA,
    "challenge": _PARTNER_SENDS,
    "claim": _PARTNER_SENDS,
    "claims": _PARTNER_SENDS,
    "client-assertion": "The assertion breaks the rule that the reason names. Compare clocks first.",
    "client-keys": "See 'jwks-not-read' and 'jwks-key-ignored' in the log: no key of the partner's fits.",
    "client-method": "The partner proves itself in another way than its client_auth says: change one of the two.",
    "client-mismatch": "The partner must send the client_id that its ID token is for, or leave client_id out.",
    "client-secret-encoding": "The secret is right, and the partner does not form-encode it: its software has a "
    "setting or an update for that. Else set client_auth to client_secret_post, or a secret of letters and digits.",
    "client-secret": "Compare the secrets ('saml-bridge secrets list' says since when ours is good); in Basic the "
    "partner must form-encode its own.",
    "client-unknown": "Compare the partner's client_id with the one that it sends, and the issuer with this biller's.",
    "client": "Compare how the partner proves itself with its client_auth.",
    "code-expired": "The partner took more than 60 seconds to exchange the code.",
    "code-missing": _PARTNER_SENDS,
    "code-revoked": _RESTART,
    "code-session-over": _RESTART,
    "code-used": "The partner exchanges a code twice (two servers, a repeated request), or somebody else has it.",
    "code": "The exchange is not of the request that the code was given for: the partner must send the same client, "
    "redirect_uri and verifier.",
    "config-conflict": "Export the biller's configuration again, make the change there, and apply that.",
    "config": "Correct the configuration: 'saml-bridge plan FILE' names every place.",
    "database-unavailable": "Look after the database: 'saml-bridge doctor' says what it answers. Payers can try again.",
    "default-link-missing": "Set default_link of the partner: it has several links.",
    "encryption": "Ask the partner for metadata with an encryption key that can be used, or set encrypt: never.",
    "entity": "Set entity_id of the partner to one of those that the metadata has.",
    "fetch-address": "If that server is meant, add its network to SAML_BRIDGE_FETCH_ALLOW.",
    "fetch": "Try 'saml-bridge metadata refresh BILLER PARTNER'; the metadata in force works on meanwhile.",
    "foreign-request": _RESTART,
    "form": _PARTNER_SENDS,
    "fault": "A fault of this service, which no setting mends: report it with its line in the log, which names the "
    "places that it came through.",
    "grant-type": "The partner may use authorization_code alone: there are no other grants here.",
    "headers-too-large": "Have the payer delete the cookies of this site, and look at what a proxy in front of the "
    "service adds.",
    "hint-audience": "The partner must send an ID token that it got as one of this biller's clients.",
    "hint-claims": "What the partner sends is no ID token of ours: most often signed claims of UserInfo, or an ID "
    "token from before they had token_use.",
    "hint": _PARTNER_SENDS,
    "id-token-hint": "Another payer is signed in than the one that the ID token names: sign out first.",
    "impersonation-not-allowed": "Set allow_impersonation of the link if agents may open it.",
    "initiate-login-missing": "Set oidc.initiate_login_uri, or leave the link to sign-ons that the partner starts.",
    "introspection-connection": "Check its address (SAML_BRIDGE_INTROSPECTION_URL, or url in the file of "
    "SAML_BRIDGE_SESSION_SOURCES), and that the portal's endpoint runs and can be reached from this machine; "
    "'saml-bridge doctor' asks it.",
    "introspection-not-authorized": "Compare SAML_BRIDGE_INTROSPECTION_AUTH and the client's name and secret with what "
    "the portal expects; 'saml-bridge doctor' asks it.",
    "introspection-timeout": "Ask the portal's operators why it is slow; raise the seconds only if it always is.",
    "introspection-tls": "Name the authority's certificates in SAML_BRIDGE_INTROSPECTION_CA_FILE if it is your own.",
    "introspection": "Tell the portal's developers what docs/session-sources.md wants of the answer; 'saml-bridge "
    "doctor' asks the endpoint.",
    "invalid-name-id-policy": "Agree with the partner on one name ID format, or set name_id_policy: ignore there.",
    "issuer-unknown": "Register the partner's metadata, if this Issuer is a partner: the reason names it.",
    "key-passphrase-missing": "Set SAML_BRIDGE_KEY_PASSPHRASE to the passphrase of the key.",
    "key-passphrase-wrong": "Set SAML_BRIDGE_KEY_PASSPHRASE to the passphrase of the key.",
    "key-absent": _BRING_BACK,
    "key-unreadable": _BRING_BACK,
    "key-refused": "The reason says which: a file that others can read needs 'chmod 600'; one that is gone is brought "
    "back from the backup. Do not make a new key of that name, partners would not know it.",
    "key": "See 'saml-bridge keys list' and 'saml-bridge doctor', which say what is wrong with the key.",
    "launch-not-a-page": "A frame, a picture, a script or a prefetch asked: have the portal link to the launch.",
    "launch-refused": SEARCH_LOG,
    "link-disabled": "Set enabled: true of the link, if payers may use it.",
    "link-hidden": "The link's visible_when does not hold for this account: correct it, or leave the link out there.",
    "link-unknown": "Compare the address with the slugs of the biller's links.",
    "login-hint-payer": _RESTART,
    "login-hint-unknown": "The partner came back later than two minutes, twice, or in another browser: launch again.",
    "logout-not-a-page": "A frame, a picture, a script or a prefetch asked: have the portal link to the sign-out.",
    "logout-question": "The payer thought for more than 15 minutes: sign out again.",
    "logout-replayed": _PARTNER_SENDS,
    "logout": "The payer signs out at the bill portal.",
    "mapping-transform": "Correct the rule that the reason names, or what the portal's session says there.",
    "mapping": "Have the portal's session say the fields that the reason names, or change the mapping's rules: "
    "'saml-bridge launch … --session FILE' tries it.",
    "max-age": _PARTNER_SENDS,
    "metadata-change-risky": "Compare the change with the partner, then apply again with --accept-metadata.",
    "metadata-expired": _METADATA,
    "metadata": _METADATA,
    "name-id-transform": "Correct the transforms of name_id, or what the portal's session says in the field it names.",
    "name-id": "Have the portal's session say the field that name_id names, or name another one.",
    "no-authn-context": 'Have the portal\'s session say amr as the payer signed in, such as ["pwd"], or agree with the '
    "partner on a weaker class; a partner of SAML can have requested_authn_context: ignore.",
    "no-logout": "The partner's metadata offers no single logout now: ask the partner for it, or tell payers.",
    "no-next-key": "Name a next key (idp.keys.next), or set the partner's signing_key to current.",
    "no-passive": "Nothing is to be mended: the partner asked without a page, and the payer has to sign in or choose.",
    "nonce": _PARTNER_SENDS,
    "not-recorded": "Look after the database: 'saml-bridge doctor' says what it answers. Nothing has left; payers can "
    "try again.",
    "origin-not-listed": "Add the page's origin to the biller's portal.origins if it is the portal's.",
    "parameter": _PARTNER_SENDS,
    "partner-breaker-open": "Look for the records before it: the partner's server failed several times in a row.",
    "partner-busy": "The partner's server is slow: ask its operators, or start more processes ('serve --workers').",
    "partner-status": "401, 403: compare user name and secret; 3xx: use the address that it leads to; 400, 422: "
    "compare the mapping with what the partner expects; 5xx: ask the partner.",
    "partner-timeout": "Ask the partner why its server is slow; raise total_seconds only if it always is.",
    "partner-unknown": "Compare the name with the partners of this biller.",
    "partner-unreachable": "Ask the partner if its server runs; for a private network see SAML_BRIDGE_FETCH_ALLOW.",
    "partner-unusable": "See what 'saml-bridge doctor' says of the partner, and apply its configuration again.",
    "portal-key": "Give the portal a key that is good for this biller and call: 'saml-bridge portal-keys'.",
    "post-foreign": "Add the page's origin to the biller's portal.origins if it is the portal's.",
    "post-not-taken": "Give the biller a session source of the kind jwt, or have the portal link to the launch.",
    "post": "Tell the portal's developers: docs/session-sources.md says what a posted token needs.",
    "prompt": _PARTNER_SENDS,
    "pushed-flood": "The partner pushes more requests than it uses: tell its developers.",
    "pushed": _PARTNER_SENDS,
    "redirect-uri-unregistered": "Register the very redirect_uri that the partner sends: a slash at the end counts.",
    "rehearsal": "Invite the partner to a new rehearsal: see docs/keys.md.",
    "relay-state": _PARTNER_SENDS,
    "request-destination": _OUR_METADATA,
    "request-expired": "The partner's clock is off, or the request came late. Compare clocks.",
    "request-from-future": "The partner's clock is ahead. Compare clocks.",
    "request-replayed": "The payer went back, or the partner sends one ID twice: start again at the partner.",
    "request-uri-unknown": "The pushed request was used, is older than a minute, or is another client's: start again.",
    "request": _PARTNER_SENDS,
    "response": _PARTNER_SENDS,
    "return-unproved": "The partner must send id_token_hint or client_id with post_logout_redirect_uri.",
    "return-unregistered": "Register the very post_logout_redirect_uri that the partner sends.",
    "revision": "See 'saml-bridge export' for the revisions that there are.",
    "rollover": "See docs/keys.md for the order of a rollover.",
    "rule": "Correct the rule of the mapping that the reason names.",
    "scope": _PARTNER_SENDS,
    "seal-broken": "Bring SAML_BRIDGE_SECRET_KEY, or the file secret.key, back as it was.",
    "secret-sealed": "Bring SAML_BRIDGE_SECRET_KEY, or the file secret.key, back as it was, or set the secret anew.",
    "secret-short": "Set a secret of 32 bytes or more: 'saml-bridge secrets set BILLER NAME --generate' makes one.",
    "secret-unfit": "Set one that fits: 'saml-bridge secrets set BILLER NAME --generate' makes one.",
    "secret": _SECRET,
    "sector": "Set sector_identifier of the partner: its redirect URIs have several hosts.",
    "session-expired": "Compare the portal's clock with this one; else the payer signs in again.",
    "session-malformed": "Have the portal's developers compare what the session says with docs/configuration.md.",
    "session-of-other-biller": "The portal's session names another biller than the link: compare the two slugs.",
    "session-ended": "Nothing is to be mended: the payer had signed out. The portal's next sign-in needs a sid of its "
    "own.",
    "session": "See that the portal gives this service its token or cookie: docs/session-sources.md.",
    "settings": "Correct the settings: 'saml-bridge doctor' names them.",
    "sign-in-failed": "The portal's sign-in came back without a session: see that its cookie reaches this service, and "
    "that the session source knows its tokens (docs/session-sources.md).",
    "sign-in-not-new": "Have the portal's sign-in ask for the password again when 'prompt=login' is in its address.",
    "sign-on-flood": "The partner has more sign-ons waiting than payers can have: see whether somebody floods it.",
    "sign-on-large": "Tell the partner's developers: the request is larger than one that can wait here.",
    "sign-on-not-waiting": "The payer took over ten minutes, used the address twice or another browser: start again.",
    "signature-algorithm": "The partner must sign with SHA-256 or better.",
    "signature-fault": "See 'saml-bridge keys list': our key does not sign.",
    "signature": "The partner signs with a key that is not registered, or not at all. " + _METADATA,
    "source-not-set": "Set SAML_BRIDGE_SESSION_SOURCE, or name this biller's in SAML_BRIDGE_SESSION_SOURCES.",
    "source": _SOURCE,
    "state": _PARTNER_SENDS,
    "status-refused": _PARTNER_SENDS,
    "subjects-differ": _PARTNER_SENDS,
    "subject": "Have the portal's session say the one value that the subject comes from, or name another field.",
    "ticket": "The portal asks for a new ticket: one is good for a minute, and once.",
    "token-in-address": _PARTNER_SENDS,
    "token-issuer": "The partner must send the ID token to the biller that issued it: compare the two addresses.",
    "token-key-unknown": "It is not signed by a key that we publish: was the key dropped before its tokens were over?",
    "token-signature": "It is not signed by a key that we publish: was the key dropped before its tokens were over?",
    "token-unknown": _RESTART,
    "token": _PARTNER_SENDS,
    "too-many-calls": "The portal calls more often than its key may: raise per_minute, or ask it to keep answers.",
    "unknown-principal": "The partner asked for another payer than the one who is signed in at the portal: sign out "
    "there first, or agree with the partner on what its Subject says.",
    "value-type": "A value is no number or flag, and the mapping says that it is: correct the rule, or the session.",
    "value": "Correct what the portal's session says for the attribute that is named, or the rule's transforms.",
    "verifier": "The exchange is not of the browser that asked: the partner must keep each verifier with its state.",
    "xml": _PARTNER_SENDS,
}

_ENDINGS: Final = {"-long": _PARTNER_SENDS, "-given": _PARTNER_SENDS}
"""Of codes that are made of a parameter's name."""


def find_fix(code: str) -> str:
    """The fix for a refusal with this code; SEARCH_LOG where nothing better is known."""
    for ending, fix in _ENDINGS.items():
        if code.endswith(ending):
            return fix
    parts = code.split("-")
    families = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((_FIXES[one] for one in families if one in _FIXES), SEARCH_LOG)


def list_codes() -> tuple[str, ...]:
    """The known codes: those of whole errors, and those with a fix of their own."""
    kinds = [BridgeError]
    for kind in kinds:  # grows with what it finds
        kinds += kind.__subclasses__()
    return tuple(sorted({*(kind.code for kind in kinds), *(code for code in _FIXES if "-" in code)}))


_NAMED: Final = re.compile(r"\[([a-z0-9]+(?:-[a-z0-9]+)*)\] ")
"""A finding's code in a reason, as `BridgeError.diagnosis` writes it."""

_FIX: Final = re.compile(rf" ?{FIX} (.*?)(?= {FIX} | {_NAMED.pattern}|$)", re.DOTALL)


def split_reason(code: str, detail: str) -> tuple[str, tuple[str, ...]]:
    """The reason of a refusal, and its fixes.

    The fixes are those that came along, else the known ones of its codes.
    """
    fixes = [found.group(1) for found in _FIX.finditer(detail)]
    reason = _FIX.sub("", detail)
    if not fixes:
        named = [find_fix(one) for one in _NAMED.findall(detail)]
        fixes = [one for one in named if one != SEARCH_LOG] or [find_fix(code)]
    return reason, tuple(dict.fromkeys(fixes))
