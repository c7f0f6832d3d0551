// Rows of weights of 4 or 8 bits put into the panels that `quantized.py` describes. Rows may begin anywhere in a panel:
// several layers that become one are written one after the other, each where it lies.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "scratch.h"

namespace llmos {
namespace {

constexpr int64_t PANEL = 32, LANE = 4;
constexpr int64_t BLOCK = 128;  // inputs whose 4-bit numbers share 64 bytes, as in `ops/quantized.py`

// As `quantized.py` packs it, 64 bits each. `numbers` [rows, number_stride] bytes, `scale` and `shift` (or nothing)
// [rows, scale_stride], each of float16 or, where it is `wide`, float32; the first row is that of output `first`.
struct Packing {
    const uint8_t *numbers, *scale, *shift;
    uint8_t* packed;
    int64_t first, rows, ins, number_stride, scale_stride, shift_stride, nibbles, parts, part, whole_rows, wide_scale,
        wide_shift, wide_packed, threads;

    int64_t number_bytes() const { return part * PANEL >> (nibbles ? 1 : 0); }
    int64_t part_bytes() const { return number_bytes() + (shift ? 2 : 1) * PANEL * (wide_packed ? 4 : 2); }
};

// The numbers of a row, a byte each, and zeros up to the end of its last part.
void spread(const Packing& p, int64_t row, uint8_t* bytes) {
    const uint8_t* from = p.numbers + row * p.number_stride;
    if (!p.nibbles) std::memcpy(bytes, from, p.ins);
    for (int64_t block = 0; p.nibbles && block < p.ins; block += BLOCK, from += BLOCK / 2)
        for (int64_t k = 0; k < BLOCK / 2; k++) {
            bytes[block + k] = from[k] & 15;
            bytes[block + BLOCK / 2 + k] = from[k] >> 4;
        }
    if (p.parts * p.part > p.ins) std::memset(bytes + p.ins, 0, p.parts * p.part - p.ins);
}

void store_numbers(const Packing& p, const uint8_t* bytes, uint8_t* at) {
    for (int64_t done = 0; done < p.parts; done++, at += p.part_bytes()) {
        uint8_t* to = at;
        const uint8_t* end = bytes + p.part;
        for (; p.nibbles && bytes < end; bytes += 2 * LANE, to += PANEL * LANE) {
            uint32_t low, high;
            std::memcpy(&low, bytes, LANE);
            std::memcpy(&high, bytes + LANE, LANE);
            low |= high << 4;
            std::memcpy(to, &low, LANE);
        }
        for (; bytes < end; bytes += LANE, to += PANEL * LANE) std::memcpy(to, bytes, LANE);
    }
}

// What a row has of scales, or of shifts, to `at` in each part.
void store_scales(const Packing& p, const uint8_t* from, bool wide, uint8_t* at) {
    for (int64_t done = 0; done < p.parts; done++, at += p.part_bytes()) {
        const uint8_t* scale = from + (p.whole_rows ? 0 : done * (wide ? 4 : 2));
        if (wide == (p.wide_packed != 0)) {
            std::memcpy(at, scale, wide ? 4 : 2);
        } else {
            uint16_t half;
            std::memcpy(&half, scale, sizeof half);
            float value = _cvtsh_ss(half);
            std::memcpy(at, &value, sizeof value);
        }
    }
}

}  // namespace
}  // namespace llmos

extern "C" void llmos_quantized_pack(const void* problem) {
    using namespace llmos;
    const auto& p = *static_cast<const Packing*>(problem);
    const int64_t scale_bytes = p.wide_packed ? 4 : 2, last = p.first + p.rows;
    const int64_t size = std::max(p.parts * p.part, (p.ins + BLOCK - 1) / BLOCK * BLOCK);
#pragma omp parallel num_threads(p.threads)
    {
        static thread_local Scratch scratch;
        uint8_t* bytes = scratch.get<uint8_t>(size);
#pragma omp for schedule(static)
        for (int64_t panel = p.first / PANEL; panel < (last + PANEL - 1) / PANEL; panel++) {
            uint8_t* at = p.packed + panel * p.parts * p.part_bytes();
            for (int64_t out = std::max(p.first, panel * PANEL); out < std::min(last, (panel + 1) * PANEL); out++) {
                const int64_t row = out - p.first, place = out - panel * PANEL;
                spread(p, row, bytes);
                store_numbers(p, bytes, at + place * LANE);
                uint8_t* scales = at + p.number_bytes() + place * scale_bytes;
                store_scales(p, p.scale + row * p.scale_stride, p.wide_scale, scales);
                if (p.shift)
                    store_scales(p, p.shift + row * p.shift_stride, p.wide_shift, scales + PANEL * scale_bytes);
            }
        }
    }
}
