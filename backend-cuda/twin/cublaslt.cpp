// A libcublasLt on the streams of the twin's driver: the products that the backend asks for, by columns, in fp32.
//
// Handles must be live, and are destroyed once; attributes have their length; leading dimensions reach, extents match, and everything that a product touches is
// memory of its stream's device, when it is called and when it runs. An algorithm is for the one problem that the heuristic was asked about, and for pointers that lie
// as the preference said. Sums are made in an order of its own, which depends on the algorithm: four lanes, in up to two pieces in the workspace; in the result's
// type if the preference lets it. TWIN_CUBLASLT_FAULT has it take a call as a host would have made it that errs: leading (the other extent), transposes (exchanged),
// bias (along the other side), beta (not read), key (an algorithm kept without regard to the extents).
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "numbers.h"
#define API extern "C" __attribute__((visibility("default"))) int

extern "C" bool twin_stream(const void* stream);
extern "C" bool twin_reaches(const void* stream, const void* at, size_t bytes);
extern "C" int twin_push(void* stream, std::function<int()>* task);

enum { UNINITIALIZED = 1, INVALID = 7, EXECUTION_FAILED = 13, UNSUPPORTED = 15, LAUNCH_FAILED = 719 };
enum { R_32F = 0, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68 };
enum { BIAS = 4, GELU = 32, AUX = 128 };

static bool fault(const char* name) {
    const char* planted = getenv("TWIN_CUBLASLT_FAULT");
    return planted && !strcmp(planted, name);
}
static int wrong(const char* what) {
    fprintf(stderr, "twin: cublasLt: %s\n", what);
    return INVALID;
}

struct Handle {};
struct Operation {
    int trans_a = 0, trans_b = 0;
    uint32_t epilogue = 1;
    void *bias = nullptr, *aux = nullptr;
    int64_t aux_leading = 0;
};
struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t leading;
    int32_t batch = 1;
    int64_t stride = 0;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = 7, alignments[4] = {256, 256, 256, 256};
    uint64_t implementations = ~0ull;
};

// What lives, by its kind's letter.
static std::mutex registry;
static std::map<const void*, char> live;
static uint64_t heuristics = 0, products = 0;
template <class T> static int keep(T** result, char kind, T value) {
    if (!result) return INVALID;
    *result = new T(value);
    std::lock_guard<std::mutex> lock(registry);
    return live[*result] = kind, 0;
}
static bool lives(const void* object, char kind) {
    std::lock_guard<std::mutex> lock(registry);
    const auto found = live.find(object);
    return found != live.end() && found->second == kind;
}
template <class T> static int destroy(T* object, char kind) {
    if (!lives(object, kind)) return wrong("what is destroyed does not live");
    {
        std::lock_guard<std::mutex> lock(registry);
        live.erase(object);
    }
    return delete object, 0;
}
template <class T> static int take(T& to, const void* from, size_t bytes) {
    if (!from || bytes != sizeof(T)) return wrong("an attribute of another length");
    return memcpy(&to, from, bytes), 0;
}
// For tests: what lives of a kind ('h'andles, 'o'perations, 'l'ayouts, 'p'references), calls of the heuristic ('?') and products ('*').
extern "C" __attribute__((visibility("default"))) uint64_t twin_cublaslt_count(char kind) {
    std::lock_guard<std::mutex> lock(registry);
    if (kind == '?') return heuristics;
    if (kind == '*') return products;
    uint64_t n = 0;
    for (const auto& [object, of] : live) n += of == kind;
    return n;
}

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 120900; }
extern "C" __attribute__((visibility("default"))) const char* cublasLtGetStatusString(int code) {
    return code == INVALID ? "an unsupported value or parameter was passed to the function" : code == UNSUPPORTED ? "the functionality is not supported" : "failed";
}
API cublasLtCreate(Handle** handle) { return keep(handle, 'h', Handle{}); }
API cublasLtDestroy(Handle* handle) {
    for (char kind : {'o', 'l', 'p'})
        if (twin_cublaslt_count(kind) && twin_cublaslt_count('h') == 1) fprintf(stderr, "twin: cublasLt: descriptors outlive the last handle\n");
    return destroy(handle, 'h');
}
API cublasLtMatmulDescCreate(Operation** operation, int compute, int scale) {
    return compute != COMPUTE_32F || scale != R_32F ? UNSUPPORTED : keep(operation, 'o', Operation{});
}
API cublasLtMatmulDescDestroy(Operation* operation) { return destroy(operation, 'o'); }
API cublasLtMatmulDescSetAttribute(Operation* operation, int attribute, const void* from, size_t bytes) {
    if (!lives(operation, 'o')) return wrong("an operation that does not live");
    switch (attribute) {
    case 3: return take(operation->trans_a, from, bytes);
    case 4: return take(operation->trans_b, from, bytes);
    case 7: return take(operation->epilogue, from, bytes);
    case 8: return take(operation->bias, from, bytes);
    case 11: return take(operation->aux, from, bytes);
    case 12: return take(operation->aux_leading, from, bytes);
    }
    return wrong("an unknown attribute of an operation");
}
API cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (type != R_32F && type != R_16F && type != R_16BF) return UNSUPPORTED;
    if (fault("leading")) leading = columns > rows ? columns : rows;
    return keep(layout, 'l', Layout{type, rows, columns, leading});
}
API cublasLtMatrixLayoutDestroy(Layout* layout) { return destroy(layout, 'l'); }
API cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* from, size_t bytes) {
    if (!lives(layout, 'l')) return wrong("a layout that does not live");
    return attribute == 5 ? take(layout->batch, from, bytes) : attribute == 6 ? take(layout->stride, from, bytes) : wrong("an unknown attribute of a layout");
}
API cublasLtMatmulPreferenceCreate(Preference** preference) { return keep(preference, 'p', Preference{}); }
API cublasLtMatmulPreferenceDestroy(Preference* preference) { return destroy(preference, 'p'); }
API cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* from, size_t bytes) {
    if (!lives(preference, 'p')) return wrong("a preference that does not live");
    switch (attribute) {
    case 1: return take(preference->workspace, from, bytes);
    case 3: return take(preference->reductions, from, bytes);
    case 5: case 6: case 7: case 8: return take(preference->alignments[attribute - 5], from, bytes);
    case 12: return take(preference->implementations, from, bytes);
    }
    return wrong("an unknown attribute of a preference");
}

