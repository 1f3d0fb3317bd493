"""mcp-oauth-dynamicclient, the gateway's own server, as its /verify and /introspect are measured beside ours.

Runs as its documentation has it: uvicorn with one worker, RS256, Redis behind it. Nobody signs in at GitHub: the code
that a sign-in would have left in Redis is put there. Loopback only. Needs a Python in which
`pip install mcp-oauth-dynamicclient` was done.

Environment: REDIS_URL, REDIS_PASSWORD.

Standard output has one line of JSON:
{"event":"listening","address":"127.0.0.1:PORT","token":"..","client_id":"..","client_secret":".."}
"""

import asyncio
import base64
import json
import os
import socket

import httpx
import redis.asyncio
import uvicorn
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

REDIRECT_URI = "http://localhost:9999/callback"
CODE = "a-code-of-the-harness"


def settings() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return {
        "GITHUB_CLIENT_ID": "nobody",
        "GITHUB_CLIENT_SECRET": "nobody",
        "ALLOWED_GITHUB_USERS": "*",
        "BASE_DOMAIN": "localhost",
        "MCP_PROTOCOL_VERSION": "2025-06-18",
        "JWT_ALGORITHM": "RS256",
        "JWT_SECRET": "of-no-use-with-a-private-key-0123456789",
        "JWT_PRIVATE_KEY_B64": base64.b64encode(pem).decode(),
        "ACCESS_TOKEN_LIFETIME": "86400",
        "REFRESH_TOKEN_LIFETIME": "2592000",
        "SESSION_TIMEOUT": "3600",
        "CLIENT_LIFETIME": "7776000",
        "LOG_LEVEL": "WARNING",
    }


async def sign_in(origin: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=origin) as http:
        registered = await http.post("/register", json={"client_name": "measured", "redirect_uris": [REDIRECT_URI]})
        client = {name: registered.json()[name] for name in ("client_id", "client_secret")}
        code = {
            "client_id": client["client_id"],
            "redirect_uri": REDIRECT_URI,
            "scope": "mcp:*",
            "state": "measured",
            "code_challenge": None,
            "code_challenge_method": "S256",
            "user_id": "1",
            "username": "alice",
            "email": "",
            "name": "",
        }
        async with redis.asyncio.from_url(os.environ["REDIS_URL"], password=os.environ["REDIS_PASSWORD"]) as store:
            await store.set(f"oauth:code:{CODE}", json.dumps(code), ex=600)
        form = {"grant_type": "authorization_code", "code": CODE, "redirect_uri": REDIRECT_URI, **client}
        issued = await http.post("/token", data=form)
        return {"token": issued.json()["access_token"], **client}


async def main() -> None:
    os.environ.update(settings())
    # Reads the environment when it is imported.
    from mcp_oauth_dynamicclient.server import create_app

    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(create_app(), access_log=False, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    said = {"event": "listening", "address": address, **await sign_in(f"http://{address}")}
    print(json.dumps(said), flush=True)
    await serving


if __name__ == "__main__":
    uvloop.run(main())
