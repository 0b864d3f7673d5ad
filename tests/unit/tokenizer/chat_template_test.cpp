// Limits of the sandbox, where a template comes from, and the words of its errors.
#include "engine_worker/tokenizer/chat_template.hpp"

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <filesystem>
#include <fstream>

namespace llm::engine {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

ChatTemplate::Context question() {
    ChatTemplate::Context context;
    context.messages = {{{"role", "user"}, {"content", "Hi"}}};
    return context;
}

std::string render_failure(const std::string& source, const ChatTemplate::Context& context = question()) {
    try {
        ChatTemplate::parse(source)->render(context);
    } catch (const TemplateError& error) {
        return error.what();
    }
    return "";
}

std::string parse_failure(const std::string& source) {
    try {
        ChatTemplate::parse(source);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "";
}

TEST(ChatTemplate, StopsRunawayTemplates) {
    const std::string many = "{% for a in range(99999) %}{% for b in range(99999) %}";
    const std::string ends = "{% endfor %}{% endfor %}";
    EXPECT_THAT(render_failure(many + ends), HasSubstr("too many steps"));
    EXPECT_THAT(render_failure(many + "0123456789" + ends), HasSubstr("too much text"));
    EXPECT_THAT(
        render_failure("{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
                       "{% endfor %}"),
        HasSubstr("too much text"));
    EXPECT_THAT(render_failure("{{ 'x' * 99999999999 }}"), HasSubstr("too much text"));
    EXPECT_THAT(render_failure("{{ [0] * 99999999999 }}"), HasSubstr("too much memory"));
    EXPECT_THAT(render_failure("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
                HasSubstr("nested too deeply"));
    EXPECT_THAT(
        render_failure("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}"
                       "{% endfor %}"),
        HasSubstr("nested too deeply"));
    EXPECT_THAT(parse_failure("{{ " + std::string(1000, '(')), HasSubstr("nested too deeply"));
    EXPECT_THAT(parse_failure("{{ " + std::string(1000, '[')), HasSubstr("nested too deeply"));
    std::string chain = "{{ a";
    for (int i = 0; i < 5000; ++i)
        chain += ".a";
    EXPECT_THAT(parse_failure(chain + " }}"), HasSubstr("too long"));
    EXPECT_THAT(parse_failure(std::string(2 << 20, 'x')), HasSubstr("larger than"));
}

TEST(ChatTemplate, LetsANamespaceHoldItself) {
    const auto text = ChatTemplate::parse(
                          "{% set ns = namespace(a=1) %}{% set ns.me = ns %}{{ ns.me.me.a }}"
                          "{% for x in [1, 2] %}{% set ns.l = loop %}{% macro f() %}{{ x }}{% endmacro %}"
                          "{% set ns.f = f %}{% endfor %}{{ ns.l.index }}{{ ns.f() }}{{ ns.l.last }}")
                          ->render(question());
    EXPECT_EQ(text, "122True");
}

TEST(ChatTemplate, RefusesDeeplyNestedRequests) {
    auto context = question();
    for (int i = 0; i < 5000; ++i)
        context.messages = ordered_json::array({std::move(context.messages)});
    EXPECT_THAT(render_failure("x", context), HasSubstr("nested too deeply"));
}

TEST(ChatTemplate, SaysWhatFailedAndWhere) {
    EXPECT_EQ(render_failure("a\n{{ raise_exception('Only users, please.') }}"), "Only users, please.");
    EXPECT_EQ(render_failure("a\n\n{{ missing.x }}"), "chat template, line 3: 'missing' is undefined");
    EXPECT_EQ(render_failure("{{ messages[0].nope.x }}"),
              "chat template, line 1: 'dict object' has no attribute 'nope'");
    EXPECT_EQ(parse_failure("\n{% include 'x' %}"),
              "chat template, line 2: statement 'include' is not supported");
    EXPECT_EQ(parse_failure("{{ 1|xmlattr }}"), "chat template, line 1: filter 'xmlattr' is not supported");
}

TEST(ChatTemplate, PassesRequestVariables) {
    auto context = question();
    context.add_generation_prompt = false;
    context.bos_token = "<b>";
    context.extra = {{"enable_thinking", false}, {"n", 1.0}};
    context.tools = {{{"type", "function"}}};
    EXPECT_EQ(ChatTemplate::parse(
                  "{{ bos_token }}{{ add_generation_prompt }}{{ enable_thinking }}{{ n }}{{ tools }}")
                  ->render(context),
              "<b>FalseFalse1.0[{'type': 'function'}]");
}

// vLLM's rule: who loops over a message's content is given a list of parts, everybody else a string.
TEST(ChatTemplate, SaysWhetherItTakesParts) {
    const auto takes = [](const std::string& source) { return ChatTemplate::parse(source)->takes_parts(); };
    const std::string loop = "{% for p in m.content %}{{ p.text }}{% endfor %}";
    const auto over = [](const std::string& head, const std::string& inside) {
        return head + "{% for m in messages %}" + inside + "{% endfor %}";
    };
    EXPECT_FALSE(takes(over("", "{{ m.content }}")));
    EXPECT_FALSE(
        takes("{{ messages[0].content }}{% for x in messages %}{{ x['content']|trim }}{% endfor %}"));
    EXPECT_TRUE(takes(over("", loop)));
    EXPECT_TRUE(takes(over(
        "", "{% if m['content'] is string %}s{% else %}{% for p in m['content'] %}{% endfor %}{% endif %}")));
    EXPECT_TRUE(
        takes(over("", "{% for p in m['content']|selectattr('type', 'equalto', 'text') %}{% endfor %}")));
    EXPECT_FALSE(takes(over("", "{% for p in m.tool_calls %}{% endfor %}")));
    EXPECT_FALSE(takes("{% for m in others %}" + loop + "{% endfor %}"));
    EXPECT_TRUE(takes("{% set rest = messages[1:] %}{% set more = rest %}{% for m in more %}" + loop +
                      "{% endfor %}"));
    EXPECT_TRUE(takes("{% set ns = namespace(l=messages) %}{% for m in ns.l %}" + loop + "{% endfor %}"));
    EXPECT_TRUE(takes("{% set ns = namespace() %}{% set ns.l = messages %}{% for m in ns.l %}" + loop +
                      "{% endfor %}"));
    EXPECT_TRUE(takes(over("", "{% set content = m.content %}{% for p in content %}{% endfor %}")));
    EXPECT_TRUE(takes(over("{% macro show(parts) %}{% for p in parts %}{% endfor %}{% endmacro %}",
                           "{{ show(m.content) }}")));
    EXPECT_TRUE(takes(over("{% macro show(a, parts) %}{% for p in parts %}{% endfor %}{% endmacro %}",
                           "{{ show(1, parts=m['content']) }}")));
    EXPECT_FALSE(takes(over("{% macro show(content) %}{% for p in content %}{% endfor %}{% endmacro %}",
                            "{{ show(m.tool_calls) }}")));
}

TEST(ChatTemplate, SaysWhatItKnows) {
    const auto chat_template = ChatTemplate::parse(
        "{% for m in messages %}{% if m.role == 'developer' %}{{ tools|tojson }}{% endif %}{% endfor %}");
    EXPECT_TRUE(chat_template->shows_tools());
    EXPECT_TRUE(chat_template->knows_developer());
    const auto plain =
        ChatTemplate::parse("{% for m in messages %}{{ m.tools }}'tools'{{ developer }}{% endfor %}");
    EXPECT_FALSE(plain->shows_tools());
    EXPECT_FALSE(plain->knows_developer());
    EXPECT_TRUE(ChatTemplate::parse("{% for x in (tools if tools else []) %}{% endfor %}")->shows_tools());
}

TEST(ChatTemplate, LoadsFromADirectory) {
    const std::filesystem::path dir =
        std::filesystem::path(testing::TempDir()) / ("chat_template_test_" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir);
    auto write = [&](const char* name, const std::string& text) { std::ofstream(dir / name) << text; };
    const auto rendered = [&] { return ChatTemplate::load(dir)->render(question()); };

    EXPECT_EQ(rendered(), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    write("tokenizer_config.json", R"({"chat_template": "string"})");
    EXPECT_EQ(rendered(), "string");
    write("tokenizer_config.json",
          R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
    EXPECT_EQ(rendered(), "d");
    EXPECT_EQ(ChatTemplate::load_for_tools(dir), nullptr);
    write(
        "tokenizer_config.json",
        R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
    EXPECT_EQ(rendered(), "d");
    EXPECT_EQ(ChatTemplate::load_for_tools(dir)->render(question()), "t");
    std::filesystem::create_directories(dir / "additional_chat_templates");
    write("additional_chat_templates/tool_use.jinja", "own t");
    EXPECT_EQ(ChatTemplate::load_for_tools(dir)->render(question()), "own t");
    std::filesystem::remove_all(dir / "additional_chat_templates");
    write("chat_template.jinja", "one for all");
    EXPECT_EQ(ChatTemplate::load_for_tools(dir), nullptr);
    std::filesystem::remove(dir / "chat_template.jinja");
    write("tokenizer_config.json", R"({"chat_template": 3})");
    EXPECT_THROW(rendered(), std::runtime_error);
    write("chat_template.jinja", "own\n");
    EXPECT_EQ(rendered(), "own");
    write("chat_template.jinja", "{% if %}");
    try {
        rendered();
        ADD_FAILURE();
    } catch (const std::runtime_error& error) {
        EXPECT_THAT(error.what(), HasSubstr("chat_template.jinja: chat template, line 1"));
    }
    write("mine.jinja", "mine");
    EXPECT_EQ(ChatTemplate::load_file(dir / "mine.jinja")->render(question()), "mine");
    EXPECT_THROW(ChatTemplate::load_file(dir / "nobody's.jinja"), std::runtime_error);
    std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace llm::engine
