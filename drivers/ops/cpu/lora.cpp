// The two products of low-rank adapters, each token with the adapter of its segment. Every output is one accumulator
// that takes the summed dimension in order, so a token's result does not depend on the tokens beside it.
#include <omp.h>

#include <cstring>

#include "lanes.h"

namespace llmos {
namespace {

constexpr int64_t SMALL = 1 << 17;  // multiplications below which waking other threads costs more than they save
constexpr int SHRINK_TOKENS = 4, SHRINK_RANKS = 4;
constexpr int EXPAND_TOKENS = 8;
constexpr int64_t EXPAND_OUTS = 512;  // outputs of a task: their part of B stays near while all tokens pass

struct Segment {
    int64_t place, start, end;
};

// As `lora.py` packs it, 64 bits each. `in` is x or hidden, `stack` A or B, `out` hidden or y; `tokens` bounds the
// segments, `start` is the first token of hidden.
struct Lora {
    const void *in, *stack, *segments;
    void* out;
    int64_t count, tokens, start, rank, width, in_stride, out_stride, stack_stride, row_stride, threads, bfloat16;
};

// hidden [tokens][rank] of one segment for four of the ranks: dot products with rows of A [rank][width].
template <class E>
void shrink(const Lora& l, const Segment& s, int64_t rank) {
    using Element = typename E::Element;
    const Element* a[SHRINK_RANKS];
    int ranks = std::min<int64_t>(SHRINK_RANKS, l.rank - rank);
    for (int r = 0; r < SHRINK_RANKS; r++)
        a[r] = (const Element*)l.stack + s.place * l.stack_stride + (rank + std::min(r, ranks - 1)) * l.row_stride;
    int64_t step = WIDTH * E::PER_LANE, end = std::min(s.end, l.tokens);
    for (int64_t t = s.start; t < end; t += SHRINK_TOKENS) {
        int tokens = std::min<int64_t>(SHRINK_TOKENS, end - t);
        with_rows(tokens, [&](auto constant) {
            constexpr int TOKENS = decltype(constant)::value <= SHRINK_TOKENS ? decltype(constant)::value : 1;
            const Element* x = (const Element*)l.in + t * l.in_stride;
            __m512 sums[TOKENS][SHRINK_RANKS];
            for (auto& row : sums)
                for (auto& sum : row) sum = _mm512_setzero_ps();
            for (int64_t k = 0; k < l.width; k += step) {
                __m512i rows[SHRINK_RANKS];
#pragma GCC unroll 4
                for (int r = 0; r < SHRINK_RANKS; r++) rows[r] = load_lanes<E>(a[r] + k, l.width - k);
#pragma GCC unroll 4
                for (int i = 0; i < TOKENS; i++) {
                    __m512i lanes = load_lanes<E>(x + i * l.in_stride + k, l.width - k);
#pragma GCC unroll 4
                    for (int r = 0; r < SHRINK_RANKS; r++) sums[i][r] = E::multiply_add(sums[i][r], lanes, rows[r]);
                }
            }
            for (int i = 0; i < TOKENS; i++)
                for (int r = 0; r < ranks; r++)
                    E::store((Element*)l.out + (t + i - l.start) * l.out_stride + rank + r,
                             _mm512_set1_ps(_mm512_reduce_add_ps(sums[i][r])), 1);
        });
    }
}

// 32 neighbouring outputs in two vectors. Which vector an output is in does not matter as long as weights and sums
// agree; for bfloat16 they are interleaved as the processor's unpack instructions do it.
struct Pair {
    __m512i low, high;
};

inline __mmask32 first32(int64_t count) { return count >= 32 ? 0xffffffffu : count <= 0 ? 0 : (1u << count) - 1; }

// Elements 2 p and 2 p + 1 of each output (zero for the second where there is no `next`), or element p.
inline Pair weights(Bfloat16, const uint16_t* row, const uint16_t* next, __mmask32 mask) {
    __m512i even = _mm512_maskz_loadu_epi16(mask, row);
    __m512i odd = next ? _mm512_maskz_loadu_epi16(mask, next) : _mm512_setzero_si512();
    return {_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)};
}

inline Pair weights(Float32, const float* row, const float*, __mmask32 mask) {
    return {_mm512_maskz_loadu_epi32(mask, row), _mm512_maskz_loadu_epi32(mask >> WIDTH, row + WIDTH)};
}

inline Pair outputs(Bfloat16, const uint16_t* y, __mmask32 mask) {
    __m512i values = _mm512_maskz_loadu_epi16(mask, y), zero = _mm512_setzero_si512();
    return {_mm512_unpacklo_epi16(zero, values), _mm512_unpackhi_epi16(zero, values)};
}

inline Pair outputs(Float32, const float* y, __mmask32 mask) { return weights(Float32(), y, nullptr, mask); }

inline void put(Bfloat16, uint16_t* y, __m512 low, __m512 high, __mmask32 mask) {
    __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(low));
    __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(high));
    _mm512_mask_storeu_epi16(y, mask, _mm512_packus_epi32(a, b));
}

