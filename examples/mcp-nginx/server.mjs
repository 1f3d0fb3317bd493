// An MCP server that knows nothing of tokens: whoever gets here was let through by nginx, which asked tokenkeep, and says
// in X-User-Id who it is. It must be reached by nginx only, so it listens on loopback.

import express from 'express';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

function mcpServer(user) {
  const server = new McpServer({ name: 'mcp-nginx', version: '1.0.0' });
  server.registerTool('whoami', { description: 'Who you are' }, async () => ({
    content: [{ type: 'text', text: `You are ${user}.` }],
  }));
  return server;
}

const app = express();
app.use(express.json());
app.post('/mcp', async (request, response) => {
  const server = mcpServer(request.get('x-user-id'));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => {
    transport.close();
    server.close();
  });
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
// Without sessions there is nothing to listen to, and nothing to end.
app.all('/mcp', (_, response) => response.status(405).set('Allow', 'POST').end());
app.listen(3000, '127.0.0.1', () => console.log('MCP server on http://127.0.0.1:3000/mcp, for nginx only'));
