// What each command does. They return an exit status and throw Failure.
#pragma once

#include <vector>

#include "tools/llmctl/arguments.hpp"

namespace llm::ctl {

int token_add(const Arguments& arguments);
int token_list(const Arguments& arguments);
int token_edit(const Arguments& arguments);
int token_rotate(const Arguments& arguments);
int token_revoke(const Arguments& arguments);
int token_import(const Arguments& arguments);
int db_init(const Arguments& arguments);
int db_upgrade(const Arguments& arguments);
int show_queue(const Arguments& arguments);
int queue_cancel(const Arguments& arguments);
int queue_priority(const Arguments& arguments);
int show_engines(const Arguments& arguments);
int drain_engine(const Arguments& arguments);
int undrain_engine(const Arguments& arguments);
int top(const Arguments& arguments);

}  // namespace llm::ctl
