#include "engine_worker/tokenizer/bpe.hpp"

#include <algorithm>
#include <stdexcept>

#include "engine_worker/tokenizer/json_part.hpp"
#include "engine_worker/tokenizer/unicode.hpp"
#include "engine_worker/tokenizer/vocabulary_file.hpp"

namespace llm::engine {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581
// Up to here the quadratic merge, which touches a few cache lines, beats the heap.
constexpr size_t kShortWord = 40;

struct ByteAlphabet {
    std::array<char32_t, 256> chars{};
    std::array<int, 0x180> bytes{};
    ByteAlphabet() {
        bytes.fill(-1);
        char32_t next = 0x100;
        for (unsigned b = 0; b < 256; ++b) {
            const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
            chars[b] = printable ? b : next++;
            bytes[chars[b]] = static_cast<int>(b);
        }
    }
};

const ByteAlphabet& alphabet() {
    static const ByteAlphabet kAlphabet;
    return kAlphabet;
}

// U+2581 behind another character, somewhere in `token`.
bool metaspace_inside(std::string_view token) {
    size_t at = 0;
    while (token.substr(at, kMetaspace.size()) == kMetaspace)
        at += kMetaspace.size();
    return token.find(kMetaspace, at) != std::string_view::npos;
}

}  // namespace

char32_t byte_to_char(unsigned char byte) {
    return alphabet().chars[byte];
}

int char_to_byte(char32_t c) {
    return c < alphabet().bytes.size() ? alphabet().bytes[c] : -1;
}

bool spelled_to_bytes(std::string_view token, std::string& bytes) {
    bytes.clear();
    for (size_t at = 0; at < token.size();) {
        const int byte = char_to_byte(unicode::next_code_point(token, at));
        if (byte < 0)
            return false;
        bytes += static_cast<char>(byte);
    }
    return true;
}

void Bpe::load(const TokenizerFile& file, const JsonPart& model, bool byte_level) {
    byte_level_ = byte_level;
    if (!file.has_vocab_object)
        model.at("vocab").fail("must be an object of token to id");
    if (const JsonPart dropout = model.at("dropout"); !dropout.is_null() && dropout.value() != 0)
        dropout.fail("dropout is not supported");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"})
        if (const JsonPart part = model.at(affix); !part.is_null() && !part.string().empty())
            part.fail("not supported");
    fuse_unk_ = model.at("fuse_unk").boolean(false);
    byte_fallback_ = model.at("byte_fallback").boolean(false);
    ignore_merges_ = model.at("ignore_merges").boolean(false);

    vocab_.reserve(file.vocab.size());
    int32_t largest = -1;
    for (const auto& [text, id] : file.vocab) {
        vocab_.put(text, id);
        largest = std::max(largest, id);
    }
    tokens_.assign(static_cast<size_t>(largest + 1), {});
    for (const auto& [text, id] : file.vocab)
        tokens_[static_cast<size_t>(id)] = text;
    if (const JsonPart unk = model.at("unk_token"); !unk.is_null()) {
        unk_ = find(unk.string());
        if (unk_ < 0)
            unk.fail("\"" + unk.string() + "\" is not in model.vocab");
    }

    for (unsigned b = 0; b < 256; ++b) {
        std::string spelled;
        if (byte_level_) {
            unicode::append_utf8(spelled, byte_to_char(static_cast<unsigned char>(b)));
        } else {
            constexpr char kHex[] = "0123456789ABCDEF";
            spelled = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
        }
        byte_ids_[b] = find(spelled);
    }
    load_merges(file, model);
    const bool every_byte =
        (byte_level_ || byte_fallback_) &&
        std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int32_t id) { return id >= 0; });
    for (const std::string_view token : tokens_)
        longest_ = every_byte ? std::max(longest_, token.size()) : 0;

    if (ignore_merges_) {
        whole_.reserve(vocab_.size());
        whole_texts_.reserve(file.vocab.size());  // never grows: the map points into it
        for (const auto& [text, id] : file.vocab) {
            std::string bytes;
            if (!byte_level_)
                whole_.put(text, vocab_.find(text));
            else if (spelled_to_bytes(text, bytes))
                whole_.put(whole_texts_.emplace_back(std::move(bytes)), vocab_.find(text));
        }
    }
}

void Bpe::load_merges(const TokenizerFile& file, const JsonPart& model) {
    cut_at_metaspace_ = !byte_level_ && !ignore_merges_ && find(kMetaspace) >= 0;
    merges_.reserve(file.merges.size());
    std::string joined;
    for (size_t rank = 0; rank < file.merges.size(); ++rank) {
        const auto& [left, right] = file.merges[rank];
        joined.assign(left).append(right);
        const int32_t a = find(left), b = find(right), both = find(joined);
        if (a < 0 || b < 0 || both < 0) {
            const std::string_view missing = a < 0 ? left : b < 0 ? right : std::string_view(joined);
            model.at("merges").fail("[" + std::to_string(rank) + "] needs \"" + std::string(missing) +
                                    "\", which is not in model.vocab");
        }
        merges_.put(a, b, {static_cast<uint32_t>(rank), both});
        cut_at_metaspace_ = cut_at_metaspace_ && !metaspace_inside(joined);
    }
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const {
    if (!cut_at_metaspace_)
        return encode_word(piece, scratch, out);
    size_t begin = 0;
    for (size_t at = 0; at < piece.size();) {
        while (piece.substr(at, kMetaspace.size()) == kMetaspace)
            at += kMetaspace.size();
        at = std::min(piece.find(kMetaspace, at), piece.size());
        encode_word(piece.substr(begin, at - begin), scratch, out);
        begin = at;
    }
}

void Bpe::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
    Scratch::Word* cached = nullptr;
    uint32_t tag = 0;
    if (word.size() <= sizeof cached->text) {
        const uint64_t hash = hash_bytes(word);
        tag = static_cast<uint32_t>(hash >> 32);
        cached = &scratch.cache_[hash & (Scratch::kSlots - 1)];
        if (cached->tag == tag && cached->length == word.size() &&
            std::memcmp(cached->text, word.data(), word.size()) == 0) {
            out.insert(out.end(), cached->ids, cached->ids + cached->count);
            return;
        }
    }
    const size_t before = out.size();
    int32_t whole = -1;
    if (ignore_merges_)
        whole = whole_.find(word);
    if (whole >= 0) {
        out.push_back(whole);
    } else {
        scratch.symbols_.clear();
        initial_symbols(word, scratch.symbols_);
        if (scratch.symbols_.size() <= kShortWord)
            merge_short(scratch, out);
        else
            merge_long(scratch, out);
    }
    const size_t count = out.size() - before;
    if (cached && count <= std::size(cached->ids)) {
        cached->tag = tag;
        cached->length = static_cast<uint8_t>(word.size());
        cached->count = static_cast<uint8_t>(count);
        std::memcpy(cached->text, word.data(), word.size());
        std::copy(out.begin() + static_cast<std::ptrdiff_t>(before), out.end(), cached->ids);
    }
}

