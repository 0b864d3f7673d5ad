#include "tests/support/ptx/module.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace llm::ptx {
namespace {

bool is_name(char c) {
    return c == '_' || c == '$' || c == '%' || c == '.' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
std::string_view trim(std::string_view text) {
    while (!text.empty() && is_blank(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_blank(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}
// The text up to the first blank; what follows it stays in `text`.
std::string_view take_word(std::string_view& text) {
    text = trim(text);
    size_t end = 0;
    while (end < text.size() && !is_blank(text[end])) {
        end++;
    }
    const std::string_view word = text.substr(0, end);
    text = trim(text.substr(end));
    return word;
}
// At the commas that stand outside of brackets.
std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> out;
    int depth = 0;
    size_t begin = 0;
    for (size_t i = 0; i <= text.size(); i++) {
        if (i == text.size() || (text[i] == ',' && depth == 0)) {
            if (const auto part = trim(text.substr(begin, i - begin)); !part.empty()) {
                out.push_back(part);
            }
            begin = i + 1;
        } else if (text[i] == '[' || text[i] == '{' || text[i] == '(') {
            depth++;
        } else if (text[i] == ']' || text[i] == '}' || text[i] == ')') {
            depth--;
        }
    }
    return out;
}

// 12, -3, 0x1f, 0f3F800000, 0d3FF0000000000000: the bits.
std::optional<uint64_t> constant_value(std::string_view text) {
    const bool negative = text.starts_with('-');
    if (negative) {
        text.remove_prefix(1);
    }
    if (text.empty() || text[0] < '0' || text[0] > '9') {
        return std::nullopt;
    }
    int base = 10;
    if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'f' || text[1] == 'd' || text[1] == 'F' || text[1] == 'D')) {
        base = 16;
        text.remove_prefix(2);
    }
    const std::string digits(text);
    char* end = nullptr;
    const uint64_t value = std::strtoull(digits.c_str(), &end, base);
    if (*end != '\0' && std::string_view(end) != "U") {
        return std::nullopt;
    }
    return negative ? uint64_t{0} - value : value;
}

size_t size_of_type(std::string_view type) {
    size_t bits = 0;
    for (const char c : type) {
        bits = c >= '0' && c <= '9' ? bits * 10 + static_cast<size_t>(c - '0') : bits;
    }
    return bits / 8;
}
size_t align_up(size_t value, size_t to) {
    return (value + to - 1) / to * to;
}

// `.align 4 .b8 name[132]`, without what stands before .align; the size of `name[]` is 0.
struct Variable {
    std::string_view name;
    size_t align = 1, size = 0;
};

class Reader {
  public:
    Reader(std::string_view text, const std::string& name) : text_(text), name_(name), module_(std::make_unique<Module>()) {
        for (size_t at = 0; at < text.size();) {
            const size_t end = std::min(text.find('\n', at), text.size());
            module_->lines.emplace_back(text.substr(at, end - at));
            at = end + 1;
        }
    }
    std::unique_ptr<Module> read();

  private:
    [[noreturn]] void fail(const std::string& what) const {
        std::fprintf(stderr, "%s:%u: %s\n", name_.c_str(), line_, what.c_str());
        std::abort();
    }
    void skip_blanks();
    // Up to the first of `ends` that is not part of a comment; `at_` is then behind that character, which is stored.
    std::string take_until(std::string_view ends, char& end);
    void read_kernel(std::string head);
    void skip_body();
    void read_body();
    void read_declaration(std::string_view text);
    void read_instruction(std::string_view text);
    void read_operand(std::string_view text, Instruction& instruction, int& brackets);
    Variable read_variable(std::string_view text) const;
    uint16_t new_register();
    uint16_t slot(std::string_view name);
    uint16_t constant(uint64_t value);

    // Registers by name: those of one declaration `%r<N>` as a prefix.
    struct Scope {
        std::map<std::string, uint16_t, std::less<>> names;
        std::map<std::string, std::pair<size_t, size_t>, std::less<>> ranges;  // first register, how many
    };

    std::string_view text_;
    std::string name_;
    size_t at_ = 0;
    unsigned line_ = 1, statement_line_ = 1;
    std::unique_ptr<Module> module_;
    std::string dynamic_shared_;
    std::map<std::string, uint32_t, std::less<>> kinds_;  // of shuffles and votes, by opcode

    // of the kernel that is being read
    Kernel kernel_;
    std::vector<Scope> scopes_;
    std::map<std::string, size_t, std::less<>> addresses_;  // of parameters, shared and local variables
    std::map<uint64_t, uint16_t> constants_;
    std::map<std::string, uint32_t, std::less<>> labels_;
    std::vector<std::pair<size_t, std::string>> jumps_;
};

void Reader::skip_blanks() {
    while (at_ < text_.size()) {
        if (text_.substr(at_).starts_with("//")) {
            at_ = std::min(text_.find('\n', at_), text_.size());
        } else if (is_blank(text_[at_])) {
            line_ += text_[at_] == '\n' ? 1 : 0;
            at_++;
        } else {
            return;
        }
    }
}

std::string Reader::take_until(std::string_view ends, char& end) {
    std::string out;
    skip_blanks();
    statement_line_ = line_;
    while (at_ < text_.size()) {
        const char c = text_[at_];
        if (text_.substr(at_).starts_with("//")) {
            at_ = std::min(text_.find('\n', at_), text_.size());
            continue;
        }
        at_++;
        line_ += c == '\n' ? 1 : 0;
        if (ends.find(c) != std::string_view::npos) {
            end = c;
            return out;
        }
        out += c;
    }
    end = '\0';
    return out;
}

Variable Reader::read_variable(std::string_view text) const {
    Variable out;
    std::string_view type;
    while (trim(text).starts_with('.')) {
        const std::string_view word = take_word(text);
        if (word == ".align") {
            out.align = std::strtoul(std::string(take_word(text)).c_str(), nullptr, 10);
        } else {
            type = word;
        }
    }
    const size_t element = size_of_type(type);
    if (element == 0) {
        fail("a variable of no known type: " + std::string(text));
    }
    const size_t bracket = text.find('[');
    out.name = trim(text.substr(0, bracket));
    out.size = element;
    if (bracket != std::string_view::npos) {
        out.size *= std::strtoul(std::string(text.substr(bracket + 1)).c_str(), nullptr, 10);
    }
    out.align = std::max(out.align, element);
    return out;
}

std::unique_ptr<Module> Reader::read() {
    for (skip_blanks(); at_ < text_.size(); skip_blanks()) {
        const std::string_view rest = text_.substr(at_);
        char end = 0;
        if (rest.starts_with(".version") || rest.starts_with(".address_size")) {
            take_until("\n", end);
        } else if (rest.starts_with(".target")) {
            const std::string target = take_until("\n", end);
            module_->target = static_cast<unsigned>(std::strtoul(target.c_str() + target.find("sm_") + 3, nullptr, 10));
        } else if (rest.starts_with(".extern .shared")) {
            std::string declaration = take_until(";", end);
            dynamic_shared_ = read_variable(std::string_view(declaration).substr(std::strlen(".extern .shared"))).name;
        } else if (rest.starts_with(".global")) {
            take_until(";", end);  // tables of functions that are left out; a kernel that names one is refused
        } else if (rest.starts_with(".visible .entry") || rest.starts_with(".entry")) {
            read_kernel(take_until("{", end));
        } else if (rest.starts_with(".func")) {
            take_until(";{", end);
            if (end == '{') {
                skip_body();
            }
        } else {
            fail("not known: " + take_until("\n", end));
        }
    }
    return std::move(module_);
}

void Reader::skip_body() {
    for (int depth = 1; depth > 0 && at_ < text_.size(); at_++) {
        depth += text_[at_] == '{' ? 1 : text_[at_] == '}' ? -1 : 0;
        line_ += text_[at_] == '\n' ? 1 : 0;
    }
}

void Reader::read_kernel(std::string head) {
    kernel_ = {};
    scopes_.assign(1, {});
    addresses_.clear();
    constants_.clear();
    labels_.clear();
    jumps_.clear();
    for (const char* special : kSpecial) {
        scopes_[0].names.emplace(special, new_register());
    }

    const size_t open = head.find('('), close = head.find(')');
    std::string_view name = std::string_view(head).substr(0, open);
    kernel_.name = trim(name.substr(name.find(".entry") + 6));
    for (std::string_view part : split(std::string_view(head).substr(open + 1, close - open - 1))) {
        take_word(part);  // .param
        const Variable parameter = read_variable(part);
        kernel_.parameter_bytes = align_up(kernel_.parameter_bytes, parameter.align);
        kernel_.parameters.push_back({kernel_.parameter_bytes, parameter.size});
        addresses_.emplace(parameter.name, kernel_.parameter_bytes);
        kernel_.parameter_bytes += parameter.size;
    }
    std::string_view bounds = std::string_view(head).substr(close + 1);
    while (!trim(bounds).empty()) {
        const std::string_view word = take_word(bounds);
        if (word == ".maxntid") {
            kernel_.max_threads = 1;
            for (int i = 0; i < 3; i++) {
                kernel_.max_threads *= static_cast<unsigned>(std::strtoul(std::string(take_word(bounds)).c_str(), nullptr, 10));
            }
        } else if (word == ".minnctapersm") {
            take_word(bounds);
        } else {
            fail("not known: " + std::string(word));
        }
    }
    read_body();
    for (const auto& [at, label] : jumps_) {
        const auto found = labels_.find(label);
        if (found == labels_.end()) {
            fail("no label " + label);
        }
        kernel_.code[at].next = found->second;
    }
    const std::string key = kernel_.name;
    module_->kernels.emplace(key, std::move(kernel_));
}

void Reader::read_body() {
    // Where dynamic shared memory begins is known when all of the static has been declared, which nvcc does first.
    while (!scopes_.empty()) {
        skip_blanks();
        if (at_ == text_.size()) {
            fail("the end of a kernel is missing");
        }
        if (text_[at_] == '{') {
            at_++;
            scopes_.emplace_back();
            continue;
        }
        if (text_[at_] == '}') {
            at_++;
            scopes_.pop_back();
            continue;
        }
        size_t end = at_;
        while (end < text_.size() && is_name(text_[end])) {
            end++;
        }
        if (end > at_ && end + 1 < text_.size() && text_[end] == ':' && text_[end + 1] != ':') {
            labels_.emplace(text_.substr(at_, end - at_), static_cast<uint32_t>(kernel_.code.size()));
            at_ = end + 1;
            continue;
        }
        char stop = 0;
        const std::string statement = take_until(";", stop);
        if (statement.starts_with('.')) {
            read_declaration(statement);
        } else {
            read_instruction(trim(statement));
        }
    }
}

uint16_t Reader::new_register() {
    if (kernel_.registers > UINT16_MAX) {
        fail("more than 65536 registers");
    }
    return static_cast<uint16_t>(kernel_.registers++);
}

void Reader::read_declaration(std::string_view text) {
    const std::string_view kind = take_word(text);
    if (kind == ".reg") {
        take_word(text);
        for (const std::string_view name : split(text)) {
            if (const size_t angle = name.find('<'); angle != std::string_view::npos) {
                const size_t count = std::strtoul(std::string(name.substr(angle + 1)).c_str(), nullptr, 10);
                scopes_.back().ranges[std::string(name.substr(0, angle))] = {kernel_.registers, count};
                for (size_t i = 0; i < count; i++) {
                    new_register();
                }
            } else {
                scopes_.back().names[std::string(name)] = new_register();
            }
        }
    } else if (kind == ".shared") {
        if (!kernel_.code.empty()) {
            fail("a shared variable behind instructions");
        }
        const Variable variable = read_variable(text);
        const size_t at = align_up(kernel_.static_shared, variable.align);
        addresses_[std::string(variable.name)] = at;
        kernel_.static_shared = at + variable.size;
    } else if (kind == ".local") {
        const Variable variable = read_variable(text);
        const size_t at = align_up(kernel_.local, variable.align);
        addresses_[std::string(variable.name)] = at;
        kernel_.local = at + variable.size;
    } else if (kind == ".param") {
        addresses_[std::string(read_variable(text).name)] = SIZE_MAX / 2;  // of a call, which ends the program before
    } else if (kind != ".pragma") {
        fail("not known: " + std::string(kind));
    }
}

uint16_t Reader::constant(uint64_t value) {
    const auto [at, added] = constants_.try_emplace(value, 0);
    if (added) {
        at->second = new_register();
        kernel_.constants.push_back({at->second, value});
    }
    return at->second;
}

uint16_t Reader::slot(std::string_view name) {
    if (name == "_") {
        return new_register();
    }
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
        if (const auto found = scope->names.find(name); found != scope->names.end()) {
            return found->second;
        }
        size_t digits = name.size();
        while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') {
            digits--;
        }
        if (const auto range = scope->ranges.find(name.substr(0, digits)); range != scope->ranges.end() && digits < name.size()) {
            const size_t index = std::strtoul(std::string(name.substr(digits)).c_str(), nullptr, 10);
            if (index < range->second.second) {
                return static_cast<uint16_t>(range->second.first + index);
            }
        }
    }
    if (const auto value = constant_value(name)) {
        return constant(*value);
    }
    if (!dynamic_shared_.empty() && name == dynamic_shared_) {
        return constant(align_up(kernel_.static_shared, 16));
    }
    if (const auto address = addresses_.find(name); address != addresses_.end()) {
        return constant(address->second);
    }
    fail("not known: " + std::string(name));
}

