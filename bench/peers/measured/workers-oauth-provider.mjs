// @cloudflare/workers-oauth-provider in plain Node, as its bearer check is measured beside `GET /verify`.
//
// It is a library that stands in front of a handler: a request with a good access token reaches the handler, which
// answers at once. What Cloudflare's runtime has is stood in for: the module `cloudflare:workers` by an empty class,
// its key-value store by a Map. Loopback only. Needs Node 22 (`registerHooks`). Run it from a folder in which
// `npm install @cloudflare/workers-oauth-provider` was done.
//
// Standard output is one line of JSON: {"event":"listening","address":"127.0.0.1:PORT","token":"<a good one>"}

import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { registerHooks } from 'node:module';

const RUNTIME = 'cloudflare:workers';
const STAND_IN = 'export class WorkerEntrypoint { constructor(ctx, env) { Object.assign(this, { ctx, env }); } }';
registerHooks({
  resolve: (name, context, next) => (name === RUNTIME ? { url: RUNTIME, shortCircuit: true } : next(name, context)),
  load: (url, context, next) =>
    url === RUNTIME ? { format: 'module', source: STAND_IN, shortCircuit: true } : next(url, context),
});
const { OAuthProvider } = await import('@cloudflare/workers-oauth-provider');

// The key-value store: text by name, some of it until a time.
const records = new Map();
const OAUTH_KV = {
  async get(name, wanted) {
    const record = records.get(name);
    if (record === undefined || record.until <= Date.now()) return null;
    return wanted === 'json' || wanted?.type === 'json' ? JSON.parse(record.text) : record.text;
  },
  async put(name, text, { expirationTtl, expiration } = {}) {
    const until = expirationTtl ? Date.now() + expirationTtl * 1000 : expiration ? expiration * 1000 : Infinity;
    records.set(name, { text, until });
  },
  async delete(name) {
    records.delete(name);
  },
  async list({ prefix = '' } = {}) {
    const names = [...records.keys()].filter((name) => name.startsWith(prefix));
    return { keys: names.map((name) => ({ name })), list_complete: true };
  },
};

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const address = `127.0.0.1:${server.address().port}`;
const origin = `http://${address}`;

const provider = new OAuthProvider({
  apiRoute: '/resource',
  apiHandler: { fetch: (_request, _env, ctx) => Response.json({ user: ctx.props.user }) },
  // Whoever asks is signed in, as alice.
  defaultHandler: {
    async fetch(request, env) {
      const asked = await env.OAUTH_PROVIDER.parseAuthRequest(request);
      const { redirectTo } = await env.OAUTH_PROVIDER.completeAuthorization({
        request: asked,
        userId: 'alice',
        scope: asked.scope,
        metadata: {},
        props: { user: 'alice' },
      });
      return Response.redirect(redirectTo, 302);
    },
  },
  authorizeEndpoint: '/authorize',
  tokenEndpoint: '/token',
  clientRegistrationEndpoint: '/register',
  scopesSupported: ['read'],
  resourceMetadata: { resource: `${origin}/resource`, authorization_servers: [origin], scopes_supported: ['read'] },
});

const context = { props: {}, waitUntil() {}, passThroughOnException() {} };
const answer = (path, init) => provider.fetch(new Request(origin + path, init), { OAUTH_KV }, { ...context });

server.on('request', async (incoming, outgoing) => {
  try {
    const { method, headers, url } = incoming;
    const response = await answer(url, { method, headers });
    const body = Buffer.from(await response.arrayBuffer());
    outgoing.writeHead(response.status, { ...Object.fromEntries(response.headers), 'content-length': body.length });
    outgoing.end(body);
  } catch (error) {
    console.error(error);
    outgoing.writeHead(500).end();
  }
});

async function signIn() {
  const redirect_uri = 'https://client.example/callback';
  const registered = await answer('/register', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ client_name: 'measured', redirect_uris: [redirect_uri], token_endpoint_auth_method: 'none' }),
  });
  const { client_id } = await registered.json();
  const verifier = randomBytes(32).toString('base64url');
  const resource = `${origin}/resource`;
  const question = new URLSearchParams({
    response_type: 'code',
    client_id,
    redirect_uri,
    scope: 'read',
    state: 'measured',
    resource,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const redirect = await answer(`/authorize?${question}`);
  const code = new URL(redirect.headers.get('location')).searchParams.get('code');
  const issued = await answer('/token', {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      client_id,
      code,
      redirect_uri,
      code_verifier: verifier,
      resource,
    }).toString(),
  });
  return (await issued.json()).access_token;
}

process.stdout.write(`${JSON.stringify({ event: 'listening', address, token: await signIn() })}\n`);
