#include "ngx_module/nginx/test_faults.hpp"

#if LLM_TEST_HOOKS

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <string>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/test_hooks.hpp"
#include "ngx_module/nginx/conf_words.hpp"

namespace llm::nginx {
namespace {

enum class Breach : uint32_t { none, log, alloc };

// What a configuration asked for. The master reads it, its workers inherit it; counts are shared between them.
struct Faults {
    struct Shared {
        std::atomic<int32_t> deaths;
        std::atomic<int32_t> delays;
        std::atomic<int32_t> breaches;
    };
    Shared* shared = nullptr;
    const core::Label* deadly = nullptr;
    uint32_t delay_ms = 0;
    Breach breach = Breach::none;
};
Faults faults;

constexpr uint64_t kTraceRecords = 4'000'000;  // the file is sparse

bool take_one(std::atomic<int32_t>& left) {
    return left.fetch_sub(1) > 0;
}

void on_label(const core::Label& label) {
    if (&label == faults.deadly && core::lock_depth > 0 && ngx_process == NGX_PROCESS_WORKER &&
        take_one(faults.shared->deaths)) {
        raise(SIGKILL);
    }
}

// Maps the log that this and all later configurations of the test write to.
core::TraceLog* open_trace(const std::string& path) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    const size_t bytes = sizeof(core::TraceLog) + kTraceRecords * sizeof(core::TraceRecord);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
        return nullptr;
    }
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    auto* log = static_cast<core::TraceLog*>(memory);
    log->magic = core::kTraceMagic;
    log->capacity = kTraceRecords;
    return log;
}

bool take_word(std::string_view name, std::string_view value, Faults& out, int32_t& deaths) {
    uint32_t number = 0;
    if (name == "log") {
        core::trace_log = core::trace_log != nullptr ? core::trace_log : open_trace(std::string(value));
        return core::trace_log != nullptr;
    }
    if (name == "breach") {
        out.breach = value == "log" ? Breach::log : value == "alloc" ? Breach::alloc : Breach::none;
        return out.breach != Breach::none;
    }
    if (!parse_integer(value, number)) {
        return false;
    }
    if (name == "die" && number < core::label_count()) {
        out.deadly = core::labels() + number;
    } else if (name == "deaths") {
        deaths = static_cast<int32_t>(number);
    } else if (name == "delay_grant") {
        out.delay_ms = number;
    } else {
        return false;
    }
    return true;
}

}  // namespace

char* set_test_faults(ngx_conf_t* cf, ngx_command_t*, void*) {
    void* memory = mmap(nullptr, sizeof(Faults::Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    faults = Faults();
    faults.shared = new (memory) Faults::Shared{};
    int32_t deaths = 1;
    const auto* words = static_cast<ngx_str_t*>(cf->args->elts);
    for (ngx_uint_t i = 1; i < cf->args->nelts; ++i) {
        const std::string_view word = view(words[i]);
        const size_t equals = word.find('=');
        if (equals == std::string_view::npos ||
            !take_word(word.substr(0, equals), word.substr(equals + 1), faults, deaths)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "llm_test_faults: \"%V\" is not understood", &words[i]);
            return static_cast<char*>(NGX_CONF_ERROR);
        }
    }
    faults.shared->deaths = deaths;
    faults.shared->delays = 1;
    faults.shared->breaches = 1;
    core::test_hook = on_label;
    ngx_conf_log_error(NGX_LOG_NOTICE, cf, 0, "llm_test_faults: %uD labels", core::label_count());
    return NGX_CONF_OK;
}

void start_test_faults(core::Zone& zone) {
    core::trace_pid = static_cast<int32_t>(ngx_pid);
    if (faults.breach == Breach::none || !take_one(faults.shared->breaches)) {
        return;
    }
    core::ZoneLock lock(zone);
    if (faults.breach == Breach::log) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm_test_faults: logged inside the lock");
    } else {
        ngx_free(ngx_alloc(64, ngx_cycle->log));
    }
}

void delay_grant() {
    if (faults.delay_ms != 0 && take_one(faults.shared->delays)) {
        ngx_msleep(faults.delay_ms);
    }
}

}  // namespace llm::nginx
#endif
