#include "engine_worker/server/load_model.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <stdexcept>
#include <string_view>

#include "engine_worker/backend/cuda/loader.hpp"
#include "engine_worker/backend/sim/byte_tokenizer.hpp"

namespace llm::engine {
namespace {

constexpr int32_t kGpuRunning = 256;  // --max-running, unless given; elsewhere kDefaultRunning
constexpr int32_t kStepTokens = 512;  // --max-step-tokens, unless given
constexpr int32_t kGpuStepTokens = 4096;
constexpr int32_t kMinPrefillRoom = 64;  // tokens of a step beside one per sequence

// ChatML, the template of the simulated model.
constexpr std::string_view kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' "
    "+ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// Sizes that were not given, as the device has use for them.
BackendOptions sized(const Options& options, bool gpu) {
    BackendOptions out = options.compute;
    out.model_dir = options.backend == "sim" ? "" : options.model;
    out.max_step_seqs = options.max_running > 0 ? options.max_running : gpu ? kGpuRunning : kDefaultRunning;
    if (out.max_step_tokens == 0) {
        out.max_step_tokens = gpu ? kGpuStepTokens : kStepTokens;
    }
    out.max_step_tokens = std::max(out.max_step_tokens, out.max_step_seqs + kMinPrefillRoom);
    return out;
}

std::unique_ptr<Backend> make_backend(const Options& options) {
    const BackendOptions compute = sized(options, false);
    if (options.backend == "sim") {
        return make_sim_backend(compute, options.sim);
    }
    const bool cpu_format = compute.dtype == "f32" || compute.dtype == "int8";
    if (options.backend == "cuda" || (options.backend == "auto" && !cpu_format)) {
        bool installed = false;
        const std::string why = cuda_unavailable(&installed);
        if (why.empty()) {
            return make_cuda_backend(sized(options, true));
        }
        if (options.backend == "cuda") {
            throw std::runtime_error("--backend cuda: " + why);
        }
        if (installed) {
            std::fprintf(stderr, "llm-engine: %s; computing on the CPU\n", why.c_str());
        }
    }
#ifdef LLM_HAVE_CPU
    return make_cpu_backend(compute);
#else
    throw std::runtime_error("--backend " + options.backend +
                             ": this program was built without the CPU backend");
#endif
}

}  // namespace

std::vector<std::string> served_names(const Options& options) {
    if (!options.served_names.empty()) {
        return options.served_names;
    }
    std::string path = options.model;
    while (path.size() > 1 && path.back() == '/') {
        path.pop_back();
    }
    return {options.backend == "sim" ? options.model : path.substr(path.rfind('/') + 1)};
}

LoadedModel load_model(const Options& options) {
    LoadedModel out;
    out.model = std::make_unique<ServedModel>();
    ServedModel& model = *out.model;
    model.names = served_names(options);
    model.created = std::time(nullptr);

    if (options.backend == "sim") {
        model.tokenizer = make_byte_tokenizer();
        model.chat_template = ChatTemplate::parse(kChatMl);
        model.end_tokens = {model.tokenizer->eos_id(), model.tokenizer->token_to_id("<|im_end|>")};
    } else {
        if (!std::filesystem::is_directory(options.model)) {
            throw std::runtime_error("--model: " + options.model + " is not a directory");
        }
        model.tokenizer = Tokenizer::load(options.model);
        model.chat_template = ChatTemplate::load(options.model);
        model.tool_template = ChatTemplate::load_for_tools(options.model);
        model.end_tokens = load_end_tokens(options.model, *model.tokenizer);
        if (options.generation_config == "auto") {
            model.defaults = load_generation_defaults(options.model);
        }
        load_pooling(options.model, model.pooling, model.no_embeddings);
    }
    if (!options.chat_template.empty()) {
        model.chat_template = ChatTemplate::load_file(options.chat_template);
        model.tool_template = nullptr;
    }
    model.special_text = std::make_unique<SpecialText>(*model.tokenizer);
    out.backend = make_backend(options);
    model.hidden_size = out.backend->info().hidden_size;
    model.vocab_size = out.backend->info().vocab_size;
    model.tool_format = tool_format_of(model.template_for(true));
    model.grammars = std::make_unique<GrammarCache>(*model.tokenizer, model.vocab_size);
    return out;
}

}  // namespace llm::engine
