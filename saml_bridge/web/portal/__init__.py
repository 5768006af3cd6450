"""The calls of bill portals: links, tickets, and the script for a portal's page.

Owns: `/api/v1/portal/{biller}/…` but for sign-out (`web.payer.logout`), portal keys at the door, refusals as JSON.
Does not own: any decision (`flows.launch`), the script itself (`web/portal_script`).
Way in: `api.create_portal_views`."""
