// The official TypeScript SDK of MCP as a client of a server that `tokenkeep protect` stands in front of.
//
// Environment: MCP_URL; WORKS_WITH = "everything" or "guarded": which server it is.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { CallToolResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { callback, done, ensure, env, step } from './person.mjs';

const browser = await callback();
const url = new URL(env('MCP_URL'));
const kept = {};
const provider = {
  redirectUrl: browser.url,
  clientMetadata: {
    client_name: 'MCP SDK',
    redirect_uris: [browser.url],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => { kept.client = client; },
  tokens: () => kept.tokens,
  saveTokens: (tokens) => { kept.tokens = tokens; },
  redirectToAuthorization: (page) => browser.open(page),
  saveCodeVerifier: (verifier) => { kept.verifier = verifier; },
  codeVerifier: () => kept.verifier,
};

const first = new StreamableHTTPClientTransport(url, { authProvider: provider });
try {
  await new Client({ name: 'peer', version: '1.0.0' }).connect(first);
  ensure(false, 'somebody got in without a token');
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
}
await first.finishAuth((await browser.back()).searchParams.get('code'));
step('registered and signed in');

/** What went over the wire, and a knife for it. */
const wire = { resumed: [], cut: undefined };
async function fetchAndCut(input, init) {
  const lastEvent = new Headers(init?.headers).get('last-event-id');
  if (lastEvent) wire.resumed.push(lastEvent);
  const answer = await fetch(input, init);
  const isCall = init?.method === 'POST' && String(init.body).includes('tools/call');
  if (!wire.cut || !isCall || !answer.body) return answer;
  const after = wire.cut;
  wire.cut = undefined;
  const reader = answer.body.getReader();
  let seen = '';
  const body = new ReadableStream({
    async pull(controller) {
      const { done: ended, value } = await reader.read();
      if (ended) return controller.close();
      seen += Buffer.from(value).toString();
      controller.enqueue(value);
      if (seen.includes(after)) {
        await reader.cancel();
        controller.error(new Error('the cable was pulled'));
      }
    },
  });
  return new Response(body, { status: answer.status, headers: answer.headers });
}
async function connected() {
  // Its server replays what it kept and adds nothing to that: who comes back before the operation ends misses its end.
  const reconnectionOptions = { initialReconnectionDelay: 4000, maxReconnectionDelay: 4000, reconnectionDelayGrowFactor: 1, maxRetries: 2 };
  const transport = new StreamableHTTPClientTransport(url, { authProvider: provider, fetch: fetchAndCut, reconnectionOptions });
  const client = new Client({ name: 'peer', version: '1.0.0' });
  await client.connect(transport);
  return { client, transport };
}
const textOf = (result) => result.content[0].text;

if (env('WORKS_WITH') === 'guarded') {
  const { client } = await connected();
  const seen = JSON.parse(textOf(await client.callTool({ name: 'whoami', arguments: {} })));
  const { headers, userinfo } = seen;
  ensure(headers['x-user-id']?.startsWith('oidc|'), `the user is ${headers['x-user-id']}`);
  ensure(userinfo.sub === headers['x-user-id'].split('|')[1], `the token is that of ${JSON.stringify(userinfo)}`);
  ensure(!JSON.stringify(headers).includes(kept.tokens.access_token), 'the server saw the token of the client');
  step('called a tool of a server that checks Host and Origin');
  step("the server was handed the user's own token");
  await client.close();
  done();
}

const { client, transport } = await connected();
const { tools } = await client.listTools();
const names = tools.map(({ name }) => name);
for (const name of ['echo', 'get-sum', 'trigger-long-running-operation']) ensure(names.includes(name), `no ${name}: ${names}`);
step(`listed ${names.length} tools`);
const call = async (name, args) => textOf(await client.callTool({ name, arguments: args }));
ensure((await call('echo', { message: 'häß & co' })).includes('häß & co'), 'the echo is another');
ensure((await call('get-sum', { a: 19, b: 23 })).includes('42'), 'the sum is another');
const image = await client.callTool({ name: 'get-tiny-image', arguments: {} });
ensure(image.content.some(({ type }) => type === 'image'), 'there is no image');
step('called tools');
ensure((await client.listResources()).resources.length > 0, 'there are no resources');
ensure((await client.listPrompts()).prompts.length > 0, 'there are no prompts');
step('listed resources and prompts');

const operation = async (options) => {
  const times = [];
  const request = { method: 'tools/call', params: { name: 'trigger-long-running-operation', arguments: { duration: 2, steps: 8 } } };
  const onprogress = ({ progress }) => times.push([progress, Date.now()]);
  const result = await client.request(request, CallToolResultSchema, { onprogress, ...options });
  ensure(textOf(result).includes('completed'), `it said ${textOf(result)}`);
  return times;
};
const times = await operation({});
ensure(times.length === 8, `${times.length} steps of 8 were told`);
ensure(times[7][1] - times[0][1] > 1000, 'progress came all at once');
step('events came as they happened');

// After the third step the connection breaks; nothing may be missing.
wire.cut = '"progress":3';
const again = await operation({});
ensure(wire.cut === undefined, 'nothing was cut');
ensure(wire.resumed.length > 0, 'it did not come back with Last-Event-ID');
ensure(new Set(again.map(([progress]) => progress)).size === 8, `after the cut only ${again.map(([progress]) => progress)} came`);
step('a stream that was cut went on where it was');

const before = kept.tokens;
kept.tokens = { ...before, access_token: `${before.access_token}x` };
ensure((await call('echo', { message: 'still me' })).includes('still me'), 'it was somebody else after the refresh');
ensure(kept.tokens.refresh_token !== before.refresh_token, 'the refresh token did not rotate');
step('refreshed after a 401, within its session');

const bearing = (more) => ({ authorization: `Bearer ${kept.tokens.access_token}`, 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...more });
const ping = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
const guessed = await fetch(url, { method: 'POST', body: ping, headers: bearing({ 'mcp-session-id': transport.sessionId.split('.')[0] }) });
ensure(guessed.status === 404, `the server's own id of the session got ${guessed.status}`);
step("a session's id is worth nothing by itself");

await transport.terminateSession();
await client.close();
step('ended its session');
done();
