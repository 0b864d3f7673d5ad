// Rows of the table `users`: columns separated by '\x1f', an empty first byte for NULL.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/client_row.hpp"
#include "ngx_module/sources/users_query.hpp"

namespace {

using namespace llm::nginx::sources;

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    RawRow row;
    for (size_t i = 0; i < kColumnCount && !rest.empty(); ++i) {
        const size_t end = std::min(rest.find('\x1f'), rest.size());
        if (end > 0) {
            row.text[i] = rest.substr(0, end);
        }
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    ClientRecord record;
    const std::string error = parse_client_row(row, 1, record);
    if (error.empty()) {
        require(!record.name.empty());
        const llm::core::ClientRow out = record.row();
        require(out.priority >= 0 && out.threshold >= 0 && out.row_id == row_number(record.id));
    } else {
        require(error.size() < 200);
        for (const char c : error) {
            require(c >= 0x20 && c < 0x7f);  // nothing of the row itself
        }
    }
    // what a notification may carry, and what becomes of it
    const std::string payload(reinterpret_cast<const char*>(data), size);
    if (is_row_id(payload)) {
        std::vector<std::string> back;
        require(parse_list(array_literal(std::vector<std::string>{payload}), back));
        require(back.size() == 1 && back[0] == payload);
    }
    std::vector<std::string> list;
    if (parse_list(payload, list)) {
        std::vector<std::string> again;
        require(parse_list(array_literal(list), again) && again == list);
    }
    int64_t seconds = 0;
    require(!parse_time(payload, seconds) || seconds >= 0);
    return 0;
}
