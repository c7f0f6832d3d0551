// x [rows, ins] times packed weights: [ceil(outs / 32)][lanes][32] lanes, the layout that `linear.py` describes.
#include "lanes.h"
#include "team.h"

namespace llmos {
namespace {

constexpr int64_t BLOCK_LANES = 1024;     // of the summed dimension: 128 KiB of a panel stay in the second cache
constexpr int64_t CHUNK_BYTES = 1 << 19;  // of weights that a thread takes at least, where there are so many
constexpr int DIRECT_ROWS = 4;            // so few rows are read where they are
constexpr int MAX_TILES = 32;             // tiles of rows whose packed copies exist at a time
constexpr int OWN_TILES = 8;              // tiles that a thread alone takes through all panels, at most
constexpr int MANY_TILES = 8;             // tiles for each thread from which they share rows out in place of panels
constexpr int64_t SMALL = 1 << 16;        // lanes of rows that one thread packs sooner than threads wait for each other

struct Shape {
    int64_t rows, ins, outs, lanes, x_stride, out_stride;
};

// As `linear.py` packs it, 64 bits each.
struct Linear {
    const void *x, *weights, *bias;
    void* out;
    int64_t rows, ins, outs, x_stride, out_stride, threads, bfloat16;
};

template <class E>
void finish(const float* sums, int rows, const typename E::Element* bias, typename E::Element* out, const Shape& s,
            int64_t column) {
    for (int half = 0; half < 2; half++) {
        int64_t at = column + half * WIDTH;
        __mmask16 mask = first(s.outs - at);
        if (!mask) return;
        __m512 add = bias ? E::load(bias + at, mask) : _mm512_setzero_ps();
        for (int r = 0; r < rows; r++) {
            __m512 sum = _mm512_add_ps(_mm512_load_ps(sums + r * PANEL + half * WIDTH), add);
            E::store(out + r * s.out_stride + at, sum, mask);
        }
    }
}

// Adds a block of lanes to sums [rows][32]; the first block starts them. At most MOST rows, `stride` lanes apart
// when they are read where they are (NEAR), and packed otherwise.
template <class E, Fetch FETCH, int MOST>
void add_block(const int32_t* x, ptrdiff_t stride, int rows, const int32_t* panel, int64_t lanes, float* sums,
               bool start, Ahead ahead = {}) {
    with_rows<MOST>(rows, [&](auto constant) {
        constexpr int ROWS = decltype(constant)::value;
        __m512 tiles[ROWS][2];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            tiles[r][0] = start ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * PANEL);
            tiles[r][1] = start ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * PANEL + WIDTH);
        }
        if constexpr (FETCH == Fetch::NEAR) {
            tile<E, ROWS, FETCH>(x, 1, stride, panel, lanes, tiles);
        } else {
            tile<E, ROWS, FETCH>(x, WIDTH, 1, panel, lanes, tiles, ahead);
        }
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) {
            _mm512_store_ps(sums + r * PANEL, tiles[r][0]);
            _mm512_store_ps(sums + r * PANEL + WIDTH, tiles[r][1]);
        }
    });
}

// Rows spread evenly over tiles of at most 14.
struct Tiles {
    int64_t rows, count;
    explicit Tiles(int64_t rows) : rows(rows), count(ceil_div(rows, TILE_ROWS)) {}
    int64_t start(int64_t i) const { return i * (rows / count) + std::min(i, rows % count); }
    int size(int64_t i) const { return start(i + 1) - start(i); }
};

// All rows go through a block of a panel while it is near; what follows it in memory is fetched meanwhile.
template <class E>
void panel_times_tiles(const int32_t* packed, const Tiles& tiles, const int32_t* panel, const Shape& s, float* sums) {
    for (int64_t done = 0; done < s.lanes; done += BLOCK_LANES) {
        int64_t lanes = std::min(BLOCK_LANES, s.lanes - done);
        const int32_t *x = packed + done * WIDTH, *block = panel + done * PANEL;
        if (tiles.count == 1) {
            add_block<E, Fetch::FAR, TILE_ROWS>(x, 1, tiles.rows, block, lanes, sums, done == 0);
            continue;
        }
        int64_t share = lanes * PANEL * sizeof(int32_t) / tiles.count;
        for (int64_t i = 0; i < tiles.count; i++) {
            Ahead ahead{(const char*)(block + lanes * PANEL) + i * share, share / lanes};
            add_block<E, Fetch::SHARE, TILE_ROWS>(x + i * s.lanes * WIDTH, 1, tiles.size(i), block, lanes,
                                                  sums + i * TILE_ROWS * PANEL, done == 0, ahead);
        }
    }
}

