// node-oidc-provider as it is measured beside us: it issues access tokens by client credentials, and introspects them.
//
// Nothing but what the measured requests need: no pages, no log lines, everything in memory. Loopback only. Run it from
// a folder in which `npm install oidc-provider` was done.
//
// Environment: CLIENT_ID and CLIENT_SECRET of a client that proves itself with `client_secret_basic`.
//
// Which token it issues is said by the requested resource: `urn:measured:ES256`, `:EdDSA` or `:RS256` makes a JWT that
// is signed so, `urn:measured:opaque` a token that only introspection tells anything about (it introspects no others).
//
// Standard output is one line of JSON: {"event":"listening","address":"127.0.0.1:PORT","token":"<an opaque one>"}

import { generateKeyPair, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { promisify } from 'node:util';
import { Provider } from 'oidc-provider';

// What the library has to say of its defaults is not for standard output.
console.info = console.log = console.warn = console.error;

const { CLIENT_ID, CLIENT_SECRET } = process.env;
const PREFIX = 'urn:measured:';

// By JOSE's name of the algorithm: what generates its key, and what the library calls it.
const ALGORITHMS = {
  ES256: { kind: ['ec', { namedCurve: 'P-256' }], name: 'ES256' },
  EdDSA: { kind: ['ed25519', {}], name: 'Ed25519' },
  RS256: { kind: ['rsa', { modulusLength: 2048 }], name: 'RS256' },
};

const keyOf = async ({ kind, name }) => {
  const { privateKey } = await promisify(generateKeyPair)(...kind);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: name, kid: name };
};

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const address = `127.0.0.1:${server.address().port}`;

const provider = new Provider(`http://${address}`, {
  jwks: { keys: await Promise.all(Object.values(ALGORITHMS).map(keyOf)) },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  scopes: ['openid', 'read'],
  clients: [
    {
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: 'read',
    },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo(_ctx, resource) {
        const algorithm = ALGORITHMS[resource.slice(PREFIX.length)];
        const common = { scope: 'read', audience: resource, accessTokenTTL: 3600 };
        return algorithm
          ? { ...common, accessTokenFormat: 'jwt', jwt: { sign: { alg: algorithm.name } } }
          : { ...common, accessTokenFormat: 'opaque' };
      },
    },
  },
  ttl: { ClientCredentials: 3600 },
});
provider.on('server_error', (_ctx, error) => console.error(error));
server.on('request', provider.callback());

const issued = await fetch(`http://${address}/token`, {
  method: 'POST',
  headers: { authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${CLIENT_SECRET}`).toString('base64')}` },
  body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'read', resource: `${PREFIX}opaque` }),
});
const { access_token: token } = await issued.json();
process.stdout.write(`${JSON.stringify({ event: 'listening', address, token })}\n`);