static size_t size_of(int type) { return type == R_32F ? 4 : 2; }
typedef Numbers<R_32F, R_16F> Float;
static float rounded(float x, int type) {
    uint32_t memory;
    Float::store(&memory, type, 0, x);
    return Float::load(&memory, type, 0);
}

// The problem that an algorithm is for, as the heuristic saw it.
struct Problem {
    int trans_a, trans_b, types[3];
    uint64_t m, n, k, epilogue, batch;
};
static bool same(const Problem& a, const Problem& b) {
    return a.trans_a == b.trans_a && a.trans_b == b.trans_b && !memcmp(a.types, b.types, sizeof a.types) && a.m == b.m && a.n == b.n && a.k == b.k &&
           a.epilogue == b.epilogue && a.batch == b.batch;
}
// cublasLtMatmulAlgo_t: 64 bytes that only the library reads.
struct Algorithm {
    uint64_t problem, pieces, narrow;
    uint32_t alignments[4];
    uint64_t unused[3];
};
static_assert(sizeof(Algorithm) == 64, "");
struct Result {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static std::mutex seen;
static std::vector<Problem> problems;

static size_t length(const Layout& layout) { return (layout.columns - 1) * layout.leading + layout.rows + (layout.batch - 1) * (size_t)layout.stride; }
// Checks one problem; m x n is the result, by columns.
static int describe(const Operation& operation, const Layout& a, const Layout& b, const Layout& c, const Layout& d, Problem* problem) {
    const bool exchanged = fault("transposes");
    const int trans_a = exchanged ? operation.trans_b : operation.trans_a, trans_b = exchanged ? operation.trans_a : operation.trans_b;
    if (trans_a < 0 || trans_a > 1 || trans_b < 0 || trans_b > 1) return wrong("an unknown transposition");
    const uint64_t m = trans_a ? a.columns : a.rows, k = trans_a ? a.rows : a.columns, n = trans_b ? b.rows : b.columns;
    if ((trans_b ? b.columns : b.rows) != k || d.rows != m || d.columns != n || c.rows != m || c.columns != n) return wrong("extents do not match");
    if (!m || !n || !k) return wrong("an extent is 0");
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (layout->leading < (int64_t)layout->rows) return wrong("a leading dimension is shorter than a column");
        if (layout->batch < 1 || layout->batch != d.batch) return wrong("batches do not match");
    }
    if (d.batch > 1 && d.stride < (int64_t)((n - 1) * d.leading + m)) return wrong("results of a batch overlap");
    if (c.type != d.type || a.type != b.type || (d.type != a.type && d.type != R_32F)) return UNSUPPORTED;
    const uint32_t epilogue = operation.epilogue;
    if (epilogue != 1 && epilogue != BIAS && epilogue != (GELU | AUX | BIAS)) return UNSUPPORTED;
    if (epilogue & BIAS && (!operation.bias || d.batch > 1)) return wrong("a bias that is null, or of a batch");
    if (epilogue & AUX && (!operation.aux || operation.aux_leading < (int64_t)m || operation.aux_leading % 8 || (uintptr_t)operation.aux % 16))
        return wrong("GELU's input needs columns of eight elements from 16 bytes on");
    *problem = {trans_a, trans_b, {a.type, b.type, d.type}, m, n, k, epilogue, (uint64_t)d.batch};
    return 0;
}

