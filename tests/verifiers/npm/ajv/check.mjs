// ajv: the content of a notice and of its receipts against the published JSON Schemas.
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const folder = process.argv[2];
const require = createRequire(join(process.cwd(), 'check.mjs'));
const Ajv = require('ajv/dist/2020').default;
const addFormats = require('ajv-formats').default;

const read = (...parts) => JSON.parse(readFileSync(join(folder, ...parts)));
const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
for (const name of readdirSync(join(folder, 'schemas')).filter((each) => each.endsWith('.json'))) {
  ajv.addSchema(read('schemas', name), name);
}
for (const kind of ['fta', 'receipts']) {
  const validate = ajv.getSchema(`${kind}.v1.json`);
  if (!validate(read(`${kind}.json`))) {
    console.log(`refused: ${kind}: ${ajv.errorsText(validate.errors)}`);
    process.exit(3);
  }
  console.log(`${kind} fits`);
}
