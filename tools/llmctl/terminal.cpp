#include "tools/llmctl/terminal.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "tools/llmctl/text.hpp"

namespace llm::ctl {
namespace {

void write_all(const std::string& text) {
    size_t done = 0;
    while (done < text.size()) {
        const ssize_t got = write(STDOUT_FILENO, text.data() + done, text.size() - done);
        if (got <= 0) {
            return;  // the terminal has gone: wait() will notice
        }
        done += static_cast<size_t>(got);
    }
}

sigset_t our_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP}) {
        sigaddset(&set, number);
    }
    return set;
}

}  // namespace

bool Terminal::usable() {
    const char* kind = std::getenv("TERM");
    return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && kind != nullptr && *kind != 0 &&
           std::strcmp(kind, "dumb") != 0;
}

Terminal::Terminal() {
    tcgetattr(STDIN_FILENO, &before_);
    const sigset_t set = our_signals();
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    enter();
}

Terminal::~Terminal() {
    leave();
    close(signals_);
}

void Terminal::enter() const {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all("\x1b[?1049h\x1b[?25l");  // alternate screen, no cursor
}

void Terminal::leave() const {
    write_all("\x1b[?25h\x1b[?1049l");
    tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

// The shell gets its screen until it lets us go on.
void Terminal::stop() const {
    leave();
    raise(SIGSTOP);
    enter();
}

Terminal::Size Terminal::size() const {
    winsize now{};
    Size out;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) == 0 && now.ws_col > 0 && now.ws_row > 0) {
        out.columns = now.ws_col;
        out.rows = now.ws_row;
    }
    return out;
}

void Terminal::show(const std::vector<std::string>& lines, Size size) {
    std::string text = "\x1b[H";
    for (size_t i = 0; i < size.rows; ++i) {
        text += "\x1b[2K";  // before the text: behind a line that fills the width it would take its last character
        text += i < lines.size() ? lines[i] + "\x1b[0m" : "";
        text += i + 1 < size.rows ? "\r\n" : "";
    }
    write_all(text);
}

Terminal::Event Terminal::wait(int milliseconds, char& key) {
    pollfd watched[] = {{STDIN_FILENO, POLLIN, 0}, {signals_, POLLIN, 0}};
    if (poll(watched, 2, milliseconds) <= 0) {
        return Event::time;
    }
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGTSTP) {
            stop();
            return Event::resized;  // perhaps, meanwhile
        }
        return info.ssi_signo == SIGWINCH ? Event::resized : Event::end;
    }
    if (watched[0].revents != 0) {
        return read(STDIN_FILENO, &key, 1) == 1 ? Event::key : Event::end;
    }
    return Event::time;
}

}  // namespace llm::ctl
