// x [rows, ins], rounded to 8 bits for each row and group, times weights of 4 or 8 bits in the layout that
// `quantized.py` describes. Whole numbers are summed exactly and every part is added by the same roundings in the same
// order, so that a row's bits do not depend on how many rows are computed beside it.
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <type_traits>

#include "rounded.h"
#include "scratch.h"
#include "team.h"
#include "wide.h"

namespace llmos {
namespace {

using wide::Floats;
using wide::Ints;

constexpr int PANEL = 2 * wide::NUMBERS;
constexpr int LANE_BYTES = 4 * PANEL;     // of a lane of a panel, a byte for each number
constexpr int64_t BLOCK_LANES = 128;      // of a panel that all rows take while it is near: 16 KiB
constexpr int64_t CHUNK_BYTES = 1 << 18;  // of weights that a thread takes at least, where there are so many
constexpr int64_t OWN_INPUTS = 1 << 13;   // that each thread rounds for itself sooner than it waits for others
constexpr int64_t MAX_ROWS = 512;         // whose rounded copies exist at a time
constexpr int64_t OWN_ROWS = 128;         // that a thread alone takes through all panels, at most
constexpr int64_t MANY_ROWS = 128;        // for each thread, from which they share rows out in place of panels

// As `quantized.py` packs it, 64 bits each.
struct Quantized {
    const void *x, *weights, *bias;
    void* out;
    int64_t rows, ins, outs, x_stride, out_stride, threads, bfloat16, nibbles, parts, part_lanes, whole_rows, shift,
        wide_scales;
};

struct Shape {
    Parts parts;
    Fact fact;
    int64_t rows, outs, x_stride, out_stride;
    bool wide_scales;
    int64_t number_bytes, part_bytes, panel_bytes;

    explicit Shape(const Quantized& q)
        : parts{q.ins, q.parts, q.part_lanes, q.whole_rows != 0},
          fact{q.shift != 0, q.nibbles ? 8 : 128},
          rows(q.rows), outs(q.outs), x_stride(q.x_stride), out_stride(q.out_stride), wide_scales(q.wide_scales) {
        number_bytes = parts.lanes * LANE_BYTES >> (q.nibbles ? 1 : 0);
        part_bytes = number_bytes + (1 + fact.shift) * PANEL * (wide_scales ? 4 : 2);
        panel_bytes = part_bytes * parts.count;
    }
};

// BYTES: a number each. NIBBLES: lane 2k in the low halves of bytes and lane 2k + 1 in the high ones. SMALL: bytes that
// were made of nibbles.
enum class Numbers { BYTES, NIBBLES, SMALL };

struct Weights {
    const uint8_t *numbers, *scales;
    ptrdiff_t numbers_step, scales_step;  // from part to part
};

// Memory that is to be fetched meanwhile: so many bytes for each lane, to the first or the second cache.
struct Fetch {
    const uint8_t* at;
    ptrdiff_t step;
};

template <int ROWS, Numbers NUMBERS>
inline __attribute__((always_inline)) void add_lane(Ints sums[ROWS][2], const int32_t* x, Ints low, Ints high) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        Ints inputs = wide::all(x[r]);
        sums[r][0] = wide::dot<NUMBERS != Numbers::BYTES>(sums[r][0], low, inputs);
        sums[r][1] = wide::dot<NUMBERS != Numbers::BYTES>(sums[r][1], high, inputs);
    }
}

