// An intrusive balanced tree over an array in shared memory.
//
// A treap (Seidel & Aragon 1996) whose random priorities are a hash of the node's index: no random source, no
// rotation counters, no parent links, nothing to allocate. Insert and removal are O(log n) expected; the
// smallest node is cached by the caller through `min`. Why not a 4-ary heap: a heap is one contiguous array
// per queue, and queues (pool × class) come and go by the hundred while the zone is carved once; here a flow
// carries its own links. In-order walks (choosing among the next K heads) come for free.
//
// Access supplies: uint32_t& left(i), uint32_t& right(i), bool before(i, j) — a strict total order that must
// not change while a node is linked.
#pragma once

#include <cstdint>

#include "ngx_module/core/types.hpp"

namespace llm::core {

constexpr uint32_t treap_priority(uint32_t index) {
    uint32_t x = index * 0x9e3779b9u + 0x7f4a7c15u;
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ (x >> 16);
}

template <class Access>
void treap_insert(Access access, uint32_t& root, uint32_t& min, uint32_t node) {
    const uint32_t priority = treap_priority(node);
    uint32_t* link = &root;
    while (*link != kNone && treap_priority(*link) >= priority) {
        link = access.before(node, *link) ? &access.left(*link) : &access.right(*link);
    }
    // Split the subtree at `*link` into what goes before and after the node.
    uint32_t rest = *link;
    uint32_t* before = &access.left(node);
    uint32_t* after = &access.right(node);
    while (rest != kNone) {
        if (access.before(rest, node)) {
            *before = rest;
            before = &access.right(rest);
            rest = *before;
        } else {
            *after = rest;
            after = &access.left(rest);
            rest = *after;
        }
    }
    *before = kNone;
    *after = kNone;
    *link = node;
    if (min == kNone || access.before(node, min)) {
        min = node;
    }
}

template <class Access>
void treap_remove(Access access, uint32_t& root, uint32_t& min, uint32_t node) {
    uint32_t* link = &root;
    while (*link != node) {
        if (*link == kNone) {
            return;  // not linked: nothing to do
        }
        link = access.before(node, *link) ? &access.left(*link) : &access.right(*link);
    }
    uint32_t left = access.left(node);
    uint32_t right = access.right(node);
    while (left != kNone && right != kNone) {
        if (treap_priority(left) >= treap_priority(right)) {
            *link = left;
            link = &access.right(left);
            left = *link;
        } else {
            *link = right;
            link = &access.left(right);
            right = *link;
        }
    }
    *link = left != kNone ? left : right;
    if (min == node) {
        min = root;
        while (min != kNone && access.left(min) != kNone) {
            min = access.left(min);
        }
    }
}

// Calls visit(node) for one node after the other, the smallest first, until it answers false. Answers whether
// it never did. O(visited + log n) expected.
template <class Access, class Visit>
bool treap_visit(Access access, uint32_t root, Visit&& visit) {
    return root == kNone || (treap_visit(access, access.left(root), visit) && visit(root) &&
                             treap_visit(access, access.right(root), visit));
}

}  // namespace llm::core
