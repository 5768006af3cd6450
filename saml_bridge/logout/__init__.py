"""Single logout: of a payer, at the portal and at every partner that offers it.

Owns: the use case (`sign_out.py`) and its parts: the states of a logout (`progress.py`), the way to one partner
(`voice.py`, one module for each protocol), the portal's callback (`callback.py`), calls to many servers at once
(`together.py`), what a relying party may ask for (`rp_initiated.py`).
Does not own: sign-out messages (`saml/logout.py`), what is remembered (`partner_sessions.py`, `exchanges.py`).
Called by: the pages and the API of `web/logout.py`.
"""

from saml_bridge.logout.progress import Leg, Portal, Progress, Step
from saml_bridge.logout.rp_initiated import Question, RpInitiated
from saml_bridge.logout.sign_out import Noted, Outcome, SignedOut, SignOut, Soap, Unsure, Visitor, Watch
from saml_bridge.logout.voice import GoTo, PostTo

__all__ = [
    "GoTo",
    "Leg",
    "Noted",
    "Outcome",
    "Portal",
    "PostTo",
    "Progress",
    "Question",
    "RpInitiated",
    "SignOut",
    "SignedOut",
    "Soap",
    "Step",
    "Unsure",
    "Visitor",
    "Watch",
]
