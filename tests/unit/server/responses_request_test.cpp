// POST /v1/responses as the chat completion that it is.
#include "engine_worker/server/responses_request.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/load_model.hpp"

namespace llm::engine {
namespace {

using testing::HasSubstr;

Json chat_of(const std::string& body) {
    return chat_of_response(Json::parse(body));
}

Json messages_of(const std::string& input) {
    return chat_of(R"({"input":)" + input + "}")["messages"];
}

// "param: message" of a body that no chat is made of.
std::string refused(const std::string& body) {
    try {
        return "taken as " + chat_of(body).dump();
    } catch (const ApiError& error) {
        EXPECT_EQ(error.status, 400) << body;
        return error.param + ": " + error.message;
    }
}

TEST(ResponsesRequest, TextIsAUsersMessage) {
    EXPECT_EQ(messages_of(R"("hi")"), Json::parse(R"([{"role":"user","content":"hi"}])"));
    EXPECT_EQ(chat_of(R"({"input":"hi","instructions":"be brief"})")["messages"],
              Json::parse(R"([{"role":"system","content":"be brief"},{"role":"user","content":"hi"}])"));
    EXPECT_EQ(chat_of(R"({"input":"hi","instructions":""})")["messages"].size(), 1u);
}

TEST(ResponsesRequest, MessagesKeepTheirRolesAndText) {
    EXPECT_EQ(messages_of(R"([
        {"role":"developer","content":"d"},
        {"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
        {"type":"message","id":"msg_1","status":"completed","role":"assistant",
         "content":[{"type":"output_text","text":"c","annotations":[]},{"type":"refusal","refusal":"no"}]}])"),
              Json::parse(R"([
        {"role":"developer","content":"d"},
        {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"assistant","content":[{"type":"text","text":"c"},{"type":"text","text":"no"}]}])"));
}

// In a chat what the assistant said and all calls of that turn are one message.
TEST(ResponsesRequest, CallsJoinTheMessageBeforeThem) {
    EXPECT_EQ(messages_of(R"([
        {"role":"user","content":"u"},
        {"type":"reasoning","id":"rs_1","summary":[]},
        {"role":"assistant","content":"s"},
        {"type":"reasoning","id":"rs_2","summary":[]},
        {"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}"},
        {"type":"function_call","call_id":"c2","name":"g","arguments":"{}","id":"fc_2","status":"completed"},
        {"type":"function_call_output","call_id":"c1","output":"x"},
        {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"y"}]},
        {"type":"function_call","call_id":"c3","name":"f","arguments":""}])"),
              Json::parse(R"([
        {"role":"user","content":"u"},
        {"role":"assistant","content":"s","tool_calls":[
            {"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},
            {"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"x"},
        {"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"y"}]},
        {"role":"assistant","tool_calls":[{"id":"c3","type":"function","function":{"name":"f","arguments":""}}]}])"));
}

TEST(ResponsesRequest, ToolsAndTheirChoice) {
    const Json chat = chat_of(R"({"input":"x","tools":[{"type":"function","name":"f","description":"d",
        "parameters":{"type":"object"},"strict":true},{"type":"function","name":"g","parameters":null}],
        "tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false})");
    EXPECT_EQ(chat["tools"], Json::parse(R"([
        {"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},
        {"type":"function","function":{"name":"g"}}])"));
    EXPECT_EQ(chat["tool_choice"], Json::parse(R"({"type":"function","function":{"name":"f"}})"));
    EXPECT_EQ(chat["parallel_tool_calls"], false);
    EXPECT_EQ(chat_of(R"({"input":"x","tool_choice":"required"})")["tool_choice"], "required");
}

TEST(ResponsesRequest, FormsOfText) {
    const Json chat = chat_of(R"({"input":"x","text":{"verbosity":"low","format":
        {"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true}}})");
    EXPECT_EQ(
        chat["response_format"],
        Json::parse(
            R"({"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}})"));
    EXPECT_FALSE(chat.contains("text"));
    EXPECT_EQ(chat_of(R"({"input":"x","text":{"format":{"type":"json_object"}}})")["response_format"],
              Json::parse(R"({"type":"json_object"})"));
    EXPECT_FALSE(chat_of(R"({"input":"x","text":{}})").contains("response_format"));
}

TEST(ResponsesRequest, TheRestHasTheChatsNames) {
    const Json chat =
        chat_of(R"({"model":"m","input":"x","max_output_tokens":7,"temperature":0.5,"seed":3,"priority":-1,
        "stream":true,"stream_options":{"include_obfuscation":false},"reasoning":{"effort":"low","summary":"auto"},
        "include":["reasoning.encrypted_content","message.output_text.logprobs"],"top_logprobs":2,
        "store":true,"background":false,"metadata":{"a":"b"},"truncation":"auto","n":1})");
    EXPECT_EQ(chat["max_completion_tokens"], 7);
    EXPECT_EQ(chat["reasoning_effort"], "low");
    EXPECT_EQ(chat["logprobs"], true);
    EXPECT_EQ(chat["top_logprobs"], 2);
    for (const char* name : {"model", "temperature", "seed", "priority", "stream", "stream_options"}) {
        EXPECT_TRUE(chat.contains(name)) << name;
    }
    for (const char* name : {"input", "max_output_tokens", "include", "reasoning"}) {
        EXPECT_FALSE(chat.contains(name)) << name;
    }
    const Json plain =
        chat_of(R"({"input":"x","top_logprobs":2,"include":null,"reasoning":{"effort":null}})");
    EXPECT_FALSE(plain.contains("logprobs") || plain.contains("top_logprobs") ||
                 plain.contains("reasoning_effort"));
}

TEST(ResponsesRequest, RefusesWhatNeedsAMemory) {
    EXPECT_THAT(
        refused(R"({"input":"x","previous_response_id":"resp_1"})"),
        HasSubstr(
            "previous_response_id: 'previous_response_id' is not supported: this engine keeps no responses"));
    EXPECT_THAT(refused(R"({"input":"x","conversation":{"id":"c"}})"), HasSubstr("conversation: "));
    EXPECT_THAT(refused(R"({"prompt":{"id":"p"}})"), HasSubstr("prompt: "));
    EXPECT_THAT(refused(R"({"input":"x","background":true})"), HasSubstr("background: "));
    for (const char* reference : {R"({"type":"item_reference","id":"msg_1"})", R"({"id":"msg_1"})"}) {
        EXPECT_THAT(refused(R"({"input":[)" + std::string(reference) + "]}"),
                    testing::AllOf(HasSubstr("input[0]: "), HasSubstr("'store' false")));
    }
    EXPECT_THAT(refused(R"({"input":"x","previous_response_id":null,"conversation":null,"prompt":null})"),
                HasSubstr("taken"));
}

TEST(ResponsesRequest, NamesWhatIsWrong) {
    const std::pair<const char*, const char*> cases[] = {
        {R"({})", "input: "},
        {R"({"input":[]})", "input: "},
        {R"({"input":5})", "input: "},
        {R"({"input":["x"]})", "input[0]: "},
        {R"({"input":[{"role":"user","content":"x"},{"role":"tool","content":"x"}]})", "input[1].role: "},
        {R"({"input":[{"role":5,"content":"x"}]})", "input[0].role: "},
        {R"({"input":[{"role":"user"}]})", "input[0].content: "},
        {R"({"input":[{"role":"user","content":[{"type":"input_image"}]}]})", "input[0].content[0]: "},
        {R"({"input":[{"role":"user","content":["x"]}]})", "input[0].content[0]: "},
        {R"({"input":[{"role":"user","content":[{"type":"input_text"}]}]})", "input[0].content[0].text: "},
        {R"({"input":[{"type":"web_search_call"}]})", "input[0].type: "},
        {R"({"input":[{"type":7}]})", "input[0].type: "},
        {R"({"input":[{"type":"function_call","name":"f"}]})", "input[0].call_id: "},
        {R"({"input":[{"type":"function_call","call_id":"c"}]})", "input[0].name: "},
        {R"({"input":[{"type":"function_call","call_id":"c","name":"f","arguments":{}}]})",
         "input[0].arguments: "},
        {R"({"input":[{"type":"function_call_output","output":"x"}]})", "input[0].call_id: "},
        {R"({"input":[{"type":"function_call_output","call_id":"c"}]})", "input[0].output: "},
        {R"({"input":"x","instructions":[]})", "instructions: "},
        {R"({"input":"x","max_output_tokens":0})", "max_output_tokens: "},
        {R"({"input":"x","tools":{}})", "tools: "},
        {R"({"input":"x","tools":[{"type":"web_search"}]})",
         "tools[0].type: 'tools[0].type' must be function"},
        {R"({"input":"x","tools":[{"type":"function","function":{"name":"f"}}]})", "tools[0].name: "},
        {R"({"input":"x","tool_choice":{"type":"function"}})", "tool_choice.name: "},
        {R"({"input":"x","text":"json"})", "text: "},
        {R"({"input":"x","text":{"verbosity":1}})", "text.verbosity: "},
        {R"({"input":"x","include":"all"})", "include: "},
        {R"({"input":"x","top_logprobs":21})", "top_logprobs: "},
        {R"({"input":"x","reasoning":{"effort":1}})", "reasoning.effort: "},
        {R"({"input":"x","metadata":{"a":{"usage":{"input_tokens":0}}}})", "metadata: "},
        {R"({"input":"x","store":1})", "store: "},
        {R"({"input":"x","user":1})", "user: "},
        {R"({"input":"x","truncation":"some"})", "truncation: "},
        {R"({"input":"x","n":2})", "n: "},
        {R"({"input":"x","max_tokens":5})",
         "max_tokens: 'max_tokens' is 'max_output_tokens' in /v1/responses."},
        {R"({"messages":[]})", "messages: 'messages' is 'input' in /v1/responses."},
        {R"({"input":"x","response_format":{"type":"text"}})", "response_format: "},
    };
    for (const auto& [body, expected] : cases) {
        EXPECT_THAT(refused(body), testing::StartsWith(expected)) << body;
    }
    const std::string deep(1001, '[');
    EXPECT_THAT(
        refused(Json{
            {"input", {{{"type", "function_call"}, {"call_id", "c"}, {"name", "f"}, {"arguments", deep}}}}}
                    .dump()),
        HasSubstr("input[0].arguments: "));
}

class ResponsesCall : public testing::Test {
  protected:
    ResponsesCall() {
        Options options;
        options.backend = "sim";
        options.model = "sim";
        loaded_ = load_model(options);
        loaded_.model->max_context = 512;
    }

    GenerationCall parse(const std::string& fields) {
        HttpRequest http;
        http.body = R"({"model":"sim",)" + fields + "}";
        return parse_response(http, *loaded_.model, 77);
    }

    std::string blamed(const std::string& fields) {
        try {
            parse(fields);
        } catch (const ApiError& error) {
            return error.param + ": " + error.message;
        }
        return "nobody";
    }

    LoadedModel loaded_;
};

TEST_F(ResponsesCall, IsThatOfTheChat) {
    const GenerationCall response =
        parse(R"("instructions":"s","input":[{"role":"user","content":"u"}],"stream":true,
        "max_output_tokens":9,"temperature":0.5,"top_k":3,"text":{"format":{"type":"json_object"}},"cache_salt":"a")");
    HttpRequest http;
    const Json body = Json::parse(
        R"({"model":"sim","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],
        "stream":true,"max_tokens":9,"temperature":0.5,"top_k":3,"response_format":{"type":"json_object"},"cache_salt":"a"})");
    const GenerationCall chat = parse_chat(http, body, *loaded_.model, 77);
    EXPECT_EQ(response.request.prompts, chat.request.prompts);
    EXPECT_EQ(response.request.sampling.max_tokens, 9);
    EXPECT_EQ(response.request.sampling.temperature, 0.5f);
    EXPECT_EQ(response.request.sampling.top_k, 3);
    EXPECT_EQ(response.request.grammar, chat.request.grammar) << "compiled once for both";
    EXPECT_EQ(response.request.salt, chat.request.salt);
    EXPECT_TRUE(response.shape.stream);
    EXPECT_TRUE(chat.shape.response.empty());
}

