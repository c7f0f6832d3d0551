// The two products of low-rank adapters, each token with the adapter of its segment. Every output is one accumulator
// that takes the summed dimension in order, so a token's result does not depend on the tokens beside it.
#include <cstring>

#include "lanes.h"
#include "team.h"

namespace llmos {
namespace {

constexpr int64_t SMALL = 1 << 17;  // multiplications below which waking other threads costs more than they save
constexpr int SHRINK_TOKENS = 4, SHRINK_RANKS = 4;
constexpr int EXPAND_TOKENS = 8;
constexpr int64_t EXPAND_OUTS = 512;  // outputs of a task: their part of B stays near while all tokens pass
constexpr int64_t EXPAND_AHEAD = 128;  // elements of a row of B that are fetched ahead of their use

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

// hidden of so many tokens for up to four of the ranks: dot products with rows of A [rank][width]. The FIRST tokens of
// a segment bring its matrix from memory, and fetch what follows: the next ranks, or the next place's.
template <class E, int TOKENS, bool FIRST>
void shrink_tokens(const Lora& l, const typename E::Element* a, int64_t t, int64_t rank) {
    using Element = typename E::Element;
    const Element* x = (const Element*)l.in + t * l.in_stride;
    const int64_t width = l.width, stride = l.in_stride, row_stride = l.row_stride;
    const int ranks = std::min<int64_t>(SHRINK_RANKS, l.rank - rank);
    __m512 sums[TOKENS][SHRINK_RANKS];
#pragma GCC unroll 4
    for (int i = 0; i < TOKENS; i++)
#pragma GCC unroll 4
        for (int r = 0; r < SHRINK_RANKS; r++) sums[i][r] = _mm512_setzero_ps();
    for (int64_t k = 0; k < width; k += WIDTH * E::PER_LANE) {
        __m512i rows[SHRINK_RANKS];
#pragma GCC unroll 4
        for (int r = 0; r < SHRINK_RANKS; r++)
            rows[r] = load_lanes<E>(a + std::min(r, ranks - 1) * row_stride + k, width - k);
        if (FIRST) {
#pragma GCC unroll 4
            for (int r = 0; r < SHRINK_RANKS; r++)
                _mm_prefetch((const char*)(a + (SHRINK_RANKS + r) * row_stride + k), _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int i = 0; i < TOKENS; i++) {
            __m512i lanes = load_lanes<E>(x + i * stride + k, width - k);
#pragma GCC unroll 4
            for (int r = 0; r < SHRINK_RANKS; r++) sums[i][r] = E::multiply_add(sums[i][r], lanes, rows[r]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < TOKENS; i++)
#pragma GCC unroll 4
        for (int r = 0; r < SHRINK_RANKS; r++)
            if (r < ranks)
                E::store((Element*)l.out + (t + i - l.start) * l.out_stride + rank + r,
                         _mm512_set1_ps(_mm512_reduce_add_ps(sums[i][r])), 1);
}

template <class E>
void shrink(const Lora& l, const Segment& s, int64_t rank) {
    const auto* a = (const typename E::Element*)l.stack + s.place * l.stack_stride + rank * l.row_stride;
    int64_t end = std::min(s.end, l.tokens);
    for (int64_t t = s.start; t < end; t += SHRINK_TOKENS)
        with_rows<SHRINK_TOKENS>(std::min<int64_t>(SHRINK_TOKENS, end - t), [&](auto constant) {
            constexpr int TOKENS = decltype(constant)::value;
            if (t == s.start)
                shrink_tokens<E, TOKENS, true>(l, a, t, rank);
            else
                shrink_tokens<E, TOKENS, false>(l, a, t, rank);
        });
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

// Adds hidden times B [rank][width] to the outputs `column` to `last` of so many tokens. Every loop over tokens is
// unrolled, or the sums would go through memory.
template <class E, int TOKENS, bool FIRST>
void expand_tokens(const Lora& l, const typename E::Element* b, int64_t t, int64_t column, int64_t last) {
    using Element = typename E::Element;
    const Element* hidden = (const Element*)l.in + (t - l.start) * l.in_stride;
    Element* y = (Element*)l.out + t * l.out_stride;
    const int64_t whole = l.rank / E::PER_LANE, in_stride = l.in_stride, out_stride = l.out_stride;
    const int64_t row_stride = l.row_stride, rest = l.rank % E::PER_LANE;
    for (int64_t n = column; n < last; n += PANEL) {
        __mmask32 mask = first32(last - n);
        __m512 low[TOKENS], high[TOKENS];
#pragma GCC unroll 8
        for (int i = 0; i < TOKENS; i++) {
            Pair sums = outputs(E(), y + i * out_stride + n, mask);
            low[i] = _mm512_castsi512_ps(sums.low), high[i] = _mm512_castsi512_ps(sums.high);
        }
        const Element* row = b + n;
        for (int64_t p = 0; p < whole; p++, row += E::PER_LANE * row_stride) {
            Pair w = weights(E(), row, row + row_stride, mask);
            if (FIRST) {
                _mm_prefetch((const char*)(row + EXPAND_AHEAD), _MM_HINT_T0);
                _mm_prefetch((const char*)(row + (E::PER_LANE - 1) * row_stride + EXPAND_AHEAD), _MM_HINT_T0);
            }
#pragma GCC unroll 8
            for (int i = 0; i < TOKENS; i++) {
                int32_t lane;
                std::memcpy(&lane, hidden + i * in_stride + p * E::PER_LANE, sizeof lane);
                low[i] = E::multiply_add(low[i], _mm512_set1_epi32(lane), w.low);
                high[i] = E::multiply_add(high[i], _mm512_set1_epi32(lane), w.high);
            }
        }
        if (rest) {
            Pair w = weights(E(), row, nullptr, mask);
#pragma GCC unroll 8
            for (int i = 0; i < TOKENS; i++) {
                int32_t lane = 0;
                std::memcpy(&lane, hidden + i * in_stride + whole * E::PER_LANE, sizeof(Element));
                low[i] = E::multiply_add(low[i], _mm512_set1_epi32(lane), w.low);
                high[i] = E::multiply_add(high[i], _mm512_set1_epi32(lane), w.high);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < TOKENS; i++) put(E(), y + i * out_stride + n, low[i], high[i], mask);
    }
}

template <class E>
void expand(const Lora& l, const Segment& s, int64_t column, int64_t last) {
    const auto* b = (const typename E::Element*)l.stack + s.place * l.stack_stride;
    int64_t end = std::min(s.end, l.tokens);
    for (int64_t t = s.start; t < end; t += EXPAND_TOKENS)
        with_rows<EXPAND_TOKENS>(std::min<int64_t>(EXPAND_TOKENS, end - t), [&](auto constant) {
            constexpr int TOKENS = decltype(constant)::value;
            if (t == s.start)
                expand_tokens<E, TOKENS, true>(l, b, t, column, last);
            else
                expand_tokens<E, TOKENS, false>(l, b, t, column, last);
        });
}

// Tasks: of each segment its parts, `share` of the whole wide; shared out among the threads of a team.
template <class F>
void each(const Lora& l, int64_t whole, int64_t share, F&& f) {
    const Segment* segments = (const Segment*)l.segments;
    int64_t parts = ceil_div(whole, share), tasks = l.count * parts;
#pragma omp for schedule(static) nowait
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

bool worth(const Lora& l) { return l.count * l.rank * l.width >= SMALL; }

}  // namespace

void lora_shrink_by_team(const void* problem) {
    const auto& l = *static_cast<const Lora*>(problem);
    l.bfloat16 ? shrink_all<Bfloat16>(l) : shrink_all<Float32>(l);
}

void lora_expand_by_team(const void* problem) {
    const auto& l = *static_cast<const Lora*>(problem);
    l.bfloat16 ? expand_all<Bfloat16>(l) : expand_all<Float32>(l);
}

}  // namespace llmos

extern "C" void llmos_lora_shrink(const void* problem) {
    const auto& l = *static_cast<const llmos::Lora*>(problem);
    llmos::with_team(l.threads, llmos::worth(l), [&] { llmos::lora_shrink_by_team(problem); });
}

extern "C" void llmos_lora_expand(const void* problem) {
    const auto& l = *static_cast<const llmos::Lora*>(problem);
    llmos::with_team(l.threads, llmos::worth(l), [&] { llmos::lora_expand_by_team(problem); });
}
