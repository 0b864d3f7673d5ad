// Where clients are kept: the table `users` of a database, or a token file.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ngx_module/sources/client_row.hpp"
#include "tools/llmctl/arguments.hpp"
#include "tools/llmctl/database.hpp"

namespace llm::ctl {

using nginx::sources::Column;
using nginx::sources::kColumnCount;

// The values of one client, in text; `models` as a comma list.
struct ClientValues {
    std::array<Value, kColumnCount> text;
    Value& operator[](Column column) { return text[static_cast<size_t>(column)]; }
    const Value& operator[](Column column) const { return text[static_cast<size_t>(column)]; }
};

// Changes to one client: the columns named, nothing = NULL.
using Changes = std::vector<std::pair<Column, Value>>;

struct StoredClient {
    std::string key;  // names the row in its store
    ClientValues values;
    std::string wrong;  // why a gateway skips the row, where that cannot be told from `values`

    // SHA-256 of its token in lower-case hex: from token_sha256, else of the plain token. Empty = it has
    // neither.
    std::string hash() const;
};

// One open store. A command reads, changes, and ends with commit(): without that nothing has happened.
class TokenStore {
  public:
    virtual ~TokenStore() = default;
    virtual std::string place() const = 0;      // for messages: "the table users of host:5432/db"
    virtual bool has(Column column) const = 0;  // whether it can be stored here
    virtual bool stores_hashes() const = 0;     // whether a client may have a hash and no plain token
    virtual void make_room_for_hashes() = 0;    // makes stores_hashes() true
    // Others' changes wait until this one's end, and are seen by all() from here on.
    virtual void lock() = 0;
    virtual std::vector<StoredClient> all() = 0;
    // Returns the id of the new client, empty where the store has none.
    virtual std::string insert(const ClientValues& values) = 0;
    // Both throw a failure where the client is gone meanwhile.
    virtual void update(const std::string& key, const Changes& changes) = 0;
    virtual void remove(const std::string& key) = 0;
    virtual void commit() = 0;
};

// How the columns that a store lacks are to be had, for messages.
std::string missing_column_hint(const TokenStore& store, Column column);

// The store that --db, --file or $LLM_DB names; for_change: it will be written to.
std::unique_ptr<TokenStore> open_store(const Arguments& arguments, bool for_change);
std::unique_ptr<TokenStore> open_table(const std::string& url, bool for_change);
std::unique_ptr<TokenStore> open_file(const std::string& path, bool for_change, bool create);

// The database's URL: --db, else $LLM_DB, else the local socket.
std::string database_url(const Arguments& arguments);

}  // namespace llm::ctl
