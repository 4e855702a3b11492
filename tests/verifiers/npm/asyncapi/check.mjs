// @asyncapi/parser: the description of the streams is a valid AsyncAPI 3 document.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const source = join(process.argv[2], 'schemas', 'asyncapi.yaml');
const require = createRequire(join(process.cwd(), 'check.mjs'));
const { Parser } = require('@asyncapi/parser');

const { document, diagnostics } = await new Parser().parse(readFileSync(source, 'utf8'), { source });
const errors = diagnostics.filter((each) => each.severity === 0);
if (errors.length > 0 || !document) {
  console.log(`refused: ${errors.length} errors, first: ${errors[0]?.message}`);
  process.exit(3);
}
console.log(`${document.channels().all().length} channels`);
