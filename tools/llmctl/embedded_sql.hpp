// The SQL files of conf/, part of the program.
#pragma once

#include <string_view>

namespace llm::ctl {

std::string_view schema_sql();  // tables users and metrics
std::string_view notify_sql();  // triggers that tell gateways of changes
std::string_view usage_sql();   // views over metrics

}  // namespace llm::ctl
