// An MCP server that guards itself against DNS rebinding, as the official SDK does it for servers on this machine, and
// works with the token that it is handed: it asks the provider whose that is.
//
// Environment: PORT, PROVIDER (an OpenID Connect issuer). Standard output: {"event":"listening","url":"..."}

import { writeSync } from 'node:fs';
import { createMcpExpressApp } from '@modelcontextprotocol/sdk/server/express.js';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const port = Number(process.env.PORT);
const host = `127.0.0.1:${port}`;
const app = createMcpExpressApp({ host: '127.0.0.1' });

function server(headers) {
  const mcp = new McpServer({ name: 'guarded', version: '1.0.0' });
  const text = (value) => ({ content: [{ type: 'text', text: JSON.stringify(value) }] });
  mcp.registerTool('whoami', { description: 'Who calls' }, async () => {
    const discovery = await (await fetch(`${process.env.PROVIDER}/.well-known/openid-configuration`)).json();
    const said = await fetch(discovery.userinfo_endpoint, { headers: { authorization: headers.authorization ?? '' } });
    return text({ headers, userinfo: said.ok ? await said.json() : said.status });
  });
  return mcp;
}

app.post('/mcp', async (request, response) => {
  const mcp = server(request.headers);
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: undefined,
    enableDnsRebindingProtection: true,
    allowedHosts: [host],
    allowedOrigins: [`http://${host}`],
  });
  response.on('close', () => { transport.close(); mcp.close(); });
  await mcp.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
app.listen(port, '127.0.0.1', () => writeSync(1, `${JSON.stringify({ event: 'listening', url: `http://${host}/mcp` })}\n`));
