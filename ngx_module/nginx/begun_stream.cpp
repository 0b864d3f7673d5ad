#include "ngx_module/nginx/begun_stream.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ngx_module/nginx/abnormal_end.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/stream_scan.hpp"

namespace llm::nginx {
namespace {

constexpr size_t kMostCollected = 16 << 10;  // bytes; errors of engines are shorter

// What is sent meanwhile is not subject to limit_rate: nginx's proxy, which sends a stream without it, would
// cancel the timer of a write that it has put off.
class Unlimited {
  public:
    explicit Unlimited(ngx_http_request_t* r) : r_(r), rate_(r->limit_rate), set_(r->limit_rate_set) {
        r->limit_rate = 0;
        r->limit_rate_set = 1;
    }
    Unlimited(const Unlimited&) = delete;
    Unlimited& operator=(const Unlimited&) = delete;
    ~Unlimited() {
        r_->limit_rate = rate_;
        r_->limit_rate_set = set_ ? 1 : 0;
    }

  private:
    ngx_http_request_t* r_;
    size_t rate_;
    bool set_;
};

// The client has been told that nothing is encoded.
void ask_for_plain_answer(ngx_http_request_t* r) {
    for (ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        auto* header = static_cast<ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            if (lower_case_name(header[i]) == "accept-encoding") {
                header[i].value = to_ngx("identity");
            }
        }
    }
}

// Gives nginx an empty head for the answer to come.
bool prepare_another_head(ngx_http_request_t* r) {
    ngx_http_headers_out_t& head = r->headers_out;
    if (ngx_list_init(&head.headers, r->pool, 8, sizeof(ngx_table_elt_t)) != NGX_OK ||
        ngx_list_init(&head.trailers, r->pool, 2, sizeof(ngx_table_elt_t)) != NGX_OK) {
        return false;
    }
    ngx_http_clean_header(r);
    r->header_sent = 0;
    return true;
}

void restore_contexts(ngx_http_request_t* r, const BegunStream& begun) {
    for (ngx_uint_t i = 0; i < ngx_http_max_module; ++i) {
        if (r->ctx[i] == nullptr) {
            r->ctx[i] = begun.contexts[i];
        }
    }
}

bool collect(ngx_http_request_t* r, BegunStream& begun, std::string_view bytes) {
    if (bytes.empty() || !begun.collected_all) {
        return true;
    }
    if (begun.collected == nullptr) {
        begun.collected = static_cast<u_char*>(ngx_palloc(r->pool, kMostCollected));
        if (begun.collected == nullptr) {
            return false;
        }
    }
    begun.collected_all = bytes.size() <= kMostCollected - begun.collected_size;
    if (begun.collected_all) {
        append_text(begun.collected + begun.collected_size, bytes);
        begun.collected_size += bytes.size();
    }
    return true;
}

// What the answer's body says of its failure, in the form of OpenAI's errors: {"error":…}. Some engines
// refuse with the object that belongs there. Empty when it is neither.
std::string error_of(std::string_view body, bool refused) {
    if (body.starts_with("\xef\xbb\xbf")) {
        return {};  // a byte order mark, which would not stand at the begin of anything
    }
    const auto document = nlohmann::json::parse(body, nullptr, false);
    if (!document.is_object()) {
        return {};
    }
    const auto is_text = [](const nlohmann::json& value) {
        const auto* text = value.get_ptr<const std::string*>();
        return text != nullptr && !text->empty();
    };
    std::string text(body);
    // between the tokens of JSON only: strings hold no such bytes
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    const auto error = document.find("error");
    if (error != document.end() && (is_text(*error) || (error->is_object() && !error->empty()))) {
        return text;
    }
    const auto message = document.find("message");
    return refused && message != document.end() && is_text(*message) ? R"({"error":)" + text + "}"
                                                                     : std::string();
}

ngx_str_t describe_refusal(ngx_pool_t* pool, ngx_uint_t status) {
    constexpr size_t kCapacity = 64;
    auto* text = static_cast<u_char*>(ngx_pnalloc(pool, kCapacity));
    if (text == nullptr) {
        return ngx_null_string;
    }
    const u_char* end = ngx_snprintf(text, kCapacity, "The engine answered with status %ui.", status);
    return {static_cast<size_t>(end - text), text};
}

// The error object that stands for the answer; data == nullptr when memory is short.
ngx_str_t error_object(Request& request) {
    const BegunStream& begun = *request.begun;
    ngx_pool_t* pool = request.r->pool;
    if (request.error_body.len != 0) {
        const ngx_str_t body = request.error_body;  // the gateway's own
        request.error_body.len = 0;
        return body;
    }
    const bool refused = begun.status >= NGX_HTTP_SPECIAL_RESPONSE;
    if (begun.collected_all && begun.collected != nullptr) {
        const std::string error =
            error_of({reinterpret_cast<const char*>(begun.collected), begun.collected_size}, refused);
        if (!error.empty()) {
            return copy_to_pool(pool, error);
        }
    }
    Refusal refusal;
    refusal.code = ErrorCode::engine_error;
    refusal.detail =
        refused ? describe_refusal(pool, begun.status) : to_ngx("The engine's answer is no event stream.");
    return error_body(pool, refusal, NGX_HTTP_BAD_GATEWAY);
}

}  // namespace

