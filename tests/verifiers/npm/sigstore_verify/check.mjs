// @sigstore/verify: its checkpoint and Merkle modules over a record, its proof and its checkpoint.
// They take a log entry of Rekor; ours is given in the same members.
import { createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const folder = process.argv[2];
// The modules themselves are not exported; they stand beside the package's main file.
const require = createRequire(join(process.cwd(), 'check.mjs'));
const dist = dirname(require.resolve('@sigstore/verify'));
const { verifyCheckpoint } = require(join(dist, 'tlog', 'checkpoint.js'));
const { verifyMerkleInclusion } = require(join(dist, 'tlog', 'merkle.js'));
const { VerificationError } = require(join(dist, 'error.js'));

const proofs = JSON.parse(readFileSync(join(folder, 'proofs.json')));
const [name, keyId] = readFileSync(join(folder, 'vkey'), 'utf8').trim().split('+');
const entry = {
  canonicalizedBody: readFileSync(join(folder, 'record.json')),
  inclusionProof: {
    logIndex: String(proofs.index),
    hashes: proofs.inclusion.map((node) => Buffer.from(node, 'hex')),
    checkpoint: { envelope: readFileSync(join(folder, 'log', 'checkpoint'), 'utf8') },
  },
};
const log = {
  logID: Buffer.from(keyId, 'hex'),
  baseURL: name,
  publicKey: createPublicKey(readFileSync(join(folder, 'log-key.pem'))),
};
try {
  const checkpoint = verifyCheckpoint(entry, [log]);
  verifyMerkleInclusion(entry, checkpoint);
  console.log(`${checkpoint.origin}: index ${proofs.index} of ${checkpoint.logSize}`);
} catch (error) {
  if (!(error instanceof VerificationError)) throw error;
  console.log(`refused: ${error.code} ${error.message}`);
  process.exitCode = 3;
}
