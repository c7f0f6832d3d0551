// Vector functions of float32, accurate to a few units in the last place.
#pragma once

#include <immintrin.h>

namespace llmos {

inline __m512 vector(float value) { return _mm512_set1_ps(value); }

// c[0] x^(N - 1) + ... + c[N - 1]
template <int N>
inline __m512 polynomial(__m512 x, const float (&c)[N]) {
    __m512 sum = vector(c[0]);
    for (int i = 1; i < N; i++) sum = _mm512_fmadd_ps(sum, x, vector(c[i]));
    return sum;
}

// e^x: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (coefficients of Cephes, Moshier 1989). 0 below -104; NaN stays.
inline __m512 exp(__m512 x) {
    x = _mm512_min_ps(vector(89.0f), _mm512_max_ps(vector(-104.0f), x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, vector(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 f = _mm512_fnmadd_ps(n, vector(-2.12194440e-4f), _mm512_fnmadd_ps(n, vector(0.693359375f), x));
    __m512 p = polynomial(f, {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                              5.0000001201e-1f});
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(f, f), f), vector(1.0f));
    return _mm512_scalef_ps(p, n);
}

inline float exp(float x) { return _mm512_cvtss_f32(exp(vector(x))); }

// 1 - 2 / (e^2x + 1), and near zero, where that cancels, a polynomial (Cephes).
inline __m512 tanh(__m512 x) {
    __m512 e = exp(_mm512_add_ps(x, x));
    __m512 far = _mm512_sub_ps(vector(1.0f), _mm512_div_ps(vector(2.0f), _mm512_add_ps(e, vector(1.0f))));
    __m512 square = _mm512_mul_ps(x, x);
    __m512 p = polynomial(square, {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                                   -3.33332819422e-1f});
    __m512 near = _mm512_fmadd_ps(_mm512_mul_ps(p, square), x, x);
    return _mm512_mask_mov_ps(far, _mm512_cmp_ps_mask(_mm512_abs_ps(x), vector(0.625f), _CMP_LT_OQ), near);
}

// The error function (Abramowitz and Stegun 7.1.26, absolute error 1.5e-7), and near zero its Taylor series.
inline __m512 erf(__m512 x) {
    __m512 a = _mm512_abs_ps(x);
    __m512 t = _mm512_div_ps(vector(1.0f), _mm512_fmadd_ps(vector(0.3275911f), a, vector(1.0f)));
    __m512 p = polynomial(t, {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f});
    __m512 tail = exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(a, a)));
    __m512 far = _mm512_fnmadd_ps(_mm512_mul_ps(p, t), tail, vector(1.0f));
    far = _mm512_or_ps(far, _mm512_and_ps(x, vector(-0.0f)));
    __m512 near = polynomial(_mm512_mul_ps(x, x), {-8.5483270e-4f, 5.2239776e-3f, -2.6866171e-2f, 1.1283792e-1f,
                                                   -3.7612638e-1f, 1.1283792f});
    near = _mm512_mul_ps(near, x);
    return _mm512_mask_mov_ps(far, _mm512_cmp_ps_mask(a, vector(0.5f), _CMP_LT_OQ), near);
}

}  // namespace llmos
