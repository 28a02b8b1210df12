// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Blocks} from "../src/Blocks.sol";
import {Challenges} from "../src/Challenges.sol";
import {Fault, Header} from "../src/Types.sol";
import {StateMachine} from "../src/lib/StateMachine.sol";
import {Trees} from "../src/lib/Trees.sol";
import {Builder} from "./Builder.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./Vm.sol";

/// @notice Every way to be wrong in a step, and that being right can't be challenged.
contract StepsTest is Fixture {
    uint128 internal constant MAX = type(uint128).max;

    function setUp() public override {
        super.setUp();
        openMarket();
        finaliseNext();
    }

    /// Seals a block as it is, registers it, and has a step of it challenged.
    function falls(uint32 step, Fault fault) internal {
        (Header memory header, bytes memory steps) = builder.seal(EVIDENCE);
        register(header, steps);
        fallsOf(header, step, fault);
    }

    function fallsOf(Header memory header, uint32 step, Fault fault) internal {
        Challenges.StepChallenge memory c = challengeOf(header, step);
        uint128 reward = settlement.rewards(CHALLENGER);
        uint128 bond = settlement.bonds(OPERATOR);
        vm.recordLogs();
        vm.prank(CHALLENGER);
        settlement.challengeStep(c);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs.length, 1);
        same(logs[0].topics[0], Blocks.Fallen.selector);
        (, Fault found,) = abi.decode(logs[0].data, (uint64, Fault, uint128));
        same(uint256(found), uint256(fault));
        same(settlement.lastRegistered(), header.number - 1);
        same(settlement.blockAt(header.number).hash, 0);
        same(settlement.rewards(CHALLENGER), reward + bond);
        same(settlement.bonds(OPERATOR), 0);
    }

    function stands(Header memory header, uint32 step) internal {
        Challenges.StepChallenge memory c = challengeOf(header, step);
        vm.expectRevert(Challenges.NoFraud.selector);
        settlement.challengeStep(c);
    }

    function wrong(bytes memory cell, Fault fault) internal {
        builder.raw(cell);
        falls(0, fault);
    }

    // Cells that are no records

    function test_tags_that_are_none() public {
        wrong(hex"00", Fault.NoRecord);
    }

    function testFuzz_tags_that_are_none(uint8 tag, bytes30 rest) public {
        vm.assume(tag == 0 || tag > 7);
        wrong(bytes.concat(bytes1(tag), rest), Fault.NoRecord);
    }

    function testFuzz_bytes_behind_a_record(uint8 which, uint256 place) public {
        bytes memory cell;
        uint256 used;
        if (which % 3 == 0) (cell, used) = (builder.transferCell(4, 0, 1, 5), 26);
        if (which % 3 == 1) (cell, used) = (builder.depositCell(2, 0, 5), 29);
        if (which % 3 == 2) {
            (cell, used) = (builder.cell(bytes.concat(hex"06", bytes16("s"), hex"01", bytes8(uint64(9)))), 26);
        }
        cell[bounded(place, used, 30)] = 0x01;
        wrong(cell, Fault.NoRecord);
    }

    function testFuzz_a_verdict_has_one_of_three_outcomes(uint8 status) public {
        vm.assume(status == 0 || status > 3);
        builder.verdict(status);
        builder.evidence("root");
        falls(0, Fault.NoRecord);
    }

    // Verdicts and their evidence

    function test_a_verdict_without_evidence() public {
        builder.verdict(1);
        builder.raw(bytes.concat(hex"01", bytes30("somebody")));
        builder.evidence("root");
        falls(0, Fault.BrokenVerdict);
    }

    function test_evidence_without_a_verdict() public {
        builder.evidence("root");
        falls(0, Fault.BrokenVerdict);
    }

    function test_evidence_twice() public {
        builder.verdict(2);
        builder.evidence("root");
        builder.evidence("root");
        falls(0, Fault.BrokenVerdict);
    }

    function test_a_block_that_ends_with_a_verdict() public {
        builder.verdict(2);
        // No end of a block says that a verdict is open, so the state after the step is another.
        (Header memory header, bytes memory steps) = builder.sealWith(builder.stateRoot(builder.state()));
        register(header, steps);
        fallsOf(header, 0, Fault.WrongState);
    }

    // Transfers

    function test_nothing_moves() public {
        wrong(builder.transferCell(4, 0, 1, 0), Fault.ZeroAmount);
    }

    function testFuzz_kinds_that_are_none(uint8 kind) public {
        vm.assume(kind < 2 || kind > 14);
        wrong(builder.transferCell(kind, 0, 1, 5), Fault.WrongKind);
    }

    function testFuzz_only_withdrawals_stay_in_an_account(uint8 kind) public {
        kind = uint8(bounded(kind, 2, 14));
        wrong(builder.transferCell(kind, 0, kind == 12 ? 1 : 0, 5), Fault.WrongKind);
    }

    function testFuzz_accounts_that_are_none(uint32 index, bool debit) public {
        index = uint32(bounded(index, 4, type(uint32).max));
        wrong(builder.transferCell(4, debit ? index : 0, debit ? 0 : index, 5), Fault.UnknownAccount);
    }

    function testFuzz_overdrafts(uint8 kind, uint128 amount) public {
        kind = uint8(bounded(kind, 9, 14));
        amount = uint128(bounded(amount, 1_001, MAX));
        builder.showAccount(0);
        wrong(builder.transferCell(kind, 0, kind == 12 ? 0 : 1, amount), Fault.Overdraft);
    }

    function test_an_overdraft_after_right_records() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(12, 0, 0, 300);
        builder.showAccount(0);
        wrong(builder.transferCell(4, 0, 1, 101), Fault.Overdraft);
    }

    function test_sums_that_do_not_fit() public {
        // Such balances come of a wrong block only; a state before is taken as it is claimed.
        builder.put(0, "a", 10, MAX);
        builder.put(1, "b", MAX, 0);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.showAccount(0);
        builder.raw(builder.transferCell(12, 0, 0, 1));
        falls(1, Fault.Overflow);
    }

    function test_a_credit_that_does_not_fit() public {
        builder.put(0, "a", 10, 0);
        builder.put(1, "b", MAX, 0);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        // The debit is right, so its leaf changes before the credit is looked at.
        builder.showAccount(0);
        builder.put(0, "a", 9, 0);
        builder.showAccount(1);
        builder.raw(builder.transferCell(4, 0, 1, 1));
        falls(1, Fault.Overflow);
    }

    // Credits

    function test_a_credit_above_the_payment() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        wrong(builder.transferCell(7, 2, 0, 101), Fault.Credit);
    }

    function test_a_slash_above_what_is_left_of_the_payment() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        builder.transfer(6, 1, 3, 2);
        builder.transfer(7, 2, 0, 60);
        wrong(builder.transferCell(8, 3, 0, 43), Fault.Credit);
    }

    function test_a_credit_from_somebody_else() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        wrong(builder.transferCell(7, 1, 0, 10), Fault.Credit);
    }

    function test_a_credit_without_a_payment() public {
        wrong(builder.transferCell(8, 0, 1, 1), Fault.Credit);
    }

    function test_other_records_end_the_right_to_credits() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        builder.openMarket("unit");
        wrong(builder.transferCell(7, 2, 0, 10), Fault.Credit);
    }

    function test_the_right_to_credits_does_not_outlive_a_block() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        registerNext();
        wrong(builder.transferCell(7, 2, 0, 10), Fault.Credit);
    }

    function test_credits_up_to_the_payment_stand() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(2, 0, 3, 100);
        builder.transfer(5, 1, 2, 100);
        builder.transfer(6, 1, 3, 2);
        builder.transfer(7, 2, 0, 60);
        // The fee is a part of what was paid.
        builder.transfer(8, 3, 0, 42);
        stands(registerNextKept(), 0);
    }

    function test_a_fee_alone_opens_nothing() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(6, 1, 3, 10);
        wrong(builder.transferCell(8, 3, 0, 1), Fault.Credit);
    }

    function test_a_fee_behind_used_up_credits_opens_nothing() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 10);
        builder.transfer(7, 2, 0, 10);
        builder.transfer(6, 1, 3, 10);
        wrong(builder.transferCell(8, 3, 0, 1), Fault.Credit);
    }

    function test_a_penalty_needs_no_payment() public {
        builder.transfer(4, 0, 1, 600);
        builder.transfer(2, 0, 3, 100);
        builder.transfer(14, 3, 0, 100);
        stands(registerNextKept(), 0);
    }

    /// As `registerNext`, but the builder keeps the steps.
    function registerNextKept() internal returns (Header memory header) {
        bytes memory steps;
        (header, steps) = builder.seal(EVIDENCE);
        register(header, steps);
    }

    // Deposits

    function test_a_deposit_that_nobody_made() public {
        builder.raw(builder.depositCell(2, 0, 5));
        falls(0, Fault.WrongDeposit);
    }

    function test_a_deposit_of_another_amount() public {
        payIn(PROVIDER, NAME_P, 50);
        builder.raw(builder.depositCell(2, 2, 51));
        falls(0, Fault.WrongDeposit);
    }

    function test_a_deposit_to_another_account() public {
        payIn(PROVIDER, NAME_P, 50);
        builder.showAccount(0);
        builder.raw(builder.depositCell(2, 0, 50));
        falls(0, Fault.WrongDeposit);
    }

    function test_a_deposit_to_no_account() public {
        payIn(PROVIDER, NAME_P, 50);
        wrong(builder.depositCell(2, 4, 50), Fault.UnknownAccount);
    }

    function testFuzz_a_deposit_out_of_turn(uint64 index) public {
        vm.assume(index != 2);
        payIn(PROVIDER, NAME_P, 50);
        payIn(PROVIDER, NAME_P, 50);
        wrong(builder.depositCell(index, 2, 50), Fault.WrongDeposit);
    }

    function test_a_deposit_of_nothing() public {
        wrong(builder.depositCell(2, 0, 0), Fault.ZeroAmount);
    }

    function test_a_total_that_does_not_fit() public {
        payIn(PROVIDER, NAME_P, 50);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.setTotal(MAX, 1);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.raw(builder.depositCell(2, 2, 50));
        builder.setTotal(1_000, 1);
        // The state before the last step has a total that no deposits led to.
        (Header memory header, bytes memory steps) = builder.seal(EVIDENCE);
        register(header, steps);
        fallsOf(header, 2, Fault.Overflow);
    }

    function test_a_deposit_that_makes_an_account_too_rich() public {
        payIn(PROVIDER, NAME_P, 50);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.put(2, builder.keyOf(PROVIDER, NAME_P), MAX, 0);
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.showAccount(2);
        builder.raw(builder.depositCell(2, 2, 50));
        falls(2, Fault.Overflow);
    }

    // Accounts and the market tree

    function test_an_account_twice() public {
        builder.showDuplicate(2);
        wrong(bytes.concat(hex"01", builder.keyOf(PROVIDER, NAME_P)), Fault.AccountExists);
    }

    function test_another_account_is_no_duplicate() public {
        builder.showDuplicate(1);
        builder.raw(bytes.concat(hex"01", builder.keyOf(PROVIDER, NAME_P)));
        Header memory header = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(header, 0);
        vm.expectRevert(StateMachine.WrongWitness.selector);
        settlement.challengeStep(c);
    }

    function test_market_entries() public {
        builder.openMarket("unit");
        builder.openMarket("allocation");
        builder.setMarket(0, "terms");
        builder.setMarket(1, "more terms");
        builder.setMarket(0, "new terms");
        builder.verdict(3);
        builder.evidence("root");
        stands(registerNextKept(), 0);
    }

    function test_a_market_entry_twice() public {
        builder.openMarket("unit");
        builder.setMarket(0, "terms");
        builder.showMarketDuplicate(0);
        wrong(bytes.concat(hex"04", bytes30("unit")), Fault.MarketExists);
    }

    function test_another_market_entry_is_no_duplicate() public {
        builder.openMarket("unit");
        builder.showMarketDuplicate(0);
        builder.raw(bytes.concat(hex"04", bytes30("other")));
        Header memory header = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(header, 0);
        vm.expectRevert(StateMachine.WrongWitness.selector);
        settlement.challengeStep(c);
    }

    function testFuzz_market_entries_that_are_none(uint32 index) public {
        index = uint32(bounded(index, 1, type(uint32).max));
        builder.openMarket("unit");
        wrong(bytes.concat(hex"05", bytes4(index), bytes26("terms")), Fault.UnknownMarket);
    }

    function test_trees_that_are_full() public {
        builder.fill(type(uint32).max);
        builder.fillMarket();
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.raw(bytes.concat(hex"01", bytes30("somebody")));
        falls(1, Fault.Full);
    }

    function test_a_market_tree_that_is_full() public {
        builder.fill(type(uint32).max);
        builder.fillMarket();
        for (uint256 i = 0; i < 48; ++i) {
            builder.evidence("root");
        }
        builder.raw(bytes.concat(hex"04", bytes30("something")));
        falls(1, Fault.Full);
    }

    // States

    function test_another_state_at_the_end() public {
        builder.transfer(4, 0, 1, 600);
        (Header memory header, bytes memory steps) = builder.sealWith(keccak256("all mine"));
        register(header, steps);
        fallsOf(header, 0, Fault.WrongState);
    }

    function test_another_state_in_the_middle() public {
        for (uint256 i = 0; i < 100; ++i) {
            builder.transfer(4, 0, 1, 1);
        }
        builder.tamper(1, keccak256("unknown to all"));
        falls(1, Fault.WrongState);
    }

    function test_right_steps_beside_a_wrong_one_stand() public {
        for (uint256 i = 0; i < 150; ++i) {
            builder.transfer(4, 0, 1, 1);
        }
        (Header memory header, bytes memory steps) = builder.sealWith(keccak256("all mine"));
        register(header, steps);
        for (uint32 i = 0; i < 3; ++i) {
            stands(header, i);
        }
        fallsOf(header, 3, Fault.WrongState);
    }

    function test_a_payment_at_the_end_of_a_step_is_remembered() public {
        builder.transfer(4, 0, 1, 600);
        for (uint256 i = 0; i < 46; ++i) {
            builder.transfer(4, 0, 1, 1);
        }
        builder.transfer(5, 1, 2, 100);
        builder.transfer(7, 2, 0, 100);
        Header memory header = registerNextKept();
        stands(header, 0);
        stands(header, 1);
    }

    // What follows from a fallen block

    function test_what_was_built_on_a_wrong_block_falls_too() public {
        builder.transfer(4, 0, 1, 1);
        Header memory second = registerNextKept();
        builder.next(second);
        builder.raw(builder.transferCell(4, 0, 1, 0));
        Header memory third = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(third, 0);
        builder.next(third);
        builder.transfer(4, 0, 1, 1);
        Header memory fourth = registerNextKept();
        same(settlement.lastRegistered(), 4);
        vm.prank(CHALLENGER);
        settlement.challengeStep(c);
        same(settlement.lastRegistered(), 2);
        same(settlement.blockAt(second.number).hash, builder.headerHash(second));
        same(settlement.blockAt(fourth.number).hash, 0);

        vm.prank(CHALLENGER);
        settlement.claimReward();
        same(token.balanceOf(CHALLENGER), BOND);
        vm.expectRevert(Challenges.NotOpen.selector);
        settlement.challengeStep(c);
    }

    function test_a_final_block_can_not_be_challenged() public {
        builder.raw(builder.transferCell(4, 0, 1, 0));
        Header memory header = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(header, 0);
        pass(WINDOW);
        settlement.finalise(header.number);
        vm.expectRevert(Challenges.NotOpen.selector);
        settlement.challengeStep(c);
    }

    function test_a_pause_stops_no_challenge() public {
        builder.raw(builder.transferCell(4, 0, 1, 0));
        Header memory header = registerNextKept();
        vm.prank(OWNER);
        settlement.pause();
        fallsOf(header, 0, Fault.ZeroAmount);
    }

    // Challenges that don't show what they should

    function test_wrong_challenges() public {
        for (uint256 i = 0; i < 100; ++i) {
            builder.transfer(4, 0, 1, 1);
        }
        Header memory header = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(header, 1);

        c.header.total += 1;
        refused(c, Challenges.WrongHeader.selector);
        header.total -= 1;
        c = challengeOf(header, 1);
        c.step = 3;
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.cells = bytes.concat(c.cells, new bytes(31));
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.cells[30] = 0x01;
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.stateAfter = keccak256("another");
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.state.nextIndex = 1;
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.cellsBefore = keccak256("another");
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 1);
        c.proof = new bytes32[](1);
        refused(c, Trees.BadProof.selector);
        c = challengeOf(header, 0);
        c.state.total = 7;
        refused(c, Challenges.WrongStep.selector);
        c = challengeOf(header, 0);
        c.witness[40] ^= 0x01;
        refused(c, StateMachine.WrongWitness.selector);
        c = challengeOf(header, 0);
        c.witness = bytes.concat(c.witness, hex"00");
        refused(c, StateMachine.WrongWitness.selector);
        c = challengeOf(header, 0);
        c.witness = "";
        refused(c, StateMachine.WrongWitness.selector);
        // Cut in the last sibling.
        c = challengeOf(header, 0);
        bytes memory short = c.witness;
        assembly ("memory-safe") {
            mstore(short, sub(mload(short), 1))
        }
        refused(c, Trees.BadProof.selector);
    }

    function refused(Challenges.StepChallenge memory c, bytes4 why) internal {
        vm.expectRevert(why);
        settlement.challengeStep(c);
    }

    function testFuzz_a_changed_witness_shows_nothing(uint256 place, uint8 flip) public {
        vm.assume(flip != 0);
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 100);
        builder.open("somebody");
        Header memory header = registerNextKept();
        Challenges.StepChallenge memory c = challengeOf(header, 0);
        place = place % c.witness.length;
        c.witness[place] = bytes1(uint8(c.witness[place]) ^ flip);
        vm.expectRevert();
        settlement.challengeStep(c);
        same(settlement.lastRegistered(), header.number);
    }

    /// Random right blocks: no step of any can be challenged.
    /// forge-config: default.fuzz.runs = 40
    function testFuzz_right_blocks_stand(uint256 seed) public {
        uint256 count = bounded(seed, 1, 120);
        for (uint256 i = 0; i < count; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            randomRecord(seed);
        }
        (Header memory header, bytes memory steps) = builder.seal(EVIDENCE);
        register(header, steps);
        for (uint32 i = 0; i < builder.stepCount(); ++i) {
            stands(header, i);
        }
    }

    /// Random blocks with a wrong state behind one step: the step falls, whichever it is.
    /// forge-config: default.fuzz.runs = 40
    function testFuzz_any_wrong_state_falls(uint256 seed) public {
        uint256 count = bounded(seed, 1, 120);
        for (uint256 i = 0; i < count; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            randomRecord(seed);
        }
        uint32 step = uint32(seed % ((builder.records() + 47) / 48));
        if (step + 1 == (builder.records() + 47) / 48) {
            (Header memory header, bytes memory steps) = builder.sealWith(keccak256(abi.encode(seed)));
            register(header, steps);
            fallsOf(header, step, Fault.WrongState);
        } else {
            builder.tamper(step, keccak256(abi.encode(seed)));
            falls(step, Fault.WrongState);
        }
    }

    function randomRecord(uint256 seed) internal {
        uint32 count = builder.state().nextIndex;
        uint32 from = uint32((seed >> 8) % count);
        uint32 to = (from + 1 + uint32((seed >> 40) % (count - 1))) % count;
        uint128 balance = builder.account(from).balance;
        uint8 what = uint8(seed % 8);
        if (what == 0) {
            builder.open(bytes30(bytes32(seed)));
        } else if (what == 1) {
            builder.openMarket(bytes30(bytes32(seed)));
        } else if (what == 2 && builder.state().nextMarket != 0) {
            builder.setMarket(uint32((seed >> 72) % builder.state().nextMarket), bytes26(bytes32(seed)));
        } else if (what == 3 || balance == 0) {
            builder.verdict(uint8(1 + (seed >> 100) % 3));
            builder.evidence(bytes30(bytes32(seed)));
        } else if (what == 4) {
            uint64 index = payIn(CONSUMER, NAME_C, uint128(1 + (seed >> 128) % 1_000));
            builder.deposit(index, 0, uint128(1 + (seed >> 128) % 1_000));
        } else if (what == 5) {
            builder.transfer(12, from, from, uint128(bounded(seed >> 128, 1, balance)));
        } else {
            uint128 amount = uint128(bounded(seed >> 128, 1, balance));
            builder.transfer(5, from, to, amount);
            if (what == 7) builder.transfer(7, to, from, amount / 2 + 1);
        }
    }
}
