"""saml_bridge: turns a bill-payment portal session into a signed-in session at a partner portal."""

__version__ = "0.1.0"
