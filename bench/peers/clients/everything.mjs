// The official "everything" server of MCP, as it is, over Streamable HTTP. It knows nothing of users.
//
// Environment: PORT. Standard output: {"event":"listening","url":"http://localhost:PORT/mcp"}

import { writeSync } from 'node:fs';

console.log = console.error = () => {};
process.argv = [process.argv[0], process.argv[1], 'streamableHttp'];
await import('@modelcontextprotocol/server-everything/dist/index.js');

const url = `http://localhost:${process.env.PORT}/mcp`;
for (;;) {
  try {
    await fetch(url);
    break;
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
writeSync(1, `${JSON.stringify({ event: 'listening', url })}\n`);
