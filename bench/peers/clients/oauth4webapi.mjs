// oauth4webapi, which validates everything that the RFCs let it: discovery, registration of a public client, RFC 9207,
// RFC 9068 tokens checked as a resource does, refresh, and client credentials with each way to prove oneself.
//
// Environment: ISSUER, RESOURCE, CLIENT_ID and CLIENT_SECRET of a configured client (client_secret_post).

import * as oauth from 'oauth4webapi';
import { callback, done, ensure, env, step } from './person.mjs';

const browser = await callback();
const issuer = new URL(env('ISSUER'));
const resource = env('RESOURCE');
const insecure = { [oauth.allowInsecureRequests]: true };

const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }));
ensure(as.authorization_response_iss_parameter_supported === true, 'iss is not announced');
const protectedResource = new URL(resource);
const rs = await oauth.processResourceDiscoveryResponse(
  protectedResource,
  await oauth.resourceDiscoveryRequest(protectedResource, insecure),
);
ensure(rs.authorization_servers.includes(env('ISSUER')), `the resource names ${rs.authorization_servers}`);
step('discovered the server and the resource');

const registered = await oauth.processDynamicClientRegistrationResponse(
  await oauth.dynamicClientRegistrationRequest(as, {
    client_name: 'oauth4webapi',
    redirect_uris: [browser.url],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  }, insecure),
);
step('registered');

async function signIn(client, proof) {
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  const url = new URL(as.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: client.client_id,
    redirect_uri: browser.url,
    response_type: 'code',
    scope: 'mcp:read mcp:write',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    resource,
  });
  browser.open(url);
  const parameters = oauth.validateAuthResponse(as, client, await browser.back(), state);
  const options = { additionalParameters: { resource }, ...insecure };
  return oauth.processAuthorizationCodeResponse(
    as,
    client,
    await oauth.authorizationCodeGrantRequest(as, client, proof, parameters, browser.url, verifier, options),
  );
}

const tokens = await signIn(registered, oauth.None());
step('redeemed a code');

const request = new Request(resource, { headers: { authorization: `Bearer ${tokens.access_token}` } });
const claims = await oauth.validateJwtAccessToken(as, request, resource, insecure);
ensure(claims.client_id === registered.client_id, `the token is for ${claims.client_id}`);
step('checked the access token with the published keys');

const refreshed = await oauth.processRefreshTokenResponse(
  as,
  registered,
  await oauth.refreshTokenGrantRequest(as, registered, oauth.None(), tokens.refresh_token, {
    additionalParameters: { resource, scope: 'mcp:read' },
    ...insecure,
  }),
);
ensure(refreshed.scope === 'mcp:read', `a narrowed refresh brought ${refreshed.scope}`);
step('refreshed with less scope');

const backend = { client_id: env('CLIENT_ID') };
const alone = await oauth.processClientCredentialsResponse(
  as,
  backend,
  await oauth.clientCredentialsGrantRequest(as, backend, oauth.ClientSecretPost(env('CLIENT_SECRET')), { resource }, insecure),
);
ensure(alone.access_token && !alone.refresh_token, 'client credentials brought a refresh token');
step('got a token for itself');

const keys = await oauth.generateKeyPair('ES256', { extractable: true });
const jwk = { ...(await crypto.subtle.exportKey('jwk', keys.publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' };
const asserting = await oauth.processDynamicClientRegistrationResponse(
  await oauth.dynamicClientRegistrationRequest(as, {
    client_name: 'asserting',
    redirect_uris: [browser.url],
    grant_types: ['authorization_code'],
    response_types: ['code'],
    token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [jwk] },
  }, insecure),
);
const asserted = await signIn(asserting, oauth.PrivateKeyJwt({ key: keys.privateKey, kid: 'k1' }));
ensure(asserted.access_token && !asserted.refresh_token, 'a refresh token that nobody registered for');
step('proved itself with an assertion');
done();
