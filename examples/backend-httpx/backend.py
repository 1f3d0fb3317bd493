"""A small backend whose users sign in at Supabase: the browser gets tokenkeep's token, the provider's stays where it is.

Plain httpx; the server is Python's own, so that nothing stands between the reader and the calls. README.md says how to
run it.
"""

import base64
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import httpx

NEAR_EXPIRY = 600  # a token with so many seconds left is refreshed along the way
SESSION_OVER = 4001  # what a WebSocket is closed with when its session is over

SUPABASE = os.environ["SUPABASE_URL"]
APIKEY = os.environ["SUPABASE_KEY"]
tokenkeep = httpx.Client(base_url=os.environ["TOKENKEEP_URL"])
supabase = httpx.Client(base_url=SUPABASE, headers={"apikey": APIKEY})


class Refused(Exception):
    """What the other side refused: the browser is told the same. 401 = sign in again; 503 = try again."""

    def __init__(self, status, body):
        self.status, self.body = status, body


def answer(call, *arguments, **more):
    try:
        reply = call(*arguments, **more)
    except httpx.TransportError:
        raise Refused(503, {"code": "unavailable"}) from None
    body = reply.json() if reply.content else {}
    if reply.is_error:
        raise Refused(reply.status_code, body)
    return body


def session(what, token):
    """Asks tokenkeep as the session's caller."""
    return answer(tokenkeep.post, f"/v1/sessions/{what}", headers=bearer(token))


def bearer(token):
    if not token:
        raise Refused(401, {"code": "invalid_session"})
    return {"Authorization": f"Bearer {token}"}


def seconds_left(token):
    """How long the token says that it lives. Whether it counts, tokenkeep has said."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims["exp"] - time.time()


def login(user):
    """Signs in at Supabase, and hands what that brought to tokenkeep. The browser sees our token only."""
    credentials = {"email": user["email"], "password": user["password"]}
    signed_in = answer(supabase.post, "/auth/v1/token", params={"grant_type": "password"}, json=credentials)
    new = {
        "subject": signed_in["user"]["id"],
        "email": signed_in["user"]["email"],
        "provider": "supabase",
        "tokens": {name: signed_in[name] for name in ("access_token", "refresh_token", "expires_in")},
        "refresh_token": user.get("remember", False),
    }
    return answer(tokenkeep.post, "/v1/sessions", json=new, headers=bearer(os.environ["TOKENKEEP_KEY"]))


def me(token):
    """Any route that works with the user's data: the provider's token is asked for, used, and forgotten."""
    upstream = session("upstream-token", token)
    user = answer(supabase.get, "/auth/v1/user", headers=bearer(upstream["access_token"]))
    headers = {}
    if seconds_left(token) <= NEAR_EXPIRY:
        # Whatever else the browser does, it goes on with this one; the old one lives on for a minute.
        headers["X-New-Access-Token"] = session("refresh", token)["access_token"]
    return user, headers


def socket(token):
    """Where the socket would be opened. Whoever keeps it open asks as before, and closes it with 4001 after a 401."""
    try:
        session("upstream-token", token)
    except Refused as refused:
        if refused.status != 401:
            raise
        return {"open": False, "close": SESSION_OVER}
    return {"open": True}


class Backend(BaseHTTPRequestHandler):
    def do_POST(self):
        self.serve()

    def do_GET(self):
        self.serve()

    def serve(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        headers = {}
        try:
            match self.command, url.path:
                case "POST", "/login":
                    status, said = 200, login(json.loads(body))
                case "GET", "/me":
                    said, headers = me(token)
                    status = 200
                case "POST", "/socket-token":
                    status, said = 200, session("websocket", token)
                case "GET", "/socket":
                    status, said = 200, socket(parse_qs(url.query).get("token", [""])[0])
                case "POST", "/logout":
                    answer(tokenkeep.delete, "/v1/sessions/current", headers=bearer(token))
                    status, said = 204, None
                case _:
                    status, said = 404, {}
        except Refused as refused:
            status, said = refused.status, refused.body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        reply = b"" if said is None else json.dumps(said).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


if __name__ == "__main__":
    host, port = os.environ.get("LISTEN", "127.0.0.1:8080").split(":")
    server = ThreadingHTTPServer((host, int(port)), Backend)
    print(f"http://{host}:{server.server_port}", flush=True)
    server.serve_forever()
