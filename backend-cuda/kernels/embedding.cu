// The embedding's rows, and their gradient in the order of the tokens.
#include "common.cuh"
typedef ELEMENT T;

const u32 NONE = 0xffffffffu;

struct Embedding {
    const u32* tokens;
    const T* table;
    T* y;
    u64 first_row, rows;
    u32 h;
};
KERNEL(embedding, Embedding, 256) {
    const u64 t = blockIdx.x, row = p.tokens[t] - p.first_row;
    const bool held = p.tokens[t] >= p.first_row && row < p.rows;
    for (u32 i = threadIdx.x; i < p.h; i += 256) {
        T zero = Narrow<T>::of(0.f);
        p.y[t * p.h + i] = held ? p.table[row * p.h + i] : zero;
    }
}

// First, each token finds its next occurrence, and whether it has one before: those that have none begin a list.
struct EmbeddingBackward {
    const u32* tokens;
    const T* dy;
    float* dtable;
    u32* next;
    u32* begins;
    u64 first_row, rows;
    u32 t, h;
};
KERNEL(embedding_lists, EmbeddingBackward, 128) {
    const u32 at = blockIdx.x * 128 + threadIdx.x;
    if (at >= p.t) return;
    const u32 token = p.tokens[at];
    u32 next = at + 1, before = 0;
    while (next < p.t && p.tokens[next] != token) next++;
    while (before < at && p.tokens[before] != token) before++;
    p.next[at] = next < p.t ? next : NONE;
    p.begins[at] = before == at;
}
// Then a block a list, a thread a column.
KERNEL(embedding_backward, EmbeddingBackward, 256) {
    const u32 begin = blockIdx.x;
    if (!p.begins[begin]) return;
    const u64 token = p.tokens[begin], row = token - p.first_row;
    if (token < p.first_row || row >= p.rows) return;
    for (u32 i = threadIdx.x; i < p.h; i += 256) {
        float sum = p.dtable[row * p.h + i];
        for (u32 at = begin; at != NONE; at = p.next[at]) sum += to_float(p.dy[(u64)at * p.h + i]);
        p.dtable[row * p.h + i] = sum;
    }
}
