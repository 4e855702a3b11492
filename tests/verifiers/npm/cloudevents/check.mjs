// cloudevents (JavaScript SDK): the signed payload of an envelope is an event of CloudEvents 1.0.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const folder = process.argv[2];
const require = createRequire(join(process.cwd(), 'check.mjs'));
const { HTTP, ValidationError } = require('cloudevents');

const body = readFileSync(join(folder, 'event.json'), 'utf8');
try {
  const event = HTTP.toEvent({ headers: { 'content-type': 'application/cloudevents+json' }, body });
  event.validate();
  const said = JSON.parse(body);
  for (const name of ['id', 'type', 'source', 'subject', 'commitment', 'sequence']) {
    if (event[name] !== said[name]) throw new ValidationError(`it reads another ${name}`);
  }
  console.log(`${event.type} ${event.id}`);
} catch (error) {
  if (!(error instanceof ValidationError)) throw error;
  console.log(`refused: ${error.message}`);
  process.exitCode = 3;
}
