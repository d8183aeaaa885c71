// Records every request that Node's HTTP server saw whole, one JSON object a line, and answers with
// the target. The parser is as lenient as it can be made: the edge in front must not need a strict one.
// Arguments: address, port, file.
'use strict';
const fs = require('node:fs');
const http = require('node:http');

const [address, port, file] = process.argv.slice(2);
const options = { insecureHTTPParser: true, keepAliveTimeout: 60000, requireHostHeader: false };
const server = http.createServer(options, (request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('error', () => {});
  request.on('end', () => {
    const field = (name) => request.headers[name] ?? '';
    const seen = {
      method: request.method,
      target: request.url,
      host: field('host'),
      length: field('content-length'),
      coding: field('transfer-encoding'),
      client: field('x-forwarded-for'),
      body: Buffer.concat(parts).toString('latin1'),
      trailers: Object.keys(request.trailers).join(),
    };
    fs.appendFileSync(file, JSON.stringify(seen) + '\n');
    response.end(request.method === 'HEAD' ? undefined : request.url);
  });
});
server.listen(Number(port), address);