bool begin_stream(Request& request) {
    ngx_http_request_t* r = request.r;
    auto* begun = static_cast<BegunStream*>(ngx_pcalloc(r->pool, sizeof(BegunStream)));
    const size_t contexts_size = ngx_http_max_module * sizeof(void*);
    if (begun == nullptr) {
        return false;
    }
    begun->contexts = static_cast<void**>(ngx_palloc(r->pool, contexts_size));
    if (begun->contexts == nullptr) {
        return false;
    }
    r->headers_out.status = NGX_HTTP_OK;
    ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = nullptr;
    r->disable_not_modified = 1;
    r->filter_need_in_memory = 1;  // asked for with the first buffer, whatever the answer will be
    if (!add_cache_control(r, to_ngx("no-cache")) ||
        !add_response_header(r, "X-Accel-Buffering", to_ngx("no"))) {
        return false;
    }
    const Unlimited unlimited(r);
    const ngx_int_t sent = ngx_http_send_header(r);
    if (sent == NGX_ERROR || sent > NGX_OK || r->header_only) {
        return false;
    }
    begun->head = r->headers_out;
    ngx_memcpy(begun->contexts, r->ctx, contexts_size);
    if (!prepare_another_head(r)) {
        return false;
    }
    ask_for_plain_answer(r);
    r->error_page = 1;  // what it leads to would need a head
    request.begun = begun;
    request.broken_off = true;  // as long as nothing follows
    return true;
}

bool send_between(Request& request, ngx_buf_t* buffer) {
    ngx_http_request_t* r = request.r;
    BegunStream& begun = *request.begun;
    const BegunStream::Follows follows = begun.follows;
    StreamScan* scan = request.scan;
    restore_contexts(r, begun);
    request.scan = nullptr;  // the filters take it for no answer
    begun.follows = BegunStream::Follows::unknown;
    ngx_chain_t out{buffer, nullptr};
    const Unlimited unlimited(r);
    const ngx_int_t sent = ngx_http_output_filter(r, buffer != nullptr ? &out : nullptr);
    begun.follows = follows;
    request.scan = scan;
    return sent != NGX_ERROR;
}

ngx_int_t take_head(Request& request) {
    ngx_http_request_t* r = request.r;
    BegunStream& begun = *request.begun;
    begun.status = r->headers_out.status;
    r->headers_out = begun.head;
    r->err_status = 0;
    r->header_sent = 1;
    r->header_only = 0;
    restore_contexts(r, begun);
    if (request.scan != nullptr && request.scan->event_stream && request.scan->readable) {
        begun.follows = BegunStream::Follows::stream;
        request.broken_off = false;
        return NGX_OK;
    }
    begun.follows = BegunStream::Follows::event;
    begun.collected_all = true;
    r->keepalive = 0;
    // nginx would connect client and engine past all filters
    return r->upstream != nullptr && r->upstream->upgrade ? NGX_ERROR : NGX_OK;
}

void note_answer(BegunStream& begun, const ngx_chain_t* in) {
    for (; in != nullptr && !begun.answered; in = in->next) {
        begun.answered = ngx_buf_size(in->buf) != 0 || in->buf->last_buf;
    }
}

ngx_int_t replace_answer(Request& request, ngx_chain_t* in, ngx_http_output_body_filter_pt next) {
    ngx_http_request_t* r = request.r;
    BegunStream& begun = *request.begun;
    bool last = false;
    for (; in != nullptr; in = in->next) {
        ngx_buf_t& buffer = *in->buf;
        if (request.error_body.len == 0 && !collect(r, begun, memory_of(buffer))) {
            return NGX_ERROR;
        }
        last = last || buffer.last_buf;
        buffer.pos = buffer.last;
        buffer.file_pos = buffer.file_last;
    }
    if (!last || begun.follows == BegunStream::Follows::nothing) {
        return NGX_OK;
    }
    begun.follows = BegunStream::Follows::nothing;
    ngx_buf_t* event = event_buffer(r->pool, error_object(request));
    if (event == nullptr) {
        return NGX_ERROR;
    }
    ngx_chain_t out{event, nullptr};
    const ngx_int_t sent = next(r, &out);
    if (only_close_ends(r)) {
        r->connection->error = 1;  // no lingering, which begins with an orderly end
    }
    return sent;
}

void end_with_event(Request& request, ErrorCode code) {
    ngx_http_request_t* r = request.r;
    BegunStream& begun = *request.begun;
    if (begun.follows == BegunStream::Follows::nothing || r->connection->error) {
        return;
    }
    begun.follows = BegunStream::Follows::nothing;
    ngx_buf_t* event = event_buffer(r->pool, error_body(r->pool, code));
    if (event != nullptr) {
        send_between(request, event);
    }
}

}  // namespace llm::nginx
