// PTX as nvcc writes it, read into what machine.hpp runs.
//
// Understood is what the engine's kernels are compiled to, and not more: an instruction, a modifier or a directive that is not
// known ends the program with its line. Functions that kernels call are left out; a call ends the program, too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace llm::ptx {

struct Thread;
struct Instruction;
using Run = void (*)(Thread&, const Instruction&);

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam };

// Operands are registers by number. Constants, special registers and addresses of variables are registers, too, which are set before
// the first instruction.
struct Instruction {
    Run run = nullptr;
    uint32_t next = 0;           // bra: where to
    int32_t guard = -1;          // the predicate that must hold
    bool guard_negated = false;
    bool has_second = false;     // d|p: the predicate is the operand after d
    uint8_t count = 0;           // of operands; those of vectors each by themselves
    uint8_t vector = 1;          // ld, st: elements
    uint8_t first_vector = 0;    // mov: elements of the destination if it is written in braces, else 0
    Space space = Space::kGeneric;
    uint16_t operand[16] = {};
    int64_t offset[2] = {};      // of the first and second address in brackets
    uint32_t kind = 0;           // what lanes that meet here must have in common
    uint32_t line = 0;
};

// A register that is not zero or poison at the start.
struct Constant {
    uint16_t slot;
    uint64_t value;
};

// %tid.x and the others, in this order, are the first registers of every kernel.
inline constexpr const char* kSpecial[] = {"%tid.x",    "%tid.y",    "%tid.z",    "%ntid.x",   "%ntid.y",   "%ntid.z",  "%ctaid.x",
                                           "%ctaid.y",  "%ctaid.z",  "%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid"};

struct Parameter {
    size_t offset, size;  // bytes, in the block of parameters
};

struct Kernel {
    std::string name;
    std::vector<Parameter> parameters;
    size_t parameter_bytes = 0;
    size_t static_shared = 0;   // bytes; dynamic shared memory begins at the next multiple of 16
    size_t local = 0;           // bytes of a thread by itself
    unsigned max_threads = 0;   // __launch_bounds__; 0 = none given
    size_t registers = 0;
    std::vector<Constant> constants;
    std::vector<Instruction> code;
};

struct Module {
    std::map<std::string, Kernel, std::less<>> kernels;
    unsigned target = 0;  // 90 = sm_90
    std::vector<std::string> lines;  // for messages
};

// Ends the program if the text cannot be read. `name` is for messages.
std::unique_ptr<Module> read_module(std::string_view text, const std::string& name);

// What an opcode with its modifiers does; fills in what follows from them (space, vector). nullptr = not known.
Run find_operation(std::string_view opcode, Instruction& instruction);

}  // namespace llm::ptx
