// Scales of least squared error for groups of weights, the numbers that follow, and back: the search that
// `quant/nearest.py` describes, a group at a time while it is in the first cache. Sums are taken in another order.
#include <cstdint>
#include <cstring>
#include <limits>

#include "scratch.h"

namespace llmos {
namespace {

constexpr int64_t BLOCK = 128;  // inputs whose 4-bit numbers share 64 bytes, as in `ops/quantized.py`

// As `nearest.py` packs it, 64 bits each. `weights` [rows, ins], `importance` [ins] or nothing, `factors` [tries],
// `scale` and `shift` (or nothing) [rows, groups] float32, `numbers` [rows, number_bytes]. Where numbers become weights
// these are float32.
struct Nearest {
    const void* weights;
    const float *importance, *factors;
    float *scale, *shift;
    uint8_t* numbers;
    int64_t rows, ins, stride, group, groups, tries, nibbles, bfloat16, number_bytes, threads;

    int64_t middle() const { return shift ? 0 : nibbles ? 8 : 128; }
    int64_t top() const { return nibbles ? 15 : 255; }
};

// To the nearest whole number, half to even: what is added leaves no bits for a fraction.
inline float whole(float x) {
    constexpr float MANY = 12582912.0f;
    return (x + MANY) - MANY;
}

// What is no number becomes `low`.
inline float clamped(float x, float low, float high) { return x > low ? (x < high ? x : high) : low; }

inline float inverse(float x) { return x == 0 ? 0 : 1 / x; }

void widen(const Nearest& n, int64_t row, float* values) {
    if (!n.bfloat16) {
        std::memcpy(values, (const float*)n.weights + row * n.stride, n.ins * sizeof(float));
        return;
    }
    const uint16_t* from = (const uint16_t*)n.weights + row * n.stride;
#pragma omp simd
    for (int64_t k = 0; k < n.ins; k++) {
        uint32_t bits = (uint32_t)from[k] << 16;
        std::memcpy(&values[k], &bits, sizeof(float));
    }
}

struct Line {
    float scale, shift, error;
};

Line without_shift(const float* v, const float* h, int64_t count, const Nearest& n) {
    float most = 0, squares = 0;
    int64_t far = 0;
    for (int64_t k = 0; k < count; k++) {
        float size = v[k] < 0 ? -v[k] : v[k];
        if (size > most) most = size, far = k;
    }
#pragma omp simd reduction(+ : squares)
    for (int64_t k = 0; k < count; k++) squares += h[k] * v[k] * v[k];
    float middle = n.middle(), largest = most / (middle - 1), sign = v[far] > 0 ? -1 : 1;
    Line best{largest, 0, std::numeric_limits<float>::infinity()};
    for (int64_t t = 0; t < n.tries; t++) {
        float tried = largest * n.factors[t] * (n.factors[t] < 1 ? sign : 1), by = inverse(tried);
        float product = 0, square = 0;
#pragma omp simd reduction(+ : product, square)
        for (int64_t k = 0; k < count; k++) {
            float number = clamped(whole(v[k] * by), -middle, middle - 1), weighed = number * h[k];
            product += weighed * v[k];
            square += weighed * number;
        }
        float scale = square > 0 ? product / square : tried;
        float error = square > 0 ? squares - product * scale : squares;
        if (error < best.error) best = {scale, 0, error};
    }
    return best;
}

Line with_shift(const float* v, const float* h, int64_t count, const Nearest& n) {
    float low = 0, high = 0, total = 0, mean = 0, top = n.top();
    for (int64_t k = 0; k < count; k++) low = v[k] < low ? v[k] : low, high = v[k] > high ? v[k] : high;
#pragma omp simd reduction(+ : total, mean)
    for (int64_t k = 0; k < count; k++) total += h[k], mean += h[k] * v[k];
    mean /= total;
    float widest = (high - low) / top;
    Line best{widest, low, std::numeric_limits<float>::infinity()};
    for (int64_t t = 0; t < n.tries; t++) {
        float tried = widest * n.factors[t], from = low + widest * top * (1 - n.factors[t]) / 2, by = inverse(tried);
        float average = 0, spread = 0, product = 0, error = 0;
        auto number = [&](int64_t k) { return clamped(whole((v[k] - from) * by), 0, top); };
#pragma omp simd reduction(+ : average)
        for (int64_t k = 0; k < count; k++) average += h[k] * number(k);
        average /= total;
#pragma omp simd reduction(+ : spread, product)
        for (int64_t k = 0; k < count; k++) {
            float apart = number(k) - average, weighed = h[k] * apart;
            spread += weighed * apart;
            product += weighed * v[k];
        }
        float slope = spread > 0 ? product / spread : tried, shift = mean - slope * average;
#pragma omp simd reduction(+ : error)
        for (int64_t k = 0; k < count; k++) {
            float kept = v[k] - number(k) * slope - shift;
            error += h[k] * kept * kept;
        }
        if (error < best.error) best = {slope, shift, error};
    }
    return best;
}

void scales_of_row(const Nearest& n, int64_t row, const float* values, const float* importance) {
    for (int64_t g = 0; g < n.groups; g++) {
        int64_t from = g * n.group, count = n.ins - from < n.group ? n.ins - from : n.group;
        Line line = n.shift ? with_shift(values + from, importance + from, count, n)
                            : without_shift(values + from, importance + from, count, n);
        n.scale[row * n.groups + g] = line.scale;
        if (n.shift) n.shift[row * n.groups + g] = line.shift;
    }
}

void numbers_of_row(const Nearest& n, int64_t row, const float* values, uint8_t* bytes) {
    float middle = n.middle(), top = n.top();
    for (int64_t g = 0; g < n.groups; g++) {
        int64_t from = g * n.group, to = n.ins < from + n.group ? n.ins : from + n.group;
        float by = inverse(n.scale[row * n.groups + g]), shift = n.shift ? n.shift[row * n.groups + g] : 0;
#pragma omp simd
        for (int64_t k = from; k < to; k++)
            bytes[k] = (uint8_t)(int32_t)clamped(whole((values[k] - shift) * by) + middle, 0, top);
    }
    uint8_t* out = n.numbers + row * n.number_bytes;
    if (!n.nibbles) {
        std::memcpy(out, bytes, n.ins);
        return;
    }
    std::memset(bytes + n.ins, 0, 2 * n.number_bytes - n.ins);
    for (int64_t block = 0; block < 2 * n.number_bytes; block += BLOCK, out += BLOCK / 2) {
#pragma omp simd
        for (int64_t k = 0; k < BLOCK / 2; k++) out[k] = bytes[block + k] | bytes[block + BLOCK / 2 + k] << 4;
    }
}

void values_of_row(const Nearest& n, int64_t row, float* values, uint8_t* bytes) {
    const uint8_t* from = n.numbers + row * n.number_bytes;
    if (n.nibbles) {
        for (int64_t block = 0; block < 2 * n.number_bytes; block += BLOCK, from += BLOCK / 2) {
#pragma omp simd
            for (int64_t k = 0; k < BLOCK / 2; k++) {
                bytes[block + k] = from[k] & 15;
                bytes[block + BLOCK / 2 + k] = from[k] >> 4;
            }
        }
        from = bytes;
    }
    float middle = n.middle();
    for (int64_t g = 0; g < n.groups; g++) {
        int64_t first = g * n.group, last = n.ins < first + n.group ? n.ins : first + n.group;
        float scale = n.scale[row * n.groups + g], shift = n.shift ? n.shift[row * n.groups + g] : 0;
#pragma omp simd
        for (int64_t k = first; k < last; k++) {
            float value = ((float)(int32_t)from[k] - middle) * scale;
            values[k] = n.shift ? value + shift : value;
        }
    }
}

template <class F>
void each_row(const Nearest& n, F&& f) {
#pragma omp parallel num_threads(n.threads)
    {
        static thread_local Scratch wide, narrow, ones;
        float *values = wide.get<float>(n.ins), *equal = ones.get<float>(n.ins);
        uint8_t* bytes = narrow.get<uint8_t>(n.ins + BLOCK);
        for (int64_t k = 0; k < n.ins; k++) equal[k] = 1;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < n.rows; row++) {
            widen(n, row, values);
            f(row, values, n.importance ? n.importance : equal, bytes);
        }
    }
}

}  // namespace
}  // namespace llmos

extern "C" void llmos_best_scales(const void* problem) {
    const auto& n = *static_cast<const llmos::Nearest*>(problem);
    llmos::each_row(n, [&](int64_t row, const float* values, const float* importance, uint8_t*) {
        llmos::scales_of_row(n, row, values, importance);
    });
}

extern "C" void llmos_numbers(const void* problem) {
    const auto& n = *static_cast<const llmos::Nearest*>(problem);
    llmos::each_row(n, [&](int64_t row, const float* values, const float*, uint8_t* bytes) {
        llmos::numbers_of_row(n, row, values, bytes);
    });
}

extern "C" void llmos_dequantized(const void* problem) {
    const auto& n = *static_cast<const llmos::Nearest*>(problem);
#pragma omp parallel num_threads(n.threads)
    {
        static thread_local llmos::Scratch narrow;
        uint8_t* bytes = narrow.get<uint8_t>(2 * n.number_bytes);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < n.rows; row++)
            llmos::values_of_row(n, row, (float*)n.weights + row * n.stride, bytes);
    }
}
