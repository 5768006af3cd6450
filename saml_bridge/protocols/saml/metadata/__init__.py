"""Metadata: partners' files read, judged and compared; our own built.

Way in: `judge.check_metadata`, a report; its `find_provider` gives the one provider, or refuses.

- `judge`: the file as a whole.
- `entity`: one EntityDescriptor; `keys` and `display` read parts of it.
- `service_provider`: the values that come out.
- `aggregate`, `stream`: one entity out of a file too large for one tree.
- `changes`: the differences between two files, each safe or risky.
- `encryption_choice`, `requested_attributes`: what a partner's lists come to.
- `identity_provider`: our own metadata.
- `findings`, `element_names`: findings collected; elements' names.

The sub-room does not own fetching (`billers.partner_metadata`), publishing (`billers.publishing`) and storage.
"""
