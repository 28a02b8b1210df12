// Checks an inclusion proof of the API (`GET /accounts/{id}/proof` or `GET /proofs`) from standard input, trusting nobody: the
// leaves lead to the state root, the header has that state root and the hash that it says. Whoever checks compares that hash
// with what the contract holds for the block (`blockAt(number).hash`). Exit code 0: it holds; 1: it does not.
import {readFileSync} from "node:fs";
import {accountKey, domainHash, hex, keccak, node, number, tag, unhex} from "./ledger.mjs";

const DEPTH = 32;

/// In domains without owners, an account is named by its domain and name alone.
const keyOf = (domain, {account, owner}) =>
  account.startsWith("unclaimed:") ? unhex(account.slice("unclaimed:".length))
    : owner ? accountKey(domain, owner, account)
    : keccak(tag(7), domain, Buffer.from(account)).subarray(0, 30);

/// The root that leaves, by ascending index, and their siblings lead to; those of empty subtrees are left out.
function rootOf(found, leaves, siblings) {
  const rest = [...siblings];
  let level = found;
  let empty = Buffer.alloc(32);
  for (let height = 0; height < DEPTH; height++) {
    const up = [];
    for (let i = 0; i < level.length; i++) {
      const [place, hash] = level[i];
      const next = level[i + 1];
      const sibling = place ^ 1;
      if (place % 2 === 0 && next?.[0] === sibling) {
        up.push([place / 2, node(hash, next[1])]);
        i++;
        continue;
      }
      const isEmpty = BigInt(sibling) << BigInt(height) >= BigInt(leaves);
      const other = isEmpty ? empty : rest.shift();
      if (other === undefined) throw new Error("too few siblings");
      up.push([Math.floor(place / 2), place % 2 === 0 ? node(hash, other) : node(other, hash)]);
    }
    level = up;
    empty = node(empty, empty);
  }
  if (rest.length !== 0 || level.length !== 1) throw new Error("too many siblings");
  return level[0][1];
}

export function check(proved) {
  const {header, proof} = proved;
  const domain = domainHash(header.domain);
  const accounts = proved.accounts ?? [proved];
  const leaves = proof.leaves ?? [proof];
  if (accounts.length !== leaves.length || leaves.length === 0) throw new Error("not a leaf for each account");
  const found = leaves.map((leaf, i) => {
    const key = keyOf(domain, accounts[i]);
    if (key.toString("hex") !== leaf.key) throw new Error(`${accounts[i].account} has another key`);
    if (i > 0 && leaves[i - 1].index >= leaf.index) throw new Error("the leaves are not in order");
    if (leaf.index >= proof.next_index) throw new Error("the leaf lies behind the last account");
    return [leaf.index, keccak(tag(2), key, number(leaf.balance, 16), number(leaf.withdrawable, 16))];
  });
  const root = rootOf(found, proof.next_index, proof.siblings.map(unhex));
  const state = keccak(
    tag(5), domain, root, unhex(proof.market_root), number(proof.next_index, 4), number(proof.total, 16),
  );
  if (hex(state) !== header.state_root) throw new Error("the leaves do not lead to the state root");
  const hash = keccak(
    tag(6), domain, number(header.number, 8), unhex(header.parent), unhex(header.state_root),
    number(header.total, 16), unhex(header.events_root), unhex(header.evidence_root),
    number(header.last_deposit, 8), number(header.records, 4),
    ...(header.next_market === undefined ? [] : [number(header.next_market, 4)]),
  );
  if (hex(hash) !== proved.block_hash) throw new Error("the header has another hash");
  return leaves.map((leaf, i) => `${accounts[i].account}: ${leaf.balance} to move, ${leaf.withdrawable} released`);
}

try {
  const proved = JSON.parse(readFileSync(0, "utf8"));
  for (const line of check(proved)) console.log(line);
  console.log(`holds for block ${proved.header.number} of ${proved.header.domain}, hash ${proved.block_hash}`);
} catch (error) {
  console.error(`does not hold: ${error.message}`);
  process.exitCode = 1;
}
