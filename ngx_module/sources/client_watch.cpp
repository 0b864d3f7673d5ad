#include "ngx_module/sources/client_watch.hpp"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace llm::nginx::sources {
namespace {

// A change is taken up at the second look that shows the same version, so that nobody's half-written file is
// read: within half a second.
constexpr ngx_msec_t kLookMs = 250;
constexpr size_t kClientsPerRun = 1'000;  // below 1 ms; below 3 ms while the pages of the zone are new

}  // namespace

ClientWatch::ClientWatch(std::string path, const ClientFile& initial, const Hooks& hooks)
    : path_(path),
      sink_(hooks, std::move(path)),
      file_(initial),
      tried_(initial.signature),
      seen_(initial.signature),
      timer_([](void* self) { static_cast<ClientWatch*>(self)->look(); }, this),
      more_([](void* self) { static_cast<ClientWatch*>(self)->continue_load(); }, this) {}

void ClientWatch::start() {
    sink_.begin();
    added_ = 0;
    while (add_some()) {
    }
    timer_.start(kLookMs);
    // the master has read it, perhaps as root
    if (access(path_.c_str(), R_OK) != 0) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, ngx_errno,
                      "llm: workers cannot read %s: a change of it, such as a revoked token, is seen at a reload only; let their "
                      "group read it (chgrp)",
                      path_.c_str());
    }
}

void ClientWatch::stop() {
    timer_.stop();
    more_.cancel();
    sink_.abandon();
}

void ClientWatch::look() {
    if (leaving()) {
        return;
    }
    timer_.start(kLookMs);
    const FileSignature now = file_signature(path_);
    const bool settled = now == std::exchange(seen_, now);
    if (settled && now != tried_) {
        reload();
    }
}

void ClientWatch::reload() {
    ClientFile fresh;
    const std::string error = read_client_file(path_, fresh);
    // It may have changed again since the look. One that could not be read is tried again at the next: no signature tells of its
    // rights, nor of a lack of descriptors that is over.
    tried_ = fresh.signature;
    const bool news = tried_ != FileSignature{} || error != unreadable_;
    unreadable_ = tried_ != FileSignature{} ? "" : error;
    if (!error.empty()) {
        if (news) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: %s; the clients known so far stay", error.c_str());
        }
        return;
    }
    file_ = std::move(fresh);
    sink_.begin();
    added_ = 0;
    more_.post();
}

void ClientWatch::continue_load() {
    if (add_some()) {
        more_.post();
    }
}

// False when the load is complete.
bool ClientWatch::add_some() {
    if (added_ == 0) {
        for (const std::string& skipped : file_.skipped) {
            const size_t colon = std::min(skipped.find(": "), skipped.size());
            sink_.skip(skipped.substr(0, colon), skipped.substr(std::min(colon + 2, skipped.size())));
        }
    }
    const size_t end = std::min(added_ + kClientsPerRun, file_.clients.size());
    for (; added_ < end; ++added_) {
        if (!sink_.add(file_.clients[added_])) {
            added_ = file_.clients.size();
            break;
        }
    }
    if (added_ < file_.clients.size()) {
        return true;
    }
    sink_.commit();
    if (sink_.reads_again()) {
        sink_.begin();
        added_ = 0;
        return true;
    }
    sink_.source_state(true);
    file_ = ClientFile{};  // the zone has it now
    return false;
}

}  // namespace llm::nginx::sources