TEST_F(ResponsesCall, RepeatsTheRequest) {
    const auto repeated = [this](const std::string& fields) {
        return Json::parse("{" + parse(fields).shape.response + "}");
    };
    const Json plain = repeated(R"("input":"x","store":true,"truncation":"auto")");
    EXPECT_EQ(plain["store"], false) << "nothing is";
    EXPECT_EQ(plain["truncation"], "disabled");
    EXPECT_EQ(plain["text"]["format"], Json::parse(R"({"type":"text"})"));
    EXPECT_EQ(plain["tools"], Json::array());
    EXPECT_EQ(plain["tool_choice"], "auto");
    EXPECT_EQ(plain["metadata"], Json::object());
    EXPECT_TRUE(plain["max_output_tokens"].is_null() && plain["previous_response_id"].is_null());
    const Json full =
        repeated(R"("input":"x","instructions":"i","max_output_tokens":7,"metadata":{"k":"v"},"user":"u",
        "tools":[{"type":"function","name":"f","parameters":{"type":"object"}}],"parallel_tool_calls":false,
        "tool_choice":{"type":"function","name":"f","usage":{"output_tokens":0}},"reasoning":{"effort":"low","more":{}},
        "text":{"format":{"type":"json_object"},"verbosity":"low","usage":{"output_tokens":0}})");
    EXPECT_EQ(full["instructions"], "i");
    EXPECT_EQ(full["max_output_tokens"], 7);
    EXPECT_EQ(full["metadata"], Json::parse(R"({"k":"v"})"));
    EXPECT_EQ(full["user"], "u");
    EXPECT_EQ(full["parallel_tool_calls"], false);
    EXPECT_EQ(
        full["tools"][0],
        Json::parse(
            R"({"type":"function","name":"f","parameters":{"type":"object"},"description":null,"strict":null})"));
    EXPECT_EQ(full["tool_choice"], Json::parse(R"({"type":"function","name":"f"})"));
    EXPECT_EQ(full["reasoning"], Json::parse(R"({"effort":"low","summary":null})"));
    EXPECT_EQ(full["text"], Json::parse(R"({"format":{"type":"json_object"},"verbosity":"low"})"));
}