void Bpe::initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
    int32_t pending_unk = -1;  // an unknown character waits for the next one to fuse with
    auto known = [&](int32_t id) {
        if (pending_unk >= 0)
            symbols.push_back(pending_unk);
        pending_unk = -1;
        symbols.push_back(id);
    };
    auto unknown = [&] {  // without unk_token it is dropped
        if (pending_unk >= 0 && !fuse_unk_)
            symbols.push_back(pending_unk);
        pending_unk = unk_;
    };
    if (byte_level_) {
        for (char c : word) {
            const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
            id >= 0 ? known(id) : unknown();
        }
    } else {
        for (size_t at = 0; at < word.size();) {
            const size_t length = unicode::lead_length(static_cast<unsigned char>(word[at]));
            const std::string_view character = word.substr(at, length);
            at += length;
            if (const int32_t id = find(character); id >= 0) {
                known(id);
                continue;
            }
            const bool bytes = byte_fallback_ && std::all_of(character.begin(), character.end(), [&](char c) {
                                   return byte_ids_[static_cast<unsigned char>(c)] >= 0;
                               });
            if (!bytes) {
                unknown();
                continue;
            }
            for (char c : character)  // as in the reference, these do not end a wait for fusion
                symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
        }
    }
    if (pending_unk >= 0)
        symbols.push_back(pending_unk);
}

void Bpe::merge_short(Scratch& scratch, std::vector<int32_t>& out) const {
    auto& ids = scratch.symbols_;
    auto& pairs = scratch.pairs_;  // pairs[i]: what ids[i] and ids[i + 1] merge into
    size_t count = ids.size();
    pairs.clear();
    for (size_t i = 0; i + 1 < count; ++i)
        pairs.push_back(merges_.find(ids[i], ids[i + 1]));
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; ++i)
            if (pairs[i].rank < pairs[best].rank)
                best = i;
        if (pairs[best].rank == UINT32_MAX)
            break;
        ids[best] = pairs[best].id;
        const auto gap = static_cast<std::ptrdiff_t>(best + 1);
        const auto end = static_cast<std::ptrdiff_t>(count);
        std::copy(ids.begin() + gap + 1, ids.begin() + end, ids.begin() + gap);
        std::copy(pairs.begin() + gap, pairs.begin() + end - 1, pairs.begin() + gap - 1);
        --count;
        if (best + 1 < count)
            pairs[best] = merges_.find(ids[best], ids[best + 1]);
        if (best > 0)
            pairs[best - 1] = merges_.find(ids[best - 1], ids[best]);
    }
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

// A linked list of symbols and a heap of candidate merges, lowest rank first, then leftmost. A candidate
// whose symbols changed since is recognised by what its place would merge into now.
void Bpe::merge_long(Scratch& scratch, std::vector<int32_t>& out) const {
    auto& list = scratch.list_;
    auto& heap = scratch.heap_;
    list.clear();
    heap.clear();
    if (scratch.symbols_.size() > INT32_MAX)
        throw std::runtime_error("text too long");
    const auto count = static_cast<int32_t>(scratch.symbols_.size());
    for (int32_t i = 0; i < count; ++i)
        list.push_back({scratch.symbols_[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1, false});
    auto symbol = [&](int32_t at) -> Scratch::Symbol& { return list[static_cast<size_t>(at)]; };
    auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    };
    auto consider = [&](int32_t at) {
        const Merge merge = merges_.find(symbol(at).id, symbol(symbol(at).next).id);
        if (merge.id < 0)
            return;
        heap.push_back({merge.rank, at, merge.id});
        std::push_heap(heap.begin(), heap.end(), later);
    };
    for (int32_t i = 0; i + 1 < count; ++i)
        consider(i);
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const Scratch::Candidate top = heap.back();
        heap.pop_back();
        Scratch::Symbol& left = symbol(top.at);
        if (left.gone || left.next < 0)
            continue;
        Scratch::Symbol& right = symbol(left.next);
        if (merges_.find(left.id, right.id).id != top.id)
            continue;
        left.id = top.id;
        left.next = right.next;
        right.gone = true;
        if (left.next >= 0)
            symbol(left.next).previous = top.at;
        if (left.previous >= 0)
            consider(left.previous);
        if (left.next >= 0)
            consider(top.at);
    }
    for (int32_t at = 0; at >= 0; at = symbol(at).next)
        out.push_back(symbol(at).id);
}

}  // namespace llm::engine
