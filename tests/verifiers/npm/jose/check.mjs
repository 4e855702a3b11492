// jose (npm): the signature of an envelope, and its content opened with the recipient's key.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = process.argv[2];
const require = createRequire(join(process.cwd(), 'check.mjs'));
const { compactDecrypt, compactVerify, errors, importJWK } = await import(
  pathToFileURL(require.resolve('jose')).href
);

const text = (name) => readFileSync(join(folder, name), 'utf8');
try {
  const signing = await importJWK(JSON.parse(text('signing.jwk')), 'ES256');
  const signed = await compactVerify(text('envelope.jws'), signing, { algorithms: ['ES256'] });
  const decryption = await importJWK(JSON.parse(text('decryption.jwk')), 'ECDH-ES+A256KW');
  const opened = await compactDecrypt(text('content.jwe'), decryption, {
    keyManagementAlgorithms: ['ECDH-ES+A256KW'],
    contentEncryptionAlgorithms: ['A256GCM'],
  });
  if (!Buffer.from(opened.plaintext).equals(readFileSync(join(folder, 'content.json')))) {
    throw new errors.JOSEError('the content is another one');
  }
  console.log(JSON.parse(Buffer.from(signed.payload)).id);
} catch (error) {
  if (!(error instanceof errors.JOSEError)) throw error;
  console.log(`refused: ${error.code} ${error.message}`);
  process.exitCode = 3;
}
