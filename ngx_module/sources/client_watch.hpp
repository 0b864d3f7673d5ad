// Clients from a file: what it held when the configuration was read, and every good version after that.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstddef>
#include <string>

#include "ngx_module/sources/client_file.hpp"
#include "ngx_module/sources/client_sink.hpp"
#include "ngx_module/sources/loop.hpp"

namespace llm::nginx::sources {

class ClientWatch {
  public:
    // `initial` is the file as prepare() read it, perhaps with rights that a worker does not have.
    ClientWatch(std::string path, const ClientFile& initial, const Hooks& hooks);

    // Puts the initial clients into the zone before it returns.
    void start();
    void stop();

  private:
    void look();
    void reload();
    bool add_some();
    void continue_load();

    std::string path_;
    ClientSink sink_;
    ClientFile file_;
    size_t added_ = 0;  // clients of file_ that are in the table being loaded

    FileSignature tried_;     // the version that we have read, good or bad
    FileSignature seen_;      // the version at the last look
    std::string unreadable_;  // why the file could not be read, as told; else empty
    Timer timer_;
    Continuation more_;
};

}  // namespace llm::nginx::sources
