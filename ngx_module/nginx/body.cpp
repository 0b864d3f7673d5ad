#include "ngx_module/nginx/body.hpp"

#include <openssl/evp.h>
#include <sys/mman.h>
#include <algorithm>
#include <cstdio>
#include <optional>

#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/json_write.hpp"
#include "ngx_module/core/text/multipart.hpp"
#include "ngx_module/core/text/prefix_keys.hpp"
#include "ngx_module/nginx/conf.hpp"

namespace llm::nginx {
namespace {

constexpr size_t kFilePiece = 64 * 1024;
constexpr uint32_t kBytesPerToken = 4;  // rule of thumb for English text; usage corrects it

// Hands every piece of the body to `take`. False on a read error of the temporary file.
template <class Take>
bool walk_body(ngx_http_request_t* r, Take take) {
    if (r->request_body == nullptr) {
        return true;
    }
    for (ngx_chain_t* link = r->request_body->bufs; link != nullptr; link = link->next) {
        ngx_buf_t* buffer = link->buf;
        if (ngx_buf_in_memory(buffer)) {
            take(std::string_view(reinterpret_cast<char*>(buffer->pos),
                                  static_cast<size_t>(buffer->last - buffer->pos)));
            continue;
        }
        if (!buffer->in_file) {
            continue;
        }
        if (buffer->file->fd == NGX_INVALID_FILE) {
            return false;  // nginx closes it once the answer has begun
        }
        auto* piece = static_cast<u_char*>(ngx_palloc(r->pool, kFilePiece));
        if (piece == nullptr) {
            return false;
        }
        for (off_t at = buffer->file_pos; at < buffer->file_last;) {
            const auto size = static_cast<size_t>(std::min<off_t>(buffer->file_last - at, kFilePiece));
            const ssize_t read = ngx_read_file(buffer->file, piece, size, at);
            if (read <= 0) {
                return false;
            }
            take(std::string_view(reinterpret_cast<char*>(piece), static_cast<size_t>(read)));
            at += read;
        }
        ngx_pfree(r->pool, piece);
    }
    return true;
}

// "The request body is not valid: <text> near byte <offset>.", or with ('<key>') in its place, in `pool`.
ngx_str_t describe(ngx_pool_t* pool, const char* text, std::string_view key, uint64_t offset) {
    constexpr size_t kCapacity = 256;
    auto* buffer = static_cast<u_char*>(ngx_pnalloc(pool, kCapacity));
    if (buffer == nullptr) {
        return ngx_null_string;
    }
    const ngx_str_t name = to_ngx(key);
    u_char* end = key.empty() ? ngx_snprintf(buffer, kCapacity,
                                             "The request body is not valid: %s near byte %uL.", text, offset)
                              : ngx_snprintf(buffer, kCapacity, "The request body is not valid: %s ('%V').",
                                             text, &name);
    return {static_cast<size_t>(end - buffer), buffer};
}

void refuse_scan(Request& request, core::ErrorKind kind, const char* text, std::string_view key,
                 uint64_t offset, Refusal& refusal) {
    switch (kind) {
        case core::ErrorKind::empty:
            refusal.code = ErrorCode::model_required;
            return;
        case core::ErrorKind::value_too_long:
            if (key == "model") {  // no engine has one of such a name
                refusal.code = ErrorCode::model_not_found;
                return;
            }
            // a routing mode of such a length is simply a bad one
            refusal.code = ErrorCode::invalid_json;
            refusal.param = to_ngx(key);
            return;
        default:
            refusal.code = ErrorCode::invalid_json;
            refusal.param = to_ngx(key);
            refusal.detail = describe(request.r->pool, text, key, offset);
    }
}

bool routing_mode_of(Request& request, const core::ControlKeys& keys, Refusal& refusal) {
    request.mode = request.default_mode;
    if (!keys.has_routing_mode) {
        return true;
    }
    const std::string_view mode = keys.routing_mode();
    if (!core::parse_routing_mode(mode, request.mode)) {
        refusal.code = ErrorCode::invalid_json;
        refusal.param = to_ngx("routing-mode");
        refusal.detail =
            to_ngx("The value of 'routing-mode' must be 'any', 'private-first' or 'private-only'.");
        refusal.compat_detail = copy_to_pool(request.r->pool, mode);
        return false;
    }
    return true;
}

bool take_keys(Request& request, const core::ControlKeys& keys, Refusal& refusal) {
    if (!routing_mode_of(request, keys, refusal)) {
        return false;
    }
    request.client_model = copy_to_pool(request.r->pool, keys.has_model ? keys.model() : std::string_view{});
    request.model = request.client_model;
    request.stream = keys.stream.value_or(false);
    request.has_priority = keys.priority.has_value();
    request.client_priority = keys.priority.value_or(0);
    const uint64_t seats = uint64_t{keys.n.value_or(1)} * keys.prompt_count;
    request.seats = static_cast<uint32_t>(std::clamp<uint64_t>(seats, 1, 1'000'000));
    const uint64_t prompt = keys.text_bytes / kBytesPerToken + keys.prompt_tokens_given;
    request.prompt_tokens = static_cast<uint32_t>(std::min<uint64_t>(prompt, 0x7fffffff));
    request.max_output_tokens = keys.output_limit().value_or(0);
    request.wants_usage = keys.include_usage.value_or(false);
    request.model_span = keys.model_span;
    request.priority_span = keys.priority_span;
    request.stream_options_span = keys.stream_options_span;
    request.include_usage_span = keys.include_usage_span;
    request.object_end = keys.object_end;
    request.object_empty = keys.object_empty;
    request.stream_options_empty = keys.stream_options_empty;
    return request.client_model.data != nullptr;
}

template <class Scanner>
bool finish_scan(Request& request, Scanner& scanner, bool read, Refusal& refusal) {
    if (!read) {
        refusal.code = ErrorCode::internal_error;
        return false;
    }
    if (!scanner.finish()) {
        refuse_scan(request, scanner.error_kind(), scanner.error(), scanner.error_key(), scanner.error_offset(),
                    refusal);
        return false;
    }
    return take_keys(request, scanner.keys(), refusal);
}

bool is_multipart(const Request& request, std::string_view& type) {
    const ngx_table_elt_t* header = request.r->headers_in.content_type;
    type = header != nullptr ? view(header->value) : std::string_view{};
    return core::MultipartScan::is_multipart(type);
}

struct Mapping {
    void* start;
    size_t size;
};

void unmap(void* data) {
    const auto& mapping = *static_cast<const Mapping*>(data);
    munmap(mapping.start, mapping.size);
}

// A buffer over the mapped temporary file of a body; nullptr when that fails.
ngx_buf_t* mapped(ngx_pool_t* pool, const ngx_buf_t& source) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(Mapping));
    if (cleanup == nullptr) {
        return nullptr;
    }
    const auto size = static_cast<size_t>(source.file_last);
    void* start = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, source.file->fd, 0);
    if (start == MAP_FAILED) {
        return nullptr;
    }
    *static_cast<Mapping*>(cleanup->data) = {start, size};
    cleanup->handler = unmap;
    return memory_buffer(
        pool, std::string_view(static_cast<char*>(start), size).substr(static_cast<size_t>(source.file_pos)));
}

