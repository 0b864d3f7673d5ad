// A head that parse_response_head() takes is put together again from its parts, byte for byte but for spaces,
// and lies within the input; names are found again under the same entry.
#include "ngx_module/core/text/response_head.hpp"

#include <algorithm>
#include <string>

#include "tests/fuzz/text/fuzz_input.hpp"

namespace {

std::string without_spaces(std::string_view text) {
    std::string kept(text);
    std::erase(kept, ' ');
    return kept;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace llm::core;
    static HeaderNames names;
    const std::unique_ptr<char[]> copy(new char[size]);
    std::copy(data, data + size, copy.get());
    const char* const begin = copy.get();
    ResponseHead head;
    if (!parse_response_head(begin, begin + size, begin + size, head)) {
        return 0;
    }
    require(head.end > begin && head.end <= begin + size, "the head lies within the input");
    require(head.status >= 200 && head.status <= 599, "a final status");
    std::string again = "HTTP/1.1 " + std::string(head.status_line) + "\r\n";
    for (size_t i = 0; i < head.count; ++i) {
        const HeadField& field = head.fields[i];
        again += std::string(field.name) + ":" + std::string(field.value) + "\r\n";
        require(field.value.empty() || (field.value.front() != ' ' && field.value.back() != ' '),
                "a trimmed value");
        for (char c : field.value) {
            require(static_cast<uint8_t>(c) >= 0x20, "no control byte in a value");
        }
        const HeaderName* name = names.intern(
            field.name, static_cast<size_t>(begin + size - field.name.data()), [](HeaderName&) {});
        require(name == nullptr || std::string_view(name->text, name->length) == field.name,
                "the name it asked for");
    }
    again += "\r\n";
    require(without_spaces(again) == without_spaces({begin, static_cast<size_t>(head.end - begin)}),
            "nothing is lost");
    return 0;
}