void Reader::read_operand(std::string_view text, Instruction& instruction, int& brackets) {
    const auto add = [&](uint16_t number) {
        if (instruction.count == std::size(instruction.operand)) {
            fail("too many operands");
        }
        instruction.operand[instruction.count++] = number;
    };
    if (text.starts_with('{')) {
        const auto parts = split(text.substr(1, text.find('}') - 1));
        if (instruction.count == 0) {
            instruction.first_vector = static_cast<uint8_t>(parts.size());
        }
        for (const std::string_view part : parts) {
            add(slot(part));
        }
    } else if (text.starts_with('[')) {
        std::string_view inside = trim(text.substr(1, text.find(']') - 1));
        if (const size_t plus = inside.find('+'); plus != std::string_view::npos) {
            instruction.offset[brackets] = static_cast<int64_t>(constant_value(trim(inside.substr(plus + 1))).value());
            inside = trim(inside.substr(0, plus));
        }
        brackets++;
        add(slot(inside));
    } else if (const size_t bar = text.find('|'); bar != std::string_view::npos) {
        add(slot(trim(text.substr(0, bar))));
        add(slot(trim(text.substr(bar + 1))));
        instruction.has_second = true;
    } else {
        add(slot(text));
    }
}

void Reader::read_instruction(std::string_view text) {
    Instruction instruction;
    instruction.line = statement_line_;
    if (text.starts_with('@')) {
        std::string_view predicate = take_word(text).substr(1);
        if (predicate.starts_with('!')) {
            instruction.guard_negated = true;
            predicate.remove_prefix(1);
        }
        instruction.guard = slot(predicate);
    }
    const std::string_view opcode = take_word(text);
    instruction.run = find_operation(opcode, instruction);
    if (instruction.run == nullptr) {
        fail("no such instruction is known: " + std::string(opcode));
    }
    if (opcode.starts_with("bra")) {
        jumps_.emplace_back(kernel_.code.size(), text);
    } else if (!opcode.starts_with("call")) {
        int brackets = 0;
        for (const std::string_view operand : split(text)) {
            read_operand(operand, instruction, brackets);
        }
    }
    // A shuffle meets any other of its kind; the rest must be one instruction for all lanes. Below are the emulation's own kinds.
    constexpr uint32_t kFirstKind = 100, kFirstPlace = 1000;
    if (opcode.starts_with("shfl") || opcode.starts_with("vote")) {
        instruction.kind = kinds_.try_emplace(std::string(opcode), kFirstKind + static_cast<uint32_t>(kinds_.size())).first->second;
    } else {
        instruction.kind = kFirstPlace + static_cast<uint32_t>(kernel_.code.size());
    }
    kernel_.code.push_back(instruction);
}

}  // namespace

std::unique_ptr<Module> read_module(std::string_view text, const std::string& name) {
    return Reader(text, name).read();
}

}  // namespace llm::ptx
