"""The demo: a bill portal that stands in for the host system, and four partner portals that stand in for the vendors.

Owns: demo payers and their bills, the demo session source, the partner portals with service providers of their own.
Does not own: anything of the bridge. The partner portals read our responses with pysaml2's client and never import the
bridge's SAML code, so that the demo is not our own code checking itself. `run.py` is what the command line calls.
"""