// One part of a panel: x [lanes][ROWS] times its numbers.
template <int ROWS, Numbers NUMBERS>
inline __attribute__((always_inline)) void add_part(Ints sums[ROWS][2], const int32_t* x, const uint8_t* numbers,
                                                    int64_t lanes, const Fetch& fetch) {
    constexpr int STEP = NUMBERS == Numbers::NIBBLES ? 2 : 1;
    for (int64_t k = 0; k < lanes; k += STEP, numbers += LANE_BYTES, x += STEP * ROWS) {
        Ints low = wide::load(numbers), high = wide::load(numbers + LANE_BYTES / 2);
        if (fetch.step == LANE_BYTES) {
            _mm_prefetch((const char*)numbers + 4096, _MM_HINT_T0);
            _mm_prefetch((const char*)numbers + 4096 + 64, _MM_HINT_T0);
        } else {
            _mm_prefetch((const char*)fetch.at + k * fetch.step, _MM_HINT_T1);
        }
        if (NUMBERS == Numbers::NIBBLES) {
            add_lane<ROWS, NUMBERS>(sums, x, wide::low_nibbles(low), wide::low_nibbles(high));
            add_lane<ROWS, NUMBERS>(sums, x + ROWS, wide::high_nibbles(low), wide::high_nibbles(high));
        } else {
            add_lane<ROWS, NUMBERS>(sums, x, low, high);
        }
    }
}

inline Floats scales_at(const uint8_t* at, int half, bool wide_scales) {
    return wide_scales ? wide::load((const float*)at + half * wide::NUMBERS) : wide::load_half(at + half * 32);
}

// totals [ROWS][32] += what the sums of a part are worth.
template <int ROWS>
inline __attribute__((always_inline)) void add_worth(const Ints sums[ROWS][2], const int32_t* facts,
                                                     const uint8_t* scales, const Shape& s, float* totals) {
    const float* by = (const float*)facts;
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        Floats scale = scales_at(scales, half, s.wide_scales), shift = wide::zero();
        if (s.fact.shift) shift = scales_at(scales + PANEL * (s.wide_scales ? 4 : 2), half, s.wide_scales);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            float* at = totals + r * PANEL + half * wide::NUMBERS;
            Floats worth = wide::multiply(scale, wide::all(by[r]));
            Floats sum = wide::multiply_add(wide::floats(sums[r][half]), worth, wide::load(at));
            if (s.fact.shift) sum = wide::multiply_add(shift, wide::all(by[ROWS + r]), sum);
            wide::store(at, sum);
        }
    }
}

