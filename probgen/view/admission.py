"""Who may ask: a word that the printed address has and that the browser then keeps in a cookie, as Jupyter does it."""

from __future__ import annotations

import html
import secrets
from http import cookies

MISSING = "This page is for whoever started it. Open the address that `probgen view` printed, with its token."
WRONG = "The token is not the one of this `probgen view`. Open the address that it printed last."


class Token:
    """The word of one server; `value` is None where everybody on the machine may ask."""

    def __init__(self, wanted: bool):
        self.value = secrets.token_urlsafe(24) if wanted else None

    def refused(self, given: str | None, cookie: str | None, port: int) -> str:
        """Why a request is refused, "" where it is not: by the word in its address, else by the one in its cookie."""
        if self.value is None:
            return ""
        said = given if given is not None else _kept(cookie, name(port))
        if said is None:
            return MISSING
        return "" if secrets.compare_digest(said.encode(), self.value.encode()) else WRONG

    def cookie(self, port: int) -> str:
        """What the browser keeps until it is closed, and gives to this port's pages alone; no script reads it."""
        return f"{name(port)}={self.value}; Path=/; HttpOnly; SameSite=Lax"


def name(port: int) -> str:
    """Of the cookie; browsers do not keep those of two ports apart."""
    return f"probgen-view-{port}"


def _kept(cookie: str | None, name: str) -> str | None:
    try:
        found = cookies.SimpleCookie(cookie or "").get(name)
    except cookies.CookieError:
        return None
    return found.value if found else None


def told(reason: str) -> bytes:
    """A page without scripts that says why nothing is shown."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Not shown - probgen</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:15vh auto;padding:0 1rem}</style></head>"
        f'<body><h1>Not shown</h1><p role="alert">{html.escape(reason)}</p></body></html>'
    ).encode()
