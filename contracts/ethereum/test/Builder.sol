// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Claim, Header, State, StateParts} from "../src/Types.sol";

/// @title A ledger as an operator has it
/// @notice Written down plainly and apart from the contract's own code: builds blocks, their steps, witnesses and proofs.
/// It applies what it is told without a check, so that wrong blocks can be built, too.
contract Builder {
    struct Account {
        bytes30 key;
        uint128 balance;
        uint128 withdrawable;
    }

    struct Entry {
        bytes30 key;
        bytes26 digest;
    }

    struct Step {
        State before;
        bytes cells;
        bytes witness;
        bytes32 cellsHash;
        bytes32 stateAfter;
    }

    uint256 internal constant ACCOUNTS = 0;
    uint256 internal constant MARKET = 1;
    uint32 public constant K = 48;

    bytes32 public immutable domain;

    Account[] internal _accounts;
    Entry[] internal _market;
    State internal _state;
    /// Nodes by tree, height and place; zero where nothing was ever set.
    mapping(uint256 tree => mapping(uint256 height => mapping(uint256 place => bytes32))) internal _nodes;
    /// What stands where nothing was set, by height.
    bytes32[33] internal _empty;
    bytes32[33] internal _filler;

    uint64 public number;
    bytes32 public parent;
    Step[] internal _steps;
    uint32 internal _inStep;
    uint32 public records;

    constructor(bytes32 domain_) {
        domain = domain_;
        for (uint256 height = 0; height < 32; ++height) {
            _empty[height + 1] = node(_empty[height], _empty[height]);
        }
        _state.accounts = _empty[32];
        _state.market = _empty[32];
    }

    // Hashes

    function node(bytes32 left, bytes32 right) public pure returns (bytes32) {
        return keccak256(bytes.concat(hex"01", left, right));
    }

    function keyOf(address owner, string memory name) public view returns (bytes30) {
        return bytes30(keccak256(bytes.concat(hex"0c", domain, bytes20(owner), bytes(name))));
    }

    function leafOf(Account memory a) public pure returns (bytes32) {
        return keccak256(bytes.concat(hex"02", a.key, bytes16(a.balance), bytes16(a.withdrawable)));
    }

    function stateRoot(State memory s) public view returns (bytes32) {
        return keccak256(bytes.concat(hex"05", domain, s.accounts, s.market, bytes4(s.nextIndex), bytes16(s.total)));
    }

    function stateHash(State memory s) public view returns (bytes32) {
        return keccak256(
            bytes.concat(
                hex"0d",
                stateRoot(s),
                bytes8(s.lastDeposit),
                bytes4(s.nextMarket),
                bytes1(s.openVerdict ? 1 : 0),
                bytes16(s.creditable),
                bytes4(s.creditor)
            )
        );
    }

    function stepHash(uint256 index) public view returns (bytes32) {
        Step storage s = _steps[index];
        return keccak256(bytes.concat(hex"0e", s.cellsHash, bytes4(uint32(s.cells.length / 31)), s.stateAfter));
    }

    function headerHash(Header memory h) public view returns (bytes32) {
        return keccak256(
            bytes.concat(
                bytes.concat(hex"06", domain, bytes8(h.number), h.parent, h.stateRoot, bytes16(h.total)),
                bytes.concat(h.eventsRoot, h.evidenceRoot, bytes8(h.lastDeposit), bytes4(h.records)),
                bytes4(h.nextMarket)
            )
        );
    }

    // Reading

    function state() external view returns (State memory) {
        return _state;
    }

    function account(uint32 index) external view returns (Account memory) {
        return _accounts[index];
    }

    function stepCount() external view returns (uint256) {
        return _steps.length;
    }

    function step(uint256 index) external view returns (Step memory) {
        return _steps[index];
    }

    function parts() external view returns (StateParts memory) {
        return StateParts(_state.market, _state.nextIndex, _state.total);
    }

    function claim(uint32 index, address owner, string memory name) external view returns (Claim memory) {
        Account memory found = _accounts[index];
        return Claim(owner, index, found.balance, found.withdrawable, name);
    }

    // Records

    function open(bytes30 key) public returns (uint32 index) {
        begin();
        witness(hex"00");
        index = _state.nextIndex;
        siblings(ACCOUNTS, index, index);
        _accounts.push(Account(key, 0, 0));
        _state.accounts = set(ACCOUNTS, index, leafOf(_accounts[index]));
        ++_state.nextIndex;
        push(cell(bytes.concat(hex"01", key)));
    }

    function transfer(uint8 kind, uint32 from, uint32 to, uint128 amount) public {
        (uint128 creditable, uint32 creditor) = begin();
        if (kind == 5) (creditable, creditor) = (amount, to);
        if (kind == 6 && creditable != 0) creditable += amount;
        if (kind == 7 || kind == 8) creditable -= amount;
        if (kind >= 5 && kind <= 8) (_state.creditable, _state.creditor) = (creditable, creditor);
        Account memory debit = _accounts[from];
        debit.balance -= amount;
        if (kind == 12) debit.withdrawable += amount;
        change(from, debit);
        if (kind != 12) {
            Account memory credit = _accounts[to];
            credit.balance += amount;
            change(to, credit);
        }
        push(transferCell(kind, from, to, amount));
    }

    function deposit(uint64 index, uint32 to, uint128 amount) public {
        begin();
        Account memory credit = _accounts[to];
        credit.balance += amount;
        change(to, credit);
        _state.lastDeposit = index;
        _state.total += amount;
        push(depositCell(index, to, amount));
    }

    function openMarket(bytes30 key) public returns (uint32 index) {
        begin();
        witness(hex"00");
        index = _state.nextMarket;
        siblings(MARKET, index, index);
        _market.push(Entry(key, 0));
        _state.market = set(MARKET, index, keccak256(bytes.concat(hex"03", key, bytes26(0))));
        ++_state.nextMarket;
        push(cell(bytes.concat(hex"04", key)));
    }

    function setMarket(uint32 index, bytes26 digest) public {
        begin();
        Entry storage entry = _market[index];
        witness(bytes.concat(entry.key, entry.digest));
        siblings(MARKET, index, _state.nextMarket);
        entry.digest = digest;
        _state.market = set(MARKET, index, keccak256(bytes.concat(hex"03", entry.key, digest)));
        push(cell(bytes.concat(hex"05", bytes4(index), digest)));
    }

    function verdict(uint8 status) public {
        begin();
        _state.openVerdict = true;
        push(cell(bytes.concat(hex"06", bytes16("a subject"), bytes1(status), bytes4(uint32(7)), bytes4(uint32(9)))));
    }

    function evidence(bytes30 root) public {
        begin();
        _state.openVerdict = false;
        push(cell(bytes.concat(hex"07", root)));
    }

    /// A cell that changes nothing; what it needs as a witness comes before.
    function raw(bytes memory content) public {
        begin();
        push(cell(content));
    }

    // Witnesses for records that can't be applied

    function showAccount(uint32 index) public {
        Account memory shown = _accounts[index];
        witness(bytes.concat(shown.key, bytes16(shown.balance), bytes16(shown.withdrawable)));
        siblings(ACCOUNTS, index, _state.nextIndex);
    }

    function showDuplicate(uint32 index) external {
        witness(bytes.concat(hex"01", bytes4(index)));
        showAccount(index);
    }

    function showMarketDuplicate(uint32 index) external {
        Entry memory entry = _market[index];
        witness(bytes.concat(hex"01", bytes4(index), entry.key, entry.digest));
        siblings(MARKET, index, _state.nextMarket);
    }

    function witness(bytes memory more) public {
        startStep();
        Step storage current = _steps[_steps.length - 1];
        current.witness = bytes.concat(current.witness, more);
    }

    // Cells

    function transferCell(uint8 kind, uint32 from, uint32 to, uint128 amount) public pure returns (bytes memory) {
        return cell(bytes.concat(hex"02", bytes1(kind), bytes4(from), bytes4(to), bytes16(amount)));
    }

    function depositCell(uint64 index, uint32 to, uint128 amount) public pure returns (bytes memory) {
        return cell(bytes.concat(hex"03", bytes8(index), bytes4(to), bytes16(amount)));
    }

    function cell(bytes memory content) public pure returns (bytes memory) {
        return bytes.concat(content, new bytes(31 - content.length));
    }

    // Blocks

    /// Ends the block; the header is as it should be.
    function seal(bytes32 evidenceRoot) external returns (Header memory header, bytes memory steps) {
        closeStep();
        if (_steps.length != 0) {
            (_state.creditable, _state.creditor) = (0, 0);
            _steps[_steps.length - 1].stateAfter = stateHash(_state);
        }
        return compose(stateRoot(_state), evidenceRoot);
    }

    /// Ends the block with another state root: the last step leads to it.
    function sealWith(bytes32 root) external returns (Header memory header, bytes memory steps) {
        closeStep();
        (_state.creditable, _state.creditor) = (0, 0);
        _steps[_steps.length - 1].stateAfter = keccak256(
            bytes.concat(
                hex"0d",
                root,
                bytes8(_state.lastDeposit),
                bytes4(_state.nextMarket),
                bytes1(0),
                bytes16(uint128(0)),
                bytes4(uint32(0))
            )
        );
        return compose(root, keccak256("evidence"));
    }

    /// Puts another state behind a step that is closed.
    function tamper(uint256 index, bytes32 stateAfter) external {
        _steps[index].stateAfter = stateAfter;
    }

    /// The block stands: the next one follows.
    function next(Header memory header) external {
        number = header.number;
        parent = headerHash(header);
        delete _steps;
        records = 0;
    }

    /// Siblings of a step in the events tree, bottom up.
    function proof(uint256 index) external view returns (bytes32[] memory out) {
        bytes32[] memory level = new bytes32[](_steps.length);
        for (uint256 i = 0; i < level.length; ++i) {
            level[i] = stepHash(i);
        }
        uint256 depth = 0;
        while ((1 << depth) < level.length) ++depth;
        out = new bytes32[](depth);
        for (uint256 height = 0; height < depth; ++height) {
            uint256 sibling = (index >> height) ^ 1;
            out[height] = sibling < level.length ? level[sibling] : bytes32(0);
            level = above(level);
        }
    }

    /// One proof for many accounts, by ascending index.
    function proofOf(uint32[] memory indexes) external view returns (bytes32[] memory out) {
        uint256[] memory places = new uint256[](indexes.length);
        for (uint256 i = 0; i < places.length; ++i) {
            places[i] = indexes[i];
        }
        out = new bytes32[](indexes.length * 32);
        uint256 count = 0;
        uint256 size = places.length;
        for (uint256 height = 0; height < 32; ++height) {
            uint256 kept = 0;
            for (uint256 i = 0; i < size; ++i) {
                uint256 sibling = places[i] ^ 1;
                bool known = i + 1 < size && places[i + 1] == sibling && sibling > places[i];
                if (!known && (sibling << height) < _state.nextIndex) {
                    out[count++] = nodeAt(ACCOUNTS, height, sibling);
                }
                places[kept++] = places[i] / 2;
                if (known) ++i;
            }
            size = kept;
        }
        assembly ("memory-safe") {
            mstore(out, count)
        }
    }

    // For measures: states that no records led to

    /// Says that so many accounts are taken; subtrees of which nothing was put are filled with something.
    function fill(uint32 count) external {
        for (uint256 height = 0; height < 32; ++height) {
            _filler[height] = keccak256(abi.encode("filler", height));
        }
        _state.nextIndex = count;
    }

    function fillMarket() external {
        _state.nextMarket = type(uint32).max;
    }

    /// Puts an account anywhere.
    function put(uint32 index, bytes30 key, uint128 balance, uint128 withdrawable) external {
        while (_accounts.length <= index && index < 100_000) _accounts.push();
        Account memory account_ = Account(key, balance, withdrawable);
        if (index < _accounts.length) _accounts[index] = account_;
        _state.accounts = set(ACCOUNTS, index, leafOf(account_));
        if (index >= _state.nextIndex) _state.nextIndex = index + 1;
    }

    function setTotal(uint128 total, uint64 lastDeposit) external {
        (_state.total, _state.lastDeposit) = (total, lastDeposit);
    }

    function showAt(uint32 index, bytes30 key, uint128 balance, uint128 becomes) external {
        witness(bytes.concat(key, bytes16(balance), bytes16(uint128(0))));
        siblings(ACCOUNTS, index, _state.nextIndex);
        _state.accounts = set(ACCOUNTS, index, leafOf(Account(key, becomes, 0)));
    }

    // Inside

    function begin() private returns (uint128 creditable, uint32 creditor) {
        startStep();
        (creditable, creditor) = (_state.creditable, _state.creditor);
        (_state.creditable, _state.creditor) = (0, 0);
    }

    function startStep() private {
        if (_inStep == 0 && (_steps.length == 0 || _steps[_steps.length - 1].cellsHash != 0)) {
            _steps.push();
            _steps[_steps.length - 1].before = _state;
        }
    }

    function push(bytes memory content) private {
        Step storage current = _steps[_steps.length - 1];
        current.cells = bytes.concat(current.cells, content);
        ++records;
        if (++_inStep == K) closeStep();
    }

    function closeStep() private {
        if (_inStep == 0) return;
        Step storage current = _steps[_steps.length - 1];
        current.cellsHash = keccak256(current.cells);
        current.stateAfter = stateHash(_state);
        _inStep = 0;
    }

    function change(uint32 index, Account memory becomes) private {
        showAccount(index);
        _accounts[index] = becomes;
        _state.accounts = set(ACCOUNTS, index, leafOf(becomes));
    }

    function siblings(uint256 tree, uint256 index, uint256 count) private {
        bytes memory more;
        for (uint256 height = 0; height < 32; ++height) {
            uint256 sibling = (index >> height) ^ 1;
            if ((sibling << height) < count) more = bytes.concat(more, nodeAt(tree, height, sibling));
        }
        witness(more);
    }

    function nodeAt(uint256 tree, uint256 height, uint256 place) private view returns (bytes32 found) {
        found = _nodes[tree][height][place];
        if (found != 0) return found;
        bool filled = tree == ACCOUNTS && _filler[0] != 0 && (place << height) < _state.nextIndex;
        return filled ? _filler[height] : _empty[height];
    }

    function set(uint256 tree, uint256 index, bytes32 leaf) private returns (bytes32 root) {
        root = leaf;
        _nodes[tree][0][index] = leaf;
        for (uint256 height = 0; height < 32; ++height) {
            bytes32 sibling = nodeAt(tree, height, index ^ 1);
            root = index & 1 == 1 ? node(sibling, root) : node(root, sibling);
            index >>= 1;
            _nodes[tree][height + 1][index] = root;
        }
    }

    function above(bytes32[] memory level) private pure returns (bytes32[] memory out) {
        out = new bytes32[]((level.length + 1) / 2);
        for (uint256 i = 0; i < out.length; ++i) {
            out[i] = node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0));
        }
    }

    function compose(bytes32 root, bytes32 evidenceRoot)
        private
        view
        returns (Header memory header, bytes memory steps)
    {
        bytes32[] memory level = new bytes32[](_steps.length);
        steps = new bytes(_steps.length * 64);
        for (uint256 i = 0; i < level.length; ++i) {
            level[i] = stepHash(i);
            (bytes32 cellsHash, bytes32 stateAfter) = (_steps[i].cellsHash, _steps[i].stateAfter);
            assembly ("memory-safe") {
                let to := add(steps, add(32, mul(i, 64)))
                mstore(to, cellsHash)
                mstore(add(to, 32), stateAfter)
            }
        }
        while (level.length > 1) level = above(level);
        header = Header({
            number: number + 1,
            parent: parent,
            stateRoot: root,
            total: _state.total,
            eventsRoot: level.length == 0 ? bytes32(0) : level[0],
            evidenceRoot: level.length == 0 ? bytes32(0) : evidenceRoot,
            lastDeposit: _state.lastDeposit,
            records: records,
            nextMarket: _state.nextMarket
        });
    }
}
