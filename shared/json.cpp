#include "shared/json.hpp"

#if NLOHMANN_JSON_VERSION_MAJOR == 3 && NLOHMANN_JSON_VERSION_MINOR == 11
namespace nlohmann::detail {
template class lexer<json, iterator_input_adapter<std::string::const_iterator>>;
template class lexer<json, iterator_input_adapter<const char*>>;
template class lexer<ordered_json, iterator_input_adapter<std::string::const_iterator>>;
template class lexer<ordered_json, iterator_input_adapter<const char*>>;
template class parser<json, iterator_input_adapter<std::string::const_iterator>>;
template class parser<json, iterator_input_adapter<const char*>>;
template class parser<ordered_json, iterator_input_adapter<std::string::const_iterator>>;
template class parser<ordered_json, iterator_input_adapter<const char*>>;
template class serializer<json>;
template class serializer<ordered_json>;
}  // namespace nlohmann::detail
#endif
