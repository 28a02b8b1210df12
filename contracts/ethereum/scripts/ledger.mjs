// The ledger's format in plain JavaScript, written from its description and apart from the contract's code, so that each
// checks the other. Small and slow: trees are hashed anew each time.
import sha3 from "js-sha3";

export const STEP_RECORDS = 48;
const CELL = 31;
const ZERO = Buffer.alloc(32);

export const hex = (bytes) => `0x${Buffer.from(bytes).toString("hex")}`;
export const unhex = (text) => Buffer.from(text.replace(/^0x/, ""), "hex");
export const keccak = (...parts) => Buffer.from(sha3.keccak256.arrayBuffer(Buffer.concat(parts)));
export const number = (value, size) => unhex(BigInt(value).toString(16).padStart(2 * size, "0"));
export const tag = (value) => Buffer.from([value]);

export const node = (left, right) => keccak(tag(1), left, right);
export const domainHash = (name) => keccak(tag(0x0a), Buffer.from(name));
export const accountKey = (domain, owner, name) =>
  keccak(tag(0x0c), domain, unhex(owner), Buffer.from(name)).subarray(0, 30);
export const accountLeaf = (a) => keccak(tag(2), a.key, number(a.balance, 16), number(a.withdrawable, 16));
export const marketLeaf = (m) => keccak(tag(3), m.key, m.digest);
export const recordHash = (cell) => keccak(tag(4), cell);

/// Root of an index tree of 32 levels.
export function indexRoot(leaves) {
  let level = leaves;
  let empty = ZERO;
  for (let height = 0; height < 32; height++) {
    const up = [];
    for (let i = 0; i < level.length; i += 2) up.push(node(level[i], level[i + 1] ?? empty));
    level = up;
    empty = node(empty, empty);
  }
  return level[0] ?? empty;
}

/// Siblings of a leaf from the bottom up; those of empty subtrees are left out.
export function siblings(leaves, index) {
  const out = [];
  let level = leaves;
  for (let height = 0; height < 32; height++) {
    const sibling = level[index ^ 1];
    if (sibling) out.push(sibling);
    const up = [];
    let empty = ZERO;
    for (let h = 0; h < height; h++) empty = node(empty, empty);
    for (let i = 0; i < level.length; i += 2) up.push(node(level[i], level[i + 1] ?? empty));
    level = up;
    index >>= 1;
  }
  return out;
}

/// One proof for many leaves, by ascending index: level by level, without what follows from the leaves below.
export function siblingsOfMany(leaves, indexes) {
  const out = [];
  let level = leaves;
  let places = indexes;
  let empty = ZERO;
  for (let height = 0; height < 32; height++) {
    for (const place of places) {
      const sibling = place ^ 1;
      if (!places.includes(sibling) && sibling < level.length) out.push(level[sibling]);
    }
    const up = [];
    for (let i = 0; i < level.length; i += 2) up.push(node(level[i], level[i + 1] ?? empty));
    empty = node(empty, empty);
    level = up;
    places = [...new Set(places.map((place) => place >> 1))];
  }
  return out;
}

