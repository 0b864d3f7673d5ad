// token import: clients of another table or file, and the replacement of plain tokens by hashes.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>

#include "shared/json.hpp"
#include "shared/token_hash.hpp"
#include "tools/llmctl/client_values.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/csv.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/select_client.hpp"
#include "tools/llmctl/text.hpp"

namespace llm::ctl {
namespace {

using nginx::sources::column_by_name;
using nginx::sources::to_string;

constexpr size_t kShownReasons = 10;

bool is_database(const std::string& source) {
    return source.starts_with("postgresql://") || source.starts_with("postgres://");
}

std::string read_all(const std::string& path) {
    if (path == "-") {
        return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    }
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) {
        throw Failure(Exit::not_found, path + ": cannot be read");
    }
    return text;
}

std::vector<StoredClient> from_csv(const std::string& place, const std::string& text) {
    std::vector<CsvRow> rows;
    if (const std::string why = parse_csv(text, rows); !why.empty()) {
        throw Failure(Exit::refused, place + ": " + why);
    }
    std::vector<std::optional<Column>> columns;
    bool has_token = false;
    for (size_t i = 0; !rows.empty() && i < rows[0].size(); ++i) {
        columns.push_back(column_by_name(rows[0][i].value_or("")));
        has_token = has_token || columns.back() == Column::token || columns.back() == Column::token_sha256;
    }
    if (!has_token) {
        throw Failure(Exit::refused,
                      place + ": the first line must name the columns, token or token_sha256 among them");
    }
    std::vector<StoredClient> out;
    for (size_t i = 1; i < rows.size(); ++i) {
        if (rows[i].size() != columns.size()) {
            throw Failure(Exit::refused, place + ": row " + std::to_string(i) + " has " +
                                             std::to_string(rows[i].size()) + " fields, the first line " +
                                             std::to_string(columns.size()));
        }
        StoredClient client;
        for (size_t k = 0; k < columns.size(); ++k) {
            // MySQL and psql write NULL by name unless told otherwise
            if (columns[k] && rows[i][k] && *rows[i][k] != "NULL" && *rows[i][k] != "\\N") {
                client.values[*columns[k]] = rows[i][k];
            }
        }
        out.push_back(std::move(client));
    }
    return out;
}

std::vector<StoredClient> from_json(const std::string& place, const std::string& text) {
    Json content = Json::parse(text, nullptr, false);
    if (content.is_object() && content.contains("users")) {
        content = Json(content["users"]);
    }
    if (!content.is_array()) {
        throw Failure(Exit::refused, place + ": expected {\"users\": [{…}, …]} or an array of clients");
    }
    std::vector<StoredClient> out;
    for (const Json& item : content) {
        StoredClient client;
        for (const auto& [name, value] : item.items()) {
            const auto column = column_by_name(name);
            if (!column || value.is_null()) {
                continue;
            }
            std::string joined;
            for (const Json& one : value.is_array() ? value : Json::array()) {
                joined +=
                    (joined.empty() ? "" : ",") + (one.is_string() ? one.get<std::string>() : one.dump());
            }
            client.values[*column] = value.is_array()    ? joined
                                     : value.is_string() ? value.get<std::string>()
                                                         : value.dump();
        }
        out.push_back(std::move(client));
    }
    return out;
}

std::vector<StoredClient> read_source(const std::string& source, const std::string& format) {
    if (is_database(source)) {
        return open_table(source, false)->all();
    }
    const std::string text = read_all(source);
    const bool json = format.empty() ? source.ends_with(".json") : format == "json";
    if (!json && format.empty() && !source.ends_with(".csv")) {
        throw Failure(Exit::usage, "what is " + source + "? say --format csv or --format json");
    }
    return json ? from_json(source, text) : from_csv(source, text);
}

// Every row must be good before the first is written.
void check_all(const std::vector<StoredClient>& clients, const std::string& place) {
    std::map<std::string, size_t> seen;
    std::string reasons;
    size_t bad = 0;
    for (size_t i = 0; i < clients.size(); ++i) {
        std::string why = why_bad(clients[i].values, i + 1);
        const std::string hash = clients[i].hash();
        if (why.empty()) {
            const auto [first, is_new] = seen.emplace(hash, i + 1);
            why = is_new ? "" : "the token of row " + std::to_string(first->second) + " again";
        }
        if (!why.empty() && ++bad <= kShownReasons) {
            reasons += "\n  row " + std::to_string(i + 1) + ": " + visible(why);
        }
    }
    if (bad > 0) {
        throw Failure(Exit::refused, place + ": " + std::to_string(bad) + " of " +
                                         std::to_string(clients.size()) +
                                         " rows are bad, nothing was changed:" + reasons +
                                         (bad > kShownReasons ? "\n  …" : ""));
    }
}

int finish(const Arguments& arguments, TokenStore& store, const Json& result, const std::string& text) {
    const bool dry = arguments.has("--dry-run");
    if (!dry) {
        store.commit();
    }
    if (arguments.json()) {
        Json out = result;
        out["dry_run"] = dry;
        print_json(out);
    } else {
        print((dry ? "Would have: " : "") + text + "\n");
    }
    return 0;
}

int hash_in_place(const Arguments& arguments) {
    const auto source =
        arguments.operands().empty() ? arguments.value("--from") : std::optional(arguments.operands()[0]);
    if (source && (arguments.has("--db") || arguments.has("--file"))) {
        throw Failure(
            Exit::usage,
            "--hash-in-place changes one table: name it as the source, or with --db or --file, not both");
    }
    const auto store = !source                ? open_store(arguments, true)
                       : is_database(*source) ? open_table(*source, true)
                                              : open_file(*source, true, false);
    store->make_room_for_hashes();
    const std::vector<StoredClient> clients = store->all();
    check_all(clients, store->place());
    size_t replaced = 0;
    for (const StoredClient& client : clients) {
        if (client.values[Column::token]) {
            store->update(client.key, {{Column::token_sha256, client.hash()}, {Column::token, Value()}});
            ++replaced;
        }
    }
    const size_t before = clients.size() - replaced;
    return finish(arguments, *store, {{"replaced", replaced}, {"hashed_before", before}},
                  "replaced " + std::to_string(replaced) + " plain tokens by hashes in " + store->place() +
                      "; " + std::to_string(before) + " were hashes already.");
}

}  // namespace

