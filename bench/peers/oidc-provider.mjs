// node-oidc-provider as a provider that tokenkeep's tests sign in at: a certified server that none of us wrote.
//
// It behaves as strictly as it can: every refresh rotates the refresh token, and a refresh token that comes a second
// time revokes the whole grant. Its own login and consent pages stand (any login name is good). Loopback only, in
// memory only. Run it from a folder in which `npm install oidc-provider` was done.
//
// Environment (all optional):
//   PORT                0 = any free port (the default)
//   ACCESS_TOKEN_TTL    seconds, 3600 by default; 1 is fine
//   CLIENT_ID           `tokenkeep`
//   CLIENT_SECRET       `tokenkeep-secret-of-the-tests`
//   CLIENT_AUTH         `client_secret_basic` (default) or `client_secret_post`
//   REDIRECT_URI        `http://localhost:7420/oauth/callback`; several are separated by spaces
//   EXIT_ON_STDIN_END   1 = end when standard input does, so that it never outlives whoever started it
//
// Standard output is one JSON object per line, and nothing else:
//   {"event":"listening","issuer":"http://127.0.0.1:PORT"}             once
//   {"event":"token","n":1,"grant_type":"refresh_token","presented":"<hash>","replayed":false,"status":200,
//    "error":null,"issued":"<hash>","started_ms":12.3,"ended_ms":14.5} for every request at the token endpoint
//   {"event":"grant_revoked"}                                          a refresh token came twice, or was revoked
// `presented` and `issued` are SHA-256 (hex) of the refresh tokens; `replayed` says that this one was presented before,
// whatever came of it; the times count from the start of the process. A line is written before the reply it is about
// goes out: whoever has the reply can read the line.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const env = (name, otherwise) => process.env[name] || otherwise;
const say = (line) => writeSync(1, `${JSON.stringify(line)}\n`);
const sha256 = (token) => (token ? createHash('sha256').update(token).digest('hex') : null);

// The library announces its development features with console.info: standard output is not for that.
console.info = console.log = console.warn = console.error;

const server = createServer();
await new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(Number(env('PORT', '0')), '127.0.0.1', resolve);
});
const issuer = `http://127.0.0.1:${server.address().port}`;

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  jwks: { keys: [{ ...signingKey, use: 'sig', alg: 'RS256', kid: 'peer' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  clients: [
    {
      client_id: env('CLIENT_ID', 'tokenkeep'),
      client_secret: env('CLIENT_SECRET', 'tokenkeep-secret-of-the-tests'),
      token_endpoint_auth_method: env('CLIENT_AUTH', 'client_secret_basic'),
      // Native, because only such clients may be sent back to a loopback address over plain HTTP.
      application_type: 'native',
      redirect_uris: env('REDIRECT_URI', 'http://localhost:7420/oauth/callback').split(' '),
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    },
  ],
  scopes: ['openid', 'offline_access', 'email', 'profile'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: (_ctx, login) => ({
    accountId: login,
    claims: () => ({ sub: login, name: login, email: `${login}@peer.example`, email_verified: true }),
  }),
  // offline_access itself is only granted where the user was asked: prompt=consent, as OpenID Connect Core 11 has it.
  issueRefreshToken: (_ctx, client, code) =>
    client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  rotateRefreshToken: () => true,
  features: { devInteractions: { enabled: true }, revocation: { enabled: true }, introspection: { enabled: true } },
  ttl: {
    AccessToken: Number(env('ACCESS_TOKEN_TTL', '3600')),
    AuthorizationCode: 60,
    IdToken: 3600,
    RefreshToken: 14 * 24 * 3600,
    Interaction: 600,
    Session: 3600,
    Grant: 14 * 24 * 3600,
  },
});

let count = 0;
const presentedBefore = new Set();

provider.use(async (ctx, next) => {
  const started = performance.now();
  await next();
  if (ctx.oidc?.route !== 'token') return;
  const presented = sha256(ctx.oidc.params?.refresh_token);
  say({
    event: 'token',
    n: (count += 1),
    grant_type: ctx.oidc.params?.grant_type ?? null,
    presented,
    replayed: presentedBefore.has(presented),
    status: ctx.status,
    error: ctx.body?.error ?? null,
    issued: sha256(ctx.body?.refresh_token),
    started_ms: started,
    ended_ms: performance.now(),
  });
  if (presented) presentedBefore.add(presented);
});
provider.on('grant.revoked', () => say({ event: 'grant_revoked' }));
provider.on('server_error', (_ctx, error) => console.error(error));

const end = () => process.exit(0);
process.on('SIGTERM', end);
process.on('SIGINT', end);
if (env('EXIT_ON_STDIN_END', '') === '1') process.stdin.on('end', end).on('error', end).resume();

server.on('request', provider.callback());
say({ event: 'listening', issuer });
