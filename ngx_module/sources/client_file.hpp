// The client file: {"users":[{"token":"…","name":"…","priority":5,"threshold":10}, …]}. Pure, except that
// read_client_file() reads a file.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/client_row.hpp"

namespace llm::nginx::sources {

// Tells one version of a file from the next: an editor replaces it (inode) or writes to it (time, size).
struct FileSignature {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = -1;  // −1: there is no such file
    int64_t modified_ns = 0;

    bool operator==(const FileSignature&) const = default;
};

// The signature of what `path` names now; size −1 when it cannot be examined.
FileSignature file_signature(const std::string& path);

struct ClientFile {
    FileSignature signature;
    std::vector<ClientRecord> clients;
    std::vector<std::string> skipped;  // why rows were skipped, "line 7: priority: missing"; never a token
};

inline constexpr size_t kMaxClientFileBytes = size_t{512} << 20;

// Parses the text of a client file. Returns an empty string, or "line 3, column 7: …" when the text is not
// JSON of the expected shape; `out` then keeps what it had. Rows with wrong values, and later rows with a
// token that was there before, are skipped and listed. O(text).
std::string parse_client_file(std::string_view text, ClientFile& out);

// Reads and parses a file; the reason then begins with the path. `out.signature` is that of what was read, also when it was no
// good, and stays as it was when nothing could be read. Blocking: local disk only.
std::string read_client_file(const std::string& path, ClientFile& out);

}  // namespace llm::nginx::sources
