#include "ngx_module/nginx/request_memory.hpp"

#include <new>

namespace llm::nginx {
namespace {

// Pieces of one size that were given back, linked through their first word.
template <size_t size>
class Recycled {
  public:
    // Uninitialised; nullptr when memory is short.
    void* take(ngx_log_t* log) {
        Piece* piece = first_;
        if (piece == nullptr) {
            return ngx_alloc(size, log);
        }
        first_ = piece->next;
        --count_;
        return piece;
    }

    void give_back(void* memory) {
        if (count_ == kMost) {
            ngx_free(memory);
            return;
        }
        first_ = new (memory) Piece{first_};
        ++count_;
    }

  private:
    struct Piece {
        Piece* next;
    };

    // under AddressSanitizer none: else whoever uses memory that was given back would not be seen
    static constexpr size_t kMost = LLM_ASAN ? 0 : 512;
    Piece* first_ = nullptr;
    size_t count_ = 0;
};

Recycled<sizeof(Request)> requests;
Recycled<kRoomSize> rooms;

void on_pool_end(void* data) {
    auto* request = static_cast<Request*>(data);
    if (request->room != nullptr) {
        rooms.give_back(request->room);
    }
    requests.give_back(request);
}

}  // namespace

Request* new_request(ngx_http_request_t* main) {
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(main->pool, 0);
    void* memory = cleanup == nullptr ? nullptr : requests.take(main->connection->log);
    if (memory == nullptr) {
        return nullptr;
    }
    auto* request = new (memory) Request();
    cleanup->handler = on_pool_end;
    cleanup->data = request;
    return request;
}

bool open_room(Request& request) {
    request.room = static_cast<u_char*>(rooms.take(request.r->connection->log));
    if (request.room == nullptr) {
        return false;
    }
#if LLM_ASAN
    __asan_poison_memory_region(request.room, kRoomSize);
#endif
    return true;
}

}  // namespace llm::nginx
