// Asks the issuer for a token: node token.mjs ISSUER CLIENT AUDIENCE. It trusts what $NODE_EXTRA_CA_CERTS names.

import process from 'node:process';

const [issuer, client, resource] = process.argv.slice(2);
const answer = await fetch(`${issuer}/token`, {
  method: 'POST',
  headers: { authorization: `Basic ${Buffer.from(`${client}:${client}`).toString('base64')}` },
  body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope: 'api' }),
});
const said = await answer.json();
if (!said.access_token) {
  throw new Error(JSON.stringify(said));
}
process.stdout.write(said.access_token);