// `chain` with its file mapped into memory. For a repeated attempt nginx rewinds a file to where the piece
// before it ended, which would bring back what was spliced out.
bool without_file(ngx_pool_t* pool, const ngx_chain_t* chain, ngx_chain_t*& out) {
    ngx_chain_t** tail = &out;
    for (; chain != nullptr; chain = chain->next) {
        const bool only_file = chain->buf->in_file && !ngx_buf_in_memory(chain->buf);
        ngx_chain_t* link = ngx_alloc_chain_link(pool);
        ngx_buf_t* buffer = only_file ? mapped(pool, *chain->buf) : chain->buf;
        if (link == nullptr || buffer == nullptr) {
            return false;
        }
        link->buf = buffer;
        link->next = nullptr;
        *tail = link;
        tail = &link->next;
    }
    return true;
}

// A run of `chain` that holds the bytes [begin, end) of the body, as new buffers over the same memory.
bool append_range(ngx_pool_t* pool, ngx_chain_t* chain, uint64_t begin, uint64_t end, ngx_chain_t**& tail) {
    uint64_t at = 0;
    for (; chain != nullptr && at < end; chain = chain->next) {
        const ngx_buf_t* source = chain->buf;
        const auto size = static_cast<uint64_t>(ngx_buf_size(source));
        const uint64_t from = std::max(begin, at);
        const uint64_t to = std::min(end, at + size);
        if (from < to) {
            auto* piece = static_cast<ngx_buf_t*>(ngx_palloc(pool, sizeof(ngx_buf_t)));
            ngx_chain_t* link = ngx_alloc_chain_link(pool);
            if (piece == nullptr || link == nullptr) {
                return false;
            }
            *piece = *source;
            const auto skip = static_cast<off_t>(from - at);
            const auto keep = static_cast<off_t>(to - from);
            piece->pos = source->pos + skip;
            piece->last = piece->pos + keep;
            piece->start = piece->pos;  // a repeated attempt rewinds to start
            piece->end = piece->last;
            piece->in_file = 0;
            piece->last_buf = 0;
            link->buf = piece;
            link->next = nullptr;
            *tail = link;
            tail = &link->next;
        }
        at += size;
    }
    return true;
}

