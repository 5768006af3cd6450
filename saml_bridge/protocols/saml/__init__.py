"""SAML 2.0, pure: messages of partners read, messages for partners built.

A launch's way in is `receiver` (the interface of `protocols.interface`):

- `receiver`: a SAML partner as the launch sees it.
- `response`: the Response, compiled once for each partner; the name ID.
- `status`: the status codes, and the Response without an assertion.
- `message`: the head and the checks that all messages share.
- `authn_request`: sign-on requests.
- `pending_request`: a verified sign-on request, until it is answered.
- `logout_messages`: LogoutRequest and LogoutResponse, read and built.
- `bindings`: HTTP-Redirect, HTTP-POST and SOAP, in both directions.
- `metadata/`: partners' metadata read and judged; ours built.
- `xml/`: XML, signatures and encryption of any SAML document.

The room does not own keys (`keys`), attributes (`mapping`), anything kept (`storage`), and the order of an exchange
(`flows.sign_on.saml`, `flows.logout`). Time and randomness are passed in.
"""
