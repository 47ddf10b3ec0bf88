// Holds image manifests against the official validator (npm imgmanifest) as
// `imgadm install -m` does.
//
//   node validate.js FILE...
//
// Printed is a JSON array with one element a file: null when the manifest is
// right, else what the validator said or threw.
'use strict';

const fs = require('fs');
const imgmanifest = require('imgmanifest');

const out = process.argv.slice(2).map((file) => {
    try {
        const manifest = JSON.parse(fs.readFileSync(file, 'utf8'));
        return imgmanifest.validateMinimalManifest(imgmanifest.upgradeManifest(manifest));
    } catch (err) {
        return String(err);
    }
});
process.stdout.write(JSON.stringify(out) + '\n');
