// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Blocks} from "../src/Blocks.sol";
import {Deposits} from "../src/Deposits.sol";
import {Oracles} from "../src/Oracles.sol";
import {Settlement} from "../src/Settlement.sol";
import {Store} from "../src/Store.sol";
import {Block, Header} from "../src/Types.sol";
import {Fixture} from "./Fixture.sol";
import {Vm} from "./Vm.sol";

/// @notice What a block must be to be registered, and how it becomes final.
contract BlocksTest is Fixture {
    Header internal header;
    bytes internal steps;

    function setUp() public override {
        super.setUp();
        openMarket();
        for (uint256 i = 0; i < 60; ++i) {
            builder.transfer(4, 0, 1, 1);
        }
        (header, steps) = builder.seal(EVIDENCE);
    }

    function refused(bytes4 why) internal {
        bytes32[] memory blobs = blobsFor(header);
        publish(header.number, blobs);
        refusedWith(blobs, why);
    }

    function refusedWith(bytes32[] memory blobs, bytes4 why) internal {
        bytes[] memory signed = signatures(header);
        vm.expectRevert(why);
        vm.prank(OPERATOR);
        settlement.register(header, blobs, steps, signed);
        same(settlement.lastRegistered(), 0);
    }

    function test_a_registered_block() public {
        register(header, steps);
        Block memory found = settlement.blockAt(1);
        same(found.hash, builder.headerHash(header));
        same(found.stateRoot, builder.stateRoot(builder.state()));
        same(found.blobsRoot, keccak256(abi.encodePacked(blobsFor(header))));
        same(found.total, 1_000);
        same(found.lastDeposit, 1);
        same(found.registeredAt, vm.getBlockTimestamp());
        same(settlement.lastRegistered(), 1);
        same(settlement.lastFinal(), 0);
    }

    /// All that a verifier needs is in the log.
    function test_what_is_logged() public {
        bytes32[] memory blobs = blobsFor(header);
        vm.recordLogs();
        register(header, steps);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        same(logs.length, 2);
        same(logs[0].topics[0], Blocks.Published.selector);
        same(logs[0].topics[1], bytes32(uint256(1)));
        same(keccak256(logs[0].data), keccak256(abi.encode(blobs)));
        same(logs[1].topics[0], Blocks.Registered.selector);
        same(logs[1].topics[1], bytes32(uint256(1)));
        same(logs[1].topics[2], builder.headerHash(header));
        same(keccak256(logs[1].data), keccak256(abi.encode(header, blobs, steps)));
        vm.recordLogs();
        payIn(PROVIDER, NAME_P, 70);
        logs = vm.getRecordedLogs();
        Vm.Log memory last = logs[logs.length - 1];
        same(last.topics[0], Deposits.Deposited.selector);
        same(last.topics[1], bytes32(uint256(2)));
        same(last.topics[2], bytes32(builder.keyOf(PROVIDER, NAME_P)));
        same(last.topics[3], bytes32(uint256(uint160(PROVIDER))));
        same(keccak256(last.data), keccak256(abi.encode(NAME_P, uint128(70), uint128(1_070))));
    }

    function test_only_the_operator() public {
        bytes[] memory signed = signatures(header);
        vm.expectRevert(Store.NotOperator.selector);
        settlement.register(header, new bytes32[](0), steps, signed);
        vm.expectRevert(Store.NotOperator.selector);
        settlement.publish(1, 0);
    }

    function test_a_bond_is_needed() public {
        vm.startPrank(OPERATOR);
        settlement.requestBond();
        pass(BOND_DELAY);
        settlement.withdrawBond();
        vm.stopPrank();
        refused(Blocks.NoBond.selector);
        postBond(BOND - 1);
        refused(Blocks.NoBond.selector);
        postBond(1);
        register(header, steps);
    }

    function test_pausing() public {
        vm.expectRevert();
        settlement.pause();
        vm.prank(OWNER);
        settlement.pause();
        refused(Pausable.EnforcedPause.selector);
    }

    function test_the_number_follows() public {
        header.number = 2;
        refused(Blocks.WrongNumber.selector);
        header.number = 0;
        refused(Blocks.WrongNumber.selector);
    }

    function test_the_parent_is_the_block_before() public {
        header.parent = keccak256("another");
        refused(Blocks.WrongParent.selector);
    }

    function test_the_total_is_what_was_deposited() public {
        header.total -= 1;
        refused(Blocks.WrongDeposits.selector);
        header.total += 2;
        refused(Blocks.WrongDeposits.selector);
    }

    function test_deposits_are_there_and_are_not_given_back() public {
        header.lastDeposit = 2;
        refused(Blocks.WrongDeposits.selector);
        header.lastDeposit = 1;
        register(header, steps);
        builder.next(header);
        builder.transfer(4, 0, 1, 1);
        (Header memory second, bytes memory more) = builder.seal(EVIDENCE);
        (second.lastDeposit, second.total) = (0, 0);
        bytes32[] memory blobs = blobsFor(second);
        bytes[] memory signed = signatures(second);
        vm.expectRevert(Blocks.WrongDeposits.selector);
        vm.prank(OPERATOR);
        settlement.register(second, blobs, more, signed);
    }

    function test_old_deposits_are_not_left_behind() public {
        payIn(PROVIDER, NAME_P, 5);
        pass(DEPOSIT_DELAY);
        register(header, steps);
        builder.next(header);
        pass(1);
        builder.transfer(4, 0, 1, 1);
        (Header memory second, bytes memory more) = builder.seal(EVIDENCE);
        bytes32[] memory blobs = blobsFor(second);
        publish(2, blobs);
        bytes[] memory signed = signatures(second);
        vm.expectRevert(Blocks.WrongDeposits.selector);
        vm.prank(OPERATOR);
        settlement.register(second, blobs, more, signed);
        builder.next(header);
        builder.deposit(2, 2, 5);
        registerNext();
    }

    function test_the_steps_are_those_of_the_events_root() public {
        steps[70] ^= 0x01;
        refused(Blocks.WrongSteps.selector);
        steps[70] ^= 0x01;
        header.eventsRoot = keccak256("another");
        refused(Blocks.WrongSteps.selector);
    }

    function test_there_are_as_many_steps_as_records_need() public {
        header.records = 97;
        refused(Blocks.WrongSteps.selector);
        header.records = 48;
        refused(Blocks.WrongSteps.selector);
        // As many steps, but the last is said to be longer.
        header.records = 66;
        refused(Blocks.WrongSteps.selector);
        header.records = 65;
        register(header, steps);
    }

    function test_the_last_step_leads_to_the_end() public {
        header.stateRoot = keccak256("another");
        refused(Blocks.WrongEnd.selector);
    }

    function test_the_market_index_is_part_of_the_end() public {
        header.nextMarket += 1;
        refused(Blocks.WrongEnd.selector);
    }

    function test_a_block_without_records() public {
        register(header, steps);
        builder.next(header);
        (Header memory second, bytes memory none) = builder.seal(EVIDENCE);
        same(second.records, 0);
        header = second;
        second.stateRoot = keccak256("another");
        refusedEmpty(second, none, Blocks.WrongEnd.selector);
        second = header;
        second.evidenceRoot = EVIDENCE;
        refusedEmpty(second, none, Blocks.WrongSteps.selector);
        second = header;
        second.eventsRoot = EVIDENCE;
        refusedEmpty(second, none, Blocks.WrongSteps.selector);
        register(header, none);
        same(settlement.lastRegistered(), 2);
    }

    function refusedEmpty(Header memory second, bytes memory none, bytes4 why) private {
        bytes[] memory signed = signatures(second);
        vm.expectRevert(why);
        vm.prank(OPERATOR);
        settlement.register(second, new bytes32[](0), none, signed);
    }

    // Blobs

    function test_the_blobs_are_published() public {
        bytes32[] memory blobs = blobsFor(header);
        refusedWith(blobs, Blocks.WrongBlobs.selector);
        publish(1, blobs);
        refusedWith(new bytes32[](0), Blocks.WrongBlobs.selector);
        refusedWith(new bytes32[](2), Blocks.WrongBlobs.selector);
        pass(BLOB_AGE + 1);
        refusedWith(blobs, Blocks.WrongBlobs.selector);
        publish(1, blobs);
        pass(BLOB_AGE);
        register(header, steps);
    }

    function test_the_blobs_cover_the_first_cell_and_the_records() public {
        // 4,095 records and the first cell fill a blob.
        header.records = 4_096;
        steps = new bytes(86 * 64);
        bytes32 end = endOf(header);
        for (uint256 i = 0; i < 32; ++i) {
            steps[steps.length - 32 + i] = end[i];
        }
        bytes32[] memory one = new bytes32[](1);
        one[0] = blobsFor(header)[0];
        header.eventsRoot = rootOf(86, 16);
        publish(1, one);
        refusedWith(one, Blocks.WrongBlobs.selector);
        register(header, steps);
    }

    function endOf(Header memory h) internal pure returns (bytes32) {
        return keccak256(
            bytes.concat(hex"0d", h.stateRoot, bytes8(h.lastDeposit), bytes4(h.nextMarket), bytes1(0), new bytes(20))
        );
    }

    function rootOf(uint256 count, uint32 last) internal view returns (bytes32) {
        bytes32[] memory level = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            (bytes32 cells, bytes32 state) = (word(i * 64), word(i * 64 + 32));
            level[i] = keccak256(bytes.concat(hex"0e", cells, bytes4(i + 1 == count ? last : 48), state));
        }
        while (level.length > 1) {
            bytes32[] memory up = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < up.length; ++i) {
                up[i] = builder.node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0));
            }
            level = up;
        }
        return level[0];
    }

    function word(uint256 from) internal view returns (bytes32 out) {
        bytes memory all = steps;
        assembly ("memory-safe") {
            out := mload(add(add(all, 32), from))
        }
    }

    function test_publishing_again_and_in_parts() public {
        vm.expectRevert(Blocks.NoBlobs.selector);
        vm.prank(OPERATOR);
        settlement.publish(1, 0);
        bytes32[] memory six = new bytes32[](6);
        for (uint256 i = 0; i < 6; ++i) {
            six[i] = keccak256(abi.encode(i));
        }
        publish(1, six);
        uint64 first = settlement.publishedAt(six[5]);
        same(first, vm.getBlockTimestamp());
        pass(10);
        publish(1, six);
        same(settlement.publishedAt(six[0]), first + 10);
    }

    // Oracles

    function test_signatures() public {
        bytes32[] memory blobs = blobsFor(header);
        publish(1, blobs);
        bytes[] memory signed = new bytes[](1);
        signed[0] = signature(keys[0], 1, EVIDENCE);
        unsigned(blobs, signed);
        signed = new bytes[](2);
        signed[0] = signature(keys[0], 1, EVIDENCE);
        signed[1] = signed[0];
        unsigned(blobs, signed);
        signed[0] = signature(keys[1], 1, EVIDENCE);
        unsigned(blobs, signed);
        signed[0] = signature(keys[0], 1, EVIDENCE);
        signed[1] = signature(uint256(7), 1, EVIDENCE);
        unsigned(blobs, signed);
        signed[1] = signature(keys[1], 2, EVIDENCE);
        unsigned(blobs, signed);
        signed[1] = signature(keys[1], 1, keccak256("other evidence"));
        unsigned(blobs, signed);
        signed = new bytes[](3);
        for (uint256 i = 0; i < 3; ++i) {
            signed[i] = signature(keys[i], 1, EVIDENCE);
        }
        vm.prank(OPERATOR);
        settlement.register(header, blobs, steps, signed);
    }

    function unsigned(bytes32[] memory blobs, bytes[] memory signed) private {
        vm.expectRevert();
        vm.prank(OPERATOR);
        settlement.register(header, blobs, steps, signed);
    }

    function test_a_signature_is_for_one_contract_and_chain() public {
        Settlement other = new Settlement(rules(), OWNER, OPERATOR, settlement.oracles(), 2);
        holds(other.evidenceDigest(1, EVIDENCE) != settlement.evidenceDigest(1, EVIDENCE), "another contract");
        bytes32 here = settlement.evidenceDigest(1, EVIDENCE);
        vm.chainId(7);
        holds(here != settlement.evidenceDigest(1, EVIDENCE), "another chain");
    }

    function test_other_oracles() public {
        address[] memory next = new address[](1);
        next[0] = address(5);
        vm.expectRevert();
        settlement.setOracles(next, 1);
        vm.startPrank(OWNER);
        vm.expectRevert(Oracles.WrongOracles.selector);
        settlement.setOracles(next, 0);
        vm.expectRevert(Oracles.WrongOracles.selector);
        settlement.setOracles(next, 2);
        vm.expectRevert(Oracles.WrongOracles.selector);
        settlement.setOracles(new address[](1), 1);
        vm.expectRevert(Oracles.WrongOracles.selector);
        settlement.setOracles(new address[](65), 1);
        address[] memory twice = new address[](2);
        (twice[0], twice[1]) = (address(5), address(5));
        vm.expectRevert(Oracles.WrongOracles.selector);
        settlement.setOracles(twice, 1);
        settlement.setOracles(next, 1);
        vm.stopPrank();
        same(settlement.oracles().length, 1);
        holds(!settlement.isOracle(vm.addr(keys[0])) && settlement.isOracle(address(5)), "the new one only");
        refused(Oracles.WrongSignatures.selector);
    }

    // Finality

    function test_blocks_become_final_in_order() public {
        register(header, steps);
        builder.next(header);
        pass(WINDOW / 2);
        builder.transfer(4, 0, 1, 1);
        registerNext();
        pass(WINDOW / 2);
        vm.expectRevert(Blocks.NotDue.selector);
        settlement.finalise(2);
        settlement.finalise(1);
        same(settlement.lastFinal(), 1);
        settlement.finalise(1);
        vm.expectRevert(Blocks.NotDue.selector);
        settlement.finalise(2);
        vm.expectRevert(Blocks.UnknownBlock.selector);
        settlement.finalise(3);
        pass(WINDOW / 2);
        settlement.finalise(2);
        same(settlement.lastFinal(), 2);
        same(settlement.lastFinalAt(), vm.getBlockTimestamp());
    }

    function test_several_at_once() public {
        register(header, steps);
        builder.next(header);
        builder.transfer(4, 0, 1, 1);
        registerNext();
        pass(WINDOW - 1);
        vm.expectRevert(Blocks.NotDue.selector);
        settlement.finalise(1);
        pass(1);
        settlement.finalise(2);
        same(settlement.lastFinal(), 2);
    }

    function test_only_so_many_blocks_are_open() public {
        register(header, steps);
        builder.next(header);
        for (uint256 i = 1; i < settlement.MAX_OPEN(); ++i) {
            registerNext();
        }
        (Header memory late, bytes memory none) = builder.seal(EVIDENCE);
        header = late;
        refusedAt(64, none, Blocks.TooManyOpen.selector);
        pass(WINDOW);
        settlement.finalise(1);
        register(late, none);
    }

    function refusedAt(uint64 last, bytes memory none, bytes4 why) private {
        bytes[] memory signed = signatures(header);
        vm.expectRevert(why);
        vm.prank(OPERATOR);
        settlement.register(header, new bytes32[](0), none, signed);
        same(settlement.lastRegistered(), last);
    }

    // The contract itself

    function test_ownership_takes_two_steps() public {
        vm.prank(OWNER);
        settlement.transferOwnership(address(9));
        same(settlement.owner(), OWNER);
        vm.prank(address(9));
        settlement.acceptOwnership();
        same(settlement.owner(), address(9));
    }

    function test_rules_that_can_not_be() public {
        Store.Rules memory wrong = rules();
        wrong.token = IERC20(address(1));
        refusedRules(wrong, OPERATOR);
        refusedRules(rules(), address(0));
        wrong = rules();
        wrong.challengeWindow = 0;
        refusedRules(wrong, OPERATOR);
        wrong = rules();
        wrong.exitDelay = 2 * WINDOW - 1;
        refusedRules(wrong, OPERATOR);
        wrong = rules();
        wrong.blobAge = 7 days + 1;
        refusedRules(wrong, OPERATOR);
        wrong = rules();
        (wrong.challengeWindow, wrong.exitDelay) = (7 days + 1, 30 days);
        refusedRules(wrong, OPERATOR);
    }

    function refusedRules(Store.Rules memory wrong, address operator) private {
        address[] memory oracles = settlement.oracles();
        vm.expectRevert(Store.WrongRules.selector);
        new Settlement(wrong, OWNER, operator, oracles, 2);
    }

    function test_it_fits_a_chain() public view {
        holds(address(settlement).code.length <= 24_576, "the settlement contract is too large");
        holds(address(settlement.EXECUTOR()).code.length <= 24_576, "the executor is too large");
    }
}
