// An OpenID Connect issuer on loopback, made of npm's oidc-provider: node provider.mjs DIR PORT
//
// DIR holds cert.pem and key.pem. Its keys are new at each start. A client gets tokens for itself by its secret, which is its name:
// `robot` for ten minutes, signed with RS256; `brief` for three seconds, signed with ES256. People sign in through `gantry`, or through
// `desk` which has a secret, with any name and password, on pages that the package has for development; what they get is for twenty
// seconds, and is renewed once each time.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import process from 'node:process';

import Provider from 'oidc-provider';

const [dir, port] = process.argv.slice(2);
const issuer = `https://127.0.0.1:${port}`;

function key(type, options, alg) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: randomUUID() };
}

function client(id) {
  return {
    client_id: id,
    client_secret: id,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: 'RS256',
  };
}

const people = {
  client_id: 'gantry',
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
};
const desk = { ...people, client_id: 'desk', client_secret: 's:e cret', token_endpoint_auth_method: 'client_secret_basic' };

const provider = new Provider(issuer, {
  clients: [client('robot'), client('brief'), people, desk],
  cookies: { keys: [randomUUID()] },
  extraTokenClaims: () => ({ groups: ['builders', 'system:masters'] }),
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource, { clientId }) => ({
        scope: 'api',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: clientId === 'brief' ? 3 : 600,
        jwt: { sign: { alg: clientId === 'brief' ? 'ES256' : 'RS256' } },
      }),
    },
  },
  rotateRefreshToken: true,
  ttl: { IdToken: 20 },
  jwks: { keys: [key('rsa', { modulusLength: 2048 }, 'RS256'), key('ec', { namedCurve: 'P-256' }, 'ES256')] },
});
provider.on('server_error', (_, error) => console.error(error));

const tls = { cert: readFileSync(`${dir}/cert.pem`), key: readFileSync(`${dir}/key.pem`) };
createServer(tls, (request, response) => {
  console.log(request.method, request.url);
  return provider.callback()(request, response);
}).listen(Number(port), '127.0.0.1');
