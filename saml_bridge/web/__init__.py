"""The web edge: thin views over the use cases, and the pages that people see."""
