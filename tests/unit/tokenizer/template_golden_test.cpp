// Rendered text equal to jinja2's, byte for byte (tools/make_template_goldens.py).
#include <gtest/gtest.h>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

#include "engine_worker/tokenizer/chat_template.hpp"

namespace llm::engine {
namespace {

using nlohmann::ordered_json;

const std::string kRoot = LLM_GOLDEN_DIR "/templates/";

class TemplateGolden : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        setenv("TZ", "UTC", 1);  // the reference was rendered there
        tzset();
    }

    TemplateGolden() {
        std::ifstream in(kRoot + "golden.json");
        golden_ = ordered_json::parse(in);
    }

    ChatTemplate::Context context(const ordered_json& values) const {
        ChatTemplate::Context out;
        out.messages = values.value("messages", ordered_json());
        out.tools = values.value("tools", ordered_json());
        out.add_generation_prompt = values.value("add_generation_prompt", true);
        out.bos_token = "<s>";
        out.eos_token = "</s>";
        out.extra = values.value("extra", ordered_json());
        out.now = golden_["now"].get<int64_t>();
        return out;
    }

    // Renders, or fails, as `expected` says.
    void check(const std::string& source, const ordered_json& values, const ordered_json& expected) {
        SCOPED_TRACE(source.substr(0, 400));
        std::string text, failure;
        bool failed = false;
        try {
            text = ChatTemplate::parse(source)->render(context(values));
        } catch (const std::runtime_error& error) {
            failed = true;
            failure = error.what();
        }
        if (expected.contains("text")) {
            EXPECT_EQ(failure, "");
            EXPECT_EQ(text, expected["text"].get<std::string>());
        } else if (expected.contains("refusal")) {
            EXPECT_EQ(failure, expected["refusal"].get<std::string>());
        } else {
            EXPECT_TRUE(failed) << "rendered: " << text << "\nreference: " << expected.dump();
            EXPECT_NE(failure.find("chat template"), std::string::npos) << failure;
        }
    }

    ordered_json golden_;
};

TEST_F(TemplateGolden, RendersEveryFamilyAsJinja2) {
    size_t rendered = 0;
    for (const auto& [file, contexts] : golden_["files"].items()) {
        std::ifstream in(kRoot + file);
        std::ostringstream source;
        source << in.rdbuf();
        for (const auto& [name, expected] : contexts.items()) {
            SCOPED_TRACE(file + " with " + name);
            check(source.str(), golden_["contexts"][name], expected);
            rendered += expected.contains("text");
        }
    }
    EXPECT_GE(rendered, 100u);
}

TEST_F(TemplateGolden, EvaluatesEveryExpressionAsJinja2) {
    for (const auto& snippet : golden_["snippets"])
        check(snippet["source"].get<std::string>(), golden_["values"], snippet);
}

}  // namespace
}  // namespace llm::engine