int token_import(const Arguments& arguments) {
    if (arguments.has("--from") && !arguments.operands().empty()) {
        throw Failure(Exit::usage, "the source is given twice: as operand and with --from");
    }
    const std::string format = arguments.value("--format").value_or("");
    if (!format.empty() && format != "csv" && format != "json") {
        throw Failure(Exit::usage, "--format: expected csv or json");
    }
    if (arguments.has("--hash-in-place")) {
        return hash_in_place(arguments);
    }
    const auto source =
        arguments.operands().empty() ? arguments.value("--from") : std::optional(arguments.operands()[0]);
    if (!source) {
        throw Failure(Exit::usage,
                      "where from? a postgresql:// URL, a .csv or .json file; or --hash-in-place");
    }
    const std::vector<StoredClient> clients = read_source(*source, format);
    const std::string place = is_database(*source) ? "the source" : *source;
    check_all(clients, place);

    const auto store = open_store(arguments, true);
    const bool plain = arguments.has("--plain");
    if (!plain && !store->stores_hashes()) {
        throw Failure(Exit::refused, store->place() +
                                         " keeps tokens in clear only; `llmctl db upgrade` changes that, "
                                         "--plain imports plain tokens as they are");
    }
    std::map<std::string, StoredClient> known;
    for (StoredClient& client : store->all()) {
        known.emplace(client.hash(), std::move(client));
    }
    size_t added = 0;
    size_t updated = 0;
    size_t left = 0;
    for (const StoredClient& client : clients) {
        const std::string hash = client.hash();
        ClientValues values;
        Changes changes;
        for (size_t i = 0; i < kColumnCount; ++i) {
            const auto column = static_cast<Column>(i);
            if (column == Column::id || column == Column::token || column == Column::token_sha256) {
                continue;  // an id belongs to its table
            }
            if (client.values[column] && !store->has(column)) {
                throw Failure(Exit::refused, missing_column_hint(*store, column));
            }
            values[column] = client.values[column];
            if (client.values[column]) {
                changes.emplace_back(column, client.values[column]);
            }
        }
        const auto there = known.find(hash);
        if (there != known.end()) {
            if (arguments.has("--update")) {
                store->update(there->second.key, changes);
            }
            ++(arguments.has("--update") ? updated : left);
            continue;
        }
        const bool keep_plain = plain && client.values[Column::token];
        values[keep_plain ? Column::token : Column::token_sha256] =
            keep_plain ? *client.values[Column::token] : hash;
        store->insert(values);
        ++added;
    }
    return finish(arguments, *store, {{"added", added}, {"updated", updated}, {"left", left}},
                  "imported " + std::to_string(added) + " clients, updated " + std::to_string(updated) +
                      ", left " + std::to_string(left) + " as they were, in " + store->place() + ".");
}

}  // namespace llm::ctl