// All panels for rows that one thread alone packs and reads: what it wrote lies in its own caches.
template <class E>
void linear_rows(const typename E::Element* x, const int32_t* weights, const typename E::Element* bias,
                 typename E::Element* out, const Shape& s) {
    static thread_local Scratch lines, products;
    Tiles tiles(s.rows);
    int32_t* packed = lines.get<int32_t>(tiles.count * s.lanes * WIDTH);
    float* sums = products.get<float>(tiles.count * TILE_ROWS * PANEL);
    for (int64_t i = 0; i < tiles.count; i++) {
        const auto* rows = x + tiles.start(i) * s.x_stride;
        pack_rows<E>([&](int r) { return rows + r * s.x_stride; }, tiles.size(i), s.ins, packed + i * s.lanes * WIDTH);
    }
    for (int64_t column = 0; column < s.outs; column += PANEL) {
        panel_times_tiles<E>(packed, tiles, weights + column * s.lanes, s, sums);
        for (int64_t i = 0; i < tiles.count; i++)
            finish<E>(sums + i * TILE_ROWS * PANEL, tiles.size(i), bias, out + tiles.start(i) * s.out_stride, s, column);
    }
}

// By every thread of a team.
template <class E>
void linear(const typename E::Element* x, const int32_t* weights, const typename E::Element* bias,
            typename E::Element* out, const Shape& s) {
    static thread_local Scratch shared, own;
    const int threads = omp_get_num_threads();
    int64_t panels = ceil_div(s.outs, PANEL), few = ceil_div(CHUNK_BYTES, s.lanes * PANEL * sizeof(int32_t));
    int64_t some = std::max(panels / (threads * 8), std::min(ceil_div(panels, threads * 2), few));
    bool direct = s.rows <= DIRECT_ROWS && s.ins % E::PER_LANE == 0 && s.x_stride % E::PER_LANE == 0;
    Tiles tiles(s.rows);
    bool together = !direct && s.rows * s.lanes > SMALL;
    int32_t* packed = nullptr;
    auto pack = [&](int64_t i) {
        const auto* rows = x + tiles.start(i) * s.x_stride;
        pack_rows<E>([&](int r) { return rows + r * s.x_stride; }, tiles.size(i), s.ins, packed + i * s.lanes * WIDTH);
    };
    if (!direct) {
#pragma omp single copyprivate(packed)
        {
            packed = shared.get<int32_t>(tiles.count * s.lanes * WIDTH);
            for (int64_t i = 0; !together && i < tiles.count; i++) pack(i);
        }
    }
    if (together) {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles.count; i++) pack(i);
    }
    float* sums = own.get<float>(tiles.count * TILE_ROWS * PANEL);
#pragma omp for schedule(dynamic, some) nowait
    for (int64_t p = 0; p < panels; p++) {
        const int32_t* panel = weights + p * s.lanes * PANEL;
        if (direct)
            add_block<E, Fetch::NEAR, DIRECT_ROWS>((const int32_t*)x, s.x_stride / E::PER_LANE, s.rows, panel, s.lanes,
                                                   sums, true);
        else
            panel_times_tiles<E>(packed, tiles, panel, s, sums);
        for (int64_t i = 0; i < tiles.count; i++)
            finish<E>(sums + i * TILE_ROWS * PANEL, tiles.size(i), bias, out + tiles.start(i) * s.out_stride, s,
                      p * PANEL);
    }
}

template <class E>
void linear_blocks(const Linear& l) {
    using Element = typename E::Element;
    const Element *x = (const Element*)l.x, *bias = (const Element*)l.bias;
    const int32_t* weights = (const int32_t*)l.weights;
    Element* out = (Element*)l.out;
    Shape s{l.rows, l.ins, l.outs, ceil_div(l.ins, E::PER_LANE), l.x_stride, l.out_stride};
    int64_t tiles = ceil_div(l.rows, TILE_ROWS), threads = omp_get_num_threads();
    if (tiles >= MANY_TILES * threads) {
        int64_t parts = ceil_div(ceil_div(tiles, OWN_TILES), threads) * threads;
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < parts; i++) {
            int64_t from = tiles * i / parts * TILE_ROWS, to = std::min(tiles * (i + 1) / parts * TILE_ROWS, l.rows);
            s.rows = to - from;
            linear_rows<E>(x + from * s.x_stride, weights, bias, out + from * s.out_stride, s);
        }
        return;
    }
    for (int64_t done = 0; done < l.rows; done += MAX_TILES * TILE_ROWS) {
        if (done) {
#pragma omp barrier
        }
        s.rows = std::min<int64_t>(MAX_TILES * TILE_ROWS, l.rows - done);
        linear<E>(x + done * s.x_stride, weights, bias, out + done * s.out_stride, s);
    }
}

}  // namespace

void linear_by_team(const void* problem) {
    const auto& l = *static_cast<const Linear*>(problem);
    l.bfloat16 ? linear_blocks<Bfloat16>(l) : linear_blocks<Float32>(l);
}

}  // namespace llmos

extern "C" void llmos_linear(const void* problem) {
    int threads = static_cast<const llmos::Linear*>(problem)->threads;
    llmos::with_team(threads, true, [&] { llmos::linear_by_team(problem); });
}
