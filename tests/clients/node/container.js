// Creates a container of Azure's blob storage: container.js ENDPOINT ACCOUNT KEY NAME
// Signed by the account's key, as "Authorize with Shared Key" of Azure's storage documentation has it.
const crypto = require('node:crypto');
const http = require('node:http');

const [endpoint, account, key, name] = process.argv.slice(2);
const url = new URL(`${endpoint}/${name}?restype=container`);
const headers = { 'x-ms-date': new Date().toUTCString(), 'x-ms-version': '2021-08-06' };
const named = Object.entries(headers).map(([k, v]) => `${k}:${v}\n`).join('');
// Verb, eleven empty standard headers, the named ones, the resource with its account (twice: the emulator's path has it).
const text = `PUT${'\n'.repeat(12)}${named}/${account}${url.pathname}\nrestype:container`;
const signature = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
headers.authorization = `SharedKey ${account}:${signature}`;
headers['content-length'] = 0;
const request = http.request(url, { method: 'PUT', headers }, (answer) => {
  answer.setEncoding('utf8');
  let body = '';
  answer.on('data', (part) => { body += part; });
  answer.on('end', () => {
    if (answer.statusCode !== 201) {
      console.error(`${answer.statusCode}: ${body}`);
      process.exitCode = 1;
    }
  });
});
request.end();
