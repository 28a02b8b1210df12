// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Header} from "../src/Types.sol";
import {Fixture} from "./Fixture.sol";
import {Token} from "./Tokens.sol";

/// @notice The blocks of `vectors/format.json`, built again here.
abstract contract Vectors is Fixture {
    string internal constant NAME_S = "collateral:prov_1";
    string internal json;

    function setUp() public virtual override {
        vm.warp(1_800_000_000);
        json = vm.readFile("vectors/format.json");
        domain = vm.parseJsonBytes32(json, ".domain");
        deploy(address(new Token()));
        postBond(BOND);
        payIn(CONSUMER, NAME_C, 1_000_000);
        payIn(PROVIDER, NAME_P, 50_000);
    }

    function firstBlock() internal {
        builder.open(builder.keyOf(CONSUMER, NAME_C));
        builder.open(builder.keyOf(CONSUMER, NAME_E));
        builder.open(builder.keyOf(PROVIDER, NAME_P));
        builder.open(builder.keyOf(PROVIDER, NAME_S));
        builder.open(builder.keyOf(TREASURY, NAME_F));
        builder.deposit(1, 0, 1_000_000);
        builder.deposit(2, 2, 50_000);
        builder.transfer(2, 2, 3, 50_000);
        builder.openMarket("unit:unit_1");
        builder.setMarket(0, "terms");
        builder.transfer(4, 0, 1, 600_000);
        builder.raw(
            bytes.concat(hex"06", bytes16("a subject"), hex"02", bytes4(uint32(100_000)), bytes4(uint32(1_000_000)))
        );
        builder.evidence("its evidence");
        builder.transfer(5, 1, 2, 100_000);
        builder.transfer(6, 1, 4, 2_000);
        builder.transfer(7, 2, 0, 10_000);
        builder.transfer(8, 3, 0, 5_000);
        builder.transfer(12, 2, 2, 90_000);
    }

    function secondBlock() internal {
        for (uint128 i = 1; i <= 47; ++i) {
            builder.transfer(4, 0, 1, i);
        }
        builder.transfer(5, 1, 2, 7_000);
        builder.transfer(7, 2, 0, 7_000);
        builder.transfer(5, 1, 2, 1);
    }

    function sealVector(string memory at_) internal returns (Header memory header, bytes memory steps) {
        return builder.seal(vm.parseJsonBytes32(json, string.concat(at_, ".header.evidenceRoot")));
    }
}
