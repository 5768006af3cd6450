"""A biller's configuration, from its file to the revision in force.

Owns: reading files (`file`), checks (`checks`), changes in words (`changes`), planning and applying (`publishing`),
publishing (`publisher`), the revision in force (`registry`, `snapshot`), our metadata (`own_metadata`), templates
(`catalog`), and fetched metadata (`partner_metadata`). Does not own: rows (`storage.revisions`), launches (`flows`).
The way in is `registry.Registry` to read and `publisher.Publisher` to change.
"""
