"""The C++ of small matrix products, one template for all sizes."""

SOURCE = r"""
#ifndef FUNCNET_PRODUCT
#define FUNCNET_PRODUCT
#if defined(__clang__)
#define FUNCNET_UNROLL _Pragma("unroll")
#else
#define FUNCNET_UNROLL _Pragma("GCC unroll 8")
#endif
// c[m * N + n] = addend[m * DM + n * DN] + sum over k of a[m * AM + k * AK] * b[k * BK + n * BN], blocks of c in registers
template <typename T, int64_t M, int64_t N, int64_t K, int64_t AM, int64_t AK, int64_t BK, int64_t BN,
          bool ADDS, int64_t DM, int64_t DN>
struct FuncnetProduct {
    using Vec = at::vec::Vectorized<T>;
    static constexpr int64_t V = Vec::size(), VECTORS = (N + V - 1) / V;
    static constexpr int64_t WIDEST = V * sizeof(T) == 32 ? 2 : 4;  // AVX2 has 16 registers, others have 32
    static constexpr int64_t COLUMNS = VECTORS < WIDEST ? VECTORS : WIDEST;
    static constexpr int64_t ROWS = COLUMNS == 1 ? 8 : WIDEST == 2 ? 5 : COLUMNS == 2 ? 8 : COLUMNS == 3 ? 6 : 5;

    static inline Vec load(const T* from, int64_t count) {
        return count == V ? Vec::loadu(from) : Vec::loadu(from, count);
    }

    static inline Vec added(const T* addend, int64_t n, int64_t count) {
        if constexpr (DN == 0) return Vec(addend[0]);
        if constexpr (DN == 1) return load(addend + n, count);
        T given[V] = {};
        for (int64_t i = 0; i < count; i++) given[i] = addend[(n + i) * DN];
        return Vec::loadu(given);
    }

    // A block of R rows and C vectors, the last of which has LAST elements.
    template <int64_t R, int64_t C, int64_t LAST>
    static inline void block(const T* a, const T* b, int64_t step, const T* addend, int64_t n, T* c) {
        Vec sums[R][C];
        for (int64_t r = 0; r < R; r++)
            for (int64_t j = 0; j < C; j++) sums[r][j] = Vec(0);
        for (int64_t k = 0; k < K; k++) {
            Vec row[C];
            FUNCNET_UNROLL
            for (int64_t j = 0; j < C; j++) row[j] = load(b + k * step + j * V, j + 1 < C ? V : LAST);
            FUNCNET_UNROLL
            for (int64_t r = 0; r < R; r++) {
                const Vec x(a[r * AM + k * AK]);
                FUNCNET_UNROLL
                for (int64_t j = 0; j < C; j++) sums[r][j] = at::vec::fmadd(x, row[j], sums[r][j]);
            }
        }
        FUNCNET_UNROLL
        for (int64_t r = 0; r < R; r++)
            FUNCNET_UNROLL
            for (int64_t j = 0; j < C; j++) {
                const int64_t count = j + 1 < C ? V : LAST;
                if constexpr (ADDS) sums[r][j] = sums[r][j] + added(addend + r * DM, n + j * V, count);
                sums[r][j].store(c + r * N + j * V, count);
            }
    }

    template <int64_t C, int64_t LAST>
    static inline void all_rows(const T* a, const T* b, int64_t step, const T* addend, int64_t n, T* c) {
        int64_t m = 0;
        for (; m + ROWS <= M; m += ROWS) block<ROWS, C, LAST>(a + m * AM, b, step, addend + m * DM, n, c + m * N + n);
        if constexpr (M % ROWS > 0) block<M % ROWS, C, LAST>(a + m * AM, b, step, addend + m * DM, n, c + m * N + n);
    }

    static inline void over(const T* a, const T* b, int64_t step, const T* addend, T* c) {
        constexpr int64_t WIDE = COLUMNS * V, REST = N % WIDE;
        int64_t n = 0;
        for (; n + WIDE <= N; n += WIDE) all_rows<COLUMNS, V>(a, b + n, step, addend, n, c);
        if constexpr (REST > 0) all_rows<(REST + V - 1) / V, (REST - 1) % V + 1>(a, b + n, step, addend, n, c);
    }

    // Copy D columns of R rows to D rows.
    template <int64_t R, int64_t D>
    static inline void turn_some(const T* from, int64_t step, T* to, int64_t width) {
        constexpr int64_t S = 16, REST = R % S;
        for (int64_t r = 0; r + S <= R; r += S) at::vec::transpose_mxn<T, S, D>(from + r * step, step, to + r, width);
        if constexpr (REST > 0)
            at::vec::transpose_mxn<T, REST, D>(from + (R - REST) * step, step, to + R - REST, width);
    }

    // Copy R rows of C contiguous elements to C rows.
    template <int64_t R, int64_t C>
    static inline void turn(const T* from, int64_t step, T* to, int64_t width) {
        constexpr int64_t S = 16, REST = C % S;
        for (int64_t c = 0; c + S <= C; c += S) turn_some<R, S>(from + c, step, to + c * width, width);
        if constexpr (REST > 0) turn_some<R, REST>(from + C - REST, step, to + (C - REST) * width, width);
    }

    static inline void run(const T* a, const T* b, const T* addend, T* c) {
        if constexpr (BN == 1) {
            over(a, b, BK, addend, c);
        } else {
            constexpr int64_t STEP = VECTORS * V;
            alignas(64) T rows[K * STEP];
            if constexpr (N % V > 0)  // zeros after the last column, which the copies overwrite before it
                for (int64_t k = 0; k < K; k++) Vec(0).store(rows + (k + 1) * STEP - V);
            if constexpr (BK == 1) {
                turn<N, K>(b, BN, rows, STEP);
            } else {
                for (int64_t n = 0; n < N; n++)
                    for (int64_t k = 0; k < K; k++) rows[k * STEP + n] = b[k * BK + n * BN];
            }
            over(a, rows, STEP, addend, c);
        }
    }

    // Compute the transposed result and transpose it: faster if c is narrow and b can be read as the left factor.
    static inline void run_turned(const T* a, const T* b, const T* addend, T* c) {
        alignas(64) T turned[N * M];
        FuncnetProduct<T, N, M, K, BN, BK, AK, AM, ADDS, DN, DM>::run(b, a, addend, turned);
        turn<N, M>(turned, M, c, N);
    }
};
#endif
"""
