// llmctl: an operator's tool for clients (database or token file), queue and engines (llm_status).
#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shared/command_line.hpp"
#include "shared/json.hpp"
#include "tools/llmctl/arguments.hpp"
#include "tools/llmctl/client_values.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/select_client.hpp"
#include "tools/llmctl/text.hpp"

namespace llm::ctl {
namespace {

std::vector<Option> with_client_options(std::vector<Option> more) {
    more.insert(more.begin(), client_options().begin(), client_options().end());
    return more;
}

const std::vector<Command>& commands() {
    static const std::string kEdit =
        "changes a client; an empty value (--weight=) clears a column\n\n" + std::string(kWhoHelp);
    static const std::string kRotate =
        "gives a client another secret, which is printed once\n\nThe former one is refused at once, or with "
        "--keep at that time: "
        "until then the client is there twice, with its limits for each. " +
        std::string(kWhoHelp);
    static const std::string kRevoke =
        "makes a token useless, queued requests included\n\nSets `disabled` where the table has that column, "
        "else deletes "
        "the row. " +
        std::string(kWhoHelp);
    static const std::vector<Command> all = {
        {"token add", "[NAME]", 0, 1,
         "makes a client and its secret, which is printed once\n\nThe secret goes to standard output, "
         "everything else to "
         "standard error. Stored is its SHA-256.\nWithout --priority it gets 1, without --threshold 10.",
         with_client_options({{"--prefix", "TEXT", "what the secret begins with [sk-]"},
                              {"--stdin", "", "take the secret from standard input instead of making one"},
                              {"--plain", "", "store the secret in clear, for a table without token_sha256"},
                              {"--create", "", "with --file: make the file if there is none"}}),
         token_add},
        {"token list", "", 0, 0, "lists clients, never secrets", {}, token_list},
        {"token edit", "WHO", 1, 1, kEdit, client_options(), token_edit},
        {"token rotate",
         "WHO",
         1,
         1,
         kRotate,
         {{"--keep", "TIME",
           "until when the former secret is good: +7d, +12h, 2026-12-31, 2026-12-31T18:00:00Z"},
          {"--prefix", "TEXT", "what the secret begins with [sk-]"},
          {"--stdin", "", "take the secret from standard input instead of making one"}},
         token_rotate},
        {"token revoke", "WHO…", 1, 1000, kRevoke, {{"--delete", "", "delete the row"}}, token_revoke},
        {"token import",
         "[SOURCE]",
         0,
         1,
         "takes clients over from another table or file\n\nSOURCE is a postgresql:// URL (Aristote "
         "Dispatcher's `users`), a "
         ".csv or .json file, or - for standard input.\nPlain tokens are stored as hashes. One bad row, and "
         "nothing is "
         "changed.\n--hash-in-place instead replaces the plain tokens of one table by hashes, all or none.",
         {{"--from", "SOURCE", "the source, as an option"},
          {"--format", "csv|json", "of a source whose name does not say it"},
          {"--update", "", "change clients that are there already; else they stay as they are"},
          {"--plain", "", "keep plain tokens plain"},
          {"--hash-in-place", "", "replace plain tokens by hashes, in SOURCE, --db or --file"},
          {"--dry-run", "", "say what would be done"}},
         token_import},
        {"db init",
         "",
         0,
         0,
         "makes the tables, triggers and views in a database\n\nTables that are there stay as they are.",
         {},
         db_init},
        {"db upgrade",
         "",
         0,
         0,
         "adds the optional columns to an existing table `users`\n\nFor Aristote Dispatcher's table: nothing "
         "is removed, "
         "and `token` may be NULL afterwards.",
         {{"--dry-run", "", "say what would be done"}},
         db_upgrade},
        {"queue", "", 0, 0, "shows who waits", {{"--all", "", "running requests too"}}, show_queue},
        {"queue cancel", "REQUEST…", 1, 1000, "ends requests, waiting or running", {}, queue_cancel},
        {"queue priority",
         "REQUEST N",
         2,
         2,
         "gives a waiting request another priority (0 to 1000)",
         {},
         queue_priority},
        {"engines", "", 0, 0, "shows engines, their load and speed", {}, show_engines},
        {"drain",
         "ENGINE",
         1,
         1,
         "gives an engine no new requests",
         {{"--wait", "S", "and wait up to S seconds until it has none left"}},
         drain_engine},
        {"undrain", "ENGINE", 1, 1, "gives an engine requests again", {}, undrain_engine},
        {"top",
         "",
         0,
         0,
         "live view; q ends it. Without a terminal: one picture",
         {{"--interval", "S", "seconds between two looks [1]"}, {"--once", "", "one picture"}},
         top},
    };
    return all;
}

// WHO may be a secret ("whose token is this?"), and everybody on the machine can read the command line:
// asterisks over all but the options' names.
void hide_secrets(int argc, char** argv) {
    constexpr std::string_view kOfWho[] = {"edit", "rotate", "revoke"};
    const std::span<char*> words(argv + 1, static_cast<size_t>(argc - 1));
    const auto names_who = [&](std::string_view word) {
        return std::ranges::find(kOfWho, word) != std::end(kOfWho);
    };
    const auto is_token = [](std::string_view word) { return word == "token"; };
    if (std::ranges::none_of(words, is_token) || std::ranges::none_of(words, names_who)) {
        return;
    }
    for (char* word : words) {
        const std::string_view text = word;
        if (!text.starts_with('-') && !is_token(text) && !names_who(text)) {
            std::memset(word, '*', text.size());
        }
    }
}

int run(const std::vector<std::string>& line) {
    bool json = false;
    for (const std::string& word : line) {
        json = json || word == "--json";
    }
    try {
        const ParsedLine parsed = parse_line(line, commands());
        if (parsed.version) {
            print("llmctl " LLM_VERSION "\n");
            return 0;
        }
        if (parsed.help) {
            print(parsed.command == nullptr ? help_of(commands()) : help_of(*parsed.command));
            return 0;
        }
        return parsed.command->run(parsed.arguments);
    } catch (const Failure& failure) {
        const int status = static_cast<int>(failure.status());
        std::fprintf(stderr, "llmctl: %s\n", failure.what());
        if (json) {
            print_json({{"error", {{"message", failure.what()}, {"status", status}}}});
        }
        return status;
    }
}

}  // namespace
}  // namespace llm::ctl

int main(int argc, char** argv) {
    std::setlocale(LC_CTYPE, "C.UTF-8");  // widths of characters
    const std::vector<std::string> line(argv + 1, argv + argc);
    llm::hide_passwords(argc, argv);
    llm::ctl::hide_secrets(argc, argv);
    const int status = llm::ctl::run(line);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
        std::fprintf(stderr, "llmctl: standard output cannot be written: %s (changes, if any, are made)\n",
                     std::strerror(errno));
        return status != 0 ? status : 1;
    }
    return status;
}
