#include "engine_worker/tokenizer/tokenizer.hpp"

#include <algorithm>
#include <fstream>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

#include "engine_worker/tokenizer/added_tokens.hpp"
#include "engine_worker/tokenizer/bpe.hpp"
#include "engine_worker/tokenizer/decoder.hpp"
#include "engine_worker/tokenizer/json_part.hpp"
#include "engine_worker/tokenizer/normalizer.hpp"
#include "engine_worker/tokenizer/post_processor.hpp"
#include "engine_worker/tokenizer/pre_tokenizer.hpp"
#include "engine_worker/tokenizer/unicode.hpp"
#include "engine_worker/tokenizer/vocabulary_file.hpp"
#include "shared/json.hpp"

namespace llm::engine {
namespace {

using nlohmann::json;

// The memory that one call works in. Calls borrow one from the tokenizer, so that caches of words outlive
// calls and threads never share one.
struct Scratch {
    PreTokenizer::Scratch pre;
    Bpe::Scratch bpe;
    std::vector<AddedTokenMatcher::Segment> segments, inner;
};

class BpeTokenizer final : public Tokenizer {
  public:
    // `config` is tokenizer_config.json, or null.
    BpeTokenizer(std::string_view text, const json& config);

    std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
    std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override;
    std::string token_bytes(int32_t id, bool first, bool skip_special) const override;
    int32_t vocab_size() const override { return static_cast<int32_t>(names_.size()); }
    int32_t token_to_id(std::string_view token) const override;
    std::string_view id_to_token(int32_t id) const override {
        return static_cast<size_t>(id) < names_.size() ? names_[static_cast<size_t>(id)] : std::string_view();
    }
    bool is_special(int32_t id) const override {
        return static_cast<size_t>(id) < special_.size() && special_[static_cast<size_t>(id)];
    }
    int32_t bos_id() const override { return bos_; }
    int32_t eos_id() const override { return eos_; }

  private:
    class Borrowed {
      public:
        explicit Borrowed(const BpeTokenizer& owner) : owner_(owner) {
            std::lock_guard lock(owner_.mutex_);
            if (!owner_.idle_.empty()) {
                scratch_ = std::move(owner_.idle_.back());
                owner_.idle_.pop_back();
            } else {
                scratch_ = std::make_unique<Scratch>();
            }
        }
        ~Borrowed() {
            std::lock_guard lock(owner_.mutex_);
            owner_.idle_.push_back(std::move(scratch_));
        }
        Borrowed(const Borrowed&) = delete;
        Borrowed& operator=(const Borrowed&) = delete;
        Scratch* operator->() const { return scratch_.get(); }

      private:
        const BpeTokenizer& owner_;
        std::unique_ptr<Scratch> scratch_;
    };

    void load_added_tokens(const JsonPart& list);
    int32_t named_token(const json& config, const char* key) const;
    void encode_ordinary(std::string_view text, bool at_start, size_t most, Scratch& scratch,
                         std::vector<int32_t>& out) const;

