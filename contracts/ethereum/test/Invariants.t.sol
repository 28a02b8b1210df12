// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Challenges} from "../src/Challenges.sol";
import {Claim, Header} from "../src/Types.sol";
import {Builder} from "./Builder.sol";
import {Fixture} from "./Fixture.sol";
import {Settlement} from "../src/Settlement.sol";
import {Token} from "./Tokens.sol";
import {Test} from "./Vm.sol";

/// @notice People who do what the contract lets them, in any order.
contract Market is Fixture {
    uint128 public reclaimed;
    uint128 public forfeited;
    uint64 internal _reclaimedUpTo;
    Header internal _last;

    function init() external {
        setUp();
        openMarket();
        _last = finaliseNext();
    }

    function parties() external view returns (Settlement, Builder, Token) {
        return (settlement, builder, token);
    }

    function account(uint32 index) external view returns (Claim memory) {
        return claimOf(index);
    }

    function putIn(uint128 amount, uint8 who) external {
        if (settlement.exited()) return;
        amount = uint128(bounded(amount, 1, 1e30));
        if (who % 2 == 0) payIn(CONSUMER, NAME_C, amount);
        else payIn(PROVIDER, NAME_P, amount);
    }

    /// A block of a few transfers and releases, and of all deposits that came in.
    function block_(uint256 seed) external {
        if (settlement.exited()) return;
        uint64 index = builder.state().lastDeposit;
        while (index < settlement.depositCount()) {
            ++index;
            uint128 amount = settlement.depositAt(index).sum - settlement.depositAt(index - 1).sum;
            bool consumer = settlement.depositAt(index).key == builder.keyOf(CONSUMER, NAME_C);
            builder.deposit(index, consumer ? 0 : 2, amount);
        }
        for (uint256 i = 0; i < 3; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint32 from = uint32(seed % 4);
            uint128 balance = builder.account(from).balance;
            if (balance == 0) continue;
            bool release = (seed >> 8) % 2 == 0;
            uint128 amount = uint128(bounded(seed >> 16, 1, balance));
            builder.transfer(release ? 12 : 4, from, release ? from : (from + 1) % 4, amount);
        }
        ensureBond();
        _last = finaliseNext();
    }

    /// A block that pays the treasury what nobody has falls, and the next one is built as if it had never been.
    function steal(uint128 amount) external {
        // With a deposit left behind the block might not even be registered.
        if (settlement.exited() || builder.state().lastDeposit != settlement.depositCount()) return;
        amount = uint128(bounded(amount, builder.account(3).balance + 1, type(uint128).max));
        ensureBond();
        builder.showAccount(3);
        builder.raw(builder.transferCell(12, 3, 3, amount));
        (Header memory header, bytes memory steps) = builder.seal(EVIDENCE);
        register(header, steps);
        forfeited += settlement.bonds(OPERATOR);
        Challenges.StepChallenge memory c = challengeOf(header, 0);
        vm.prank(CHALLENGER);
        settlement.challengeStep(c);
        builder.next(_last);
    }

    function ensureBond() private {
        if (settlement.bonds(OPERATOR) < BOND) postBond(BOND);
    }

    function takeReward() external {
        if (settlement.rewards(CHALLENGER) == 0) return;
        vm.prank(CHALLENGER);
        settlement.claimReward();
    }

    function takeOut(uint8 who) external {
        withdraw(settlement.lastFinal(), who % 4);
    }

    function takeOutMany() external {
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.withdrawMany(settlement.lastFinal(), builder.parts(), claims, siblings);
    }

    function goAway(uint8 rarely) external {
        if (settlement.exited() || rarely % 16 != 0) return;
        pass(EXIT_DELAY + 1);
        settlement.enterExit();
    }

    function exitMany() external {
        if (!settlement.exited()) return;
        (Claim[] memory claims, bytes32[] memory siblings) = allClaims();
        settlement.exitMany(builder.parts(), claims, siblings);
    }

    function takeBack() external {
        if (!settlement.exited()) return;
        if (_reclaimedUpTo == 0) _reclaimedUpTo = builder.state().lastDeposit;
        if (_reclaimedUpTo == settlement.depositCount()) return;
        uint64 index = ++_reclaimedUpTo;
        bool consumer = settlement.depositAt(index).key == builder.keyOf(CONSUMER, NAME_C);
        settlement.reclaim(index, consumer ? CONSUMER : PROVIDER, consumer ? NAME_C : NAME_P);
        reclaimed += settlement.depositAt(index).sum - settlement.depositAt(index - 1).sum;
    }

    function wait(uint32 time) external {
        pass(time % EXIT_DELAY);
    }
}

/// @notice What holds after anything that anyone did.
contract InvariantsTest is Test {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Market internal market;
    Settlement internal settlement;
    Builder internal builder;
    Token internal token;

    function setUp() public {
        market = new Market();
        market.init();
        (settlement, builder, token) = market.parties();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(market);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        bytes4[] memory all = new bytes4[](10);
        all[0] = Market.putIn.selector;
        all[1] = Market.block_.selector;
        all[2] = Market.steal.selector;
        all[3] = Market.takeReward.selector;
        all[4] = Market.takeOut.selector;
        all[5] = Market.takeOutMany.selector;
        all[6] = Market.goAway.selector;
        all[7] = Market.exitMany.selector;
        all[8] = Market.takeBack.selector;
        all[9] = Market.wait.selector;
        targets[0] = FuzzSelector(address(market), all);
    }

    /// The contract has all that it may have to pay: the accounts, deposits that no block consumed, bond and rewards.
    function invariant_everything_is_covered() public view {
        uint256 deposited = settlement.depositAt(settlement.depositCount()).sum;
        uint256 owed = deposited - settlement.totalPaid() - market.reclaimed();
        uint256 bonds = settlement.bonds(address(0x0be7)) + settlement.rewards(address(0xca));
        same(token.balanceOf(address(settlement)), owed + bonds);
        same(token.balanceOf(address(0xca)) + settlement.rewards(address(0xca)), market.forfeited());
    }

    /// Nobody gets more than its leaf says, and all together never more than blocks credited.
    function invariant_nobody_gets_more_than_its_leaf() public view {
        uint256 paid = 0;
        for (uint32 i = 0; i < 4; ++i) {
            Claim memory claim = market.account(i);
            uint256 got = settlement.paid(builder.keyOf(claim.owner, claim.name));
            uint256 most = claim.withdrawable;
            if (settlement.exited()) most += claim.balance;
            holds(got <= most, "an account got more than its leaf says");
            paid += got;
        }
        same(paid, settlement.totalPaid());
        holds(paid <= settlement.blockAt(settlement.lastFinal()).total, "more was paid than deposited");
        uint256 out = token.balanceOf(address(0xc0)) + token.balanceOf(address(0x90)) + token.balanceOf(address(0x7e));
        same(out, paid + market.reclaimed());
    }

    /// Blocks move money and make none.
    function invariant_the_total_is_conserved() public view {
        uint256 sum = 0;
        for (uint32 i = 0; i < 4; ++i) {
            sum += uint256(builder.account(i).balance) + builder.account(i).withdrawable;
        }
        same(sum, settlement.blockAt(settlement.lastFinal()).total);
        same(sum, settlement.depositAt(settlement.blockAt(settlement.lastFinal()).lastDeposit).sum);
    }
}
