"""The official Python SDK of MCP as a client: discovery from the server's 401, registration, PKCE, refresh, step-up.

Environment: MCP_URL. Standard output as in `person.mjs`.
"""

import asyncio
import http.server
import json
import os
import threading
import urllib.parse

import httpx2
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata


def say(**line):
    os.write(1, (json.dumps(line) + "\n").encode())


def step(name):
    say(event="step", name=name)


class Callback(http.server.BaseHTTPRequestHandler):
    """Where the browser comes back to."""

    arrived = None

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"back at the client")
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        loop, future = Callback.arrived
        loop.call_soon_threadsafe(future.set_result, query)

    def log_message(self, *_):
        pass


class Storage(TokenStorage):
    def __init__(self):
        self.tokens = None
        self.client = None
        self.refreshed = 0

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        if self.tokens and self.tokens.refresh_token != tokens.refresh_token:
            self.refreshed += 1
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


async def redirected(url):
    Callback.arrived = (asyncio.get_running_loop(), asyncio.get_running_loop().create_future())
    say(event="open", url=url)


async def came_back():
    query = await Callback.arrived[1]
    assert len(query.get("iss", [])) == 1, f"iss is not there exactly once: {query}"
    return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0], iss=query["iss"][0])


async def call(provider, tool):
    async with httpx2.AsyncClient(auth=provider, timeout=30) as client:
        async with streamable_http_client(os.environ["MCP_URL"], http_client=client) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                result = await session.call_tool(tool, {})
                return result.content[0].text


async def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    metadata = OAuthClientMetadata(
        client_name="MCP Python SDK",
        redirect_uris=[f"http://127.0.0.1:{server.server_port}/callback"],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
    )
    storage = Storage()
    provider = OAuthClientProvider(os.environ["MCP_URL"], metadata, storage, redirected, came_back)

    user = await call(provider, "whoami")
    assert "|" in user, f"the user is {user}"
    step("registered, signed in and called a tool")

    # As if it had expired: the SDK refreshes what it believes to be dead.
    provider.context.token_expiry_time = 1
    assert await call(provider, "whoami") == user
    assert storage.refreshed == 1, f"{storage.refreshed} refreshes"
    step("refreshed")

    assert await call(provider, "write") == "written"
    step("stepped up")
    say(event="done")


asyncio.run(main())