bool append_new_text(ngx_pool_t* pool, const ngx_str_t& text, ngx_chain_t**& tail) {
    ngx_buf_t* piece = memory_buffer(pool, view(text));
    ngx_chain_t* link = ngx_alloc_chain_link(pool);
    if (piece == nullptr || link == nullptr) {
        return false;
    }
    link->buf = piece;
    link->next = nullptr;
    *tail = link;
    tail = &link->next;
    return true;
}

ngx_str_t quoted(ngx_pool_t* pool, std::string_view text) {
    const size_t capacity = core::JsonWriter::escaped_size(text);
    auto* buffer = static_cast<char*>(ngx_pnalloc(pool, capacity));
    if (buffer == nullptr) {
        return {0, nullptr};
    }
    core::JsonWriter out(buffer, capacity);
    out.string(text);
    return to_ngx(out.text());
}

// A member for the end of an object, behind a comma when there are others.
ngx_str_t model_member(ngx_pool_t* pool, std::string_view model, bool comma) {
    constexpr std::string_view kKey = ",\"model\":";
    const size_t capacity = kKey.size() + core::JsonWriter::escaped_size(model);
    auto* buffer = static_cast<char*>(ngx_pnalloc(pool, capacity));
    if (buffer == nullptr) {
        return {0, nullptr};
    }
    const std::string_view key = comma ? kKey : kKey.substr(1);
    core::JsonWriter out(buffer, capacity);
    out.raw(key);
    out.string(model);
    return to_ngx(out.text());
}

ngx_str_t formatted(ngx_pool_t* pool, const char* format, int32_t value) {
    constexpr size_t kCapacity = 64;
    auto* buffer = static_cast<u_char*>(ngx_pnalloc(pool, kCapacity));
    if (buffer == nullptr) {
        return {0, nullptr};
    }
    const int size = std::snprintf(reinterpret_cast<char*>(buffer), kCapacity, format, value);
    return {static_cast<size_t>(size), buffer};
}

// Chat and text completions; the streams of other interfaces (/v1/responses, /v1/messages) say their usage
// unasked, and may refuse a key they do not know.
bool knows_stream_options(const ngx_http_request_t* r) {
    return view(r->uri).ends_with("/completions");
}

// A replacement of body bytes: [span.begin, span.end) becomes `text`. An empty span inserts.
struct Splice {
    core::Span span;
    ngx_str_t text;  // data == nullptr: memory was short
};

// What is to be changed in a body.
struct Edits {
    Splice splices[3];  // one of each function below
    size_t count = 0;
    bool has_members = false;  // the object has some, the client's or ours: a new one needs a comma

    void add(const core::Span& span, const ngx_str_t& text) { splices[count++] = {span, text}; }
};

// Applies splices in ascending order of position, without copying the rest of the body (a temporary file is mapped);
// adjusts the length. False when memory is short.
bool splice_body(ngx_http_request_t* r, const Edits& edits) {
    ngx_chain_t* body = nullptr;
    if (!without_file(r->pool, r->request_body->bufs, body)) {
        return false;
    }
    ngx_chain_t* result = nullptr;
    ngx_chain_t** tail = &result;
    uint64_t at = 0;
    off_t change = 0;
    for (size_t i = 0; i < edits.count; ++i) {
        if (!append_range(r->pool, body, at, edits.splices[i].span.begin, tail) ||
            !append_new_text(r->pool, edits.splices[i].text, tail)) {
            return false;
        }
        at = edits.splices[i].span.end;
        change += static_cast<off_t>(edits.splices[i].text.len) -
                  static_cast<off_t>(edits.splices[i].span.end - edits.splices[i].span.begin);
    }
    if (!append_range(r->pool, body, at, UINT64_MAX, tail)) {
        return false;
    }
    // what a subrequest was made with stays as it is
    auto* rewritten = static_cast<ngx_http_request_body_t*>(ngx_palloc(r->pool, sizeof(ngx_http_request_body_t)));
    if (rewritten == nullptr) {
        return false;
    }
    *rewritten = *r->request_body;
    rewritten->bufs = result;
    r->request_body = rewritten;
    r->headers_in.content_length_n += change;
    return true;
}

// A place for a new member: before the closing brace of the body.
core::Span end_of_object(const Request& request) {
    return {request.object_end, request.object_end};
}

void replace_model(const Request& request, bool multipart, Edits& edits) {
    ngx_pool_t* pool = request.r->pool;
    if (!request.model_span.empty()) {
        edits.add(request.model_span, multipart ? request.model : quoted(pool, view(request.model)));
    } else if (!multipart) {
        edits.add(end_of_object(request), model_member(pool, view(request.model), edits.has_members));
        edits.has_members = true;
    }
}

