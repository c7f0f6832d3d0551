// Vectors of 16 numbers for whole-number products: one register with AVX-512, two with AVX2. Both compute the same bits.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace llmos::wide {

constexpr int NUMBERS = 16;

#ifdef __AVX512VNNI__

using Floats = __m512;
using Ints = __m512i;
constexpr int TILE_ROWS = 12;  // of two vectors each: 24 sums, four vectors of weights, one broadcast, one mask

inline __mmask16 some(int64_t count) { return count >= NUMBERS ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

inline Ints zeros() { return _mm512_setzero_si512(); }
inline Ints all(int32_t value) { return _mm512_set1_epi32(value); }
inline Ints load(const void* at) { return _mm512_loadu_si512(at); }
inline void store(void* at, Ints value) { _mm512_storeu_si512(at, value); }
inline Ints low_nibbles(Ints a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
inline Ints high_nibbles(Ints a) { return low_nibbles(_mm512_srli_epi16(a, 4)); }
inline Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints greater(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline int32_t total(Ints a) { return _mm512_reduce_add_epi32(a); }
inline int32_t greatest(Ints a) { return _mm512_reduce_max_epi32(a); }

// sum + four products of unsigned weights and signed inputs in each 32 bits
template <bool NIBBLES>
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
    // By hand, since compilers copy every sum from register to register otherwise.
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
    return sum;
}

inline Floats zero() { return _mm512_setzero_ps(); }
inline Floats all(float value) { return _mm512_set1_ps(value); }
inline Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
inline Floats floats(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints magnitude(Floats a) { return _mm512_and_si512(_mm512_castps_si512(a), all(0x7fffffff)); }
inline Floats load(const float* at) { return _mm512_loadu_ps(at); }
inline void store(float* at, Floats value) { _mm512_storeu_ps(at, value); }
inline Floats load_half(const void* at) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)at)); }

// Rounded to the nearest, half to even.
inline Ints rounded(Floats a) { return _mm512_cvtps_epi32(a); }
inline void store_bytes(void* at, Ints a) { _mm_storeu_si128((__m128i*)at, _mm512_cvtepi32_epi8(a)); }

// The first `count` of 16, the others zero.
inline Floats load(const float* at, int64_t count) { return _mm512_maskz_loadu_ps(some(count), at); }
inline Floats load(const uint16_t* at, int64_t count) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some(count), at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store(float* at, Floats value, int64_t count) { _mm512_mask_storeu_ps(at, some(count), value); }

inline __m256i bfloat16(Floats value) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(value);
#else
    __m512i bits = _mm512_castps_si512(value);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 unordered = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    up = _mm512_mask_or_epi32(up, unordered, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16));
#endif
}
inline void store(uint16_t* at, Floats value, int64_t count) {
    _mm256_mask_storeu_epi16(at, some(count), bfloat16(value));
}

#else

struct Floats {
    __m256 low, high;
};
struct Ints {
    __m256i low, high;
};
constexpr int TILE_ROWS = 2;

inline Ints zeros() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Ints all(int32_t value) { return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}; }
inline Ints load(const void* at) {
    return {_mm256_loadu_si256((const __m256i*)at), _mm256_loadu_si256((const __m256i*)at + 1)};
}
inline void store(void* at, Ints value) {
    _mm256_storeu_si256((__m256i*)at, value.low);
    _mm256_storeu_si256((__m256i*)at + 1, value.high);
}
inline Ints low_nibbles(Ints a) {
    __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(a.low, mask), _mm256_and_si256(a.high, mask)};
}
inline Ints high_nibbles(Ints a) {
    return low_nibbles({_mm256_srli_epi16(a.low, 4), _mm256_srli_epi16(a.high, 4)});
}
inline Ints add(Ints a, Ints b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
inline Ints greater(Ints a, Ints b) { return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)}; }

inline int32_t total(Ints a) {
    alignas(32) int32_t of[8];
    _mm256_store_si256((__m256i*)of, _mm256_add_epi32(a.low, a.high));
    return of[0] + of[1] + of[2] + of[3] + of[4] + of[5] + of[6] + of[7];
}
inline int32_t greatest(Ints a) {
    alignas(32) int32_t of[8];
    _mm256_store_si256((__m256i*)of, _mm256_max_epi32(a.low, a.high));
    int32_t most = of[0];
    for (int32_t value : of) most = value > most ? value : most;
    return most;
}

// Pairs of products of 8 bits would not fit 16 bits, so that even and odd ones are taken apart; those of 4 bits fit.
template <bool NIBBLES>
inline __m256i dot(__m256i sum, __m256i weights, __m256i inputs) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sum, weights, inputs);
#else
    if (NIBBLES)
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, inputs), _mm256_set1_epi16(1)));
    __m256i even = _mm256_madd_epi16(_mm256_and_si256(weights, _mm256_set1_epi16(255)),
                                     _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8));
    __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(weights, 8), _mm256_srai_epi16(inputs, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
#endif
}
template <bool NIBBLES>
inline Ints dot(Ints sum, Ints weights, Ints inputs) {
    return {dot<NIBBLES>(sum.low, weights.low, inputs.low), dot<NIBBLES>(sum.high, weights.high, inputs.high)};
}

inline Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline Floats multiply(Floats a, Floats b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Floats multiply_add(Floats a, Floats b, Floats sum) {
    return {_mm256_fmadd_ps(a.low, b.low, sum.low), _mm256_fmadd_ps(a.high, b.high, sum.high)};
}
inline Floats floats(Ints a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline Ints magnitude(Floats a) {
    __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return {_mm256_and_si256(_mm256_castps_si256(a.low), mask), _mm256_and_si256(_mm256_castps_si256(a.high), mask)};
}
inline Floats load(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
inline void store(float* at, Floats value) {
    _mm256_storeu_ps(at, value.low);
    _mm256_storeu_ps(at + 8, value.high);
}
inline Floats load_half(const void* at) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at)),
            _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)at + 1))};
}
inline Ints rounded(Floats a) { return {_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high)}; }
inline void store_bytes(void* at, Ints a) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i*)at, bytes);
}

inline Floats widened(__m128i low, __m128i high) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16))};
}
inline Floats load(const uint16_t* at) {
    return widened(_mm_loadu_si128((const __m128i*)at), _mm_loadu_si128((const __m128i*)at + 1));
}
template <class E>
inline Floats load(const E* at, int64_t count) {
    if (count >= NUMBERS) return load(at);
    E some[NUMBERS] = {};
    for (int64_t i = 0; i < count; i++) some[i] = at[i];
    return load(some);
}
inline __m128i bfloat16(__m256 value) {
    __m256i bits = _mm256_castps_si256(value);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i unordered = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    up = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, unordered), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
}
inline void store(uint16_t* at, Floats value) {
    _mm_storeu_si128((__m128i*)at, bfloat16(value.low));
    _mm_storeu_si128((__m128i*)at + 1, bfloat16(value.high));
}
template <class E>
inline void store(E* at, Floats value, int64_t count) {
    if (count >= NUMBERS) return store(at, value);
    E some[NUMBERS];
    store(some, value);
    for (int64_t i = 0; i < count; i++) at[i] = some[i];
}

#endif

}  // namespace llmos::wide
