// One generation of the token table: rows, an open-addressing index, an arena of text.
//
// Readers take no lock. Every word of a row is loaded with acquire and stored with release, and a read counts
// only if the epoch and the table's version are the same before and after (a seqlock without fences, which
// ThreadSanitizer does not know); offsets are checked before use, so a torn read is harmless.
#pragma once

#include "ngx_module/core/core.hpp"

namespace llm::core {

// Words of shared memory that may change while they are read.
template <class T>
void read_words(T& to, const T& from) {
    static_assert(sizeof(T) % 8 == 0);
    auto* out = reinterpret_cast<unsigned char*>(&to);
    auto* in = reinterpret_cast<uint64_t*>(const_cast<T*>(&from));
    for (size_t i = 0; i < sizeof(T) / 8; ++i) {
        const uint64_t word = std::atomic_ref<uint64_t>(in[i]).load(std::memory_order_acquire);
        std::memcpy(out + 8 * i, &word, 8);
    }
}

template <class T>
void write_words(T& to, const T& from) {
    auto* in = reinterpret_cast<const unsigned char*>(&from);
    auto* out = reinterpret_cast<uint64_t*>(&to);
    for (size_t i = 0; i < sizeof(T) / 8; ++i) {
        uint64_t word;
        std::memcpy(&word, in + 8 * i, 8);
        std::atomic_ref<uint64_t>(out[i]).store(word, std::memory_order_release);
    }
}

template <class T>
T load64(const T& word) {
    static_assert(sizeof(T) == 8);
    return std::atomic_ref<T>(const_cast<T&>(word)).load(std::memory_order_relaxed);
}

inline uint32_t load32(const uint32_t& word) {
    return std::atomic_ref<uint32_t>(const_cast<uint32_t&>(word)).load(std::memory_order_acquire);
}

// One generation's arrays in this process.
struct Generation {
    Generation(const Zone& zone, uint32_t generation)
        : header(*zone.header()),
          table(header.tables[generation]),
          index(zone.at<uint32_t>(header.offset.index[generation])),
          rows(zone.at<Row>(header.offset.rows[generation])),
          arena(zone.at<uint8_t>(header.offset.arena[generation])),
          capacity(header.plan.clients),
          slots(2 * header.plan.clients) {}

    uint32_t slot_of(const TokenHash& hash) const {
        uint64_t word;
        std::memcpy(&word, hash.data(), sizeof word);
        return static_cast<uint32_t>((static_cast<unsigned __int128>(word) * slots) >> 64);
    }

    // The row of a hash, kNone when there is none. Walks the whole probe sequence, match or not; `behind`
    // gets the slot after it, where a new row may go.
    uint32_t find(const TokenHash& hash, Row& out, uint32_t* behind = nullptr) const {
        const uint32_t count = load32(table.rows);
        const uint32_t known = count < capacity ? count : capacity;
        uint32_t found = kNone;
        uint32_t slot = slot_of(hash);
        for (uint32_t i = 0; i < slots; ++i) {
            const uint32_t row = load32(index[slot]);
            if (row >= known) {
                break;
            }
            Row candidate;
            read_words(candidate, rows[row]);
            if (candidate.slot != slot) {  // left over from an earlier load
                break;
            }
            if (equal_constant_time(candidate.hash, hash) && (candidate.flags & kRowRemoved) == 0) {
                found = row;
                out = candidate;
            }
            slot = slot + 1 == slots ? 0 : slot + 1;
        }
        if (behind != nullptr) {
            *behind = slot;
        }
        return found;
    }

    // Text at an offset: two length bytes, then the bytes. Returns its length, at most `most`.
    uint32_t read_text(uint32_t offset, char* to, uint32_t most) const {
        if (offset == 0 || offset + 2 > header.plan.arena_bytes) {
            return 0;
        }
        auto byte = [this](uint32_t at) {
            return std::atomic_ref<uint8_t>(arena[at]).load(std::memory_order_acquire);
        };
        uint32_t bytes = byte(offset) + 256u * byte(offset + 1);
        bytes = bytes < most ? bytes : most;
        if (uint64_t{offset} + 2 + bytes > header.plan.arena_bytes) {
            return 0;
        }
        for (uint32_t i = 0; i < bytes; ++i) {
            to[i] = static_cast<char>(byte(offset + 2 + i));
        }
        return bytes;
    }

    // Stores text; the offset, 0 for empty, kNone when the arena is full.
    uint32_t write_text(std::string_view text) {
        if (text.empty()) {
            return 0;
        }
        const uint32_t at = table.arena_used;
        if (uint64_t{at} + 2 + text.size() > header.plan.arena_bytes) {
            return kNone;
        }
        auto put = [this](uint32_t offset, uint8_t value) {
            std::atomic_ref<uint8_t>(arena[offset]).store(value, std::memory_order_release);
        };
        put(at, static_cast<uint8_t>(text.size() & 0xff));
        put(at + 1, static_cast<uint8_t>(text.size() >> 8));
        for (uint32_t i = 0; i < text.size(); ++i) {
            put(at + 2 + i, static_cast<uint8_t>(text[i]));
        }
        table.arena_used = at + 2 + static_cast<uint32_t>(text.size());
        return at;
    }

    // As write_text, but the text of the row before is used again when it is the same: tables are sorted by
    // organisation more often than not.
    uint32_t intern(std::string_view text, uint32_t before) {
        char known[kMaxModelListBytes];
        if (before != 0 && text.size() <= sizeof known) {
            const uint32_t bytes = read_text(before, known, sizeof known);
            if (std::string_view(known, bytes) == text) {
                return before;
            }
        }
        return write_text(text);
    }

    ZoneHeader& header;
    ClientTable& table;
    uint32_t* index;
    Row* rows;
    uint8_t* arena;
    uint32_t capacity;
    uint32_t slots;
};

}  // namespace llm::core
