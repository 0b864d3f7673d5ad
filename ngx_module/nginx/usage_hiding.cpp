#include "ngx_module/nginx/usage_hiding.hpp"

#include <string>

#include "ngx_module/nginx/stream_scan.hpp"

namespace llm::nginx {
namespace {

// Appends to `kept` what of `bytes` may pass, starting with what was held; what has to wait goes to `held`.
void sort_pieces(StreamScan& stream, std::string_view bytes, std::string& kept, std::string& held) {
    while (!bytes.empty()) {
        const core::UsageScan::Piece piece = stream.scan.next(bytes);
        held += bytes.substr(0, piece.size);
        bytes.remove_prefix(piece.size);
        if (piece.ends_event && piece.kind == core::StreamEvent::usage_only) {
            held.clear();
        } else if (piece.ends_event || !stream.scan.may_become_usage_only()) {
            kept += held;
            held.clear();
        }
    }
}

// A buffer with the bytes that may pass and the flags of the original; nullptr when there is neither.
ngx_buf_t* replacement(ngx_pool_t* pool, const ngx_buf_t& original, std::string_view kept) {
    if (kept.empty() && !original.last_buf && !original.flush && !original.sync) {
        return nullptr;
    }
    const ngx_str_t copy = copy_to_pool(pool, kept);
    ngx_buf_t* buffer = copy.data != nullptr ? memory_buffer(pool, view(copy)) : nullptr;
    if (buffer != nullptr) {
        buffer->memory = kept.empty() ? 0 : 1;
        buffer->flush = original.flush;
        buffer->sync = original.sync;
        buffer->last_buf = original.last_buf;
        buffer->last_in_chain = original.last_in_chain;
    }
    return buffer;
}

}  // namespace

ngx_chain_t* hide_usage(Request& request, ngx_chain_t* in) {
    StreamScan& stream = *request.scan;
    ngx_pool_t* pool = request.r->pool;
    ngx_chain_t* out = nullptr;
    ngx_chain_t** tail = &out;
    for (ngx_chain_t* link = in; link != nullptr; link = link->next) {
        ngx_buf_t* buffer = link->buf;
        const std::string_view bytes = memory_of(*buffer);
        std::string kept;
        std::string held(view(stream.held));
        sort_pieces(stream, bytes, kept, held);
        if (buffer->last_buf) {
            kept += held;  // the end, whatever it began
            held.clear();
        }
        ngx_buf_t* passed = buffer;
        if (kept.size() != bytes.size() || kept != bytes) {
            // The engine's buffer is used again as soon as it counts as sent, so what passes is a copy. Rare:
            // events seldom lie across two reads, and only one per answer is dropped.
            passed = replacement(pool, *buffer, kept);
            buffer->pos = buffer->last;
        }
        stream.held = held.empty() ? ngx_str_t{0, nullptr} : copy_to_pool(pool, held);
        if (passed == nullptr) {
            continue;
        }
        ngx_chain_t* copy = ngx_alloc_chain_link(pool);
        if (copy == nullptr) {
            return out;
        }
        copy->buf = passed;
        copy->next = nullptr;
        *tail = copy;
        tail = &copy->next;
    }
    return out;
}

}  // namespace llm::nginx
