// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Elements of blobs
/// @notice Cell c of a block's data is element c % 4096 of blob c / 4096. An element holds a zero byte and 31 bytes.
library Points {
    /// The precompile doesn't accept an opening.
    error BadOpening();

    uint256 internal constant ELEMENTS = 4096;
    uint256 internal constant COMMITMENT_BYTES = 48;
    /// Order of the scalar field.
    uint256 internal constant MODULUS = 52435875175126190479447740508185965837690552500527637822603658699938581184513;
    /// A 4096th root of unity: 7 ** ((MODULUS - 1) / 4096).
    uint256 internal constant OMEGA = 39033254847818212395286706435128746857159659164139250548781411570340225835782;
    address internal constant POINT_EVALUATION = address(0x0a);
    /// It takes 50,000; one that refuses takes all that it is given.
    uint256 internal constant POINT_EVALUATION_GAS = 60_000;

    /// @notice Where a blob's polynomial has the value of an element: elements lie in bit-reversed order.
    function point(uint256 element) internal pure returns (uint256 z) {
        z = 1;
        uint256 power = OMEGA;
        // The exponent is the element's number read from its highest of twelve bits.
        for (uint256 bit = 12; bit > 0; --bit) {
            if ((element >> (bit - 1)) & 1 == 1) z = mulmod(z, power, MODULUS);
            power = mulmod(power, power, MODULUS);
        }
    }

    /// @notice Fails unless the blob with the versioned hash holds `value` as this element.
    function check(
        bytes32 versionedHash,
        uint256 element,
        bytes32 value,
        bytes calldata commitment,
        bytes calldata proof
    ) internal view {
        (bool ok, bytes memory answer) = POINT_EVALUATION.staticcall{gas: POINT_EVALUATION_GAS}(
            abi.encodePacked(versionedHash, point(element), value, commitment, proof)
        );
        // A chain without the precompile answers with nothing.
        require(ok && answer.length == 64, BadOpening());
    }
}
