// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Merkle trees
/// @notice Index trees have 32 levels and hold leaves 0 to count - 1 without a gap, so a subtree whose first index is
/// `count` or more is empty. Proofs leave such siblings out. List trees join pairs level by level, an odd last one with
/// zero.
library Trees {
    /// A proof is too short, too long, or leads elsewhere.
    error BadProof();

    uint256 internal constant DEPTH = 32;

    /// @notice Bytes of the call data that are still to be read.
    struct Reader {
        uint256 next;
        uint256 end;
    }

    /// @notice Roots of empty subtrees by height; an empty leaf is zero.
    function empties() internal pure returns (bytes32[33] memory roots) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            let below := 0
            for { let height := 1 } lt(height, 33) { height := add(height, 1) } {
                mstore(add(buffer, 1), below)
                mstore(add(buffer, 33), below)
                below := keccak256(buffer, 65)
                mstore(add(roots, shl(5, height)), below)
            }
        }
    }

    /// @notice The roots of an index tree with one leaf and with another in its place.
    /// @param reader Where the siblings come from, bottom up.
    /// @param count How many leaves there are before the change.
    function swap(
        Reader memory reader,
        bytes32[33] memory empty,
        uint256 index,
        uint256 count,
        bytes32 oldLeaf,
        bytes32 newLeaf
    ) internal pure returns (bytes32 oldRoot, bytes32 newRoot) {
        uint256 next = reader.next;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            oldRoot := oldLeaf
            newRoot := newLeaf
            for { let height := 0 } lt(height, 32) { height := add(height, 1) } {
                let place := shr(height, index)
                let sibling
                switch lt(shl(height, xor(place, 1)), count)
                case 1 {
                    sibling := calldataload(next)
                    next := add(next, 32)
                }
                default { sibling := mload(add(empty, shl(5, height))) }
                // Where the node goes and where its sibling goes: 1 and 33, or the other way round.
                let own := add(buffer, add(1, shl(5, and(place, 1))))
                mstore(add(buffer, sub(33, shl(5, and(place, 1)))), sibling)
                mstore(own, oldRoot)
                oldRoot := keccak256(buffer, 65)
                mstore(own, newRoot)
                newRoot := keccak256(buffer, 65)
            }
        }
        require(next <= reader.end, BadProof());
        reader.next = next;
    }

    /// @notice The root of an index tree from some of its leaves. Both arrays are used up.
    /// @param indexes Ascending, each once, below `count`.
    /// @param siblings Level by level from the bottom, left to right; empty ones and those that follow are left out.
    function rootOf(uint256[] memory indexes, bytes32[] memory nodes, uint256 count, bytes32[] calldata siblings)
        internal
        pure
        returns (bytes32 root)
    {
        uint256 size = nodes.length;
        require(size != 0 && size == indexes.length, BadProof());
        for (uint256 i = 0; i < size; ++i) {
            require(indexes[i] < count && (i == 0 || indexes[i - 1] < indexes[i]), BadProof());
        }
        uint256 from;
        assembly ("memory-safe") {
            from := siblings.offset
        }
        uint256 end;
        (root, end) = join(indexes, nodes, count, empties(), from);
        require(end - from == siblings.length * 32, BadProof());
    }

    /// Joins the nodes level by level; siblings that are not among them come from the call data at `next`.
    function join(
        uint256[] memory indexes,
        bytes32[] memory nodes,
        uint256 count,
        bytes32[33] memory empty,
        uint256 next
    ) private pure returns (bytes32 root, uint256 end) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            // Offsets of the last node, of the one that is read, and of the one that is written.
            let last := shl(5, mload(nodes))
            for { let height := 0 } lt(height, 32) { height := add(height, 1) } {
                let put := 0
                for { let i := 32 } iszero(gt(i, last)) { i := add(i, 32) } {
                    let place := mload(add(indexes, i))
                    // The node goes to byte 1 or 33, its sibling to the other.
                    mstore(add(buffer, add(1, shl(5, and(place, 1)))), mload(add(nodes, i)))
                    switch and(place, 1)
                    case 1 {
                        mstore(add(buffer, 1), calldataload(next))
                        next := add(next, 32)
                    }
                    default {
                        switch and(lt(i, last), eq(mload(add(indexes, add(i, 32))), add(place, 1)))
                        case 1 {
                            i := add(i, 32)
                            mstore(add(buffer, 33), mload(add(nodes, i)))
                        }
                        default {
                            switch lt(shl(height, add(place, 1)), count)
                            case 1 {
                                mstore(add(buffer, 33), calldataload(next))
                                next := add(next, 32)
                            }
                            default { mstore(add(buffer, 33), mload(add(empty, shl(5, height)))) }
                        }
                    }
                    put := add(put, 32)
                    mstore(add(indexes, put), shr(1, place))
                    mstore(add(nodes, put), keccak256(buffer, 65))
                }
                last := put
            }
            root := mload(add(nodes, 32))
            end := next
        }
    }

    /// @notice The root of a list tree; the array is used up.
    function listRoot(bytes32[] memory nodes) internal pure returns (bytes32 root) {
        if (nodes.length == 0) return 0;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            let hashes := add(nodes, 32)
            let size := mload(nodes)
            for {} gt(size, 1) {} {
                let put := 0
                for { let i := 0 } lt(i, size) { i := add(i, 2) } {
                    mstore(add(buffer, 1), mload(add(hashes, shl(5, i))))
                    let right := 0
                    if lt(add(i, 1), size) { right := mload(add(hashes, shl(5, add(i, 1)))) }
                    mstore(add(buffer, 33), right)
                    mstore(add(hashes, shl(5, put)), keccak256(buffer, 65))
                    put := add(put, 1)
                }
                size := put
            }
            root := mload(hashes)
        }
    }

    /// @notice The root that a leaf of a list of `count` and its siblings, bottom up, lead to.
    function listRootFrom(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata siblings)
        internal
        pure
        returns (bytes32 root)
    {
        uint256 depth = 0;
        while ((1 << depth) < count) ++depth;
        require(index < count && siblings.length == depth, BadProof());
        root = leaf;
        for (uint256 height = 0; height < depth; ++height) {
            bytes32 sibling = siblings[height];
            (bytes32 left, bytes32 right) = (index >> height) & 1 == 1 ? (sibling, root) : (root, sibling);
            root = keccak256(abi.encodePacked(uint8(1), left, right));
        }
    }
}
