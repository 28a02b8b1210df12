// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Bonds} from "../src/Bonds.sol";
import {Deposits} from "../src/Deposits.sol";
import {Store} from "../src/Store.sol";
import {Deposit} from "../src/Types.sol";
import {Fixture} from "./Fixture.sol";
import {BlockingToken, FeeToken, ReentrantToken, SilentToken} from "./Tokens.sol";

/// @notice Money that comes in: deposits and the operator's bond.
contract DepositsTest is Fixture {
    function test_deposits_are_numbered_and_summed() public {
        same(payIn(CONSUMER, NAME_C, 100), 1);
        same(payIn(PROVIDER, NAME_P, 50), 2);
        Deposit memory second = settlement.depositAt(2);
        same(second.sum, 150);
        same(bytes32(second.key), bytes32(builder.keyOf(PROVIDER, NAME_P)));
        same(second.time, vm.getBlockTimestamp());
        same(settlement.depositCount(), 2);
    }

    function testFuzz_the_key_binds_owner_and_name(address owner, string memory name, uint128 amount) public {
        vm.assume(owner != address(0) && owner != address(settlement));
        vm.assume(bytes(name).length != 0 && bytes(name).length <= 128 && amount != 0);
        uint64 index = payIn(owner, name, amount);
        Deposit memory found = settlement.depositAt(index);
        bytes32 key = keccak256(abi.encodePacked(uint8(12), domain, owner, name));
        same(bytes32(found.key), key & bytes32(type(uint256).max << 16));
    }

    function test_deposits_that_are_refused() public {
        token.mint(address(this), 1_000);
        token.approve(address(settlement), 1_000);
        vm.expectRevert(Deposits.WrongAccount.selector);
        settlement.deposit(address(0), NAME_C, 5);
        vm.expectRevert(Deposits.WrongAccount.selector);
        settlement.deposit(address(settlement), NAME_C, 5);
        vm.expectRevert(Deposits.WrongAccount.selector);
        settlement.deposit(CONSUMER, "", 5);
        vm.expectRevert(Deposits.WrongAccount.selector);
        settlement.deposit(CONSUMER, string(new bytes(129)), 5);
        vm.expectRevert(Store.NothingMoved.selector);
        settlement.deposit(CONSUMER, NAME_C, 0);
        vm.expectRevert();
        settlement.deposit(CONSUMER, NAME_C, 1_001);
        vm.prank(OWNER);
        settlement.pause();
        vm.expectRevert(Pausable.EnforcedPause.selector);
        settlement.deposit(CONSUMER, NAME_C, 5);
        vm.prank(OWNER);
        settlement.unpause();
        same(settlement.deposit(CONSUMER, NAME_C, 5), 1);
    }

    function test_a_sum_that_does_not_fit() public {
        payIn(CONSUMER, NAME_C, type(uint128).max);
        // Such a supply needs a strange token: make room for a second deposit.
        withdrawAll();
        token.mint(address(this), 1);
        token.approve(address(settlement), 1);
        vm.expectRevert();
        settlement.deposit(CONSUMER, NAME_C, 1);
    }

    function withdrawAll() private {
        uint256 held = token.balanceOf(address(settlement));
        vm.prank(address(settlement));
        token.transfer(address(1), held);
    }

    function test_a_token_with_a_fee_credits_what_arrives() public {
        deploy(address(new FeeToken()));
        uint64 index = payIn(CONSUMER, NAME_C, 1_000);
        same(settlement.depositAt(index).sum, 990);
        postBond(2_000);
        same(settlement.bonds(OPERATOR), 1_980);
    }

    function test_a_token_that_answers_nothing() public {
        deploy(address(new SilentToken()));
        uint64 index = payIn(CONSUMER, NAME_C, 1_000);
        same(settlement.depositAt(index).sum, 1_000);
    }

    function test_a_token_that_is_stopped() public {
        deploy(address(new BlockingToken()));
        BlockingToken(address(token)).mint(address(this), 10);
        token.approve(address(settlement), 10);
        BlockingToken(address(token)).setStopped(true);
        vm.expectRevert(BlockingToken.Blocked.selector);
        settlement.deposit(CONSUMER, NAME_C, 10);
        same(settlement.depositCount(), 0);
    }

    function test_a_token_that_calls_back() public {
        ReentrantToken evil = new ReentrantToken();
        deploy(address(evil));
        evil.mint(address(this), 20);
        token.approve(address(settlement), 20);
        evil.aim(address(settlement), abi.encodeCall(settlement.deposit, (CONSUMER, NAME_C, 10)));
        settlement.deposit(CONSUMER, NAME_C, 10);
        holds(!evil.reached(), "a deposit inside a deposit");
        same(bytes32(evil.refusal()), bytes32(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector));
        same(settlement.depositCount(), 1);
    }

    // The bond

    function test_the_bond_goes_back_after_a_time() public {
        vm.expectRevert(Bonds.TooEarly.selector);
        vm.prank(OPERATOR);
        settlement.withdrawBond();
        vm.prank(OPERATOR);
        settlement.requestBond();
        pass(BOND_DELAY - 1);
        vm.expectRevert(Bonds.TooEarly.selector);
        vm.prank(OPERATOR);
        settlement.withdrawBond();
        pass(1);
        vm.prank(OPERATOR);
        settlement.withdrawBond();
        same(token.balanceOf(OPERATOR), BOND);
        same(settlement.bonds(OPERATOR), 0);
        vm.expectRevert(Store.NothingMoved.selector);
        vm.prank(OPERATOR);
        settlement.requestBond();
    }

    function test_the_bond_stays_while_a_block_is_open() public {
        openMarket();
        registerNext();
        vm.startPrank(OPERATOR);
        settlement.requestBond();
        pass(BOND_DELAY);
        vm.expectRevert(Bonds.BlocksOpen.selector);
        settlement.withdrawBond();
        settlement.finalise(1);
        settlement.withdrawBond();
        vm.stopPrank();
        same(token.balanceOf(OPERATOR), BOND);
    }

    function test_registering_takes_the_request_back() public {
        vm.prank(OPERATOR);
        settlement.requestBond();
        openMarket();
        finaliseNext();
        pass(BOND_DELAY);
        vm.expectRevert(Bonds.TooEarly.selector);
        vm.prank(OPERATOR);
        settlement.withdrawBond();
    }

    function test_only_the_operator_posts_a_bond() public {
        vm.expectRevert(Store.NotOperator.selector);
        settlement.postBond(5);
        vm.expectRevert(Store.NothingMoved.selector);
        settlement.requestBond();
        vm.expectRevert(Store.NothingMoved.selector);
        settlement.claimReward();
    }

    function test_another_operator() public {
        openMarket();
        registerNext();
        vm.startPrank(OWNER);
        vm.expectRevert(Bonds.BlocksOpen.selector);
        settlement.setOperator(address(7));
        pass(WINDOW);
        settlement.finalise(1);
        vm.expectRevert(Store.NotOperator.selector);
        settlement.setOperator(address(0));
        settlement.setOperator(address(7));
        vm.stopPrank();
        same(settlement.operator(), address(7));
        // The one before gets its bond.
        vm.startPrank(OPERATOR);
        settlement.requestBond();
        pass(BOND_DELAY);
        settlement.withdrawBond();
        vm.stopPrank();
        same(token.balanceOf(OPERATOR), BOND);
        vm.expectRevert();
        settlement.setOperator(address(8));
    }
}
