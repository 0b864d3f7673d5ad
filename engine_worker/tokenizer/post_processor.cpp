#include "engine_worker/tokenizer/post_processor.hpp"

namespace llm::engine {

PostProcessor PostProcessor::load(const JsonPart& part) {
    PostProcessor post;
    if (!part.is_null())
        post.add(part, 0);
    return post;
}

void PostProcessor::add(const JsonPart& part, int depth) {
    const std::string type = part.type();
    // [token, id] as Bert and Roberta write it.
    auto pair_id = [&](const char* key) {
        const JsonPart pair = part.at(key);
        if (pair.size() != 2)
            pair.fail("must be [token, id]");
        return pair.at(1).integer(kMaxTokenId);
    };
    if (type == "Sequence") {
        if (depth == kMaxSequenceDepth)
            part.fail("nested too deeply");
        const JsonPart list = part.at("processors");
        for (size_t i = 0; i < list.size(); ++i)
            add(list.at(i), depth + 1);
    } else if (type == "TemplateProcessing") {
        frames_.push_back(load_template(part));
    } else if (type == "RobertaProcessing" || type == "BertProcessing") {
        frames_.push_back({pair_id("cls"), kText, pair_id("sep")});
    } else if (type != "ByteLevel") {
        part.at("type").fail("post_processor \"" + type + "\" is not supported");
    }
}

std::vector<int32_t> PostProcessor::load_template(const JsonPart& part) {
    std::vector<int32_t> frame;
    const JsonPart single = part.at("single"), tokens = part.at("special_tokens");
    for (size_t i = 0; i < single.size(); ++i) {
        const JsonPart item = single.at(i);
        if (const JsonPart sequence = item.at("Sequence"); !sequence.is_null()) {
            if (sequence.at("id").string() != "A")
                sequence.at("id").fail("must be \"A\" in the template of a single text");
            frame.push_back(kText);
            continue;
        }
        const std::string name = item.at("SpecialToken").at("id").string();
        const JsonPart ids = tokens.at(name.c_str()).at("ids");
        for (size_t k = 0; k < ids.size(); ++k)
            frame.push_back(ids.at(k).integer(kMaxTokenId));
    }
    return frame;
}

void PostProcessor::apply(std::vector<int32_t>& ids) const {
    for (const auto& frame : frames_) {
        size_t texts = 0;
        for (int32_t item : frame)
            texts += item == kText;
        std::vector<int32_t> out;
        out.reserve(ids.size() * texts + frame.size());
        for (int32_t item : frame) {
            if (item == kText)
                out.insert(out.end(), ids.begin(), ids.end());
            else
                out.push_back(item);
        }
        ids = std::move(out);
    }
}

}  // namespace llm::engine
