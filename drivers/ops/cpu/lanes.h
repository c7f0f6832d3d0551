// Lanes: 32 bits that hold two bfloat16 or one float32 of neighbouring places along the summed dimension.
//
// Both element types share one matrix kernel, since a lane of either is broadcast, loaded and transposed alike; only
// the multiply-add of two vectors of lanes differs. Each output is one accumulator that takes its lanes in order, so a
// result does not depend on how many rows are computed beside it or how they are split over threads.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "scratch.h"

namespace llmos {

constexpr int WIDTH = 16;         // lanes of a vector
constexpr int PANEL = 2 * WIDTH;  // outputs that one pass over the summed dimension makes
constexpr int TILE_ROWS = 14;     // rows of a pass: 28 accumulators, two vectors of weights, one broadcast

struct Bfloat16 {
    using Element = uint16_t;
    static constexpr int PER_LANE = 2;

    static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    }
    static __m512 load(const Element* at, __mmask16 mask = 0xffff) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, at)), 16));
    }
    static void store(Element* at, __m512 value, __mmask16 mask = 0xffff) {
        _mm256_mask_storeu_epi16(at, mask, (__m256i)_mm512_cvtneps_pbh(value));
    }
    static __m512 rounded(__m512 value) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value)), 16));
    }
};

struct Float32 {
    using Element = float;
    static constexpr int PER_LANE = 1;

    static __m512 multiply_add(__m512 sum, __m512i a, __m512i b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
    static __m512 load(const Element* at, __mmask16 mask = 0xffff) { return _mm512_maskz_loadu_ps(mask, at); }
    static void store(Element* at, __m512 value, __mmask16 mask = 0xffff) { _mm512_mask_storeu_ps(at, mask, value); }
    static __m512 rounded(__m512 value) { return value; }
};

// The first `count` of 16; all for 16 or more, none for 0 or fewer.
inline __mmask16 first(int64_t count) { return count >= WIDTH ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline __attribute__((always_inline)) void transpose(__m512i r[WIDTH]) {
    __m512i t[WIDTH];
#pragma GCC unroll 16
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// 16 lanes from `at`, of which `elements` elements exist; the rest is zero.
template <class E>
inline __m512i load_lanes(const typename E::Element* at, int64_t elements) {
    if (E::PER_LANE == 1) return _mm512_maskz_loadu_epi32(first(elements), at);
    __mmask32 mask = elements >= 32 ? 0xffffffffu : elements <= 0 ? 0 : (1u << elements) - 1;
    return _mm512_maskz_loadu_epi16(mask, at);
}

// How memory is fetched ahead of a tile. With few rows memory is the limit and the loads themselves run far ahead, so
// NEAR asks for a little more. With more rows only FAR, to the second cache, keeps up. When several tiles use one
// panel, each fetches a SHARE of the next one.
enum class Fetch { NONE, NEAR, FAR, SHARE };

struct Ahead {
    const char* at = nullptr;
    ptrdiff_t step = 0;  // bytes of a share for each lane
};

// sums [ROWS][32] += rows x panel. `x` holds lane k of row r at k * x_step + r * x_stride, the panel 32 lanes for each.
template <class E, int ROWS, Fetch FETCH>
inline __attribute__((always_inline)) void tile(
    const int32_t* x, ptrdiff_t x_step, ptrdiff_t x_stride, const int32_t* panel, int64_t lanes, __m512 sums[ROWS][2],
    Ahead ahead = {}
) {
    for (int64_t k = 0; k < lanes; k++) {
        const int32_t* at = panel + k * PANEL;
        __m512i low = _mm512_load_si512(at), high = _mm512_load_si512(at + WIDTH);
        if (FETCH == Fetch::NEAR) {
            _mm_prefetch((const char*)at + 4096, _MM_HINT_T0);
            _mm_prefetch((const char*)at + 4096 + 64, _MM_HINT_T0);
        } else if (FETCH == Fetch::FAR) {
            _mm_prefetch((const char*)at + 8192, _MM_HINT_T1);
            _mm_prefetch((const char*)at + 8192 + 64, _MM_HINT_T1);
        } else if (FETCH == Fetch::SHARE) {
            _mm_prefetch(ahead.at + k * ahead.step, _MM_HINT_T1);
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            __m512i a = _mm512_set1_epi32(x[k * x_step + r * x_stride]);
            sums[r][0] = E::multiply_add(sums[r][0], a, low);
            sums[r][1] = E::multiply_add(sums[r][1], a, high);
        }
    }
}

// 16 lanes of up to 16 rows, transposed: one vector a lane, rows innermost. `next()` says where the next row's lanes
// are, of which `elements` elements exist; rows from `count` on are zero.
template <class E, class F>
inline __attribute__((always_inline)) void transposed(F&& next, int count, int64_t elements, __m512i block[WIDTH]) {
    if (count == WIDTH && elements >= WIDTH * E::PER_LANE) {
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++) block[r] = _mm512_loadu_si512(next());
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < WIDTH; r++)
            block[r] = r < count ? load_lanes<E>(next(), elements) : _mm512_setzero_si512();
    }
    transpose(block);
}

// Rows of elements as lanes [ceil(elements / PER_LANE)][step] with the rows innermost; `row(r)` says where row r is.
template <class E, class F>
inline void pack_rows(F&& row, int count, int64_t elements, int32_t* packed, ptrdiff_t step = WIDTH) {
    int64_t lanes = ceil_div(elements, E::PER_LANE);
    for (int64_t k = 0; k < lanes; k += WIDTH) {
        __m512i block[WIDTH];
        int r = 0;
        transposed<E>([&] { return row(r++) + k * E::PER_LANE; }, count, elements - k * E::PER_LANE, block);
        if (lanes - k >= WIDTH) {
#pragma GCC unroll 16
            for (int i = 0; i < WIDTH; i++) _mm512_store_si512(packed + (k + i) * step, block[i]);
        } else {
            for (int i = 0; i < lanes - k; i++) _mm512_store_si512(packed + (k + i) * step, block[i]);
        }
    }
}

// Calls f with the number of rows, at most MOST, as a constant.
template <int MOST = TILE_ROWS, class F>
inline void with_rows(int rows, F&& f) {
    if constexpr (MOST > 0) {
        if (rows == MOST)
            f(std::integral_constant<int, MOST>());
        else
            with_rows<MOST - 1>(rows, f);
    }
}

}  // namespace llmos
