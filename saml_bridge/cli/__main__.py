"""`python -m saml_bridge.cli`, where the `saml-bridge` program is not on the path."""

from saml_bridge.cli.main import main

if __name__ == "__main__":
    main()
