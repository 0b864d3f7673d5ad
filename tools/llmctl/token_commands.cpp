// token add, list, edit, rotate, revoke.
#include <chrono>
#include <cstdio>
#include <unordered_set>

#include "shared/json.hpp"
#include "shared/token_hash.hpp"
#include "tools/llmctl/client_values.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/secret.hpp"
#include "tools/llmctl/select_client.hpp"
#include "tools/llmctl/text.hpp"

namespace llm::ctl {
namespace {

using nginx::sources::to_string;

constexpr int kDefaultThreshold = 10;

int64_t now_s() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

// active, disabled, expired, or why the gateway skips the row.
std::string state_of(const StoredClient& client, size_t position) {
    ClientValues values = client.values;
    std::string why = why_bad(values, position);
    if (why.empty()) {
        why = client.wrong;
    }
    if (!why.empty()) {
        return "bad row: " + why;
    }
    const Value& disabled = values[Column::disabled];
    if (disabled && nginx::sources::parse_flag(*disabled) == true) {
        return "disabled";
    }
    int64_t expires = 0;
    if (values[Column::expires_at] && nginx::sources::parse_time(*values[Column::expires_at], expires) &&
        expires != 0 && expires <= now_s()) {
        return "expired";
    }
    return "active";
}

// Of several good rows with one token a gateway takes the first.
void mark_repeated(std::vector<StoredClient>& clients) {
    std::unordered_set<std::string> seen;
    for (size_t i = 0; i < clients.size(); ++i) {
        StoredClient& client = clients[i];
        ClientValues values = client.values;
        if (client.wrong.empty() && why_bad(values, i + 1).empty() && !seen.insert(client.hash()).second) {
            client.wrong = "its token is that of an earlier row";
        }
    }
}

Json json_value(Column column, const std::string& text) {
    switch (column) {
        case Column::priority:
        case Column::threshold:
        case Column::weight:
        case Column::band:
        case Column::max_running:
        case Column::tokens_per_minute:
        case Column::id: {
            const Json value = Json::parse(text, nullptr, false);
            return value.is_number() ? value : Json(text);
        }
        case Column::disabled: {
            const auto flag = nginx::sources::parse_flag(text);
            return flag ? Json(*flag) : Json(text);
        }
        case Column::models: {
            std::vector<std::string> models;
            nginx::sources::parse_list(text, models);
            return models;
        }
        default:
            return text;
    }
}

// Everything of a client but its secret.
Json json_of(const StoredClient& client, size_t position) {
    Json out = Json::object();
    for (size_t i = 0; i < kColumnCount; ++i) {
        const auto column = static_cast<Column>(i);
        if (column != Column::token && column != Column::token_sha256) {
            const Value& value = client.values[column];
            out[std::string(to_string(column))] = value ? json_value(column, *value) : Json();
        }
    }
    out["fingerprint"] = fingerprint(client);
    out["stored"] = client.values[Column::token] ? "plain" : "hash";
    out["state"] = state_of(client, position);
    return out;
}

std::string shown(const Value& value) {
    return value ? *value : "-";
}

void need_columns(const TokenStore& store, const Changes& changes) {
    for (const auto& [column, value] : changes) {
        if (value && !store.has(column)) {
            throw Failure(Exit::refused, missing_column_hint(store, column));
        }
    }
}

// Before anything is looked up or changed: of a secret that is given nothing is left to choose.
void check_secret_options(const Arguments& arguments) {
    if (arguments.has("--stdin") && arguments.has("--prefix")) {
        throw Failure(Exit::usage, "--prefix and --stdin exclude each other");
    }
}

// What --stdin or --prefix and chance say.
std::string new_secret(const Arguments& arguments) {
    return arguments.has("--stdin") ? read_secret()
                                    : make_secret(arguments.value("--prefix").value_or("sk-"));
}

std::string hash_of(const std::string& secret) {
    return to_hex(hash_token(secret));
}

void refuse_known_secret(const std::vector<StoredClient>& clients, const std::string& secret) {
    const std::string hash = hash_of(secret);
    for (const StoredClient& other : clients) {
        if (other.hash() == hash) {
            throw Failure(Exit::refused, "this secret is there already: it belongs to " + label(other));
        }
    }
}

void set_secret(ClientValues& values, bool plain, const std::string& secret) {
    values[Column::token] = plain ? Value(secret) : Value();
    values[Column::token_sha256] = plain ? Value() : Value(hash_of(secret));
}

// The new client, whose secret it is.
void print_with_secret(const StoredClient& client, const std::string& secret, Json more = Json::object()) {
    Json out = json_of(client, 1);
    out["token"] = secret;
    out.update(more);
    print_json(out);
}

// `said` and the secret, unless it came from outside.
void show_secret(const Arguments& arguments, const std::string& said, const std::string& secret) {
    const bool ours = !arguments.has("--stdin");
    std::fprintf(stderr, "%s%s\n", said.c_str(), ours ? " This is its secret; it is shown once:" : "");
    if (ours) {
        print(secret + "\n");
    }
}

// The earlier of two times, of which `other` may be none or none that can be read.
std::string earlier(const std::string& time, const Value& other) {
    int64_t one = 0;
    int64_t two = 0;
    nginx::sources::parse_time(time, one);
    return other && nginx::sources::parse_time(*other, two) && two != 0 && two < one ? *other : time;
}

// The row goes on as it is until `end`, so that no gateway misses its token between two changes; `client`
// becomes a row beside it.
void end_secret(TokenStore& store, const StoredClient& former, const std::string& end, StoredClient& client) {
    store.update(former.key, {{Column::expires_at, end}});
    client.values[Column::id].reset();
    if (const std::string id = store.insert(client.values); !id.empty()) {
        client.values[Column::id] = id;
    }
}

void replace_secret(TokenStore& store, const StoredClient& former, const StoredClient& client) {
    Changes changes;
    for (const Column column : {Column::token, Column::token_sha256}) {
        if (client.values[column] != former.values[column]) {
            changes.emplace_back(column, client.values[column]);
        }
    }
    store.update(former.key, changes);
}

// What becomes of a secret that has a successor. `end`: none = at once.
std::string fate_of(const StoredClient& former, const Value& end) {
    return end ? "the former secret is good until " + *end +
                     " and can be taken out then (`llmctl token revoke --delete sha256:" +
                     fingerprint(former) + "`)."
               : "the former secret is refused from now on.";
}

}  // namespace

int token_add(const Arguments& arguments) {
    Changes given = changes_from(arguments);
    ClientValues values;
    for (const auto& [column, value] : given) {
        values[column] = value;
    }
    if (!arguments.operands().empty()) {
        if (values[Column::name]) {
            throw Failure(Exit::usage, "the name is given twice: as operand and with --name");
        }
        values[Column::name] = arguments.operands()[0];
    }
    if (!values[Column::name] || values[Column::name]->empty()) {
        throw Failure(Exit::usage, "who gets the token? `llmctl token add NAME`");
    }
    values[Column::priority] = values[Column::priority].value_or("1");
    values[Column::threshold] = values[Column::threshold].value_or(std::to_string(kDefaultThreshold));
    check_secret_options(arguments);

    const auto store = open_store(arguments, true);
    need_columns(*store, given);
    const bool plain = arguments.has("--plain");
    if (!plain && !store->stores_hashes()) {
        throw Failure(Exit::refused,
                      store->place() +
                          " keeps tokens in clear only (no column token_sha256, or token must not be NULL); "
                          "`llmctl db upgrade` changes that, --plain stores this token in clear");
    }
    const std::string secret = new_secret(arguments);
    set_secret(values, plain, secret);
    StoredClient client;
    client.values = values;
    if (const std::string why = why_bad(values, 1); !why.empty()) {
        throw Failure(Exit::usage, why);
    }
    refuse_known_secret(store->all(), secret);
    const std::string id = store->insert(values);
    store->commit();
    if (!id.empty()) {
        client.values[Column::id] = id;
    }
    if (arguments.json()) {
        print_with_secret(client, secret);
        return 0;
    }
    show_secret(arguments, "Added " + label(client) + " to " + store->place() + ".", secret);
    return 0;
}

int token_list(const Arguments& arguments) {
    const auto store = open_store(arguments, false);
    std::vector<StoredClient> clients = store->all();
    mark_repeated(clients);
    if (arguments.json()) {
        Json out = Json::array();
        for (size_t i = 0; i < clients.size(); ++i) {
            out.push_back(json_of(clients[i], i + 1));
        }
        print_json(out);
        return 0;
    }
    // Columns in which nobody has anything are left out.
    constexpr Column kOptional[] = {
        Column::organization, Column::email,     Column::client_type, Column::default_routing_mode,
        Column::weight,       Column::band,      Column::max_running, Column::tokens_per_minute,
        Column::models,       Column::expires_at};
    std::vector<Column> columns;
    for (const Column column : kOptional) {
        for (const StoredClient& client : clients) {
            if (client.values[column] && !client.values[column]->empty()) {
                columns.push_back(column);
                break;
            }
        }
    }
    std::vector<std::string> head = {">ID", "NAME", ">PRIORITY", ">THRESHOLD"};
    for (const Column column : columns) {
        std::string name(to_string(column));
        for (char& c : name) {
            c = c == '_' ? ' ' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        }
        head.push_back(name);
    }
    head.insert(head.end(), {"FINGERPRINT", "STORED", "STATE"});
    Table table(head);
    for (size_t i = 0; i < clients.size(); ++i) {
        const ClientValues& values = clients[i].values;
        std::vector<std::string> cells = {shown(values[Column::id]), shown(values[Column::name]),
                                          shown(values[Column::priority]), shown(values[Column::threshold])};
        for (const Column column : columns) {
            cells.push_back(shown(values[column]));
        }
        cells.push_back(fingerprint(clients[i]));
        cells.push_back(values[Column::token] ? "plain" : "hash");
        cells.push_back(state_of(clients[i], i + 1));
        table.add(cells);
    }
    print(table.text());
    return 0;
}

int token_edit(const Arguments& arguments) {
    const Changes changes = changes_from(arguments);
    if (changes.empty()) {
        throw Failure(Exit::usage, "nothing to change; `llmctl token edit --help` lists what can be");
    }
    const auto store = open_store(arguments, true);
    need_columns(*store, changes);
    const std::vector<StoredClient> clients = store->all();
    StoredClient client = select_client(clients, arguments.operands()[0]);
    Changes possible;
    for (const auto& change : changes) {
        if (store->has(change.first)) {  // clearing a column that is not there has happened already
            possible.push_back(change);
            client.values[change.first] = change.second;
        }
    }
    store->update(client.key, possible);
    store->commit();
    if (arguments.json()) {
        print_json(json_of(client, 1));
    } else {
        print("Changed " + label(client) + ".\n");
    }
    return 0;
}

int token_rotate(const Arguments& arguments) {
    check_secret_options(arguments);
    const auto keep = arguments.value("--keep");
    const Value until = keep ? time_of("--keep", *keep) : Value();
    if (keep && !until) {
        throw Failure(Exit::usage, "--keep: the former secret must end at some time");
    }
    const auto store = open_store(arguments, true);
    if (keep && !store->has(Column::expires_at)) {
        throw Failure(Exit::refused, missing_column_hint(*store, Column::expires_at));
    }
    const std::string secret = new_secret(arguments);
    store->lock();  // of two at once the second finds what the first has left
    const std::vector<StoredClient> clients = store->all();
    const StoredClient& former = select_client(clients, arguments.operands()[0]);
    refuse_known_secret(clients, secret);

    StoredClient client = former;
    // stored as the former one was: who keeps tokens in clear has a reason
    set_secret(client.values, former.values[Column::token].has_value(), secret);
    if (const std::string why = why_bad(client.values, 1); !why.empty()) {
        throw Failure(Exit::refused, label(former) + " would be skipped by gateways: " + why);
    }
    const Value end = until ? Value(earlier(*until, former.values[Column::expires_at])) : Value();
    if (end) {
        end_secret(*store, former, *end, client);
    } else {
        replace_secret(*store, former, client);
    }
    store->commit();
    if (arguments.json()) {
        print_with_secret(
            client, secret,
            {{"former", {{"fingerprint", fingerprint(former)}, {"expires_at", end ? Json(*end) : Json()}}}});
        return 0;
    }
    const std::string state = state_of(client, 1);
    show_secret(arguments,
                "Rotated " + label(former) + ": " + fate_of(former, end) +
                    (state != "active" ? " It stays " + state + '.' : "") + " It is " + label(client) +
                    " now.",
                secret);
    return 0;
}

int token_revoke(const Arguments& arguments) {
    const auto store = open_store(arguments, true);
    const std::vector<StoredClient> clients = store->all();
    Json out = Json::array();
    std::string text;
    std::unordered_set<std::string> done;
    for (const std::string& who : arguments.operands()) {
        const StoredClient& client = select_client(clients, who);
        if (!done.insert(client.key).second) {
            continue;  // named twice
        }
        // A row that stays keeps the name that usage records refer to.
        const bool remove = arguments.has("--delete") || !store->has(Column::disabled);
        if (remove) {
            store->remove(client.key);
        } else {
            store->update(client.key, {{Column::disabled, "true"}});
        }
        Json one = {
            {"id", client.values[Column::id] ? json_value(Column::id, *client.values[Column::id]) : Json()},
            {"name", client.values[Column::name] ? Json(*client.values[Column::name]) : Json()},
            {"fingerprint", fingerprint(client)},
            {"deleted", remove}};
        out.push_back(std::move(one));
        text += (remove ? "Revoked and deleted " : "Revoked ") + label(client) + ".\n";
    }
    store->commit();
    if (arguments.json()) {
        print_json(out);
    } else {
        print(text);
    }
    return 0;
}

}  // namespace llm::ctl
