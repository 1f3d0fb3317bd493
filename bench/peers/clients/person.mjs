// What every client here shares: it asks its user to open a page, and waits for the browser to come back.
//
// Standard output is one JSON object per line: {"event":"open","url":"..."} when the user is to open a page,
// {"event":"step","name":"..."} for what was seen to work, {"event":"done"} at the end. The browser is the harness's.

import { createServer } from 'node:http';
import { writeSync } from 'node:fs';

const say = (line) => writeSync(1, `${JSON.stringify(line)}\n`);
// What libraries print is not for the harness.
console.log = console.info = console.warn = console.error;

export const step = (name) => say({ event: 'step', name });
export const done = () => {
  say({ event: 'done' });
  process.exit(0);
};
export const ensure = (condition, text) => {
  if (!condition) throw new Error(text);
};
export const env = (name) => {
  ensure(process.env[name], `${name} is not set`);
  return process.env[name];
};

/** Listens where the browser comes back to. */
export async function callback() {
  let arrived;
  let next = new Promise((resolve) => { arrived = resolve; });
  const server = createServer((request, response) => {
    const url = new URL(request.url, `http://127.0.0.1:${server.address().port}`);
    response.end('back at the client');
    if (url.pathname === '/callback') arrived(url);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/callback`,
    open(page) {
      next = new Promise((resolve) => { arrived = resolve; });
      say({ event: 'open', url: String(page) });
    },
    back: () => next,
  };
}
