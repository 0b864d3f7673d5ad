#include "engine_worker/tokenizer/vocabulary_file.hpp"

#include <cstring>
#include <stdexcept>

#include "engine_worker/tokenizer/json_part.hpp"

namespace llm::engine {

std::string_view StringArena::keep(std::string_view text) {
    if (text.empty()) {
        return "";  // needs no block, and there may be none yet
    }
    if (text.size() > kBlock / 16) {  // a long one gets a block of its own, before the block in use
        auto block = std::make_unique<char[]>(text.size());
        std::memcpy(block.get(), text.data(), text.size());
        const std::string_view kept(block.get(), text.size());
        blocks_.insert(blocks_.empty() ? blocks_.end() : blocks_.end() - 1, std::move(block));
        if (blocks_.size() == 1)
            used_ = kBlock;
        return kept;
    }
    if (used_ + text.size() > kBlock) {
        blocks_.push_back(std::make_unique<char[]>(kBlock));
        used_ = 0;
    }
    char* at = blocks_.back().get() + used_;
    std::memcpy(at, text.data(), text.size());
    used_ += text.size();
    return {at, text.size()};
}

namespace {

using nlohmann::json;

// Builds JSON values as nlohmann's own parser would, except under model.vocab and model.merges.
class Reader final : public nlohmann::json_sax<json> {
  public:
    explicit Reader(TokenizerFile& file) : file_(file) {}
    std::string error;

    bool null() override { return scalar(nullptr); }
    bool boolean(bool value) override { return scalar(value); }
    bool number_integer(number_integer_t value) override { return scalar(value); }
    bool number_unsigned(number_unsigned_t value) override {
        if (inside_ == Inside::kVocab) {
            if (value > static_cast<number_unsigned_t>(kMaxTokenId))
                return fail("model.vocab: the id of \"" + std::string(word_) + "\" is too large");
            file_.vocab.emplace_back(word_, static_cast<int32_t>(value));
            return true;
        }
        return scalar(value);
    }
    bool number_float(number_float_t value, const string_t&) override { return scalar(value); }
    bool string(string_t& value) override {
        if (inside_ == Inside::kMerges)
            return merge_line(value);
        if (inside_ == Inside::kMergePair) {
            if (pair_size_ == 2)
                return bad_merge();
            pair_[pair_size_++] = file_.strings.keep(value);
            return true;
        }
        return scalar(std::move(value));
    }
    bool binary(binary_t&) override { return false; }

    bool start_object(std::size_t) override {
        if (inside_ != Inside::kRest)
            return fail_inside();
        if (at_member("vocab")) {
            inside_ = Inside::kVocab;
            file_.has_vocab_object = true;
            file_.vocab.clear();
            scalar(json::object());
            return true;
        }
        return open(json::object());
    }
    bool key(string_t& value) override {
        if (inside_ == Inside::kVocab)
            word_ = file_.strings.keep(value);
        else
            keys_.back() = std::move(value);
        return true;
    }
    bool end_object() override {
        if (inside_ == Inside::kVocab)
            inside_ = Inside::kRest;
        else
            close();
        return true;
    }
    bool start_array(std::size_t) override {
        if (inside_ == Inside::kMerges) {
            inside_ = Inside::kMergePair;
            pair_size_ = 0;
            return true;
        }
        if (inside_ != Inside::kRest)
            return fail_inside();
        if (at_member("merges")) {
            inside_ = Inside::kMerges;
            file_.merges.clear();
            scalar(json::array());
            return true;
        }
        return open(json::array());
    }
    bool end_array() override {
        if (inside_ == Inside::kMergePair) {
            if (pair_size_ != 2)
                return bad_merge();
            file_.merges.emplace_back(pair_[0], pair_[1]);
            inside_ = Inside::kMerges;
        } else if (inside_ == Inside::kMerges) {
            inside_ = Inside::kRest;
        } else {
            close();
        }
        return true;
    }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& e) override {
        const std::string what = e.what();
        const size_t bracket = what.find("] ");  // drop the library's own "[json.exception...] "
        return fail("not valid JSON: " + (bracket == std::string::npos ? what : what.substr(bracket + 2)));
    }

  private:
    enum class Inside { kRest, kVocab, kMerges, kMergePair };

    bool fail(std::string what) {
        error = std::move(what);
        return false;
    }
    bool bad_merge() {
        return fail("model.merges[" + std::to_string(file_.merges.size()) +
                    "]: must be two tokens, as \"a b\" or [\"a\", \"b\"]");
    }
    bool fail_inside() {
        return inside_ == Inside::kVocab
                   ? fail("model.vocab: the id of \"" + std::string(word_) + "\" is not a number")
                   : bad_merge();
    }
    // The value about to come is model.NAME.
    bool at_member(const char* name) const {
        return stack_.size() == 2 && keys_.size() == 2 && keys_[0] == "model" && keys_[1] == name &&
               stack_[1]->is_object();
    }
    json* store(json value) {
        if (stack_.empty())
            return &(file_.rest = std::move(value));
        json& parent = *stack_.back();
        if (parent.is_array()) {
            parent.push_back(std::move(value));
            return &parent.back();
        }
        return &(parent[keys_.back()] = std::move(value));
    }
    bool scalar(json value) {
        if (inside_ != Inside::kRest)
            return fail_inside();
        store(std::move(value));
        return true;
    }
    bool open(json value) {
        stack_.push_back(store(std::move(value)));
        keys_.emplace_back();
        return true;
    }
    void close() {
        stack_.pop_back();
        keys_.pop_back();
    }
    bool merge_line(const std::string& line) {
        const size_t space = line.find(' ');
        if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
            return bad_merge();
        const std::string_view kept = file_.strings.keep(line);
        file_.merges.emplace_back(kept.substr(0, space), kept.substr(space + 1));
        return true;
    }

    TokenizerFile& file_;
    Inside inside_ = Inside::kRest;
    std::vector<json*> stack_;       // open arrays and objects; an element never moves while it is open
    std::vector<std::string> keys_;  // the latest key of each
    std::string_view word_;
    std::string_view pair_[2];
    int pair_size_ = 0;
};

}  // namespace

std::unique_ptr<TokenizerFile> TokenizerFile::parse(std::string_view text) {
    auto file = std::make_unique<TokenizerFile>();
    Reader reader(*file);
    if (!json::sax_parse(text.begin(), text.end(), &reader))
        throw std::runtime_error(reader.error.empty() ? "not valid JSON" : reader.error);
    return file;
}

}  // namespace llm::engine