API cublasLtMatmulAlgoGetHeuristic(Handle* handle, Operation* operation, Layout* a, Layout* b, Layout* c, Layout* d, Preference* preference, int asked,
                                   Result* results, int* count) {
    if (!lives(handle, 'h') || !lives(operation, 'o') || !lives(preference, 'p') || asked < 1 || !results || !count) return wrong("the heuristic needs live objects");
    for (Layout* layout : {a, b, c, d})
        if (!lives(layout, 'l')) return wrong("a layout that does not live");
    Problem problem;
    if (int code = describe(*operation, *a, *b, *c, *d, &problem)) return code;
    const int types[] = {a->type, b->type, c->type, d->type};
    for (int i = 0; i < 4; i++)
        if (preference->alignments[i] % size_of(types[i])) return *count = 0, UNSUPPORTED;
    std::lock_guard<std::mutex> lock(seen);
    {
        std::lock_guard<std::mutex> counts(registry);
        heuristics++;
    }
    Algorithm algorithm{};
    memcpy(algorithm.alignments, preference->alignments, sizeof algorithm.alignments);
    algorithm.problem = problems.size();
    if (fault("key"))
        for (uint64_t i = 0; i < problems.size(); i++)
            if (!memcmp(problems[i].types, problem.types, sizeof problem.types) && problems[i].trans_a == problem.trans_a && problems[i].trans_b == problem.trans_b &&
                problems[i].epilogue == problem.epilogue) {
                algorithm.problem = i;
                break;
            }
    problems.push_back(problem);
    // In place and in the result's type is quickest, if it may be.
    const size_t bytes = problem.k >= 32 ? 2 * 4 * problem.m * problem.n * problem.batch : 0;
    algorithm.narrow = problem.k >= 32 && (preference->reductions & 5);
    algorithm.pieces = algorithm.narrow || (bytes && preference->reductions & 2 && bytes <= preference->workspace) ? 2 : 1;
    results[0] = {algorithm, algorithm.pieces == 2 && !algorithm.narrow ? bytes : 0, 0, 1.f, {}};
    return *count = 1, 0;
}

