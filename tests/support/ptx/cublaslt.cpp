// cuBLASLt's functions that the engine calls, on the host, written from NVIDIA's description: matrices by columns, operations,
// types that go together, pointers aligned as the heuristic was told. What the library would refuse is refused with its status; what it
// would compute wrongly or crash on ends the program. Of the algorithms offered one cannot run, as may be with the real ones, and one
// that is offered unless it is excluded keeps parts of a sum in the type of the result.
#include <cublasLt.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "engine_worker/model/dtype.hpp"
#include "tests/support/cuda_emulation/runtime.hpp"

using llm::emulation::is_device_memory;

namespace {

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "cuBLASLt: %s\n", why);
    std::abort();
}

struct Operation {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t a = CUBLAS_OP_N, b = CUBLAS_OP_N;
};
struct Layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t stride;  // elements from one column to the next
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
};
static_assert(sizeof(Operation) <= sizeof(cublasLtMatmulDescOpaque_t) && sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t) &&
              sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));

constexpr uint64_t kMark = 0x6c6c6d2d67656d6d;  // in the algorithms that were given out
constexpr uint64_t kCannotRun = 1, kTakesWorkspace = 2, kPartsAsResult = 3;
constexpr uint64_t kAlignment = 256;  // what heuristics count on unless told otherwise
constexpr size_t kWorkspace = 4096;   // what the last algorithm takes

size_t workspace_of(const cublasLtMatmulAlgo_t& algorithm) { return algorithm.data[1] == kTakesWorkspace ? kWorkspace : 0; }

template <typename T, typename Opaque>
T& of(Opaque* opaque) {
    if (opaque == nullptr) {
        die("a descriptor that was not made");
    }
    return *reinterpret_cast<T*>(opaque);
}
template <typename Opaque, typename T>
cublasStatus_t make(Opaque** out, const T& value) {
    *out = new Opaque{};
    std::memcpy(static_cast<void*>(*out), &value, sizeof value);
    return CUBLAS_STATUS_SUCCESS;
}

size_t size_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

