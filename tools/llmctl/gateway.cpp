#include "tools/llmctl/gateway.hpp"

#include <cstdlib>

#include "shared/json.hpp"
#include "tools/llmctl/failure.hpp"

namespace llm::ctl {
namespace {

HttpClientOptions client_options_of(const Arguments& arguments) {
    HttpClientOptions out;
    out.max_body = size_t{64} << 20;
    out.ca_file = arguments.value("--ca-file").value_or("");
    return out;
}

// The message of an OpenAI error object, or nothing.
std::string message_of(const std::string& body) {
    const Json content = Json::parse(body, nullptr, false);
    const auto error = content.is_object() ? content.find("error") : content.end();
    return content.is_object() && error != content.end() ? text_of(*error, "message") : "";
}

// A URL as it may be shown: without user and password.
std::string without_user(const std::string& url) {
    const size_t begin = url.find("://") + 3;
    const size_t at = url.substr(0, url.find_first_of("/?#", begin)).rfind('@');
    return at == std::string::npos ? url : url.substr(0, begin) + url.substr(at + 1);
}

}  // namespace

Gateway::Gateway(const Arguments& arguments) : client_(client_options_of(arguments)) {
    const char* environment = std::getenv("LLM_STATUS_URL");
    url_ = arguments.value("--url").value_or(
        environment != nullptr && *environment != 0 ? environment : "http://127.0.0.1:8080/llm/");
    if (const std::string why = check_http_url(url_); !why.empty()) {
        throw Failure(Exit::usage, "--url: " + why);
    }
    url_.erase(std::min(url_.find_first_of("?#"), url_.size()));
    if (url_.ends_with("/status.json")) {
        url_.erase(url_.size() - std::string_view("status.json").size());
    }
    if (!url_.ends_with('/')) {
        url_ += '/';
    }
    shown_url_ = without_user(url_);
}

HttpReply Gateway::ask(const HttpRequest& request) {
    HttpReply reply;
    if (const std::string why = client_.send(request, reply); !why.empty()) {
        throw Failure(Exit::unreachable, "the gateway at " + without_user(request.url) + " cannot be reached: " + why);
    }
    return reply;
}

Json Gateway::status() {
    const HttpReply reply = ask({"GET", url_ + "status.json", {}, ""});
    const Json content = Json::parse(reply.body, nullptr, false);
    if (reply.status != 200) {
        const std::string message = message_of(reply.body);
        throw Failure(Exit::refused, shown_url_ + "status.json answered " + std::to_string(reply.status) +
                                         (message.empty() ? "" : ": " + visible(message)) +
                                         "; expected a location with llm_status that lets this host in");
    }
    if (!content.is_object() || !content.contains("engines") || !content.contains("requests")) {
        throw Failure(Exit::refused,
                      shown_url_ + "status.json answered no status (" +
                          (reply.content_type.empty() ? "no content type" : visible(reply.content_type)) +
                          "); expected a location with llm_status");
    }
    return content;
}

void Gateway::change(const std::string& method, const std::string& path, const std::string& body,
                     const std::string& what) {
    HttpRequest request{method, url_ + path, {{"x-llm-admin", "llmctl"}}, body};
    if (!body.empty()) {
        request.headers.emplace_back("Content-Type", "application/json");
    }
    const HttpReply reply = ask(request);
    const Json content = Json::parse(reply.body, nullptr, false);
    if (reply.status == 200 && content.is_object() && flag_of(content, "ok")) {
        return;
    }
    const std::string message = message_of(reply.body);
    if (reply.status == 404 && !message.empty()) {
        throw Failure(Exit::not_found, "the gateway has no " + what);
    }
    throw Failure(Exit::refused, shown_url_ + path + " answered " + std::to_string(reply.status) +
                                     (message.empty() ? "; expected a location with llm_status admin"
                                                      : ": " + visible(message)));
}

std::string text_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

double number_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() && found->is_number() ? found->get<double>() : 0;
}

bool flag_of(const Json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() && found->is_boolean() && found->get<bool>();
}

const Json& list_of(const Json& object, const char* name) {
    static const Json kNone = Json::array();
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() && found->is_array() ? *found : kNone;
}

const Json& object_of(const Json& object, const char* name) {
    static const Json kNone = Json::object();
    const auto found = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && found != object.end() && found->is_object() ? *found : kNone;
}

}  // namespace llm::ctl
