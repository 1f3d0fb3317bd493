// An MCP server written with the official SDK, which knows nothing of tokens: it asks tokenkeep's `/verify` about each
// request, as a proxy in front of it would, and hands on what that says.
//
// Environment: ISSUER (tokenkeep), PORT. Standard output: {"event":"listening","url":"http://127.0.0.1:PORT/mcp"}

import { createServer } from 'node:http';
import { writeSync } from 'node:fs';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const issuer = process.env.ISSUER;
const port = Number(process.env.PORT);
const resource = `http://127.0.0.1:${port}/mcp`;

/** The scopes that a call needs. */
const needed = (message) => (message?.method === 'tools/call' && message.params?.name === 'write' ? 'mcp:read mcp:write' : 'mcp:read');

function server(user) {
  const mcp = new McpServer({ name: 'peer', version: '1.0.0' });
  const text = (value) => ({ content: [{ type: 'text', text: value }] });
  mcp.registerTool('whoami', { description: 'Who calls' }, async () => text(user));
  mcp.registerTool('write', { description: 'Needs more' }, async () => text('written'));
  return mcp;
}

const http = createServer(async (request, response) => {
  const url = new URL(request.url, resource);
  if (url.pathname.startsWith('/.well-known/oauth-protected-resource')) {
    const metadata = await fetch(new URL(`${issuer}/.well-known/oauth-protected-resource/mcp`));
    response.writeHead(metadata.status, { 'content-type': 'application/json' }).end(await metadata.text());
    return;
  }
  if (url.pathname !== '/mcp') {
    response.writeHead(404).end();
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : undefined;
  const question = new URL(`${issuer}/verify`);
  question.searchParams.set('resource', resource);
  question.searchParams.set('scope', needed(body));
  const headers = request.headers.authorization ? { authorization: request.headers.authorization } : {};
  const verified = await fetch(question, { headers });
  if (!verified.ok) {
    const challenge = verified.headers.get('www-authenticate');
    response.writeHead(verified.status, challenge ? { 'www-authenticate': challenge } : {}).end(await verified.text());
    return;
  }
  const mcp = server(verified.headers.get('x-user-id'));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => { transport.close(); mcp.close(); });
  await mcp.connect(transport);
  await transport.handleRequest(request, response, body);
});
http.listen(port, '127.0.0.1', () => writeSync(1, `${JSON.stringify({ event: 'listening', url: resource })}\n`));
