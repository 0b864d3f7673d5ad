// A gateway, seen through its llm_status handler.
#pragma once

#include <string>

#include "shared/http_client.hpp"
#include "tools/llmctl/arguments.hpp"
#include "tools/llmctl/text.hpp"

namespace llm::ctl {

class Gateway {
  public:
    // --url, else $LLM_STATUS_URL, else http://127.0.0.1:8080/llm/; "…/status.json" is taken too.
    explicit Gateway(const Arguments& arguments);

    // status.json. Throws: unreachable, or refused with the status and what was expected.
    Json status();

    // A change, with the header that admits it. `what` is what is looked for ("engine x"), for the 404.
    void change(const std::string& method, const std::string& path, const std::string& body,
                const std::string& what);

    // To be shown: without user and password.
    const std::string& url() const { return shown_url_; }

  private:
    HttpReply ask(const HttpRequest& request);

    std::string url_;  // ends in '/'
    std::string shown_url_;
    HttpClient client_;
};

// Reading status.json without trusting it: what is missing or of another type is empty or 0.
std::string text_of(const Json& object, const char* name);
double number_of(const Json& object, const char* name);
bool flag_of(const Json& object, const char* name);
const Json& list_of(const Json& object, const char* name);
const Json& object_of(const Json& object, const char* name);

}  // namespace llm::ctl
