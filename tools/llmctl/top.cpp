// top: a live view of a gateway. Where there is no terminal it shows one picture and ends.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <deque>

#include "shared/json.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/gateway.hpp"
#include "tools/llmctl/status_tables.hpp"
#include "tools/llmctl/terminal.hpp"

namespace llm::ctl {
namespace {

constexpr size_t kHistory = 240;

struct View {
    Json status = Json::object();
    std::string trouble;                // why the last answer did not come
    std::deque<double> tokens_per_s{};  // of all engines, the newest last
};

std::string sparkline(const std::deque<double>& values, size_t width) {
    constexpr const char* kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    const size_t first = values.size() > width ? values.size() - width : 0;
    double highest = 0;
    for (size_t i = first; i < values.size(); ++i) {
        highest = std::max(highest, values[i]);
    }
    std::string out;
    for (size_t i = first; i < values.size(); ++i) {
        out += kBars[highest > 0 ? static_cast<size_t>(values[i] / highest * 7 + 0.5) : 0];
    }
    return out;
}

std::string clock_text() {
    const time_t now = std::time(nullptr);
    tm parts{};
    localtime_r(&now, &parts);
    char out[32];
    std::strftime(out, sizeof out, "%H:%M:%S", &parts);
    return out;
}

double tokens_per_second(const Json& status) {
    double sum = 0;
    for (const Json& engine : list_of(status, "engines")) {
        sum += number_of(engine, "tokens_per_second");
    }
    return sum;
}

// Trouble of the sources, for the head.
std::string source_trouble(const Json& status) {
    const Json& sources = object_of(status, "sources");
    const Json& clients = object_of(sources, "clients");
    const Json& redis = object_of(sources, "redis");
    std::string out;
    if (!flag_of(clients, "up") && text_of(clients, "source") == "postgresql") {
        out += "  database down";
    }
    if (flag_of(redis, "configured") && !flag_of(redis, "up")) {
        out += "  Redis down";
    }
    return out;
}

void refresh(Gateway& gateway, View& view) {
    try {
        view.status = gateway.status();
        view.trouble.clear();
        view.tokens_per_s.push_back(tokens_per_second(view.status));
        if (view.tokens_per_s.size() > kHistory) {
            view.tokens_per_s.pop_front();
        }
    } catch (const Failure& failure) {
        view.trouble = failure.what();
    }
}

std::vector<std::string> picture(const Gateway& gateway, const View& view, size_t columns, size_t rows,
                                 bool colours) {
    const auto coloured = [colours](const char* code, const std::string& text) {
        return colours ? "\x1b[" + std::string(code) + "m" + text + "\x1b[0m" : text;
    };
    const Json& totals = object_of(view.status, "totals");
    const auto total = [&totals](const char* name) { return amount_text(number_of(totals, name)); };
    std::vector<std::string> out;
    out.push_back(coloured("1", fit("llmctl top  " + visible(gateway.url()) + "  " + clock_text(), columns)));
    const std::string trouble =
        view.trouble.empty() ? source_trouble(view.status) : "  " + visible(view.trouble);
    out.push_back(fit("waiting " + total("queued") + "  running " + total("running") + "  seats " +
                          total("held") + "  tokens/s " +
                          amount_text(view.tokens_per_s.empty() ? 0 : view.tokens_per_s.back()),
                      columns));
    if (!trouble.empty()) {
        out.push_back(coloured("31", fit(trouble.substr(2), columns)));
    }
    if (view.tokens_per_s.size() > 1) {
        out.push_back(coloured("36", sparkline(view.tokens_per_s, columns)));
    }
    const auto add = [&](const Table& table) {
        if (table.empty()) {
            return;
        }
        out.emplace_back();
        bool head = true;
        for (const std::string& line : table.lines(columns)) {
            out.push_back(head ? coloured("7", fit(line, columns)) : line);
            head = false;
        }
    };
    add(models_table(view.status));
    add(engines_table(view.status));
    add(requests_table(view.status, false));
    add(clients_table(view.status));
    if (rows > 0 && out.size() > rows) {
        const size_t hidden = out.size() - rows + 1;
        out.resize(rows - 1);
        out.push_back(coloured("2", fit("… " + std::to_string(hidden) + " more lines", columns)));
    }
    return out;
}

}  // namespace

int top(const Arguments& arguments) {
    const int64_t interval_ms = arguments.integer("--interval", 1, 3600, 1) * 1000;
    Gateway gateway(arguments);
    View view;
    if (arguments.json()) {
        print_json(gateway.status());
        return 0;
    }
    if (!Terminal::usable() || arguments.has("--once")) {
        view.status = gateway.status();
        view.tokens_per_s.push_back(tokens_per_second(view.status));
        for (const std::string& line : picture(gateway, view, 200, 0, false)) {
            print(line.substr(0, line.find_last_not_of(' ') + 1) + "\n");
        }
        return 0;
    }
    view.status = gateway.status();  // a wrong address is said plainly, not inside a live view
    view.tokens_per_s.push_back(tokens_per_second(view.status));
    Terminal terminal;
    auto next = std::chrono::steady_clock::now() + std::chrono::milliseconds(interval_ms);
    for (;;) {
        const Terminal::Size size = terminal.size();
        terminal.show(picture(gateway, view, size.columns, size.rows, true), size);
        const auto left =
            std::chrono::duration_cast<std::chrono::milliseconds>(next - std::chrono::steady_clock::now());
        char key = 0;
        switch (terminal.wait(static_cast<int>(std::max<int64_t>(0, left.count())), key)) {
            case Terminal::Event::end:
                return 0;
            case Terminal::Event::key:
                if (key == 'q' || key == 'Q' || key == 3 || key == 4) {
                    return 0;
                }
                break;
            case Terminal::Event::resized:
                break;
            case Terminal::Event::time:
                refresh(gateway, view);
                next = std::chrono::steady_clock::now() + std::chrono::milliseconds(interval_ms);
                break;
        }
    }
}

}  // namespace llm::ctl
