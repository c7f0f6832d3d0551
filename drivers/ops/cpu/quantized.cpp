// x [rows, ins], rounded to 8 bits for each row and group, times weights of 4 or 8 bits in the layout that
// `quantized.py` describes. Whole numbers are summed exactly and every part is added by the same roundings in the same
// order, so that a row's bits do not depend on how many rows are computed beside it.
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <type_traits>

#include "matrix.h"
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
constexpr int64_t AHEAD_BYTES = 8192;    // of a panel, fetched before they are multiplied
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
        wide_scales, by_matrix;
};

// Who multiplies: vectors; or where there are many rows the matrix unit, or what does as it would.
enum class Unit { VECTORS, MATRIX, PLAIN_MATRIX };

struct Shape {
    Parts parts;
    Fact fact;
    int64_t rows, outs, x_stride, out_stride;
    bool wide_scales, plain_matrix;
    int64_t number_bytes, part_bytes, panel_bytes;

    explicit Shape(const Quantized& q)
        : parts{q.ins, q.parts, q.part_lanes, q.whole_rows != 0},
          fact{q.shift != 0, q.nibbles ? 8 : 128},
          rows(q.rows), outs(q.outs), x_stride(q.x_stride), out_stride(q.out_stride),
          wide_scales(q.wide_scales), plain_matrix(q.by_matrix) {
        number_bytes = parts.lanes * LANE_BYTES >> (q.nibbles ? 1 : 0);
        part_bytes = number_bytes + (1 + fact.shift) * PANEL * (wide_scales ? 4 : 2);
        panel_bytes = part_bytes * parts.count;
    }
    Unit unit() const {
        if (rows <= wide::TILE_ROWS) return Unit::VECTORS;
        return plain_matrix ? Unit::PLAIN_MATRIX : Matrix::there() ? Unit::MATRIX : Unit::VECTORS;
    }
};

// A tile of rounded rows, its facts of part p at facts[2 * p * rows + r]. Lane k of row r is at lanes[k * rows + r] for
// vectors, and at lanes[r * all + k] for matrices.
struct Tile {
    int32_t *lanes, *facts;
    int64_t rows;
};

// Rows spread evenly over tiles, and a place for them.
class Tiles {
  public:
    explicit Tiles(const Shape& s)
        : unit(s.unit()), most_(unit == Unit::VECTORS ? wide::TILE_ROWS : MATRIX), rows_(s.rows),
          count_((rows_ + most_ - 1) / most_), lanes_(s.parts.all_lanes()), parts_(s.parts.count) {}
    const Unit unit;
    int64_t count() const { return count_; }
    int64_t start(int64_t i) const { return i * (rows_ / count_) + std::min(i, rows_ % count_); }
    // Matrices are read to their end, whatever lies there.
    int64_t words() const { return rows_ * (lanes_ + 2 * parts_) + (unit == Unit::VECTORS ? 0 : MATRIX * lanes_); }
    void use(int32_t* words) { facts_ = words, inputs_ = words + rows_ * 2 * parts_; }
    Tile operator[](int64_t i) const {
        int64_t at = start(i);
        return {inputs_ + at * lanes_, facts_ + at * 2 * parts_, start(i + 1) - at};
    }
    Row row(int64_t r) const {
        int64_t least = rows_ / count_, more = rows_ % count_;
        int64_t i = r < more * (least + 1) ? r / (least + 1) : (r - more) / least;
        Tile tile = (*this)[i];
        int64_t within = r - start(i);
        bool vectors = unit == Unit::VECTORS;
        return {tile.lanes + within * (vectors ? 1 : lanes_), tile.facts + within, vectors ? tile.rows : 1, tile.rows};
    }

  private:
    int64_t most_, rows_, count_, lanes_, parts_;
    int32_t *facts_ = nullptr, *inputs_ = nullptr;
};

// Memory that is to be fetched to the second cache meanwhile: so many bytes at a step, no more than two lines.
struct Fetch {
    const uint8_t* at;
    ptrdiff_t step;
};

template <int ROWS, bool NIBBLES>
inline __attribute__((always_inline)) void add_lane(Ints sums[ROWS][2], const int32_t* x, Ints low, Ints high) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
        Ints inputs = wide::all(x[r]);
        sums[r][0] = wide::dot<NIBBLES>(sums[r][0], low, inputs);
        sums[r][1] = wide::dot<NIBBLES>(sums[r][1], high, inputs);
    }
}