// What the chat's reader finds is told by the names that the client used.
TEST_F(ResponsesCall, FaultsHaveTheNamesOfTheRequest) {
    EXPECT_THAT(blamed(R"("input":")" + std::string(600, 'x') + "\""),
                HasSubstr("input: This model's maximum"));
    EXPECT_THAT(blamed(R"("input":[{"type":"reasoning","summary":[]}])"),
                HasSubstr("input: 'input' must be"));
    EXPECT_THAT(blamed(R"("input":"x","text":{"format":{"type":"yaml"}})"),
                HasSubstr("text.format: 'text.format.type' must"));
    EXPECT_THAT(blamed(R"("input":"x","text":{"format":{"type":"json_schema","schema":{}}})"),
                HasSubstr("text.format: 'text.format.name' is required"));
    EXPECT_THAT(
        blamed(R"("input":"x","text":{"format":{"type":"json_schema","name":"n","schema":{"not":{}}}})"),
        HasSubstr("text.format: 'text.format' cannot be enforced"));
    EXPECT_THAT(blamed(R"("input":"x","tools":[{"type":"function","name":"f","parameters":7}])"),
                HasSubstr("tools[0].parameters: 'tools[0].parameters' must"));
    EXPECT_THAT(
        blamed(
            R"("input":"x","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"allowed_tools"})"),
        HasSubstr("tool_choice: "));
    EXPECT_THAT(blamed(R"("input":"x","chat_template_kwargs":{"messages":[]})"),
                HasSubstr("must not set 'messages'"));
    EXPECT_THAT(blamed(R"("input":"x","stream_options":{})"), HasSubstr("stream_options: "));
}

}  // namespace
}  // namespace llm::engine
