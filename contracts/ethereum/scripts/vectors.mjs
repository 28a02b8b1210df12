// Writes vectors/format.json: two blocks in every detail, for whoever implements the format. `--check` compares instead.
import {readFileSync, writeFileSync} from "node:fs";

import {Ledger, STEP_RECORDS, blocks, evidenceDigest, hex, indexRoot, listRoot} from "./ledger.mjs";

// Where the evidence digests are for.
const CHAIN = 31337;
const CONTRACT = "0x00000000000000000000000000000000005e771e";
const file = new URL("../vectors/format.json", import.meta.url);
const {ledger, blocks: made} = blocks();
const shown = {
  about: "Golden vectors of docs/ethereum.md; made by scripts/vectors.mjs. Amounts are decimal texts.",
  stepRecords: STEP_RECORDS,
  domainName: "vectors",
  domain: hex(ledger.domain),
  emptyTree: hex(indexRoot([])),
  chainId: CHAIN,
  contract: CONTRACT,
  genesisRoot: hex(new Ledger("vectors").stateRoot()),
  genesisState: hex(new Ledger("vectors").stepState()),
  blocks: made.map((block) => ({
    header: {
      number: Number(block.header.number),
      parent: hex(block.header.parent),
      stateRoot: hex(block.header.stateRoot),
      total: `${block.header.total}`,
      eventsRoot: hex(block.header.eventsRoot),
      evidenceRoot: hex(block.header.evidenceRoot),
      lastDeposit: Number(block.header.lastDeposit),
      records: block.header.records,
      nextMarket: block.header.nextMarket,
    },
    hash: hex(block.hash),
    cells: block.cells.map(hex),
    steps: block.steps.map((s) => ({
      cells: hex(s.cells), count: s.count, state: hex(s.state), leaf: hex(s.leaf), witness: hex(s.witness),
    })),
    registered: hex(Buffer.concat(block.steps.flatMap((s) => [s.cells, s.state]))),
    market: hex(block.market),
    accounts: block.accounts,
    // One proof for several accounts.
    many: block.many,
    evidenceDigest: hex(
      evidenceDigest(CHAIN, CONTRACT, ledger.domain, block.header.number, block.header.evidenceRoot),
    ),
  })),
};
for (const block of made) {
  if (!listRoot(block.steps.map((s) => s.leaf)).equals(block.header.eventsRoot)) throw new Error("the events root");
}
const content = `${JSON.stringify(shown, null, 2)}\n`;
if (!process.argv.includes("--check")) writeFileSync(file, content);
else if (readFileSync(file, "utf8") !== content) throw new Error("vectors/format.json is not what this script makes");