// One part of a panel: x [lanes][ROWS] times its numbers; of nibbles, lane 2k lies in the low halves of bytes and lane
// 2k + 1 in the high ones. Without anything else to fetch, what follows in the panel is.
template <int ROWS, bool NIBBLES, bool ONWARD>
inline __attribute__((always_inline)) void add_part(Ints sums[ROWS][2], const int32_t* x, const uint8_t* numbers,
                                                    int64_t lanes, Fetch& fetch) {
    constexpr int STEP = NIBBLES ? 2 : 1;
    for (const int32_t* end = x + lanes * ROWS; x != end; numbers += LANE_BYTES, x += STEP * ROWS) {
        Ints low = wide::load(numbers), high = wide::load(numbers + LANE_BYTES / 2);
        if (ONWARD) {
            _mm_prefetch((const char*)numbers + AHEAD_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char*)numbers + AHEAD_BYTES + 64, _MM_HINT_T0);
        } else {
            _mm_prefetch((const char*)fetch.at, _MM_HINT_T1);
            _mm_prefetch((const char*)fetch.at + 64, _MM_HINT_T1);
            fetch.at += fetch.step;
        }
        if (NIBBLES) {
            add_lane<ROWS, NIBBLES>(sums, x, wide::low_nibbles(low), wide::low_nibbles(high));
            add_lane<ROWS, NIBBLES>(sums, x + ROWS, wide::high_nibbles(low), wide::high_nibbles(high));
        } else {
            add_lane<ROWS, NIBBLES>(sums, x, low, high);
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
        Floats scale = scales_at(scales, half, s.wide_scales);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            float* at = totals + r * PANEL + half * wide::NUMBERS;
            Floats worth = wide::multiply(scale, wide::all(by[r]));
            wide::store(at, wide::multiply_add(wide::floats(sums[r][half]), worth, wide::load(at)));
        }
    }
    if (!s.fact.shift) return;
    scales += PANEL * (s.wide_scales ? 4 : 2);
    for (int half = 0; half < 2; half++) {
        Floats shift = scales_at(scales, half, s.wide_scales);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            float* at = totals + r * PANEL + half * wide::NUMBERS;
            wide::store(at, wide::multiply_add(shift, wide::all(by[ROWS + r]), wide::load(at)));
        }
    }
}