// totals [ROWS][32] += parts `from` to `to` of a panel times a tile.
template <int ROWS, Numbers NUMBERS>
void add_parts(const Rows& x, const Weights& w, int64_t from, int64_t to, const Shape& s, float* totals, Fetch fetch) {
    const uint8_t *numbers = w.numbers, *scales = w.scales;
    for (int64_t p = from; p < to; p++, numbers += w.numbers_step, scales += w.scales_step) {
        const int32_t* facts = x.facts + 2 * p * ROWS;
        Ints sums[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = s.fact.shift ? wide::zeros() : wide::all(facts[ROWS + r]);
        add_part<ROWS, NUMBERS>(sums, x.lanes + p * s.parts.lanes * ROWS, numbers, s.parts.lanes, fetch);
        fetch.at += fetch.step * s.parts.lanes;
        add_worth<ROWS>(sums, facts, scales, s, totals);
    }
}

template <int MOST = wide::TILE_ROWS, class F>
inline void with_rows(int64_t rows, F&& f) {
    if constexpr (MOST > 0) {
        if (rows == MOST)
            f(std::integral_constant<int, MOST>());
        else
            with_rows<MOST - 1>(rows, f);
    }
}

// Rows spread evenly over tiles, rounded.
class Tiles {
  public:
    Tiles(int64_t rows, const Parts& parts) : rows_(rows), parts_(parts) {}
    int64_t count() const { return (rows_ + wide::TILE_ROWS - 1) / wide::TILE_ROWS; }
    int64_t start(int64_t i) const { return i * (rows_ / count()) + std::min(i, rows_ % count()); }
    int64_t words() const { return rows_ * (parts_.all_lanes() + 2 * parts_.count); }
    void use(int32_t* words) { words_ = words; }
    Rows operator[](int64_t i) const {
        int64_t at = start(i), size = start(i + 1) - at, lanes = parts_.all_lanes();
        int32_t* facts = words_ + rows_ * lanes + at * 2 * parts_.count;
        return {words_ + at * lanes, facts, size, size, 1};
    }

  private:
    int64_t rows_;
    Parts parts_;
    int32_t* words_ = nullptr;
};

template <class E>
void finish(const Tiles& tiles, const float* totals, const E* bias, E* out, const Shape& s, int64_t column) {
    for (int64_t i = 0; i < tiles.count(); i++) {
        int64_t from = tiles.start(i), rows = tiles.start(i + 1) - from;
        for (int64_t at = column; at < std::min(column + PANEL, s.outs); at += wide::NUMBERS) {
            Floats add = bias ? wide::load(bias + at, s.outs - at) : wide::zero();
            for (int64_t r = 0; r < rows; r++) {
                Floats sum = wide::load(totals + (from + r) * PANEL + at - column);
                wide::store(out + (from + r) * s.out_stride + at, wide::add(sum, add), s.outs - at);
            }
        }
    }
}

inline void spread(const uint8_t* nibbles, int64_t lanes, uint8_t* bytes) {
    for (int64_t k = 0; k < lanes; k += 2, nibbles += LANE_BYTES, bytes += 2 * LANE_BYTES) {
        Ints low = wide::load(nibbles), high = wide::load(nibbles + LANE_BYTES / 2);
        wide::store(bytes, wide::low_nibbles(low));
        wide::store(bytes + LANE_BYTES / 2, wide::low_nibbles(high));
        wide::store(bytes + LANE_BYTES, wide::high_nibbles(low));
        wide::store(bytes + LANE_BYTES * 3 / 2, wide::high_nibbles(high));
    }
}

// totals [rows][32] of a panel. Several tiles take a block of it in turn, and fetch the next one meanwhile.
template <bool NIBBLES>
void panel_times_tiles(const Tiles& tiles, const uint8_t* panel, const Shape& s, float* totals) {
    static thread_local Scratch near;
    std::fill(totals, totals + s.rows * PANEL, 0.0f);
    const Parts& parts = s.parts;
    if (tiles.count() == 1) {
        Weights w{panel, panel + s.number_bytes, s.part_bytes, s.part_bytes};
        with_rows(s.rows, [&](auto rows) {
            add_parts<rows, NIBBLES ? Numbers::NIBBLES : Numbers::BYTES>(tiles[0], w, 0, parts.count, s, totals,
                                                                        {panel, LANE_BYTES});
        });
        return;
    }
    int64_t block = std::max<int64_t>(1, BLOCK_LANES / parts.lanes);
    ptrdiff_t part_lane_bytes = parts.lanes * LANE_BYTES;
    uint8_t* bytes = NIBBLES ? near.get<uint8_t>(std::min(block, parts.count) * part_lane_bytes) : nullptr;
    for (int64_t from = 0; from < parts.count; from += block) {
        int64_t to = std::min(from + block, parts.count), lanes = (to - from) * parts.lanes;
        const uint8_t* at = panel + from * s.part_bytes;
        Weights w{at, at + s.number_bytes, s.part_bytes, s.part_bytes};
        for (int64_t p = from; NIBBLES && p < to; p++)
            spread(panel + p * s.part_bytes, parts.lanes, bytes + (p - from) * part_lane_bytes);
        if (NIBBLES) w.numbers = bytes, w.numbers_step = part_lane_bytes;
        int64_t share = (to - from) * s.part_bytes / tiles.count(), step = share / lanes;
        for (int64_t i = 0; i < tiles.count(); i++) {
            Rows x = tiles[i];
            Fetch fetch{at + (to - from) * s.part_bytes + i * share, step};
            with_rows(x.rows, [&](auto rows) {
                add_parts<rows, NIBBLES ? Numbers::SMALL : Numbers::BYTES>(x, w, from, to, s,
                                                                          totals + tiles.start(i) * PANEL, fetch);
            });
        }
    }
}

// All panels for rows that one thread alone rounds and reads: what it wrote lies in its own caches.
template <class E, bool NIBBLES>
void product_alone(const E* x, const uint8_t* weights, const E* bias, E* out, const Shape& s) {
    static thread_local Scratch inputs, products;
    Tiles tiles(s.rows, s.parts);
    tiles.use(inputs.get<int32_t>(tiles.words()));
    for (int64_t i = 0; i < tiles.count(); i++)
        round_rows(x + tiles.start(i) * s.x_stride, s.x_stride, s.parts, s.fact, tiles[i]);
    float* totals = products.get<float>(s.rows * PANEL);
    for (int64_t column = 0; column < s.outs; column += PANEL, weights += s.panel_bytes) {
        panel_times_tiles<NIBBLES>(tiles, weights, s, totals);
        finish(tiles, totals, bias, out, s, column);
    }
}

// By every thread of a team, which shares the panels out.
template <class E, bool NIBBLES>
void product(const E* x, const uint8_t* weights, const E* bias, E* out, const Shape& s) {
    static thread_local Scratch shared, own, products;
    Tiles tiles(s.rows, s.parts);
    auto round = [&](int64_t i) {
        round_rows(x + tiles.start(i) * s.x_stride, s.x_stride, s.parts, s.fact, tiles[i]);
    };
    if (s.rows * s.parts.ins <= OWN_INPUTS) {
        tiles.use(own.get<int32_t>(tiles.words()));
        for (int64_t i = 0; i < tiles.count(); i++) round(i);
    } else {
        int32_t* words = nullptr;
#pragma omp single copyprivate(words)
        words = shared.get<int32_t>(tiles.words());
        tiles.use(words);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles.count(); i++) round(i);
    }
    const int threads = omp_get_num_threads();
    int64_t panels = (s.outs + PANEL - 1) / PANEL, few = (CHUNK_BYTES + s.panel_bytes - 1) / s.panel_bytes;
    int64_t some = std::max(panels / (threads * 8), std::min((panels + threads * 2 - 1) / (threads * 2), few));
    float* totals = products.get<float>(s.rows * PANEL);
#pragma omp for schedule(dynamic, some) nowait
    for (int64_t p = 0; p < panels; p++) {
        panel_times_tiles<NIBBLES>(tiles, weights + p * s.panel_bytes, s, totals);
        finish(tiles, totals, bias, out, s, p * PANEL);
    }
}

