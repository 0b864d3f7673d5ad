// nlohmann-json for programs that are built with exceptions: include this instead of the library's own header. Its parsers and
// its serializer are compiled once, in json.cpp, instead of in every file that reads or writes JSON.
#pragma once

#include <nlohmann/json.hpp>

// Names of the library's inside, so of the versions known to have them. They parse a std::string and a std::string_view.
#if NLOHMANN_JSON_VERSION_MAJOR == 3 && NLOHMANN_JSON_VERSION_MINOR == 11
namespace nlohmann::detail {
extern template class lexer<json, iterator_input_adapter<std::string::const_iterator>>;
extern template class lexer<json, iterator_input_adapter<const char*>>;
extern template class lexer<ordered_json, iterator_input_adapter<std::string::const_iterator>>;
extern template class lexer<ordered_json, iterator_input_adapter<const char*>>;
extern template class parser<json, iterator_input_adapter<std::string::const_iterator>>;
extern template class parser<json, iterator_input_adapter<const char*>>;
extern template class parser<ordered_json, iterator_input_adapter<std::string::const_iterator>>;
extern template class parser<ordered_json, iterator_input_adapter<const char*>>;
extern template class serializer<json>;
extern template class serializer<ordered_json>;
}  // namespace nlohmann::detail
#endif