// totals [ROWS][32] += parts `from` to `to` of a panel times a tile.
template <int ROWS, bool NIBBLES, bool ONWARD>
void add_parts(const Tile& x, const uint8_t* panel, int64_t from, int64_t to, const Shape& s, float* totals,
               Fetch fetch) {
    for (int64_t p = from; p < to; p++) {
        const uint8_t* part = panel + p * s.part_bytes;
        const int32_t* facts = x.facts + 2 * p * ROWS;
        Ints sums[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
            sums[r][0] = sums[r][1] = s.fact.shift ? wide::zeros() : wide::all(facts[ROWS + r]);
        add_part<ROWS, NIBBLES, ONWARD>(sums, x.lanes + p * s.parts.lanes * ROWS, part, s.parts.lanes, fetch);
        add_worth<ROWS>(sums, facts, part + s.number_bytes, s, totals);
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

// totals [rows][32] of a panel. Several tiles take a block of it in turn, and fetch the next one meanwhile.
template <bool NIBBLES>
void panel_times_tiles(const Tiles& tiles, const uint8_t* panel, const Shape& s, float* totals) {
    std::fill(totals, totals + s.rows * PANEL, 0.0f);
    const Parts& parts = s.parts;
    const int64_t block = tiles.count() == 1 ? parts.count : std::max<int64_t>(1, BLOCK_LANES / parts.lanes);
    for (int64_t from = 0; from < parts.count; from += block) {
        const int64_t to = std::min(from + block, parts.count);
        const int64_t share = (to - from) * s.part_bytes / tiles.count();
        const int64_t step = share / ((to - from) * parts.lanes / (NIBBLES ? 2 : 1));
        for (int64_t i = 0; i < tiles.count(); i++) {
            Tile x = tiles[i];
            Fetch fetch{panel + to * s.part_bytes + i * share, step};
            with_rows(x.rows, [&](auto rows) {
                float* at = totals + tiles.start(i) * PANEL;
                if (tiles.count() == 1)
                    add_parts<rows, NIBBLES, true>(x, panel, from, to, s, at, fetch);
                else
                    add_parts<rows, NIBBLES, false>(x, panel, from, to, s, at, fetch);
            });
        }
    }
}

// Nibbles of a part as bytes.
inline void spread(const uint8_t* nibbles, int64_t lanes, uint8_t* bytes) {
    for (int64_t k = 0; k < lanes; k += 2, nibbles += LANE_BYTES, bytes += 2 * LANE_BYTES) {
        Ints low = wide::load(nibbles), high = wide::load(nibbles + LANE_BYTES / 2);
        wide::store(bytes, wide::low_nibbles(low));
        wide::store(bytes + LANE_BYTES / 2, wide::low_nibbles(high));
        wide::store(bytes + LANE_BYTES, wide::high_nibbles(low));
        wide::store(bytes + LANE_BYTES * 3 / 2, wide::high_nibbles(high));
    }
}

// The same by matrices: part by part, in which all tiles take its numbers in turn.
template <class M, bool NIBBLES>
void panel_times_matrices(const Tiles& tiles, const uint8_t* panel, const Shape& s, float* totals) {
    static thread_local Scratch near;
    const int64_t lanes = s.parts.lanes, all = s.parts.all_lanes(), step = std::min<int64_t>(lanes, MATRIX_LANES);
    uint8_t* bytes = near.get<uint8_t>(lanes * LANE_BYTES);
    alignas(64) int32_t products[MATRIX * MATRIX];
    M matrix(step);
    std::fill(totals, totals + s.rows * PANEL, 0.0f);
    for (int64_t p = 0; p < s.parts.count; p++) {
        const uint8_t *part = panel + p * s.part_bytes, *numbers = NIBBLES ? bytes : part;
        if (NIBBLES) spread(part, lanes, bytes);
        for (int64_t i = 0; i < tiles.count(); i++) {
            Tile x = tiles[i];
            matrix.start();
            for (int64_t k = 0; k < lanes; k += step)
                matrix.add(x.lanes + p * lanes + k, all, numbers + k * LANE_BYTES);
            matrix.finish(products);
            const int32_t* facts = x.facts + 2 * p * x.rows;
            for (int64_t r = 0; r < x.rows; r++) {
                Ints from = s.fact.shift ? wide::zeros() : wide::all(facts[x.rows + r]);
                Ints sums[1][2];
                for (int half = 0; half < 2; half++)
                    sums[0][half] = wide::add(wide::load(products + r * MATRIX + half * wide::NUMBERS), from);
                int32_t own[2] = {facts[r], facts[x.rows + r]};
                add_worth<1>(sums, own, part + s.number_bytes, s, totals + (tiles.start(i) + r) * PANEL);
            }
        }
    }
}

template <bool NIBBLES>
void panel_times(const Tiles& tiles, const uint8_t* panel, const Shape& s, float* totals) {
    switch (tiles.unit) {
        case Unit::VECTORS: return panel_times_tiles<NIBBLES>(tiles, panel, s, totals);
        case Unit::MATRIX: return panel_times_matrices<Matrix, NIBBLES>(tiles, panel, s, totals);
        case Unit::PLAIN_MATRIX: return panel_times_matrices<PlainMatrix, NIBBLES>(tiles, panel, s, totals);
    }
}

// All panels for rows that one thread alone rounds and reads: what it wrote lies in its own caches.
template <class E, bool NIBBLES>
void product_alone(const E* x, const uint8_t* weights, const E* bias, E* out, const Shape& s) {
    static thread_local Scratch inputs, products;
    Tiles tiles(s);
    tiles.use(inputs.get<int32_t>(tiles.words()));
    for (int64_t r = 0; r < s.rows; r++) round_row(x + r * s.x_stride, s.parts, s.fact, tiles.row(r));
    float* totals = products.get<float>(s.rows * PANEL);
    for (int64_t column = 0; column < s.outs; column += PANEL, weights += s.panel_bytes) {
        panel_times<NIBBLES>(tiles, weights, s, totals);
        finish(tiles, totals, bias, out, s, column);
    }
}

// By every thread of a team, which shares the panels out.
template <class E, bool NIBBLES>
void product(const E* x, const uint8_t* weights, const E* bias, E* out, const Shape& s) {
    static thread_local Scratch shared, own, products;
    Tiles tiles(s);
    if (s.rows * s.parts.ins <= OWN_INPUTS) {
        tiles.use(own.get<int32_t>(tiles.words()));
        for (int64_t r = 0; r < s.rows; r++) round_row(x + r * s.x_stride, s.parts, s.fact, tiles.row(r));
    } else {
        int32_t* words = nullptr;
#pragma omp single copyprivate(words)
        words = shared.get<int32_t>(tiles.words());
        tiles.use(words);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < s.rows; r++) round_row(x + r * s.x_stride, s.parts, s.fact, tiles.row(r));
    }
    const int threads = omp_get_num_threads();
    int64_t panels = (s.outs + PANEL - 1) / PANEL, few = (CHUNK_BYTES + s.panel_bytes - 1) / s.panel_bytes;
    int64_t some = std::max(panels / (threads * 8), std::min((panels + threads * 2 - 1) / (threads * 2), few));
    float* totals = products.get<float>(s.rows * PANEL);
#pragma omp for schedule(dynamic, some) nowait
    for (int64_t p = 0; p < panels; p++) {
        panel_times<NIBBLES>(tiles, weights + p * s.panel_bytes, s, totals);
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
