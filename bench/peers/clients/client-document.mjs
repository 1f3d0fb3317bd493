// Serves a client's metadata document over HTTPS, as Client ID Metadata Documents have it, with a certificate made for
// the purpose.
//
// Environment: FOLDER, an empty one. Standard output:
// {"event":"listening","url":"https://localhost:PORT/client.json","authority":"FOLDER/ca.crt"}

import { execFileSync } from 'node:child_process';
import { readFileSync, writeSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';

const folder = process.env.FOLDER;
const openssl = (...words) => execFileSync('openssl', [
  'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '30', ...words,
], { cwd: folder, stdio: 'ignore' });
openssl('-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=an authority of the harness');
openssl(
  '-keyout', 'server.key', '-out', 'server.crt', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost',
  '-CA', 'ca.crt', '-CAkey', 'ca.key', '-addext', 'basicConstraints=critical,CA:FALSE',
);
const file = (name) => readFileSync(join(folder, name));

const server = createServer({ key: file('server.key'), cert: file('server.crt') }, (request, response) => {
  if (request.url !== '/client.json') {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'max-age=300' }).end(JSON.stringify({
    client_id: url,
    client_name: 'A client with a document',
    // Any port: the program gets another one each time.
    redirect_uris: ['http://127.0.0.1/callback'],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  }));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `https://localhost:${server.address().port}/client.json`;
writeSync(1, `${JSON.stringify({ event: 'listening', url, authority: join(folder, 'ca.crt') })}\n`);
