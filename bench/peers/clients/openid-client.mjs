// openid-client: discovery (both documents), registration, code with PKCE, resource, iss, token exchange, refresh,
// introspection, revocation.
//
// Environment: ISSUER, RESOURCE; UPSTREAM, where its user signs in, and AUDIENCE, what that is called; EXCHANGER, a client of
// the resource's, and CLIENT_SECRET.

import * as client from 'openid-client';
import { callback, done, ensure, env, step } from './person.mjs';

const browser = await callback();
const issuer = new URL(env('ISSUER'));
const resource = env('RESOURCE');
const options = { execute: [client.allowInsecureRequests] };

for (const algorithm of ['oidc', 'oauth2']) {
  const found = await client.discovery(issuer, 'nobody', undefined, undefined, { ...options, algorithm });
  ensure(found.serverMetadata().issuer === env('ISSUER'), `the issuer is ${found.serverMetadata().issuer}`);
  ensure(found.serverMetadata().supportsPKCE(), 'PKCE is not announced');
}
step('discovered');

const config = await client.dynamicClientRegistration(issuer, {
  client_name: 'openid-client',
  redirect_uris: [browser.url],
  grant_types: ['authorization_code', 'refresh_token'],
  token_endpoint_auth_method: 'client_secret_basic',
}, client.ClientSecretBasic(), { ...options, algorithm: 'oauth2' });
step('registered with a secret');

const verifier = client.randomPKCECodeVerifier();
const state = client.randomState();
browser.open(client.buildAuthorizationUrl(config, {
  redirect_uri: browser.url,
  scope: 'mcp:read',
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
  state,
  resource,
}));
const tokens = await client.authorizationCodeGrant(config, await browser.back(), { pkceCodeVerifier: verifier, expectedState: state }, { resource });
ensure(tokens.scope === 'mcp:read', `the scope is ${tokens.scope}`);
step('redeemed a code');

const server = await client.discovery(
  issuer, env('EXCHANGER'), undefined, client.ClientSecretBasic(env('CLIENT_SECRET')), { ...options, algorithm: 'oauth2' },
);
const accessToken = 'urn:ietf:params:oauth:token-type:access_token';
const exchanged = await client.genericGrantRequest(server, 'urn:ietf:params:oauth:grant-type:token-exchange', {
  subject_token: tokens.access_token,
  subject_token_type: accessToken,
  audience: env('AUDIENCE'),
});
ensure(exchanged.issued_token_type === accessToken, `the exchange brought ${exchanged.issued_token_type}`);
ensure(exchanged.refresh_token === undefined, 'the exchange brought a refresh token');
const upstream = await client.discovery(new URL(env('UPSTREAM')), 'nobody', undefined, undefined, options);
const { sub } = await client.fetchUserInfo(upstream, exchanged.access_token, client.skipSubjectCheck);
ensure(sub, 'the provider does not know whose token it is');
step('exchanged it for the user\'s token at the provider, who took it');

const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token, { resource });
ensure(refreshed.refresh_token !== tokens.refresh_token, 'the refresh token did not rotate');
step('refreshed');

const described = await client.tokenIntrospection(config, refreshed.access_token);
ensure(described.active && described.aud === resource, `introspection says ${JSON.stringify(described)}`);
step('introspected');

await client.tokenRevocation(config, refreshed.refresh_token);
ensure(!(await client.tokenIntrospection(config, refreshed.access_token)).active, 'a revoked token is active');
step('revoked');
done();