// One sum over part of k, in four lanes.
static float part(const Problem& p, const Layout& la, const Layout& lb, const char* a, const char* b, uint64_t i, uint64_t j, uint64_t from, uint64_t to) {
    float lanes[4] = {};
    for (uint64_t l = from; l < to; l++) {
        const float x = Float::load(a, la.type, p.trans_a ? l + i * la.leading : i + l * la.leading);
        const float y = Float::load(b, lb.type, p.trans_b ? j + l * lb.leading : l + j * lb.leading);
        lanes[l % 4] = fmaf(x, y, lanes[l % 4]);
    }
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

API cublasLtMatmul(Handle* handle, Operation* operation_, const float* alpha_, const void* a, Layout* a_, const void* b, Layout* b_, const float* beta_, const void* c,
                   Layout* c_, void* d, Layout* d_, const Algorithm* algorithm_, void* workspace, size_t workspace_bytes, void* stream) {
    if (!lives(handle, 'h')) return UNINITIALIZED;
    if (!lives(operation_, 'o') || !alpha_ || !beta_ || !algorithm_) return wrong("a product needs live objects");
    for (Layout* layout : {a_, b_, c_, d_})
        if (!lives(layout, 'l')) return wrong("a layout that does not live");
    if (!stream || !twin_stream(stream)) return wrong("no stream of a device");
    // Everything is copied: what is on the stream must not hang on descriptors.
    const Operation operation = *operation_;
    const Layout la = *a_, lb = *b_, lc = *c_, ld = *d_;
    const Algorithm algorithm = *algorithm_;
    const float alpha = *alpha_, beta = fault("beta") ? 0.f : *beta_;
    Problem problem;
    if (int code = describe(operation, la, lb, lc, ld, &problem)) return code;
    {
        std::lock_guard<std::mutex> lock(seen);
        if (algorithm.problem >= problems.size() || !same(problems[algorithm.problem], problem)) return wrong("an algorithm for another problem");
    }
    const void* pointers[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if ((uintptr_t)pointers[i] % algorithm.alignments[i]) return wrong("a pointer does not lie as the algorithm needs it");
    const bool across = fault("bias");
    const size_t needed = algorithm.pieces == 2 && !algorithm.narrow ? 2 * 4 * problem.m * problem.n * problem.batch : 0;
    auto reaches = [=] {
        return twin_reaches(stream, a, length(la) * size_of(la.type)) && twin_reaches(stream, b, length(lb) * size_of(lb.type)) &&
               (beta == 0 || twin_reaches(stream, c, length(lc) * size_of(lc.type))) && twin_reaches(stream, d, length(ld) * size_of(ld.type)) &&
               (!needed || twin_reaches(stream, workspace, needed)) &&
               (!(operation.epilogue & BIAS) || twin_reaches(stream, operation.bias, (across ? problem.n : problem.m) * size_of(ld.type))) &&
               (!(operation.epilogue & AUX) || twin_reaches(stream, operation.aux, ((problem.n - 1) * operation.aux_leading + problem.m) * size_of(ld.type)));
    };
    if (needed > workspace_bytes) return wrong("the workspace is too small for the algorithm");
    if (!reaches()) return wrong("memory that is not the device's");
    {
        std::lock_guard<std::mutex> lock(registry);
        products++;
    }
    std::function<int()> task = [=] {
        // It may have been freed since.
        if (!reaches()) return fprintf(stderr, "twin: cublasLt: memory was freed before the product\n"), (int)LAUNCH_FAILED;
        const Problem& p = problem;
        float* partial = (float*)workspace;
        for (uint64_t z = 0; z < p.batch; z++) {
            const char* az = (const char*)a + z * la.stride * size_of(la.type);
            const char* bz = (const char*)b + z * lb.stride * size_of(lb.type);
            const char* cz = (const char*)c + z * lc.stride * size_of(lc.type);
            char* dz = (char*)d + z * ld.stride * size_of(ld.type);
            for (uint64_t j = 0; j < p.n; j++)
                for (uint64_t i = 0; i < p.m; i++) {
                    float sum;
                    if (algorithm.pieces == 1) {
                        sum = part(p, la, lb, az, bz, i, j, 0, p.k);
                    } else {
                        const float low = part(p, la, lb, az, bz, i, j, 0, p.k / 2), high = part(p, la, lb, az, bz, i, j, p.k / 2, p.k);
                        if (algorithm.narrow) {
                            sum = rounded(low, ld.type) + rounded(high, ld.type);
                        } else {
                            float* at = partial + 2 * ((z * p.n + j) * p.m + i);
                            at[0] = low, at[1] = high;
                            sum = at[1] + at[0];
                        }
                    }
                    float x = alpha * sum;
                    if (beta != 0) x += beta * Float::load(cz, lc.type, i + j * lc.leading);
                    if (operation.epilogue & BIAS) x += Float::load(operation.bias, ld.type, across ? j : i);
                    if (operation.epilogue & AUX) {
                        Float::store(operation.aux, ld.type, i + j * operation.aux_leading, x);
                        x = x / (1.f + expf(-2.f * 0.7978845608f * (x + 0.044715f * x * x * x)));
                    }
                    Float::store(dz, ld.type, i + j * ld.leading, x);
                }
        }
        return 0;
    };
    return twin_push(stream, &task) ? EXECUTION_FAILED : 0;
}