void inject_usage(const Request& request, Edits& edits) {
    const core::Span& options = request.stream_options_span;
    if (!request.include_usage_span.empty()) {
        edits.add(request.include_usage_span, to_ngx("true"));
    } else if (!options.empty() && options.end - options.begin > 4) {
        // an object: a member goes before its closing brace
        edits.add({options.end - 1, options.end - 1},
                  to_ngx(request.stream_options_empty ? "\"include_usage\":true" : ",\"include_usage\":true"));
    } else if (!options.empty()) {
        edits.add(options, to_ngx("{\"include_usage\":true}"));  // null or {}
    } else {
        edits.add(end_of_object(request), to_ngx(edits.has_members
                                                     ? ",\"stream_options\":{\"include_usage\":true}"
                                                     : "\"stream_options\":{\"include_usage\":true}"));
        edits.has_members = true;
    }
}

// vLLM's own `priority`: lower is sooner, 0 for the gateway's 5 and above.
void set_vllm_priority(const Request& request, Edits& edits) {
    ngx_pool_t* pool = request.r->pool;
    const int32_t value = std::max(5 - request.priority, 0);
    if (!request.priority_span.empty()) {
        edits.add(request.priority_span, formatted(pool, "%d", value));
    } else {
        edits.add(end_of_object(request),
                  formatted(pool, edits.has_members ? ",\"priority\":%d" : "\"priority\":%d", value));
    }
}

}  // namespace

bool scan_body(Request& request, Refusal& refusal) {
    std::string_view type;
    if (is_multipart(request, type)) {
        core::MultipartScan scanner;
        scanner.begin(type);
        const bool read = walk_body(request.r, [&](std::string_view piece) { scanner.feed(piece); });
        return finish_scan(request, scanner, read, refusal);
    }
    core::JsonScan scanner;
    std::optional<core::PrefixHash> prefix;
    if (static_cast<core::RoutingPolicy>(main_conf(request.r).routing) == core::RoutingPolicy::prefix) {
        prefix.emplace();
    }
    const bool read = walk_body(request.r, [&](std::string_view piece) {
        scanner.feed(piece);
        if (prefix) {
            prefix->feed(piece);
        }
    });
    if (prefix) {
        request.prefix = prefix->keys();
    }
    return finish_scan(request, scanner, read, refusal);
}

bool rewrite_body(Request& request) {
    ngx_http_request_t* r = request.r;
    const LocConf& conf = loc_conf(r);
    std::string_view type;
    const bool multipart = is_multipart(request, type);
    Edits edits;
    edits.has_members = !request.object_empty;
    if (request.model.data != request.client_model.data &&
        view(request.model) != view(request.client_model)) {
        replace_model(request, multipart, edits);
    }
    request.usage_injected = conf.usage_inject && request.stream && !request.wants_usage && !multipart &&
                             knows_stream_options(r);
    if (request.usage_injected) {
        inject_usage(request, edits);
    }
    if (conf.engine_priority == kEnginePriorityVllm && !multipart) {
        set_vllm_priority(request, edits);  // after the others: becomes the last member
    }
    if (edits.count == 0) {
        return true;
    }
    for (size_t i = 0; i < edits.count; ++i) {
        if (edits.splices[i].text.data == nullptr) {
            return false;
        }
    }
    // two insertions at the closing brace keep the order in which they were made
    std::stable_sort(edits.splices, edits.splices + edits.count,
                     [](const Splice& a, const Splice& b) { return a.span.begin < b.span.begin; });
    request.client_body = r->request_body;
    request.client_body_length = r->headers_in.content_length_n;
    return splice_body(r, edits);
}

bool hash_body(ngx_http_request_t* r, ngx_str_t& digest) {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    if (context == nullptr || EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) {
        EVP_MD_CTX_free(context);
        return false;
    }
    const bool read =
        walk_body(r, [&](std::string_view piece) { EVP_DigestUpdate(context, piece.data(), piece.size()); });
    TokenHash hash;
    unsigned size = 0;
    const bool hashed = read && EVP_DigestFinal_ex(context, hash.data(), &size) == 1;
    EVP_MD_CTX_free(context);
    if (!hashed) {
        return false;
    }
    digest = copy_to_pool(r->pool, to_hex(hash));
    return digest.data != nullptr;
}

bool copy_body(ngx_http_request_t* r, size_t limit, std::string& text) {
    bool fits = true;
    const bool read = walk_body(r, [&](std::string_view piece) {
        fits = fits && piece.size() <= limit - text.size();
        if (fits) {
            text += piece;
        }
    });
    return read && fits;
}

}  // namespace llm::nginx
