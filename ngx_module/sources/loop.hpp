// Small tools for background work on nginx's event loop: a timer that keeps no worker alive, log lines that
// appear once a minute however often their cause does, and what a connection's failures lead to.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <string_view>
#include <utility>

#include "ngx_module/sources/backoff.hpp"

namespace llm::nginx::sources {

// A one-shot timer owned by an object. Cancelable: a worker that is asked to leave does not wait for it.
// The object must not move while the timer exists.
class Timer {
  public:
    using Handler = void (*)(void* owner);

    Timer(Handler handler, void* owner) : owner_(owner), handler_(handler) {
        event_.handler = [](ngx_event_t* event) {
            auto* timer = static_cast<Timer*>(event->data);
            timer->handler_(timer->owner_);
        };
        event_.data = this;
        event_.cancelable = 1;
    }
    ~Timer() { stop(); }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

    // Fires once, `delay` milliseconds from now; replaces an earlier setting.
    void start(ngx_msec_t delay) {
        stop();
        event_.log = ngx_cycle->log;
        ngx_add_timer(&event_, delay);
    }

    void stop() {
        if (event_.timer_set) {
            ngx_del_timer(&event_);
        }
    }

    bool running() const { return event_.timer_set; }

  private:
    // nginx's debug log reads an int behind three pointers of whatever `data` points to, as in
    // ngx_connection_t
    void* owner_;
    Handler handler_;
    [[maybe_unused]] void* unused_ = nullptr;
    [[maybe_unused]] int ident_ = -1;
    ngx_event_t event_{};
};

// Runs work again on the next round of the event loop, after the other connections had their turn. For
// handlers that stop in the middle because they have used up their share of time.
class Continuation {
  public:
    using Handler = Timer::Handler;

    Continuation(Handler handler, void* owner) : owner_(owner), handler_(handler) {
        event_.handler = [](ngx_event_t* event) {
            auto* self = static_cast<Continuation*>(event->data);
            self->handler_(self->owner_);
        };
        event_.data = this;
    }
    ~Continuation() { cancel(); }
    Continuation(const Continuation&) = delete;
    Continuation& operator=(const Continuation&) = delete;

    void post() {
        event_.log = ngx_cycle->log;
        ngx_post_event(&event_, &ngx_posted_next_events);
    }

    void cancel() {
        if (event_.posted) {
            ngx_delete_posted_event(&event_);
        }
    }

  private:
    void* owner_;
    Handler handler_;
    [[maybe_unused]] void* unused_ = nullptr;
    [[maybe_unused]] int ident_ = -1;
    ngx_event_t event_{};
};

// Lets one event through per minute. Time is nginx's monotonic milliseconds.
class OncePerMinute {
  public:
    bool pass() {
        if (used_ && ngx_current_msec - last_ < 60'000) {
            return false;
        }
        used_ = true;
        last_ = ngx_current_msec;
        return true;
    }
    // The next event passes again: the trouble was over in between.
    void reset() { used_ = false; }

  private:
    bool used_ = false;
    ngx_msec_t last_ = 0;
};

// The failures of one connection: how long to wait after each, and which of them to tell in the log. A server
// that takes connections only to drop them, or refuses what is asked of it, stays one trouble: only a
// connection that stood for kSettledMs ends it, else each attempt would be the first, with its own two lines.
class Outage {
  public:
    Outage(uint32_t first_ms, uint32_t cap_ms) : backoff_(first_ms, cap_ms) {}

    // The connection stands. True: this is news, as its loss was told.
    bool end() {
        standing_ = true;
        since_ = ngx_current_msec;
        return std::exchange(told_, false);
    }
    // It broke, or could not be made, for `reason`. True: tell it, if `may_tell`. Within a minute a few other
    // reasons are told too: what it broke for says nothing of why it is not made again.
    bool begin(std::string_view reason, bool may_tell) {
        if (std::exchange(standing_, false) && ngx_current_msec - since_ >= kSettledMs) {
            backoff_.reset();
            complaint_.reset();
        }
        const bool tell = may_tell && is_news(std::hash<std::string_view>{}(reason));
        told_ = told_ || tell;
        return tell;
    }
    // Milliseconds until the next attempt.
    ngx_msec_t pause() { return backoff_.next(static_cast<uint32_t>(ngx_random())); }

  private:
    static constexpr ngx_msec_t kSettledMs = 5'000;
    static constexpr size_t kReasonsPerMinute = 3;

    bool is_news(size_t reason) {
        if (complaint_.pass()) {
            reasons_ = 0;
        }
        const auto end = told_reasons_.begin() + static_cast<std::ptrdiff_t>(reasons_);
        if (reasons_ == kReasonsPerMinute || std::find(told_reasons_.begin(), end, reason) != end) {
            return false;
        }
        told_reasons_[reasons_++] = reason;
        return true;
    }

    Backoff backoff_;
    OncePerMinute complaint_;
    std::array<size_t, kReasonsPerMinute> told_reasons_{};  // hashes, of the last minute
    size_t reasons_ = 0;
    bool standing_ = false;
    bool told_ = false;
    ngx_msec_t since_ = 0;
};

// True once this process is on its way out: nothing new may be started or armed.
inline bool leaving() {
    return ngx_exiting || ngx_terminate || ngx_quit;
}

}  // namespace llm::nginx::sources
