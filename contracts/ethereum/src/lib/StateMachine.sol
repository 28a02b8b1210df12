// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IDeposits} from "../Executor.sol";
import {Deposit, Fault, State} from "../Types.sol";
import {Hashes} from "./Hashes.sol";
import {Trees} from "./Trees.sol";

/// @title The ledger's transition function
/// @notice Executes event records on a state that is known by its roots only. The leaves that a record touches come from a
/// witness; each is checked against the root of that moment, so a witness can't make a right record look wrong.
library StateMachine {
    /// A leaf of the witness is not in the tree.
    error WrongWitness();

    uint256 internal constant CELL_BYTES = 31;

    uint8 internal constant FIRST_KIND = 2;
    uint8 internal constant PAYMENT = 5;
    uint8 internal constant FEE = 6;
    uint8 internal constant CREDIT = 7;
    uint8 internal constant SLASH = 8;
    uint8 internal constant WITHDRAW = 12;
    uint8 internal constant LAST_KIND = 14;

    struct Machine {
        State state;
        Trees.Reader witness;
        bytes32[33] empty;
        /// What may be credited, and against whom, as the record before left it.
        uint128 creditable;
        uint32 creditor;
    }

    struct Account {
        bytes30 key;
        uint128 balance;
        uint128 withdrawable;
    }

    function hash(bytes32 domain, State memory s) internal pure returns (bytes32) {
        bytes32 root = Hashes.stateRoot(domain, s.accounts, s.market, s.nextIndex, s.total);
        return Hashes.stepState(root, s.lastDeposit, s.nextMarket, s.openVerdict, s.creditable, s.creditor);
    }

    /// @notice Applies the cells of a step one after the other.
    /// @param last Whether the block ends with them.
    /// @return The first fault; without one, `state` is the state after them.
    function run(State memory state, bytes calldata cells, bytes calldata witness, bool last, IDeposits deposits)
        internal
        view
        returns (Fault)
    {
        Machine memory m;
        m.state = state;
        m.empty = Trees.empties();
        uint256 start;
        assembly ("memory-safe") {
            start := witness.offset
        }
        m.witness = Trees.Reader(start, start + witness.length);
        for (uint256 i = 0; i < cells.length; i += CELL_BYTES) {
            uint256 cell;
            assembly ("memory-safe") {
                cell := shr(8, calldataload(add(cells.offset, i)))
            }
            Fault fault = apply_(m, cell, deposits);
            if (fault != Fault.None) return fault;
        }
        if (last) {
            state.creditable = 0;
            state.creditor = 0;
        }
        require(m.witness.next == m.witness.end, WrongWitness());
        return Fault.None;
    }

    function apply_(Machine memory m, uint256 cell, IDeposits deposits) private view returns (Fault) {
        State memory s = m.state;
        uint256 tag = cell >> 240;
        if (tag == 0 || tag > 7) return Fault.NoRecord;
        if (s.openVerdict != (tag == 7)) return Fault.BrokenVerdict;
        (m.creditable, m.creditor) = (s.creditable, s.creditor);
        (s.creditable, s.creditor) = (0, 0);
        if (tag == 1) return openAccount(m, bytes30(uint240(cell)));
        if (tag == 2) return transfer(m, cell);
        if (tag == 3) return deposit(m, cell, deposits);
        if (tag == 4) return openMarket(m, bytes30(uint240(cell)));
        if (tag == 5) return setMarket(m, cell);
        if (tag == 6) {
            uint8 status = uint8(cell >> 104);
            if (status == 0 || status > 3 || uint40(cell) != 0) return Fault.NoRecord;
            s.openVerdict = true;
        } else {
            s.openVerdict = false;
        }
        return Fault.None;
    }

    function openAccount(Machine memory m, bytes30 key) private pure returns (Fault) {
        State memory s = m.state;
        if (s.nextIndex == type(uint32).max) return Fault.Full;
        if (isDuplicate(m)) {
            uint256 index = uint32(bytes4(take(m, 4)));
            Account memory found = takeAccount(m);
            require(index < s.nextIndex && found.key == key, WrongWitness());
            putAccount(m, index, found, found);
            return Fault.AccountExists;
        }
        s.accounts = swap(m, s.accounts, s.nextIndex, s.nextIndex, 0, Hashes.accountLeaf(key, 0, 0));
        ++s.nextIndex;
        return Fault.None;
    }

    function transfer(Machine memory m, uint256 cell) private pure returns (Fault) {
        State memory s = m.state;
        uint8 kind = uint8(cell >> 232);
        uint32 from = uint32(cell >> 200);
        uint32 to = uint32(cell >> 168);
        uint128 amount = uint128(cell >> 40);
        if (uint40(cell) != 0) return Fault.NoRecord;
        if (amount == 0) return Fault.ZeroAmount;
        if (kind < FIRST_KIND || kind > LAST_KIND || (kind == WITHDRAW) != (from == to)) return Fault.WrongKind;
        if (from >= s.nextIndex || to >= s.nextIndex) return Fault.UnknownAccount;
        if (!keepCredit(m, kind, from, to, amount)) return Fault.Credit;

        Account memory debit = takeAccount(m);
        if (debit.balance < amount) {
            putAccount(m, from, debit, debit);
            return Fault.Overdraft;
        }
        Account memory debited = Account(debit.key, debit.balance - amount, debit.withdrawable);
        if (kind == WITHDRAW) {
            if (debit.withdrawable > type(uint128).max - amount) {
                putAccount(m, from, debit, debit);
                return Fault.Overflow;
            }
            debited.withdrawable += amount;
        }
        putAccount(m, from, debit, debited);
        return kind == WITHDRAW ? Fault.None : credit(m, to, takeAccount(m), amount);
    }

    /// A payment opens credits up to its amount, the fees behind it are a part of it, credits and slashes use it up. A fee
    /// with nothing to credit before it opens nothing.
    function keepCredit(Machine memory m, uint8 kind, uint32 from, uint32 to, uint128 amount)
        private
        pure
        returns (bool)
    {
        State memory s = m.state;
        if (kind == PAYMENT) {
            (s.creditable, s.creditor) = (amount, to);
        } else if (kind == FEE) {
            (s.creditable, s.creditor) = (addFee(m.creditable, amount), m.creditor);
        } else if (kind == CREDIT || kind == SLASH) {
            if (amount > m.creditable || (kind == CREDIT && from != m.creditor)) return false;
            (s.creditable, s.creditor) = (m.creditable - amount, m.creditor);
        }
        return true;
    }

    /// Stays at the largest number, so that no sum can make a step that nobody is able to execute here.
    function addFee(uint128 creditable, uint128 fee) private pure returns (uint128) {
        if (creditable == 0) return 0;
        uint128 room = type(uint128).max - creditable;
        return creditable + (fee < room ? fee : room);
    }

    function deposit(Machine memory m, uint256 cell, IDeposits deposits) private view returns (Fault) {
        State memory s = m.state;
        uint64 index = uint64(cell >> 176);
        uint32 to = uint32(cell >> 144);
        uint128 amount = uint128(cell >> 16);
        if (uint16(cell) != 0) return Fault.NoRecord;
        if (amount == 0) return Fault.ZeroAmount;
        if (index == 0 || index - 1 != s.lastDeposit || index > deposits.depositCount()) return Fault.WrongDeposit;
        Deposit memory stored = deposits.depositAt(index);
        if (amount != stored.sum - deposits.depositAt(index - 1).sum) return Fault.WrongDeposit;
        if (amount > type(uint128).max - s.total) return Fault.Overflow;
        if (to >= s.nextIndex) return Fault.UnknownAccount;
        Account memory account = takeAccount(m);
        if (account.key != stored.key) {
            putAccount(m, to, account, account);
            return Fault.WrongDeposit;
        }
        s.total += amount;
        s.lastDeposit = index;
        return credit(m, to, account, amount);
    }

    function credit(Machine memory m, uint256 index, Account memory account, uint128 amount)
        private
        pure
        returns (Fault)
    {
        if (account.balance > type(uint128).max - amount) {
            putAccount(m, index, account, account);
            return Fault.Overflow;
        }
        putAccount(m, index, account, Account(account.key, account.balance + amount, account.withdrawable));
        return Fault.None;
    }

    function openMarket(Machine memory m, bytes30 key) private pure returns (Fault) {
        State memory s = m.state;
        if (s.nextMarket == type(uint32).max) return Fault.Full;
        if (isDuplicate(m)) {
            uint256 index = uint32(bytes4(take(m, 4)));
            bytes30 found = bytes30(take(m, 30));
            bytes32 leaf = Hashes.marketLeaf(found, bytes26(take(m, 26)));
            require(index < s.nextMarket && found == key, WrongWitness());
            swap(m, s.market, index, s.nextMarket, leaf, leaf);
            return Fault.MarketExists;
        }
        s.market = swap(m, s.market, s.nextMarket, s.nextMarket, 0, Hashes.marketLeaf(key, 0));
        ++s.nextMarket;
        return Fault.None;
    }

    function setMarket(Machine memory m, uint256 cell) private pure returns (Fault) {
        State memory s = m.state;
        uint32 index = uint32(cell >> 208);
        if (index >= s.nextMarket) return Fault.UnknownMarket;
        bytes30 key = bytes30(take(m, 30));
        bytes32 oldLeaf = Hashes.marketLeaf(key, bytes26(take(m, 26)));
        bytes32 newLeaf = Hashes.marketLeaf(key, bytes26(uint208(cell)));
        s.market = swap(m, s.market, index, s.nextMarket, oldLeaf, newLeaf);
        return Fault.None;
    }

    /// Before a new entry the witness has a byte: 0, or 1 when an entry of the same name follows.
    function isDuplicate(Machine memory m) private pure returns (bool) {
        return take(m, 1) != 0;
    }

    function takeAccount(Machine memory m) private pure returns (Account memory account) {
        account.key = bytes30(take(m, 30));
        account.balance = uint128(bytes16(take(m, 16)));
        account.withdrawable = uint128(bytes16(take(m, 16)));
    }

    function putAccount(Machine memory m, uint256 index, Account memory was, Account memory is_) private pure {
        bytes32 oldLeaf = Hashes.accountLeaf(was.key, was.balance, was.withdrawable);
        bytes32 newLeaf = Hashes.accountLeaf(is_.key, is_.balance, is_.withdrawable);
        State memory s = m.state;
        s.accounts = swap(m, s.accounts, index, s.nextIndex, oldLeaf, newLeaf);
    }

    function swap(Machine memory m, bytes32 root, uint256 index, uint256 count, bytes32 oldLeaf, bytes32 newLeaf)
        private
        pure
        returns (bytes32)
    {
        (bytes32 before, bytes32 after_) = Trees.swap(m.witness, m.empty, index, count, oldLeaf, newLeaf);
        require(before == root, WrongWitness());
        return after_;
    }

    /// The next bytes of the witness, left-aligned, zeros behind them.
    function take(Machine memory m, uint256 size) private pure returns (bytes32 word) {
        uint256 next = m.witness.next;
        require(next + size <= m.witness.end, WrongWitness());
        m.witness.next = next + size;
        assembly ("memory-safe") {
            word := calldataload(next)
        }
        word &= bytes32(type(uint256).max << (256 - 8 * size));
    }
}