    std::unique_ptr<TokenizerFile> file_;  // holds every string below
    Normalizer normalizer_;
    PreTokenizer pre_tokenizer_;
    Bpe bpe_;
    PostProcessor post_processor_;
    Decoder decoder_;
    std::vector<AddedToken> added_;
    std::unordered_map<std::string_view, int32_t> added_ids_;
    AddedTokenMatcher raw_matcher_, normalized_matcher_;
    std::vector<std::string_view> names_;  // by id, as spelled
    std::vector<std::string> bytes_;       // by id, what a token adds when it is not the first
    std::vector<bool> special_;
    size_t longest_ = 0;  // bytes of ordinary text that a token stands for at most; 0 = not known
    int32_t bos_ = -1, eos_ = -1;

    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Scratch>> idle_;
};

BpeTokenizer::BpeTokenizer(std::string_view text, const json& config) : file_(TokenizerFile::parse(text)) {
    const JsonPart root(file_->rest, "");
    if (!root.value().is_object())
        throw std::runtime_error("must be a JSON object");
    const JsonPart model = root.at("model");
    if (model.is_null())
        model.fail("missing");
    // Files older than model.type have merges only in a BPE model.
    if (const JsonPart type = model.at("type"); !type.is_null() || model.at("merges").is_null())
        if (type.string() != "BPE")
            type.fail("model \"" + type.string() + "\" is not supported (BPE is)");
    normalizer_ = Normalizer::load(root.at("normalizer"));
    pre_tokenizer_ = PreTokenizer::load(root.at("pre_tokenizer"));
    post_processor_ = PostProcessor::load(root.at("post_processor"));
    decoder_ = Decoder::load(root.at("decoder"));
    bpe_.load(*file_, model, pre_tokenizer_.byte_level());
    longest_ = pre_tokenizer_.keeps_everything() ? bpe_.longest() : 0;
    load_added_tokens(root.at("added_tokens"));

    RegexScratch scratch;
    bytes_.reserve(names_.size());
    for (std::string_view name : names_)
        bytes_.push_back(name.empty() ? std::string() : decoder_.piece(name, false, scratch));
    bos_ = named_token(config, "bos_token");
    eos_ = named_token(config, "eos_token");
}

void BpeTokenizer::load_added_tokens(const JsonPart& list) {
    RegexScratch scratch;
    int32_t largest = bpe_.size() - 1;
    if (!list.is_null()) {
        for (size_t i = 0; i < list.size(); ++i) {
            const JsonPart part = list.at(i);
            AddedToken token;
            token.id = part.at("id").integer(kMaxTokenId);
            token.content = part.at("content").string();
            token.special = part.at("special").boolean(false);
            token.normalized = part.at("normalized").boolean(!token.special);
            token.lstrip = part.at("lstrip").boolean(false);
            token.rstrip = part.at("rstrip").boolean(false);
            token.single_word = part.at("single_word").boolean(false);
            token.spelling = token.normalized ? normalizer_.apply(token.content, scratch) : token.content;
            largest = std::max(largest, token.id);
            added_.push_back(std::move(token));
        }
    }
    names_.resize(static_cast<size_t>(largest + 1));
    special_.resize(names_.size());
    for (int32_t id = 0; id < bpe_.size(); ++id)
        names_[static_cast<size_t>(id)] = bpe_.token(id);
    for (const AddedToken& token : added_) {  // no longer grows: matchers and names point into it
        const auto id = static_cast<size_t>(token.id);
        names_[id] = token.spelling;
        special_[id] = special_[id] || token.special;
        added_ids_[token.content] = token.id;
        (token.normalized ? normalized_matcher_ : raw_matcher_).add(token);
    }
}

// tokenizer_config.json gives a name as a string or as an object with `content`; an unknown name is no token.
int32_t BpeTokenizer::named_token(const json& config, const char* key) const {
    if (!config.is_object() || !config.contains(key))
        return -1;
    const json& value = config[key];
    const json* name = value.is_object() && value.contains("content") ? &value["content"] : &value;
    return name->is_string() ? token_to_id(name->get_ref<const std::string&>()) : -1;
}

int32_t BpeTokenizer::token_to_id(std::string_view token) const {
    auto it = added_ids_.find(token);
    return it != added_ids_.end() ? it->second : bpe_.find(token);
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
    std::string repaired;
    if (!unicode::is_valid_utf8(text)) {
        repaired = unicode::to_valid_utf8(text);
        text = repaired;
    }
    std::vector<int32_t> ids;
    ids.reserve(std::min(text.size() / 4, options.most) + 8);
    Borrowed scratch(*this);
    auto& segments = scratch->segments;
    segments.clear();
    raw_matcher_.split(text, !options.parse_special, segments);
    for (const auto& segment : segments) {
        if (ids.size() > options.most)
            return ids;
        const bool at_start = segment.text.data() == text.data();
        if (segment.token) {
            ids.push_back(segment.token->id);
            continue;
        }
        std::string normalized;
        std::string_view ordinary = segment.text;
        if (!normalizer_.empty()) {
            normalized = normalizer_.apply(ordinary, scratch->pre.regex);
            ordinary = normalized;
        }
        if (normalized_matcher_.empty()) {
            encode_ordinary(ordinary, at_start, options.most, *scratch.operator->(), ids);
            continue;
        }
        auto& inner = scratch->inner;
        inner.clear();
        normalized_matcher_.split(ordinary, !options.parse_special, inner);
        for (const auto& part : inner) {
            if (part.token)
                ids.push_back(part.token->id);
            else
                encode_ordinary(part.text, at_start && part.text.data() == ordinary.data(), options.most,
                                *scratch.operator->(), ids);
        }
    }
    if (options.add_special)
        post_processor_.apply(ids);
    return ids;
}

void BpeTokenizer::encode_ordinary(std::string_view text, bool at_start, size_t most, Scratch& scratch,
                                   std::vector<int32_t>& out) const {
    if (out.size() > most)
        return;
    if (longest_ > 0 && text.size() / longest_ > most - out.size()) {
        out.resize(most + 1);
        return;
    }
    pre_tokenizer_.split(text, at_start, scratch.pre);
    for (const auto& piece : scratch.pre.pieces) {
        bpe_.encode(piece.text, scratch.bpe, out);
        if (out.size() > most)
            return;
    }
}

std::string BpeTokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
    std::vector<std::string> tokens;
    tokens.reserve(ids.size());
    for (int32_t id : ids) {
        const std::string_view name = id_to_token(id);
        if (!name.empty() && !(skip_special && is_special(id)))
            tokens.emplace_back(name);
    }
    Borrowed scratch(*this);
    return decoder_.decode(std::move(tokens), scratch->pre.regex);
}

std::string BpeTokenizer::token_bytes(int32_t id, bool first, bool skip_special) const {
    const std::string_view name = id_to_token(id);
    if (name.empty() || (skip_special && is_special(id)))
        return {};
    if (!first)
        return bytes_[static_cast<size_t>(id)];
    Borrowed scratch(*this);
    return decoder_.piece(name, true, scratch->pre.regex);
}

std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    if (!in || !(text << in.rdbuf()))
        throw std::runtime_error(path + ": cannot be read");
    return std::move(text).str();
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::parse(std::string_view tokenizer_json,
                                            std::string_view tokenizer_config) {
    const json config = tokenizer_config.empty()
                            ? json()
                            : json::parse(tokenizer_config, nullptr, /*allow_exceptions=*/false);
    if (config.is_discarded())
        throw std::runtime_error("tokenizer_config.json: not valid JSON");
    try {
        return std::make_unique<BpeTokenizer>(tokenizer_json, config);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(std::string("tokenizer.json: ") + error.what());
    }
}

std::unique_ptr<Tokenizer> Tokenizer::load(const std::string& dir) {
    const std::string text = read_file(dir + "/tokenizer.json");
    std::string config;
    if (std::ifstream(dir + "/tokenizer_config.json"))
        config = read_file(dir + "/tokenizer_config.json");
    try {
        return parse(text, config);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(dir + "/" + error.what());
    }
}

}  // namespace llm::engine
