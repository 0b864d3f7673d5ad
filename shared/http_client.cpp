#include "shared/http_client.hpp"

#include <curl/curl.h>

#include <memory>

namespace llm {
namespace {

struct Answer {
    std::string* body;
    size_t limit;
    bool too_long = false;
};

size_t take_body(const char* data, size_t size, size_t count, void* to) {
    auto& answer = *static_cast<Answer*>(to);
    const size_t bytes = size * count;
    if (answer.body->size() + bytes > answer.limit) {
        answer.too_long = true;
        return 0;  // ends the transfer
    }
    answer.body->append(data, bytes);
    return bytes;
}

struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

long milliseconds(double seconds) {
    return static_cast<long>(seconds * 1000) + 1;  // 0 would mean "for ever"
}

}  // namespace

HttpClient::HttpClient(const HttpClientOptions& options) : options_(options) {
    static const CURLcode ready =
        curl_global_init(CURL_GLOBAL_DEFAULT);  // once, and before any thread of ours
    curl_ = ready == CURLE_OK ? curl_easy_init() : nullptr;
}

HttpClient::~HttpClient() {
    if (curl_ != nullptr) {
        curl_easy_cleanup(curl_);
    }
}

std::string HttpClient::send(const HttpRequest& request, HttpReply& out) {
    out = HttpReply{};
    unreachable_ = false;
    if (curl_ == nullptr) {
        return "libcurl cannot be used";
    }
    CURL* curl = curl_;
    curl_easy_reset(curl);  // keeps the connections
    Answer answer{&out.body, options_.max_body};
    char why[CURL_ERROR_SIZE] = "";
    curl_slist* list = nullptr;
    for (const auto& [name, value] : request.headers) {
        list = curl_slist_append(list, (name + ": " + value).c_str());
    }
    list = curl_slist_append(list, "Expect:");  // no waiting for a 100
    const std::unique_ptr<curl_slist, FreeList> headers(list);
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, milliseconds(options_.timeout_s));
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options_.connect_timeout_s));
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "llm-dispatch/" LLM_VERSION);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (!options_.ca_file.empty()) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, options_.ca_file.c_str());
    }
    if (request.method != "GET") {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.c_str());
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    }
    const CURLcode result = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);  // what ends the connection later may fail, too
    if (result != CURLE_OK) {
        out.body.clear();
        unreachable_ = result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST;
        // of these two libcurl also says how long they took: no two would be alike
        const bool timed = result == CURLE_OPERATION_TIMEDOUT || result == CURLE_COULDNT_CONNECT;
        return answer.too_long        ? "the answer is longer than " + std::to_string(options_.max_body) + " bytes"
               : why[0] != 0 && !timed ? why
                                       : curl_easy_strerror(result);
    }
    long status = 0;
    const char* type = nullptr;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    out.status = static_cast<int>(status);
    out.content_type = type == nullptr ? "" : type;
    return "";
}

std::string HttpClient::get(const std::string& url, HttpReply& out) {
    HttpRequest request;
    request.url = url;
    return send(request, out);
}

std::string percent_encode(std::string_view text) {
    constexpr std::string_view kPlain = "-._~";
    constexpr char kDigits[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (letter || kPlain.find(c) != std::string_view::npos) {
            out += c;
        } else {
            out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
        }
    }
    return out;
}

std::string check_http_url(std::string_view text) {
    const size_t scheme = text.starts_with("http://") ? 7 : text.starts_with("https://") ? 8 : 0;
    const std::string_view host = text.substr(scheme, text.find_first_of("/?#", scheme) - scheme);
    if (scheme == 0 || host.empty() || text.find_first_of(" \t\r\n\"\\") != std::string_view::npos) {
        return "expected http://host[:port]/… or https://…";
    }
    return "";
}

}  // namespace llm