// Of the product that the descriptors make: d is n x rows, k is what is summed over.
struct Sizes {
    uint64_t m, n, k;
};
std::optional<Sizes> sizes_of(const Operation& operation, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    const bool a_turned = operation.a == CUBLAS_OP_T, b_turned = operation.b == CUBLAS_OP_T;
    const Sizes out{a_turned ? a.columns : a.rows, b_turned ? b.rows : b.columns, a_turned ? a.rows : a.columns};
    if ((b_turned ? b.columns : b.rows) != out.k || d.rows != out.m || d.columns != out.n || c.rows != d.rows || c.columns != d.columns) {
        return std::nullopt;
    }
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (layout->stride < static_cast<int64_t>(layout->rows)) {
            return std::nullopt;
        }
    }
    return out;
}
// COMPUTE_32F with scales in f32: bf16 times bf16 to bf16 or f32, c of d's type.
bool known_types(const Operation& operation, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    return operation.compute == CUBLAS_COMPUTE_32F && operation.scale == CUDA_R_32F && a.type == CUDA_R_16BF && b.type == CUDA_R_16BF &&
           (d.type == CUDA_R_16BF || d.type == CUDA_R_32F) && c.type == d.type;
}
void require_matrix(const void* at, const Layout& layout) {
    const uint64_t elements = (layout.columns - 1) * static_cast<uint64_t>(layout.stride) + layout.rows;
    if (reinterpret_cast<uint64_t>(at) % kAlignment != 0 || static_cast<uint64_t>(layout.stride) * size_of(layout.type) % 16 != 0) {
        die("a matrix is less aligned than the heuristic was told");
    }
    if (!is_device_memory(at, elements * size_of(layout.type))) {
        die("a matrix that is not in device memory");
    }
}
float value_at(const void* at, cudaDataType_t type, uint64_t index) {
    return type == CUDA_R_32F ? static_cast<const float*>(at)[index] : llm::engine::bf16_to_f32(static_cast<const uint16_t*>(at)[index]);
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = reinterpret_cast<cublasLtHandle_t>(new char);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete reinterpret_cast<char*>(handle);
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion() { return 130000; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* out, cublasComputeType_t compute, cudaDataType_t scale) {
    return make(out, Operation{compute, scale});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation) {
    delete operation;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              size_t bytes) {
    auto& o = of<Operation>(operation);
    if (attribute != CUBLASLT_MATMUL_DESC_TRANSA && attribute != CUBLASLT_MATMUL_DESC_TRANSB) {
        die("an attribute of products that is not known");
    }
    if (bytes != sizeof(int32_t)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    std::memcpy(attribute == CUBLASLT_MATMUL_DESC_TRANSA ? &o.a : &o.b, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* out, cudaDataType_t type, uint64_t rows, uint64_t columns, int64_t stride) {
    return make(out, Layout{type, rows, columns, stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* out) { return make(out, Preference{}); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
    auto& p = of<Preference>(preference);
    const bool of_workspace = attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    if (!of_workspace && attribute != CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
        die("a preference that is not known");
    }
    if (bytes != (of_workspace ? sizeof p.workspace : sizeof p.reductions)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    std::memcpy(of_workspace ? static_cast<void*>(&p.workspace) : &p.reductions, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int wanted, cublasLtMatmulHeuristicResult_t* results, int* found) {
    *found = 0;
    const auto& o = of<Operation>(operation);
    if (wanted < 1 || !sizes_of(o, of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!known_types(o, of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d))) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const bool parts_as_result =
        (of<Preference>(preference).reductions & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)) != 0;
    // Asked for one, it gives one that runs.
    std::vector<uint64_t> offered = wanted == 1 ? std::vector<uint64_t>{0} : std::vector<uint64_t>{kCannotRun, 0, kTakesWorkspace};
    if (parts_as_result) {
        offered.insert(offered.begin(), kPartsAsResult);
    }
    for (const uint64_t number : offered) {
        cublasLtMatmulHeuristicResult_t result{};
        result.algo.data[0] = kMark;
        result.algo.data[1] = number;
        result.workspaceSize = workspace_of(result.algo);
        result.state = CUBLAS_STATUS_SUCCESS;
        if (*found < wanted && result.workspaceSize <= of<Preference>(preference).workspace) {
            results[(*found)++] = result;
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t* algorithm,
                                       cublasLtMatmulHeuristicResult_t* result) {
    const auto& o = of<Operation>(operation);
    if (algorithm->data[0] != kMark || !sizes_of(o, of<Layout>(a), of<Layout>(b), of<Layout>(c), of<Layout>(d))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *result = {};
    result->algo = *algorithm;
    result->workspaceSize = workspace_of(*algorithm);
    return algorithm->data[1] == kCannotRun ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a_data,
                              cublasLtMatrixLayout_t a_layout, const void* b_data, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c_data, cublasLtMatrixLayout_t c_layout, void* d_data, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
    const auto o = of<Operation>(operation);
    const auto a = of<Layout>(a_layout), b = of<Layout>(b_layout), c = of<Layout>(c_layout), d = of<Layout>(d_layout);
    const auto sizes = sizes_of(o, a, b, c, d);
    if (handle == nullptr || !sizes || algorithm->data[0] != kMark || (c_data == d_data && std::memcmp(&c, &d, sizeof c) != 0)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!known_types(o, a, b, c, d) || algorithm->data[1] == kCannotRun) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const size_t needed = workspace_of(*algorithm);
    if (workspace_bytes < needed) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (workspace_bytes > 0 && (reinterpret_cast<uint64_t>(workspace) % 256 != 0 || !is_device_memory(workspace, workspace_bytes))) {
        die("work space that is not aligned or not in device memory");
    }
    float one = 0, other = 0;  // on the host: the mode that a new operation has
    std::memcpy(&one, alpha, sizeof one);
    std::memcpy(&other, beta, sizeof other);
    require_matrix(a_data, a);
    require_matrix(b_data, b);
    require_matrix(d_data, d);
    if (other != 0) {
        require_matrix(c_data, c);
    }
    const uint64_t chosen = algorithm->data[1];
    const cudaError_t error = llm::emulation::enqueue(stream, [=] {
        if (needed > 0) {
            std::memset(workspace, 0xff, needed);
        }
        // By columns: element (r, j) of a matrix is at j * stride + r.
        const auto at = [](const Layout& layout, bool turned, uint64_t r, uint64_t j) {
            return turned ? r * static_cast<uint64_t>(layout.stride) + j : j * static_cast<uint64_t>(layout.stride) + r;
        };
        std::vector<float> column(sizes->k);
        const bool in_parts = chosen == kPartsAsResult && d.type == CUDA_R_16BF;
        for (uint64_t j = 0; j < sizes->n; j++) {
            for (uint64_t i = 0; i < sizes->k; i++) {
                column[i] = value_at(b_data, b.type, at(b, o.b == CUBLAS_OP_T, i, j));
            }
            for (uint64_t r = 0; r < sizes->m; r++) {
                float sum = 0;
                for (uint64_t i = 0; i < sizes->k; i++) {
                    if (in_parts && i % 32 == 0) {
                        sum = llm::engine::bf16_to_f32(llm::engine::f32_to_bf16(sum));
                    }
                    sum += value_at(a_data, a.type, at(a, o.a == CUBLAS_OP_T, r, i)) * column[i];
                }
                const uint64_t to = at(d, false, r, j);
                const float out = one * sum + (other != 0 ? other * value_at(c_data, c.type, at(c, false, r, j)) : 0);
                if (d.type == CUDA_R_32F) {
                    static_cast<float*>(d_data)[to] = out;
                } else {
                    static_cast<uint16_t*>(d_data)[to] = llm::engine::f32_to_bf16(out);
                }
            }
        }
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
