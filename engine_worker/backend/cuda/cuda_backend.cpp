#include "engine_worker/backend/cuda/cuda_backend.hpp"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "engine_worker/backend/cuda/plan.hpp"

namespace llm::engine::cuda {
namespace {

constexpr int kSpareSlots = 16;                       // one is written by rows that pad a batch
constexpr int64_t kLeastTokens = 1024;                // a smaller cache is of no use
constexpr size_t kReserve = size_t{192} << 20;        // for graphs and the libraries' own memory
constexpr int kDefaultDecodeTune = 512;

ModelConfig checked_config(const BackendOptions& options) {
    ModelConfig config = load_model_config(options.model_dir);
    padded_head_dim(config);
    if (options.dtype != "auto" && options.dtype != "bf16") {
        throw std::runtime_error("--dtype " + options.dtype + " is for the CPU backend; CUDA computes in bf16");
    }
    if (options.max_step_tokens < 1 || options.max_step_seqs < 1) {
        throw std::runtime_error("max_step_tokens and max_step_seqs must be at least 1");
    }
    if (options.max_context > config.max_context) {
        throw std::runtime_error("max_context " + std::to_string(options.max_context) + " is above the " +
                                 std::to_string(config.max_context) + " of max_position_embeddings in " +
                                 options.model_dir + "/config.json");
    }
    return config;
}

}  // namespace

CudaBackend::CudaBackend(const BackendOptions& options, const CudaOptions& cuda)
    : device_(open_device()), options_(cuda) {
    const ModelConfig config = checked_config(options);
    prepare_kernels(options_.overlap && device_.major >= 9);
    const ModelTensors tensors = load_model_tensors(config);
    const int32_t max_context = options.max_context > 0 ? options.max_context : config.max_context;

    // Everything is counted before anything is loaded.
    info_.name = "cuda";
    info_.asynchronous = info_.pipelined = true;
    info_.vocab_size = config.vocab_size;
    info_.max_step_tokens = options.max_step_tokens;
    info_.max_step_seqs = options.max_step_seqs;
    const ForwardLimits limits{std::max(options.max_step_tokens, options.max_step_seqs), options.max_step_seqs,
                               device_.multiprocessors};
    StepLimits step_limits;
    step_limits.max_tokens = limits.max_tokens;
    step_limits.max_sequences = options.max_step_seqs;
    step_limits.max_context = max_context;
    step_limits.vocab = config.vocab_size;
    step_limits.max_tiles = static_cast<int>(
        max_prefill_tiles(limits.max_tokens, options.max_step_seqs, config.n_heads, config.n_kv_heads));
    const size_t table_bytes =
        static_cast<size_t>(options.max_step_seqs) * static_cast<size_t>(max_context) * sizeof(int);

    const GpuModel shape = model_shape(config, tensors);
    MemoryRequest memory;
    memory.total = device_.total_memory;
    memory.free = device_.free_memory;
    memory.fraction = options.gpu_memory;
    memory.weights = shape.bytes;
    memory.workspace = Forward::workspace_bytes(shape, limits) + table_bytes + StepLayout(step_limits).total +
                       std::min(kReserve, device_.total_memory / 64);
    memory.per_token = kv_bytes_per_token(config);
    memory.kv_tokens = options.kv_tokens > 0 ? options.kv_tokens + kSpareSlots : 0;
    memory.max_kv_tokens = int64_t{max_context} * options.max_step_seqs + kSpareSlots;
    memory.min_kv_tokens = std::min<int64_t>(kLeastTokens, max_context) + kSpareSlots;
    const int64_t slots = plan_kv_tokens(memory);
    info_.kv_slots = slots - kSpareSlots;
    info_.max_context = static_cast<int32_t>(std::min<int64_t>(max_context, info_.kv_slots));

    model_ = upload_model(config, tensors, stream_);
    table_ = DeviceMemory(table_bytes);
    stream_.zero(table_.data(), table_.size());
    const size_t meta_bytes = StepLayout(step_limits).total;
    meta_device_ = DeviceMemory(meta_bytes);
    for (Flight& flight : flights_) {
        flight.meta = PinnedMemory(meta_bytes);
        flight.results = PinnedMemory(static_cast<size_t>(limits.max_tokens) * sizeof(SampleOut));
        std::fill_n(flight.meta.data(), meta_bytes, std::byte{0});
    }
    current_ = &flights_[0];
    previous_ = &flights_[1];
    stream_.upload(meta_device_.data(), current_->meta.data(), meta_bytes);
    forward_ = std::make_unique<Forward>(
        model_, limits, slots, stream_, device_.name,
        options_.algorithm_file.empty() ? default_algorithm_file() : options_.algorithm_file);
    buffers_ = std::make_unique<StepBuffers>(step_limits, current_->meta.data(), meta_device_.data(),
                                             static_cast<int>(info_.kv_slots));
    buckets_ = decode_buckets(options.max_step_seqs);
    if (options_.tune) {
        std::vector<int> rows = buckets_;
        for (int n = kDefaultDecodeTune; n <= limits.max_tokens; n *= 2) {
            rows.push_back(n);
        }
        rows.push_back(limits.max_tokens);
        forward_->tune(rows);
    }
    stream_.synchronize();
}

CudaBackend::~CudaBackend() {
    // Nothing may run on memory that is about to be freed; an error here has been reported before.
    cudaStreamSynchronize(stream_.get());
}

bool CudaBackend::is_decode(const Step& step) const {
    if (step.n_decode != step.n_seq || step.n_logit != step.n_seq || step.n_seq == 0) {
        return false;
    }
    for (int32_t i = 0; i < step.n_logit; i++) {
        if (step.logit_row[i] != i) {
            return false;
        }
    }
    return true;
}

void CudaBackend::send(size_t begin, size_t end) {
    stream_.upload(meta_device_.data() + begin, current_->meta.data() + begin, end - begin);
}

void CudaBackend::update_table(const Step& step) {
    const StepLayout& layout = buffers_->layout();
    for (bool first = true;; first = false) {
        if (!first) {
            stream_.synchronize();  // the host's copy of the last part is in use until then
        }
        const int ranges = buffers_->next_table_ranges(step, info_.kv_slots);
        if (ranges == 0) {
            return;
        }
        send(layout.ranges, layout.values + buffers_->values_used());  // the values come next: one copy costs less than two
        launch_update_table(reinterpret_cast<int*>(table_.data()), buffers_->device<TableRange>(layout.ranges),
                            buffers_->device<int>(layout.values), ranges, stream_.get());
        if (buffers_->table_complete(step)) {
            return;
        }
    }
}

StepView CudaBackend::view(const Step& step, int rows, int n_tiles) const {
    const StepLayout& layout = buffers_->layout();
    StepView view;
    view.tokens = buffers_->device<int>(layout.tokens);
    view.positions = buffers_->device<int>(layout.positions);
    view.slots = buffers_->device<int>(layout.slots);
    view.logit_rows = buffers_->device<int>(layout.logit_rows);
    view.tiles = buffers_->device<PrefillTile>(layout.tiles);
    view.table = reinterpret_cast<const int*>(table_.data());
    view.table_stride = static_cast<int>(table_.size() / sizeof(int) / static_cast<size_t>(info_.max_step_seqs));
    view.sampling = buffers_->device<SampleRow>(layout.sample_rows);
    view.rows = rows;
    view.n_decode = step.n_decode;
    view.n_tiles = n_tiles;
    view.in_order = is_decode(step);
    const auto longest_of = [&](int32_t first, int32_t end) {
        return first < end ? *std::max_element(step.ctx_len + first, step.ctx_len + end) : 1;
    };
    const int longest = longest_of(0, step.n_decode);
    const ModelConfig& config = model_.config;
    if (n_tiles > 0) {
        view.prefill_splits = plan_prefill_splits(n_tiles, config.n_kv_heads, longest_of(step.n_decode, step.n_seq),
                                                  device_.multiprocessors);
    }
    view.splits = step.n_decode == 0 ? 1
                                     : plan_splits(step.n_decode, config.n_heads, config.n_kv_heads, longest,
                                                   device_.multiprocessors);
    return view;
}

// A step that only decodes, whose sampling parameters fit in one piece: one launch. False if it is not of that kind.
bool CudaBackend::launch_graph(const Step& step) {
    const int bucket = bucket_for(buckets_, step.n_seq);
    buffers_->fill(step, bucket, {});
    update_table(step);
    if (buffers_->fill_sampling(step, 0) != step.n_logit) {
        return false;
    }
    buffers_->pad_sampling(step.n_logit, bucket);
    StepView v = view(step, bucket, 0);
    v.n_decode = bucket;
    const ModelConfig& config = model_.config;
    // as many splits as the bucket was given work space for
    v.splits = std::min(v.splits, plan_splits(bucket, config.n_heads, config.n_kv_heads, 1 << 30,
                                              device_.multiprocessors));
    const StepLayout& layout = buffers_->layout();
    send(0, layout.sample_rows + static_cast<size_t>(bucket) * sizeof(SampleRow));
    if (buffers_->extra_used() > 0) {
        send(layout.extra, layout.extra + buffers_->extra_used());
    }
    const auto record = [&] {
        forward_->layers(v);
        forward_->head(v, 0, bucket);
        forward_->sample(v, 0, bucket);
    };
    const auto key = std::make_pair(bucket, v.splits);
    if (const auto found = graphs_.find(key); found != graphs_.end()) {
        found->second->launch(stream_);
        return true;
    }
    // The first such step runs outside, and is recorded for those to come: what is loaded or chosen on first use must
    // not happen while recording.
    record();
    while (more_graphs_ && !graphs_.contains(key)) {
        try {
            auto graph = std::make_unique<Graph>(stream_, record);
            more_graphs_ = graph->ready();
            if (more_graphs_) {
                graphs_[key] = std::move(graph);
            }
        } catch (const std::exception& error) {
            // This step needs no graph; if the GPU itself is lost, the next call says so. Drivers older than CUDA 12.3 record no
            // launches that overlap, and graphs are worth more than those.
            more_graphs_ = stop_overlap();
            std::fprintf(stderr, "llm-engine: decoding goes on without %s, which is slower: %s\n",
                         more_graphs_ ? "launches that overlap" : "CUDA graphs", error.what());
        }
    }
    return true;
}

void CudaBackend::launch_eager(const Step& step) {
    plan_prefill(step, model_.config.n_heads, model_.config.n_kv_heads, tiles_);
    buffers_->fill(step, step.n_tok, tiles_);
    update_table(step);
    const StepLayout& layout = buffers_->layout();
    send(0, layout.head_end);
    const StepView v = view(step, step.n_tok, static_cast<int>(tiles_.size()));
    forward_->layers(v);
    const int at_once = info_.max_step_seqs;
    const auto vocab = static_cast<size_t>(info_.vocab_size);
    int first = 0;
    while (first < step.n_logit) {
        if (first > 0) {
            stream_.synchronize();  // the host's copy of the parameters is in use until then
        }
        const int end = std::min(buffers_->fill_sampling(step, first), first + at_once);
        const auto row = [&](int i) { return layout.sample_rows + static_cast<size_t>(i) * sizeof(SampleRow); };
        send(row(first), row(end));
        if (buffers_->extra_used() > 0) {
            send(layout.extra, layout.extra + buffers_->extra_used());
        }
        forward_->head(v, first, end - first);
        if (step.want_logits) {
            for (int i = first; i < end; i++) {
                stream_.download(current_->logits.data() + static_cast<size_t>(i) * vocab,
                                 forward_->logits() + static_cast<size_t>(i - first) *
                                                          static_cast<size_t>(forward_->logits_stride()),
                                 vocab * sizeof(float));
            }
        }
        forward_->sample(v, first, end - first);
        first = end;
    }
}

void CudaBackend::launch(const Step& step) {
    check_step(step, info_, current_->rows);
    if (under_way_ == static_cast<int>(flights_.size())) {
        throw std::invalid_argument("a step was launched while two others were under way");
    }
    std::swap(current_, previous_);
    buffers_->use(current_->meta.data());
    current_->rows = step.n_logit;
    current_->logits.assign(
        step.want_logits ? static_cast<size_t>(step.n_logit) * static_cast<size_t>(info_.vocab_size) : 0, 0);
    current_->n_logprobs.clear();
    for (int32_t i = 0; i < step.n_logit; i++) {
        current_->n_logprobs.push_back(step.sampling[i].n_logprobs);
    }
    const bool replay = options_.graphs && !step.want_logits && !forward_->watched() && is_decode(step);
    if (step.n_tok > 0 && !(replay && launch_graph(step))) {
        launch_eager(step);
    }
    if (step.n_logit > 0) {
        stream_.download(current_->results.data(), forward_->sample_out(),
                         static_cast<size_t>(step.n_logit) * sizeof(SampleOut));
    }
    current_->done.record(stream_);
    under_way_++;
}

void CudaBackend::wait(StepResult& result) {
    if (under_way_ == 0) {
        throw std::invalid_argument("there is no step to wait for");
    }
    Flight& flight = under_way_ == 1 ? *current_ : *previous_;
    under_way_--;
    flight.done.synchronize();
    const auto* out = reinterpret_cast<const SampleOut*>(flight.results.data());
    const auto n = static_cast<size_t>(flight.rows);
    result.token.resize(n);
    result.logprob.resize(n);
    result.top.resize(n);
    for (size_t i = 0; i < n; i++) {
        if (out[i].token < 0 || out[i].token >= info_.vocab_size) {
            throw std::runtime_error("the GPU returned token " + std::to_string(out[i].token) +
                                     ", outside the vocabulary");
        }
        result.token[i] = out[i].token;
        result.logprob[i] = flight.n_logprobs[i] >= 0 ? out[i].logprob : 0.0f;
        result.top[i].clear();
        const int top = flight.n_logprobs[i] > 0 ? std::min(out[i].n_top, kMaxTop) : 0;
        for (int t = 0; t < top; t++) {
            result.top[i].push_back({out[i].top_token[t], out[i].top_logprob[t]});
        }
    }
    result.logits.swap(flight.logits);
}

}  // namespace llm::engine::cuda
