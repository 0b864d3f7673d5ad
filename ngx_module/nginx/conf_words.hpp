// Reading the words of a directive.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <charconv>
#include <string_view>

namespace llm::nginx {

// What a directive's handler returns: NGX_CONF_OK or one of these.
inline char* const kError = static_cast<char*>(NGX_CONF_ERROR);
inline char* const kDuplicate = const_cast<char*>("is duplicate");

inline ngx_str_t* words(ngx_conf_t* cf) {
    return static_cast<ngx_str_t*>(cf->args->elts);
}

// Where a directive stands: for what can be checked only when all of them have been read.
struct ConfPlace {
    u_char* file = nullptr;
    ngx_uint_t line = 0;
};

inline ConfPlace place_of(ngx_conf_t* cf) {
    return {.file = cf->conf_file->file.name.data, .line = cf->conf_file->line};
}

// As long as it lives, ngx_conf_log_error() speaks of that place; of the present one when the directive was not given.
class AtPlace {
  public:
    AtPlace(ngx_conf_t* cf, const ConfPlace& place) : cf_(cf), present_(cf->conf_file) {
        if (place.file != nullptr) {
            there_.file.name.data = place.file;
            there_.line = place.line;
            cf->conf_file = &there_;
        }
    }
    ~AtPlace() { cf_->conf_file = present_; }
    AtPlace(const AtPlace&) = delete;
    AtPlace& operator=(const AtPlace&) = delete;

  private:
    ngx_conf_t* cf_;
    ngx_conf_file_t* present_;
    ngx_conf_file_t there_{};
};

inline char* refuse(ngx_conf_t* cf, const ngx_str_t& value, const char* allowed) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": invalid value \"%V\", %s", &words(cf)[0], &value,
                       allowed);
    return kError;
}

// The text after "name=" when the word begins so.
inline bool take_parameter(const ngx_str_t& word, std::string_view name, std::string_view& value) {
    const std::string_view text = view(word);
    if (!text.starts_with(name) || text.size() == name.size() || text[name.size()] != '=') {
        return false;
    }
    value = text.substr(name.size() + 1);
    return true;
}

// Refuses word `i` when it is a parameter, or a flag, that a word before it has given: all behind the
// directive's own value are looked at. The value is not repeated, as it may be a secret.
inline char* check_given_once(ngx_conf_t* cf, ngx_uint_t i) {
    const auto name_of = [cf](ngx_uint_t at) {
        const std::string_view text = view(words(cf)[at]);
        return text.substr(0, text.find('='));
    };
    for (ngx_uint_t before = 2; before < i; ++before) {
        if (name_of(before) == name_of(i)) {
            const ngx_str_t name = to_ngx(name_of(i));
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": the parameter \"%V\" may be given once",
                               &words(cf)[0], &name);
            return kError;
        }
    }
    return NGX_CONF_OK;
}

template <class Integer>
bool parse_integer(std::string_view text, Integer& out) {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
    return !text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size();
}

inline bool parse_milliseconds(std::string_view text, ngx_msec_t& out) {
    ngx_str_t copy = to_ngx(text);
    const ngx_int_t parsed = ngx_parse_time(&copy, 0);
    constexpr ngx_int_t kLongest = ngx_int_t{100} * 366 * 86'400'000;  // 100 years; in microseconds it fits too
    if (parsed == NGX_ERROR || parsed > kLongest) {
        return false;
    }
    out = static_cast<ngx_msec_t>(parsed);
    return true;
}

}  // namespace llm::nginx
