// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice The test runner's cheat codes, as far as these tests use them.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function warp(uint256 time) external;
    function prank(address sender) external;
    function startPrank(address sender) external;
    function stopPrank() external;
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function assume(bool condition) external pure;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function blobhashes(bytes32[] calldata hashes) external;
    function chainId(uint256 id) external;
    function etch(address target, bytes calldata code) external;
    function cool(address target) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function readFile(string calldata path) external view returns (string memory);
    function writeJson(string calldata json, string calldata path, string calldata key) external;
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonBytes32Array(string calldata json, string calldata key) external pure returns (bytes32[] memory);
    function parseJsonBytesArray(string calldata json, string calldata key) external pure returns (bytes[] memory);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function envOr(string calldata name, bool otherwise) external view returns (bool);
    function toString(uint256 value) external pure returns (string memory);
    function getBlockTimestamp() external view returns (uint256);
}

/// @notice What tests stand on.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error Different(uint256 left, uint256 right);
    error DifferentBytes(bytes32 left, bytes32 right);
    error DifferentData(bytes left, bytes right);
    error TooLarge(string what, uint256 value, uint256 limit);
    error Untrue(string what);

    function same(uint256 left, uint256 right) internal pure {
        if (left != right) revert Different(left, right);
    }

    function same(bytes32 left, bytes32 right) internal pure {
        if (left != right) revert DifferentBytes(left, right);
    }

    function same(bytes memory left, bytes memory right) internal pure {
        if (keccak256(left) != keccak256(right)) revert DifferentData(left, right);
    }

    function same(address left, address right) internal pure {
        if (left != right) revert DifferentBytes(bytes32(uint256(uint160(left))), bytes32(uint256(uint160(right))));
    }

    function holds(bool condition, string memory what) internal pure {
        if (!condition) revert Untrue(what);
    }

    function bounded(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        return low + value % (high - low + 1);
    }
}