inline void put(Float32, float* y, __m512 low, __m512 high, __mmask32 mask) {
    _mm512_mask_storeu_ps(y, mask, low);
    _mm512_mask_storeu_ps(y + WIDTH, mask >> WIDTH, high);
}

// Adds hidden times B [rank][width] to the outputs `column` to `last` of one segment's y.
template <class E>
void expand(const Lora& l, const Segment& s, int64_t column, int64_t last) {
    using Element = typename E::Element;
    const Element* b = (const Element*)l.stack + s.place * l.stack_stride;
    int64_t whole = l.rank / E::PER_LANE, end = std::min(s.end, l.tokens);
    for (int64_t t = s.start; t < end; t += EXPAND_TOKENS) {
        with_rows(std::min<int64_t>(EXPAND_TOKENS, end - t), [&](auto constant) {
            constexpr int TOKENS = decltype(constant)::value <= EXPAND_TOKENS ? decltype(constant)::value : 1;
            const Element* hidden = (const Element*)l.in + (t - l.start) * l.in_stride;
            Element* y = (Element*)l.out + t * l.out_stride;
            for (int64_t n = column; n < last; n += PANEL) {
                __mmask32 mask = first32(last - n);
                __m512 low[TOKENS], high[TOKENS];
                auto add = [&](int i, int32_t lane, const Pair& w) {
                    __m512i own = _mm512_set1_epi32(lane);
                    low[i] = E::multiply_add(low[i], own, w.low);
                    high[i] = E::multiply_add(high[i], own, w.high);
                };
                for (int i = 0; i < TOKENS; i++) {
                    Pair sums = outputs(E(), y + i * l.out_stride + n, mask);
                    low[i] = _mm512_castsi512_ps(sums.low), high[i] = _mm512_castsi512_ps(sums.high);
                }
                for (int64_t p = 0; p < whole; p++) {
                    const Element* row = b + p * E::PER_LANE * l.row_stride + n;
                    Pair w = weights(E(), row, row + l.row_stride, mask);
#pragma GCC unroll 8
                    for (int i = 0; i < TOKENS; i++) {
                        int32_t lane;
                        std::memcpy(&lane, hidden + i * l.in_stride + p * E::PER_LANE, sizeof lane);
                        add(i, lane, w);
                    }
                }
                if (whole * E::PER_LANE < l.rank) {
                    Pair w = weights(E(), b + (l.rank - 1) * l.row_stride + n, nullptr, mask);
                    for (int i = 0; i < TOKENS; i++) {
                        int32_t lane = 0;
                        std::memcpy(&lane, hidden + i * l.in_stride + l.rank - 1, sizeof(Element));
                        add(i, lane, w);
                    }
                }
                for (int i = 0; i < TOKENS; i++) put(E(), y + i * l.out_stride + n, low[i], high[i], mask);
            }
        });
    }
}

// Tasks: of each segment its parts, `share` of the whole wide.
template <class F>
void each(const Lora& l, int64_t whole, int64_t share, F&& f) {
    const Segment* segments = (const Segment*)l.segments;
    int64_t parts = ceil_div(whole, share), tasks = l.count * parts;
    int threads = l.count * l.rank * l.width < SMALL ? 1 : (int)l.threads;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) f(segments[task / parts], task % parts * share);
}

template <class E>
void shrink_all(const Lora& l) {
    each(l, l.rank, SHRINK_RANKS, [&](const Segment& s, int64_t rank) { shrink<E>(l, s, rank); });
}

template <class E>
void expand_all(const Lora& l) {
    each(l, l.width, EXPAND_OUTS, [&](const Segment& s, int64_t column) {
        expand<E>(l, s, column, std::min(l.width, column + EXPAND_OUTS));
    });
}

}  // namespace
}  // namespace llmos

extern "C" void llmos_lora_shrink(const void* packed) {
    llmos::Lora l;
    std::memcpy(&l, packed, sizeof l);
    l.bfloat16 ? llmos::shrink_all<llmos::Bfloat16>(l) : llmos::shrink_all<llmos::Float32>(l);
}

extern "C" void llmos_lora_expand(const void* packed) {
    llmos::Lora l;
    std::memcpy(&l, packed, sizeof l);
    l.bfloat16 ? llmos::expand_all<llmos::Bfloat16>(l) : llmos::expand_all<llmos::Float32>(l);
}
