// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Header} from "../src/Types.sol";
import {Fixture} from "./Fixture.sol";

/// @notice The way of a deal from the deposit to the payment.
contract FlowTest is Fixture {
    function test_a_deal_is_paid_out() public {
        openMarket();
        finaliseNext();
        builder.transfer(4, 0, 1, 600);
        builder.transfer(5, 1, 2, 400);
        builder.transfer(6, 1, 3, 8);
        builder.transfer(7, 2, 0, 40);
        builder.transfer(12, 2, 2, 360);
        Header memory header = finaliseNext();
        withdraw(header.number, 2);
        same(token.balanceOf(PROVIDER), 360);
        withdraw(header.number, 2);
        same(token.balanceOf(PROVIDER), 360);
        withdraw(header.number, 0);
        same(token.balanceOf(CONSUMER), 0);
        same(settlement.totalPaid(), 360);
    }
}
