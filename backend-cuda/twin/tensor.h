// The twins of kernels/tensor.cuh's PTX. Products are summed in fp32 in the order of k, which no tensor core promises.
template <class T> static inline void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, T) {
    // A lane's numbers, word by word: four words of a, two of b.
    const u32 words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    float mine[12];
    for (unsigned word = 0; word < 6; word++)
        mine[2 * word] = to_float(T{(u16)words[word]}), mine[2 * word + 1] = to_float(T{(u16)(words[word] >> 16)});
    auto all = twin::exchange<sizeof mine>(0xffffffffu, mine);
    auto element = [&](unsigned lane, unsigned word, unsigned half) {
        float x;
        memcpy(&x, all[lane] + 4 * (2 * word + half), 4);
        return x;
    };
    const unsigned g = twin::lane() / 4, t = twin::lane() % 4;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 16; k++)
            c[i] += element(row % 8 * 4 + k % 8 / 2, row / 8 + 2 * (k / 8), k % 2) * element(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    }
}
static inline void load(u32 (&r)[4], const void* row, bool transposed) {
    if ((uintptr_t)row % 16) twin::fault("a row of ldmatrix that is not aligned to 16 bytes");
    auto all = twin::exchange<sizeof row>(0xffffffffu, &row);
    const unsigned a = twin::lane() / 4, b = 2 * (twin::lane() % 4);
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        auto element = [&](unsigned row, unsigned column) {
            const u16* at;
            memcpy(&at, all[matrix * 8 + row], sizeof at);
            return (u32)at[column];
        };
        r[matrix] = transposed ? element(b, a) | element(b + 1, a) << 16 : element(a, b) | element(a, b + 1) << 16;
    }
    __syncwarp();
}
static inline void load_matrices(u32 (&r)[4], const void* row) { load(r, row, false); }
static inline void load_transposed(u32 (&r)[4], const void* row) { load(r, row, true); }

// A copy is made at once, or when it is waited for and no sooner: the hardware may do either.
static inline void make(const twin::Copy& copy) { copy.zero ? memset(copy.to, 0, 16) : memcpy(copy.to, copy.from, 16); }
static inline void copy_async(void* to, const void* from, bool there) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16) twin::fault("a copy of 16 bytes that is not aligned to them");
    const twin::Copy copy = {to, from, !there};
    if (twin::here->eager) return make(copy);
    twin::me().open.push_back(copy);
}
static inline void commit_copies() {
    twin::Fiber& fiber = twin::me();
    fiber.committed.push_back(std::move(fiber.open));
    fiber.open.clear();
}
template <int N> static inline void wait_copies() {
    auto& groups = twin::me().committed;
    while (groups.size() > N) {
        for (auto& copy : groups.front()) make(copy);
        groups.erase(groups.begin());
    }
}
