// Client files: any bytes are either refused with a place, or give valid clients; tokens never reach a
// message.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ngx_module/sources/client_file.hpp"

namespace {

using namespace llm::nginx::sources;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    ClientFile file;
    const std::string error = parse_client_file(text, file);
    if (!error.empty()) {
        require(error.starts_with("line "));
        require(file.clients.empty() && file.skipped.empty());
        return 0;
    }
    for (const ClientRecord& client : file.clients) {
        require(!client.name.empty() && client.name.size() <= llm::core::kMaxNameBytes);
        require(client.organization.size() <= llm::core::kMaxOrgBytes);
        require(client.models.size() <= llm::core::kMaxModelListBytes);
        require(client.priority >= 0 && client.priority <= llm::core::kMaxPriority);
        require(client.threshold >= 0 && client.expires_at >= 0);
        require(client.weight >= 0 && client.weight <= 1e6);
    }
    for (const std::string& skipped : file.skipped) {
        require(skipped.size() < 400);
    }
    return 0;
}
