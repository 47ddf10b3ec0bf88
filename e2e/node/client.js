// Calls the IMGAPI class of the official node client (npm sdc-clients) and
// prints what it said.
//
//   node client.js URL  < CALLS
//
// CALLS is a JSON array of calls, [METHOD, ARGUMENT, ...] each, made one after
// the other. Printed is a JSON array with one object a call: {"error": {code,
// message, status}} or {"result": VALUE}, both with "headers" of the reply when
// there was one. A call that the client refuses is a result; the exit code is
// not 0 only when the script itself fails.
'use strict';

const fs = require('fs');
const imgapi = require('sdc-clients/lib/imgapi');

// The client wants a bunyan logger. It is given one that says nothing.
const log = {child: () => log, serializers: {}};
for (const level of ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'addSerializers']) {
    log[level] = () => false;
}

function call(client, method, args) {
    return new Promise((resolve) => {
        // ping, listImages, getImage: (err, value, res); getImageFile, getImageIcon: (err, res).
        client[method](...args, (err, value, res) => {
            const reply = res || (value && value.headers ? value : null);
            const out = {headers: reply ? reply.headers : null};
            if (err) {
                out.error = {
                    code: (err.body && err.body.code) || err.restCode || err.code || err.name,
                    message: err.message,
                    status: err.statusCode
                };
            } else {
                out.result = reply === value ? null : value;
            }
            resolve(out);
        });
    });
}

async function main() {
    const client = imgapi.createClient({
        url: process.argv[2],
        version: '~2',
        userAgent: 'imgmirror-e2e',
        agent: false, // else an idle socket keeps the process alive
        log: log
    });
    const out = [];
    for (const [method, ...args] of JSON.parse(fs.readFileSync(0, 'utf8'))) {
        out.push(await call(client, method, args));
    }
    client.close();
    process.stdout.write(JSON.stringify(out) + '\n');
}

main().catch((err) => {
    console.error(err);
    process.exit(1);
});
