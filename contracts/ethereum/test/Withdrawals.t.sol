// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Store} from "../src/Store.sol";
import {Withdrawals} from "../src/Withdrawals.sol";
import {Claim, Header, StateParts} from "../src/Types.sol";
import {Trees} from "../src/lib/Trees.sol";
import {Fixture} from "./Fixture.sol";
import {BlockingToken, FeeToken, ReentrantToken, Token} from "./Tokens.sol";

/// @notice Money that goes out: claims, batches, the exit.
contract WithdrawalsTest is Fixture {
    function setUp() public override {
        super.setUp();
        market();
    }

    /// The consumer has 100 left and 300 released, the escrow 190, the provider 110 and 290 released, fees 10.
    function market() internal {
        openMarket();
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 400);
        builder.transfer(6, 1, 3, 10);
        builder.transfer(12, 2, 2, 290);
        builder.transfer(12, 0, 0, 300);
    }

    function test_who_is_paid() public {
        finaliseNext();
        withdraw(1, 2);
        same(token.balanceOf(PROVIDER), 290);
        same(settlement.paid(builder.keyOf(PROVIDER, NAME_P)), 290);
        // Nothing was released for these.
        withdraw(1, 1);
        withdraw(1, 3);
        same(token.balanceOf(TREASURY), 0);
        withdraw(1, 0);
        same(token.balanceOf(CONSUMER), 300);
        same(settlement.totalPaid(), 590);
    }

    function test_amounts_are_cumulative() public {
        finaliseNext();
        (Claim[] memory early, bytes32[] memory earlySiblings) = claimsOf(2);
        StateParts memory earlyParts = builder.parts();
        builder.transfer(12, 2, 2, 50);
        finaliseNext();
        withdraw(2, 2);
        same(token.balanceOf(PROVIDER), 340);
        // An older block pays what is missing: nothing.
        settlement.withdraw(1, earlyParts, early, earlySiblings);
        same(token.balanceOf(PROVIDER), 340);
        builder.transfer(12, 2, 2, 1);
        finaliseNext();
        withdraw(3, 2);
        same(token.balanceOf(PROVIDER), 341);
    }

    function test_an_older_block_pays_a_part() public {
        finaliseNext();
        (Claim[] memory early, bytes32[] memory earlySiblings) = claimsOf(2);
        StateParts memory earlyParts = builder.parts();
        builder.transfer(12, 2, 2, 50);
        finaliseNext();
        settlement.withdraw(1, earlyParts, early, earlySiblings);
        same(token.balanceOf(PROVIDER), 290);
        withdraw(2, 2);
        same(token.balanceOf(PROVIDER), 340);
    }

    function test_a_batch() public {
        finaliseNext();
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        same(siblings.length, 0);
        settlement.withdrawMany(1, builder.parts(), claims, siblings);
        same(token.balanceOf(PROVIDER), 290);
        same(token.balanceOf(CONSUMER), 300);
        settlement.withdrawMany(1, builder.parts(), claims, siblings);
        same(settlement.totalPaid(), 590);
    }

    function test_a_pause_stops_no_withdrawal() public {
        finaliseNext();
        builder.transfer(12, 2, 2, 50);
        registerNext();
        vm.prank(OWNER);
        settlement.pause();
        pass(WINDOW);
        settlement.finalise(2);
        withdraw(2, 2);
        same(token.balanceOf(PROVIDER), 340);
    }

    function test_only_final_blocks_pay() public {
        registerNext();
        (Claim[] memory claims, bytes32[] memory siblings) = claimsOf(2);
        StateParts memory parts = builder.parts();
        pass(WINDOW);
        vm.expectRevert(Withdrawals.NotFinal.selector);
        settlement.withdraw(1, parts, claims, siblings);
        settlement.finalise(1);
        settlement.withdraw(1, parts, claims, siblings);
    }

    function test_claims_that_are_not_in_the_state() public {
        finaliseNext();
        StateParts memory parts = builder.parts();
        (Claim[] memory claims, bytes32[] memory siblings) = claimsOf(2);
        claims[0].withdrawable += 1;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        claims[0].withdrawable -= 1;
        claims[0].balance += 1;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        claims[0].balance -= 1;
        claims[0].owner = CHALLENGER;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        claims[0].owner = PROVIDER;
        claims[0].name = NAME_C;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        claims[0].name = NAME_P;
        claims[0].index = 3;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        claims[0].index = 4;
        refused(parts, claims, siblings, Trees.BadProof.selector);
        claims[0].index = 2;
        parts.nextIndex = 3;
        refused(parts, claims, siblings, Trees.BadProof.selector);
        parts.nextIndex = 4;
        parts.total += 1;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        parts.total -= 1;
        parts.market = 0;
        refused(parts, claims, siblings, Withdrawals.WrongProof.selector);
        parts = builder.parts();
        refused(parts, claims, new bytes32[](1), Trees.BadProof.selector);
        refused(parts, claims, new bytes32[](3), Trees.BadProof.selector);
        refused(parts, new Claim[](0), siblings, Trees.BadProof.selector);
        settlement.withdraw(1, parts, claims, siblings);
    }

    function refused(StateParts memory parts, Claim[] memory claims, bytes32[] memory siblings, bytes4 why) internal {
        vm.expectRevert(why);
        settlement.withdraw(1, parts, claims, siblings);
    }

    function test_a_claim_twice_in_a_batch() public {
        finaliseNext();
        Claim[] memory twice = new Claim[](2);
        (twice[0], twice[1]) = (claimOf(2), claimOf(2));
        StateParts memory parts = builder.parts();
        refused(parts, twice, new bytes32[](2), Trees.BadProof.selector);
        (twice[0], twice[1]) = (claimOf(3), claimOf(2));
        refused(parts, twice, new bytes32[](1), Trees.BadProof.selector);
    }

    /// Any set of accounts, in a tree of any size, has one proof, and the proof shows them.
    /// forge-config: default.fuzz.runs = 40
    function testFuzz_one_proof_for_many(uint256 seed) public {
        uint32 count = uint32(bounded(seed, 1, 40));
        for (uint32 i = 0; i < count; ++i) {
            builder.open(builder.keyOf(address(uint160(i + 1_000)), "provider"));
            builder.transfer(4, 0, i + 4, 1 + i % 3);
            builder.transfer(12, i + 4, i + 4, 1 + i % 3);
        }
        finaliseNext();
        uint32[] memory indexes = new uint32[](count);
        uint32 chosen = 0;
        for (uint32 i = 0; i < count; ++i) {
            if ((seed >> (i + 8)) & 1 == 1) indexes[chosen++] = i + 4;
        }
        if (chosen == 0) indexes[chosen++] = 4;
        assembly ("memory-safe") {
            mstore(indexes, chosen)
        }
        Claim[] memory claims = new Claim[](chosen);
        for (uint32 i = 0; i < chosen; ++i) {
            claims[i] = builder.claim(indexes[i], address(uint160(indexes[i] + 996)), "provider");
        }
        settlement.withdrawMany(1, builder.parts(), claims, builder.proofOf(indexes));
        for (uint32 i = 0; i < chosen; ++i) {
            same(token.balanceOf(claims[i].owner), claims[i].withdrawable);
        }
    }

    function test_one_payment_can_not_be_made_from_outside() public {
        vm.expectRevert(Withdrawals.OnlySelf.selector);
        settlement.payOne("key", CHALLENGER, 1);
    }

    // Recipients and tokens that don't behave

    function blocking() internal returns (BlockingToken evil) {
        evil = new BlockingToken();
        deploy(address(evil));
        postBond(BOND);
        market();
        finaliseNext();
    }

    function test_one_poisoned_recipient_stops_nobody() public {
        BlockingToken evil = blocking();
        evil.setBlocked(CONSUMER, true);
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.withdrawMany(1, builder.parts(), claims, siblings);
        same(token.balanceOf(PROVIDER), 290);
        same(settlement.paid(builder.keyOf(CONSUMER, NAME_C)), 0);
        same(settlement.totalPaid(), 290);
        StateParts memory parts = builder.parts();
        vm.expectRevert(BlockingToken.Blocked.selector);
        settlement.withdraw(1, parts, claims, siblings);
        evil.setBlocked(CONSUMER, false);
        settlement.withdrawMany(1, parts, claims, siblings);
        same(token.balanceOf(CONSUMER), 300);
    }

    function test_a_recipient_that_burns_gas_stops_nobody() public {
        BlockingToken evil = blocking();
        evil.setBlocked(CONSUMER, true);
        evil.setGreedy(true);
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.withdrawMany{gas: 1_000_000}(1, builder.parts(), claims, siblings);
        same(token.balanceOf(PROVIDER), 290);
        same(token.balanceOf(CONSUMER), 0);
    }

    function test_a_stopped_token_loses_nothing() public {
        BlockingToken evil = blocking();
        evil.setStopped(true);
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.withdrawMany(1, builder.parts(), claims, siblings);
        same(settlement.totalPaid(), 0);
        evil.setStopped(false);
        settlement.withdrawMany(1, builder.parts(), claims, siblings);
        same(settlement.totalPaid(), 590);
    }

    function test_a_token_that_calls_back_is_paid_once() public {
        ReentrantToken evil = new ReentrantToken();
        deploy(address(evil));
        postBond(BOND);
        market();
        finaliseNext();
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        bytes memory again = abi.encodeCall(settlement.withdrawMany, (1, builder.parts(), claims, siblings));
        evil.aim(address(settlement), again);
        (bool ok,) = address(settlement).call(again);
        holds(ok, "the batch itself goes through");
        holds(!evil.reached(), "a batch inside a batch");
        same(bytes32(evil.refusal()), bytes32(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector));
        same(token.balanceOf(PROVIDER), 290);
        same(token.balanceOf(CONSUMER), 300);
        same(settlement.totalPaid(), 590);
    }

    function test_a_fee_is_the_recipients() public {
        deploy(address(new FeeToken()));
        postBond(2 * BOND);
        builder.open(builder.keyOf(CONSUMER, NAME_C));
        uint64 index = payIn(CONSUMER, NAME_C, 1_000);
        builder.deposit(index, 0, 990);
        builder.transfer(12, 0, 0, 990);
        finaliseNext();
        withdraw(1, 0);
        same(settlement.totalPaid(), 990);
        same(token.balanceOf(CONSUMER), 981);
        same(token.balanceOf(address(settlement)), settlement.bonds(OPERATOR));
    }

    function test_accounts_never_get_more_than_was_deposited() public {
        // An operator whose wrong block nobody challenged.
        builder.put(2, builder.keyOf(PROVIDER, NAME_P), 0, 5_000);
        finaliseNext();
        payIn(CONSUMER, NAME_C, 10_000);
        StateParts memory parts = builder.parts();
        (Claim[] memory claims, bytes32[] memory siblings) = claimsOf(2);
        vm.expectRevert(Store.TooMuch.selector);
        settlement.withdraw(1, parts, claims, siblings);
        settlement.withdrawMany(1, parts, claims, siblings);
        same(token.balanceOf(PROVIDER), 0);
    }

    // The exit

    function test_the_exit_opens_after_silence() public {
        finaliseNext();
        pass(EXIT_DELAY);
        vm.expectRevert(Withdrawals.TooEarlyForExit.selector);
        settlement.enterExit();
        pass(1);
        settlement.enterExit();
        holds(settlement.exited(), "open");
        vm.expectRevert(Store.Exited.selector);
        settlement.enterExit();
    }

    function test_a_block_that_is_due_keeps_the_exit_closed() public {
        registerNext();
        pass(EXIT_DELAY + 1);
        vm.expectRevert(Withdrawals.TooEarlyForExit.selector);
        settlement.enterExit();
        pass(WINDOW);
        settlement.enterExit();
        same(settlement.lastFinal(), 1);
    }

    function test_without_money_nobody_waits() public {
        deploy(address(new Token()));
        pass(EXIT_DELAY + 1);
        vm.expectRevert(Withdrawals.TooEarlyForExit.selector);
        settlement.enterExit();
        payIn(CONSUMER, NAME_C, 5);
        vm.expectRevert(Withdrawals.TooEarlyForExit.selector);
        settlement.enterExit();
        pass(EXIT_DELAY + 1);
        settlement.enterExit();
        settlement.reclaim(1, CONSUMER, NAME_C);
        same(token.balanceOf(CONSUMER), 5);
    }

    function test_everybody_leaves() public {
        finaliseNext();
        withdraw(1, 2);
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        StateParts memory parts = builder.parts();
        vm.expectRevert(Store.NotExited.selector);
        settlement.exitMany(parts, claims, siblings);
        vm.expectRevert(Store.NotExited.selector);
        settlement.reclaim(1, CONSUMER, NAME_C);

        payIn(PROVIDER, NAME_P, 70);
        payIn(CONSUMER, NAME_C, 30);
        pass(EXIT_DELAY);
        // This one comes too late to become final.
        builder.deposit(2, 2, 70);
        builder.deposit(3, 0, 30);
        builder.transfer(4, 2, 1, 100);
        Header memory late = registerNext();
        pass(1);
        settlement.enterExit();
        same(settlement.lastRegistered(), 1);
        same(settlement.blockAt(late.number).hash, 0);

        settlement.exitMany(parts, claims, siblings);
        same(token.balanceOf(PROVIDER), 400);
        same(token.balanceOf(CONSUMER), 400 + 190);
        same(token.balanceOf(TREASURY), 10);
        settlement.exitMany(parts, claims, siblings);
        settlement.withdrawMany(1, parts, claims, siblings);
        same(settlement.totalPaid(), 1_000);

        vm.expectRevert(Withdrawals.NoDeposit.selector);
        settlement.reclaim(1, CONSUMER, NAME_C);
        vm.expectRevert(Withdrawals.NoDeposit.selector);
        settlement.reclaim(4, CONSUMER, NAME_C);
        vm.expectRevert(Withdrawals.NoDeposit.selector);
        settlement.reclaim(2, CONSUMER, NAME_C);
        settlement.reclaim(2, PROVIDER, NAME_P);
        settlement.reclaim(3, CONSUMER, NAME_C);
        vm.expectRevert(Withdrawals.NoDeposit.selector);
        settlement.reclaim(2, PROVIDER, NAME_P);
        same(token.balanceOf(PROVIDER), 470);
        same(token.balanceOf(CONSUMER), 620);

        // Nothing goes on, and the operator gets its bond.
        vm.expectRevert(Store.Exited.selector);
        settlement.finalise(1);
        vm.expectRevert(Store.Exited.selector);
        settlement.deposit(CONSUMER, NAME_C, 1);
        bytes[] memory signed = signatures(late);
        vm.expectRevert(Store.Exited.selector);
        vm.prank(OPERATOR);
        settlement.register(late, new bytes32[](0), "", signed);
        vm.startPrank(OPERATOR);
        settlement.requestBond();
        pass(BOND_DELAY);
        settlement.withdrawBond();
        vm.stopPrank();
        same(token.balanceOf(address(settlement)), 0);
    }

    function test_a_poisoned_owner_stops_no_exit() public {
        BlockingToken evil = blocking();
        evil.setBlocked(PROVIDER, true);
        pass(EXIT_DELAY + 1);
        settlement.enterExit();
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.exitMany(builder.parts(), claims, siblings);
        same(token.balanceOf(CONSUMER), 590);
        evil.setBlocked(PROVIDER, false);
        settlement.exitMany(builder.parts(), claims, siblings);
        same(token.balanceOf(PROVIDER), 400);
    }

    function test_a_pause_stops_no_exit() public {
        finaliseNext();
        vm.prank(OWNER);
        settlement.pause();
        pass(EXIT_DELAY + 1);
        settlement.enterExit();
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.exitMany(builder.parts(), claims, siblings);
        same(settlement.totalPaid(), 1_000);
    }
}
