// The official TypeScript SDK of MCP as a client: discovery from the server's 401, registration or a metadata document,
// PKCE, refresh, step-up.
//
// Environment: MCP_URL; CLIENT_METADATA_URL = the address of a metadata document (else it registers).

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { auth, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { callback, done, ensure, env, step } from './person.mjs';

const browser = await callback();
const server = new URL(env('MCP_URL'));
const kept = {};
const provider = {
  redirectUrl: browser.url,
  clientMetadataUrl: process.env.CLIENT_METADATA_URL || undefined,
  clientMetadata: {
    client_name: 'MCP SDK',
    redirect_uris: [browser.url],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  state: () => 'a state & more',
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  redirectToAuthorization: (url) => browser.open(url),
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  codeVerifier: () => kept.verifier,
};

const code = async () => {
  const back = await browser.back();
  ensure(back.searchParams.get('state') === 'a state & more', `the state came back as ${back.searchParams.get('state')}`);
  ensure(back.searchParams.getAll('iss').length === 1, 'iss is not there exactly once');
  ensure(back.searchParams.get('code'), `no code came back: ${back.search}`);
  return back.searchParams.get('code');
};
async function connected() {
  const transport = new StreamableHTTPClientTransport(server, { authProvider: provider });
  const client = new Client({ name: 'peer', version: '1.0.0' });
  await client.connect(transport);
  return client;
}
const call = async (client, name) => (await client.callTool({ name, arguments: {} })).content[0].text;

const first = new StreamableHTTPClientTransport(server, { authProvider: provider });
try {
  await new Client({ name: 'peer', version: '1.0.0' }).connect(first);
  ensure(false, 'the server let somebody in without a token');
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
}
await first.finishAuth(await code());
step(process.env.CLIENT_METADATA_URL ? 'signed in as the client of a metadata document' : 'registered and signed in');
if (process.env.CLIENT_METADATA_URL) ensure(kept.client.client_id === process.env.CLIENT_METADATA_URL, 'another client_id');

let client = await connected();
const user = await call(client, 'whoami');
ensure(user.includes('|'), `the user is ${user}`);
step('called a tool');

const before = kept.tokens;
kept.tokens = { ...before, access_token: `${before.access_token}x` };
ensure((await call(client, 'whoami')) === user, 'another user after the refresh');
ensure(kept.tokens.refresh_token && kept.tokens.refresh_token !== before.refresh_token, 'the refresh token did not rotate');
step('refreshed after a 401');
await client.close();

client = await connected();
try {
  await call(client, 'write');
  ensure(false, 'a call went beyond its scope');
} catch (error) {
  ensure(String(error).includes('403'), `no 403: ${error}`);
}
step('was refused what goes beyond its scope');
kept.tokens = undefined;
ensure((await auth(provider, { serverUrl: server, scope: 'mcp:read mcp:write' })) === 'REDIRECT', 'the user was not asked');
await auth(provider, { serverUrl: server, authorizationCode: await code() });
client = await connected();
ensure((await call(client, 'write')) === 'written', 'the step-up brought nothing');
step('stepped up');
await client.close();
done();
