#include "ngx_module/core/text/header_parameters.hpp"

#include <cstddef>

#include "ngx_module/core/text/ascii.hpp"

namespace llm::core {
namespace {

// tchar of RFC 9110: what names are made of.
bool is_token_byte(char c) {
    return is_alphanumeric(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

}  // namespace

std::string_view take_token(std::string_view& text) {
    size_t size = 0;
    while (size < text.size() && is_token_byte(text[size])) {
        ++size;
    }
    const std::string_view token = text.substr(0, size);
    text.remove_prefix(size);
    return token;
}

Taken take_parameter(std::string_view& text, Parameter& parameter) {
    skip_blanks(text);
    if (text.empty()) {
        return Taken::end;
    }
    if (text.front() != ';') {
        return Taken::malformed;
    }
    text.remove_prefix(1);
    skip_blanks(text);
    if (text.empty()) {
        return Taken::end;  // a trailing semicolon is common
    }
    parameter.name = take_token(text);
    if (parameter.name.empty() || text.empty() || text.front() != '=') {
        return Taken::malformed;
    }
    text.remove_prefix(1);
    parameter.escaped = false;
    size_t size = 0;
    if (text.empty() || text.front() != '"') {
        while (size < text.size() && text[size] != ';' && !is_blank(text[size])) {
            if (text[size] == '"' || text[size] == '\\') {
                return Taken::malformed;
            }
            ++size;
        }
        parameter.value = text.substr(0, size);
        text.remove_prefix(size);
        return Taken::parameter;
    }
    text.remove_prefix(1);
    while (size < text.size() && text[size] != '"') {
        if (text[size] == '\\') {
            parameter.escaped = true;
            ++size;
        }
        ++size;
    }
    if (size >= text.size()) {
        return Taken::malformed;
    }
    parameter.value = text.substr(0, size);
    text.remove_prefix(size + 1);
    return Taken::parameter;
}

}  // namespace llm::core