/// What oracles sign (EIP-712).
export function evidenceDigest(chainId, contract, domain, block, evidenceRoot) {
  const word = (value) => number(value, 32);
  const type = (text) => keccak(Buffer.from(text));
  const separator = keccak(
    type("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
    type("Orchestrator Settlement"), type("1"), word(chainId), word(contract),
  );
  const struct = keccak(
    type("Evidence(bytes32 domain,uint64 number,bytes32 evidenceRoot)"), domain, word(block), evidenceRoot,
  );
  return keccak(Buffer.from([0x19, 0x01]), separator, struct);
}

/// Root of a list: pairs are joined, an odd last one with zero.
export function listRoot(leaves) {
  let level = leaves;
  while (level.length > 1) {
    const up = [];
    for (let i = 0; i < level.length; i += 2) up.push(node(level[i], level[i + 1] ?? ZERO));
    level = up;
  }
  return level[0] ?? ZERO;
}

export const cell = (...parts) => Buffer.concat([...parts, Buffer.alloc(CELL)], CELL);

export class Ledger {
  constructor(name) {
    this.domain = domainHash(name);
    this.accounts = [];
    this.market = [];
    this.total = 0n;
    this.lastDeposit = 0n;
    this.openVerdict = false;
    this.creditable = 0n;
    this.creditor = 0;
    this.number = 0n;
    this.parent = ZERO;
    this.cells = [];
    this.states = [];
    this.witnesses = [];
  }

  /// What a challenger shows for the next record; to be called before anything changes.
  show(...parts) {
    const step = Math.floor(this.cells.length / STEP_RECORDS);
    this.witnesses[step] = Buffer.concat([this.witnesses[step] ?? Buffer.alloc(0), ...parts]);
  }

  showAccount(index) {
    const a = this.accounts[index];
    this.show(a.key, number(a.balance, 16), number(a.withdrawable, 16),
      ...siblings(this.accounts.map(accountLeaf), index));
  }

  stateRoot() {
    const accounts = indexRoot(this.accounts.map(accountLeaf));
    const market = indexRoot(this.market.map(marketLeaf));
    return keccak(tag(5), this.domain, accounts, market, number(this.accounts.length, 4), number(this.total, 16));
  }

  stepState() {
    return keccak(
      tag(0x0d), this.stateRoot(), number(this.lastDeposit, 8), number(this.market.length, 4),
      tag(this.openVerdict ? 1 : 0), number(this.creditable, 16), number(this.creditor, 4),
    );
  }

  push(content, keepsCredit = false) {
    if (!keepsCredit) [this.creditable, this.creditor] = [0n, 0];
    this.cells.push(content);
    // A state after each record; only those at the end of a step are ever hashed into anything.
    this.states.push(this.cells.length % STEP_RECORDS === 0 ? this.stepState() : null);
  }

  open(key) {
    this.show(tag(0), ...siblings(this.accounts.map(accountLeaf), this.accounts.length));
    this.accounts.push({key, balance: 0n, withdrawable: 0n});
    this.push(cell(tag(1), key));
  }

  transfer(kind, from, to, amount) {
    this.showAccount(from);
    this.accounts[from].balance -= amount;
    if (kind === 12) {
      this.accounts[from].withdrawable += amount;
    } else {
      this.showAccount(to);
      this.accounts[to].balance += amount;
    }
    if (kind === 5) [this.creditable, this.creditor] = [amount, to];
    if (kind === 6 && this.creditable !== 0n) this.creditable += amount;
    if (kind === 7 || kind === 8) this.creditable -= amount;
    this.push(cell(tag(2), tag(kind), number(from, 4), number(to, 4), number(amount, 16)), kind >= 5 && kind <= 8);
  }

  deposit(to, amount) {
    this.showAccount(to);
    this.lastDeposit += 1n;
    this.accounts[to].balance += amount;
    this.total += amount;
    this.push(cell(tag(3), number(this.lastDeposit, 8), number(to, 4), number(amount, 16)));
  }

  openMarket(key) {
    this.show(tag(0), ...siblings(this.market.map(marketLeaf), this.market.length));
    this.market.push({key, digest: Buffer.alloc(26)});
    this.push(cell(tag(4), key));
  }

  setMarket(index, digest) {
    const entry = this.market[index];
    this.show(entry.key, entry.digest, ...siblings(this.market.map(marketLeaf), index));
    this.market[index].digest = digest;
    this.push(cell(tag(5), number(index, 4), digest));
  }

  /// Verdicts and their evidence touch no leaf.
  verdict(subject, status, credit, coverage) {
    this.openVerdict = true;
    this.push(cell(tag(6), subject, tag(status), number(credit, 4), number(coverage, 4)));
  }

  evidence(root) {
    this.openVerdict = false;
    this.push(cell(tag(7), root));
  }

  /// Ends the block: its header, its steps, the cells of its blobs.
  seal() {
    [this.creditable, this.creditor] = [0n, 0];
    const steps = [];
    for (let from = 0; from < this.cells.length; from += STEP_RECORDS) {
      const cells = this.cells.slice(from, from + STEP_RECORDS);
      const last = from + STEP_RECORDS >= this.cells.length;
      const state = last ? this.stepState() : this.states[from + STEP_RECORDS - 1];
      const cellsHash = keccak(...cells);
      const witness = this.witnesses[from / STEP_RECORDS] ?? Buffer.alloc(0);
      steps.push({witness, cells: cellsHash, count: cells.length, state,
        leaf: keccak(tag(0x0e), cellsHash, number(cells.length, 4), state)});
    }
    const evidence = this.cells.filter((c) => c[0] === 7).map(recordHash);
    const header = {
      number: this.number + 1n, parent: this.parent, stateRoot: this.stateRoot(), total: this.total,
      eventsRoot: listRoot(steps.map((s) => s.leaf)), evidenceRoot: listRoot(evidence),
      lastDeposit: this.lastDeposit, records: this.cells.length, nextMarket: this.market.length,
    };
    const hash = keccak(
      tag(6), this.domain, number(header.number, 8), header.parent, header.stateRoot, number(header.total, 16),
      header.eventsRoot, header.evidenceRoot, number(header.lastDeposit, 8), number(header.records, 4),
      number(header.nextMarket, 4),
    );
    const head = cell(tag(0), tag(1), number(header.number, 8), number(this.cells.length, 8));
    const block = {header, hash, steps, cells: [head, ...this.cells]};
    [this.number, this.parent, this.cells, this.states, this.witnesses] = [header.number, hash, [], [], []];
    return block;
  }
}

export const CONSUMER = "0x00000000000000000000000000000000000000c0";
export const PROVIDER = "0x0000000000000000000000000000000000000090";
export const TREASURY = "0x000000000000000000000000000000000000007e";
export const text = (value, size) => Buffer.concat([Buffer.from(value), Buffer.alloc(size)], size);

const manyOf = (ledger) => {
  const indexes = [0, 2, 4];
  return {indexes, siblings: siblingsOfMany(ledger.accounts.map(accountLeaf), indexes).map(hex)};
};

/// The blocks of the vectors: the first has every kind of record and one step, the second has two steps.
export function blocks() {
  const ledger = new Ledger("vectors");
  const names = [[CONSUMER, "consumer:con_1"], [CONSUMER, "escrow:alloc_1"], [PROVIDER, "provider:prov_1"],
    [PROVIDER, "collateral:prov_1"], [TREASURY, "fees"]];
  const keys = names.map(([owner, name]) => accountKey(ledger.domain, owner, name));
  for (const key of keys) ledger.open(key);
  ledger.deposit(0, 1_000_000n);
  ledger.deposit(2, 50_000n);
  ledger.transfer(2, 2, 3, 50_000n);
  ledger.openMarket(text("unit:unit_1", 30));
  ledger.setMarket(0, text("terms", 26));
  ledger.transfer(4, 0, 1, 600_000n);
  ledger.verdict(text("a subject", 16), 2, 100_000, 1_000_000);
  ledger.evidence(text("its evidence", 30));
  ledger.transfer(5, 1, 2, 100_000n);
  ledger.transfer(6, 1, 4, 2_000n);
  ledger.transfer(7, 2, 0, 10_000n);
  ledger.transfer(8, 3, 0, 5_000n);
  ledger.transfer(12, 2, 2, 90_000n);
  const snapshot = () => ledger.accounts.map((a, index) => ({
    index, owner: names[index][0], name: names[index][1], key: hex(a.key), balance: `${a.balance}`,
    withdrawable: `${a.withdrawable}`, leaf: hex(accountLeaf(a)),
    siblings: siblings(ledger.accounts.map(accountLeaf), index).map(hex),
  }));
  const first = ledger.seal();
  first.accounts = snapshot();
  first.many = manyOf(ledger);
  first.market = indexRoot(ledger.market.map(marketLeaf));
  for (let i = 1n; i <= 47n; i++) ledger.transfer(4, 0, 1, i);
  ledger.transfer(5, 1, 2, 7_000n);
  // The payment is the last of its step, the credit the first of the next one.
  ledger.transfer(7, 2, 0, 7_000n);
  ledger.transfer(5, 1, 2, 1n);
  const second = ledger.seal();
  second.accounts = snapshot();
  second.many = manyOf(ledger);
  second.market = indexRoot(ledger.market.map(marketLeaf));
  return {ledger, blocks: [first, second]};
}