template <class E, bool NIBBLES>
void product_in_blocks(const Quantized& q) {
    const E *x = (const E*)q.x, *bias = (const E*)q.bias;
    const uint8_t* weights = (const uint8_t*)q.weights;
    E* out = (E*)q.out;
    Shape s(q);
    int64_t threads = omp_get_num_threads();
    if (q.rows >= MANY_ROWS * threads) {
        int64_t blocks = (q.rows + OWN_ROWS * threads - 1) / (OWN_ROWS * threads) * threads;
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < blocks; i++) {
            int64_t from = q.rows * i / blocks, to = q.rows * (i + 1) / blocks;
            s.rows = to - from;
            product_alone<E, NIBBLES>(x + from * q.x_stride, weights, bias, out + from * q.out_stride, s);
        }
        return;
    }
    for (int64_t done = 0; done < q.rows; done += MAX_ROWS) {
        if (done) {
#pragma omp barrier
        }
        s.rows = std::min(MAX_ROWS, q.rows - done);
        product<E, NIBBLES>(x + done * q.x_stride, weights, bias, out + done * q.out_stride, s);
    }
}

}  // namespace

void quantized_by_team(const void* problem) {
    const auto& q = *static_cast<const Quantized*>(problem);
    if (q.nibbles)
        q.bfloat16 ? product_in_blocks<uint16_t, true>(q) : product_in_blocks<float, true>(q);
    else
        q.bfloat16 ? product_in_blocks<uint16_t, false>(q) : product_in_blocks<float, false>(q);
}

}  // namespace llmos

extern "C" void llmos_quantized_linear(const void* problem) {
    int threads = static_cast<const llmos::Quantized*>(problem)->threads;
    llmos::with_team(threads, true, [&] { llmos::quantized_by_team(problem); });
}
