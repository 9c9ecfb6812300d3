// A person with a browser: node person.mjs URL NAME. Fills in every form until there is none, and ends with where that was. It trusts
// what $NODE_EXTRA_CA_CERTS names.

import process from 'node:process';

const [start, name] = process.argv.slice(2);
const cookies = new Map();

async function open(url, form) {
  const answer = await fetch(url, {
    method: form ? 'POST' : 'GET',
    redirect: 'manual',
    headers: { cookie: [...cookies].map(([key, value]) => `${key}=${value}`).join('; ') },
    body: form,
  });
  for (const line of answer.headers.getSetCookie()) {
    const [key, ...value] = line.split(';')[0].split('=');
    cookies.set(key, value.join('='));
  }
  return answer;
}

function field(tag, attribute) {
  return new RegExp(`${attribute}="([^"]*)"`).exec(tag)?.[1]?.replaceAll('&amp;', '&');
}

// What a form would send: what is in it already, and the name and a password where they are asked for.
function filled(page) {
  const form = new URLSearchParams();
  for (const [tag] of page.matchAll(/<input[^>]*>/g)) {
    const key = field(tag, 'name');
    if (key) {
      form.set(key, { login: name, password: 'any' }[key] ?? field(tag, 'value') ?? '');
    }
  }
  return form;
}

let url = start;
let answer = await open(url);
for (let step = 0; step < 20; step += 1) {
  const location = answer.headers.get('location');
  if (location) {
    url = new URL(location, url).href;
    answer = await open(url);
    continue;
  }
  const page = await answer.text();
  const form = /<form[^>]*method="post"[^>]*>/i.exec(page)?.[0];
  if (!form) {
    process.stdout.write(`${answer.status} ${url}`);
    process.exit(answer.ok ? 0 : 1);
  }
  url = new URL(field(form, 'action') ?? url, url).href;
  answer = await open(url, filled(page));
}
throw new Error('there is no end to the forms');
