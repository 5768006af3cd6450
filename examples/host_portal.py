"""A host portal in plain Flask: its payer's links, a ticket for each click, and sign-out at the partners as well.

    pip install flask requests
    BRIDGE=https://sso.example.com BILLER=riverton-water PORTAL_KEY=sbp_... flask --app host_portal run

It signs its one payer in without a password; your own sign-in and your own account data stand in their place.
"""

import os
import secrets
import time

import requests
from flask import Flask, abort, redirect, render_template_string, session, url_for

BRIDGE, BILLER, PORTAL_KEY = (os.environ[name] for name in ("BRIDGE", "BILLER", "PORTAL_KEY"))
PAGE = """<!doctype html><html lang="en"><title>My bill</title><h1>My bill</h1>
{% if not sid %}<form method="post" action="/sign-in"><button>Sign in</button></form>{% else %}
<h2>Your usage</h2>{% if links is none %}<p>Not available right now.</p>{% endif %}<ul>
{% for link in links or [] %}<li><form method="post" action="/go/{{ link.link }}"
{%- if link.opens == "new_tab" %} target="_blank"{% endif %}>
<button{% if not link.available %} disabled{% endif %}>{{ link.label }}</button></form></li>{% endfor %}</ul>
<form method="post" action="/sign-out"><button>Sign out</button></form>{% endif %}</html>"""

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY") or secrets.token_hex(32)
app.config.update(SESSION_COOKIE_NAME="host_portal", SESSION_COOKIE_SAMESITE="Lax")  # Lax: no other site can post


def call_bridge(call: str, **body: object) -> dict | None:
    """One of the three calls; None when it failed, with the reason in our log."""
    headers = {"Authorization": f"Bearer {PORTAL_KEY}"}
    try:
        answer = requests.post(f"{BRIDGE}/api/v1/portal/{BILLER}/{call}", json=body, headers=headers, timeout=5)
        told = answer.json()
    except requests.RequestException as error:
        app.logger.warning("%s: %s", call, type(error).__name__)
        return None
    if not answer.ok:
        app.logger.warning("%s: %s", call, told["error"])
    return told if answer.ok else None


def build_portal_session() -> dict:
    """What the bridge is told of the payer, from our own session and our own data."""
    account = {"number": "000123456", "type": "residential", "service_points": [{"meters": [{"id": "RW-4471902"}]}]}
    payer = {"id": "P-1001", "email": "ada@example.net", "given_name": "Ada", "family_name": "Marsh"}
    times = {"auth_time": session["since"], "exp": session["since"] + 3600, "amr": ["pwd"]}
    return {"sid": session["sid"], "biller": BILLER, "payer": payer, "accounts": [account], **times}


@app.get("/")
def show() -> str:
    told = call_bridge("links", session=build_portal_session()) if "sid" in session else None
    return render_template_string(PAGE, sid=session.get("sid"), links=told and told["links"])


@app.post("/sign-in")
def sign_in():
    session.update(sid=secrets.token_hex(16), since=int(time.time()))
    return redirect(url_for("show"), code=303)


@app.post("/go/<link>")
def go(link: str):
    """A ticket is good for a minute and once: asked for at the click, and not before."""
    if "sid" not in session:
        return redirect(url_for("show"), code=303)
    ticket = call_bridge("tickets", link=link, session=build_portal_session())
    return redirect(ticket["url"], code=303) if ticket else abort(503)


@app.post("/sign-out")
def sign_out():
    """End our session, and what the bridge and the partners hold of it; some partners need the browser for that."""
    ended = call_bridge("logouts", sid=session.pop("sid")) if "sid" in session else None
    session.clear()
    return redirect((ended and ended["continue_url"]) or url_for("show"), code=303)
