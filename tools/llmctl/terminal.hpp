// A terminal for a live view: alternate screen, keys as they are pressed, everything put back at the end, and
// while the program is stopped (Ctrl-Z).
#pragma once

#include <termios.h>

#include <string>
#include <vector>

namespace llm::ctl {

class Terminal {
  public:
    // Whether standard input and output are both a terminal that can do this.
    static bool usable();

    Terminal();
    ~Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    struct Size {
        size_t columns = 80, rows = 24;
    };
    Size size() const;

    // Shows the first `size.rows` lines, none wider than `size.columns`; what was there before is gone.
    void show(const std::vector<std::string>& lines, Size size);

    enum class Event { time, key, resized, end };  // end: SIGINT, SIGTERM, SIGHUP, or the terminal has gone
    // Waits for a key, a new size, an end or the time. `key` is the key of Event::key.
    Event wait(int milliseconds, char& key);

  private:
    void enter() const;
    void leave() const;
    void stop() const;

    termios before_{};
    int signals_ = -1;
};

}  // namespace llm::ctl
