// Rows rounded to whole numbers of 8 bits, as quantized products take them.
#pragma once

#include <cmath>
#include <cstring>

#include "wide.h"

namespace llmos {

// How inputs are cut: in `parts` of so many lanes of four inputs each. A scale belongs to a part, or to a whole row.
struct Parts {
    int64_t ins, count, lanes;
    bool whole_rows;
    int64_t all_lanes() const { return count * lanes; }
};

// Where one row is put: its lanes so many words apart; for each part a scale, and `fact_step` behind it what `Fact` says.
struct Row {
    int32_t *lanes, *facts;
    ptrdiff_t lane_step, fact_step;
};

// What is kept beside a scale: minus `middle` times the sum of the numbers, where products begin; or for weights with a
// shift the scale times that sum.
struct Fact {
    bool shift;
    int32_t middle;

    int32_t of(float scale, int32_t sum) const {
        if (!shift) return -middle * sum;
        float product = scale * sum;
        int32_t bits;
        std::memcpy(&bits, &product, sizeof bits);
        return bits;
    }
};

// 127 to the largest: by what numbers are multiplied, and by what they then count. Nothing finite is made of what is not.
struct Scale {
    float inverse = 0.0f, value = 0.0f;

    explicit Scale(int32_t largest_bits) {
        float largest;
        std::memcpy(&largest, &largest_bits, sizeof largest);
        float many = 1.0f / largest * 127.0f;
        if (largest_bits >= 0x7f800000)
            value = std::nanf("");
        else if (std::isfinite(many))
            inverse = many, value = largest / 127.0f;
    }
};

template <class E>
inline Scale scale_of(const E* x, int64_t count) {
    wide::Ints most = wide::zeros();
    for (int64_t k = 0; k < count; k += wide::NUMBERS)
        most = wide::greater(most, wide::magnitude(wide::load(x + k, count - k)));
    return Scale(wide::greatest(most));
}

// Numbers of one part of one row; answers their sum.
template <class E>
inline int32_t round_part(const E* x, int64_t exist, int64_t lanes, float inverse, int32_t* to, ptrdiff_t step) {
    constexpr int LANES = wide::NUMBERS / 4;
    wide::Ints sum = wide::zeros();
    wide::Floats by = wide::all(inverse);
    for (int64_t k = 0; k < lanes; k += LANES) {
        wide::Ints numbers = wide::rounded(wide::multiply(wide::load(x + 4 * k, exist - 4 * k), by));
        sum = wide::add(sum, numbers);
        if (step == 1) {
            wide::store_bytes(to + k, numbers);
        } else {
            int32_t four[LANES];
            wide::store_bytes(four, numbers);
            for (int i = 0; i < LANES; i++) to[(k + i) * step] = four[i];
        }
    }
    return wide::total(sum);
}

template <class E>
void round_row(const E* x, const Parts& parts, const Fact& fact, const Row& to) {
    Scale scale = parts.whole_rows ? scale_of(x, parts.ins) : Scale(0);
    for (int64_t p = 0; p < parts.count; p++) {
        const int64_t from = 4 * p * parts.lanes, exist = parts.ins - from;
        if (!parts.whole_rows) scale = scale_of(x + from, exist < 4 * parts.lanes ? exist : 4 * parts.lanes);
        int32_t* lanes = to.lanes + p * parts.lanes * to.lane_step;
        int32_t sum = round_part(x + from, exist, parts.lanes, scale.inverse, lanes, to.lane_step);
        int32_t* facts = to.facts + 2 * p * to.fact_step;
        std::memcpy(facts, &scale.value, sizeof scale.value);
        facts[to.fact_step] = fact.of(scale.value, sum);
    }
}

}  // namespace llmos
