"""The SAML 2.0 core. Pure: no Flask, database, network, clock or randomness of its own."""
