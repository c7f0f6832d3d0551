// Attention of packed rows over pages of keys and values (online softmax: Milakov and Gimelshein 2018), causal or to
// all tokens of a row.
//
// The rows of a task are all (query, head) pairs of some neighbouring queries that share a key head, so each key is
// read once a group. Tokens are taken in blocks at fixed places, and blocks are merged to segments at fixed places, so
// a query's answer is the same bits however its row is cut into steps, tasks or threads.
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "functions.h"
#include "lanes.h"
#include "team.h"

namespace llmos {
namespace {

constexpr int64_t BLOCK = 128;      // tokens between two looks at the maximum
constexpr int64_t SEGMENT = 1024;   // tokens whose partial answer may be computed apart
constexpr int64_t TASK_ROWS = 112;  // (query, head) pairs of a task: 8 tiles
constexpr int LINE = 64;             // bytes of a cache line
constexpr int NARROW = 7;           // rows of a task that leave registers for 16 transposed keys
constexpr int64_t SMALL = 1 << 16;  // multiply-adds of vectors below which waking other threads costs more
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

// As `attention.py` packs it: 64 bits each. Strides count elements; the innermost dimension is dense.
struct Problem {
    const void *q, *keys, *values;
    const int32_t *table, *starts, *lengths;
    const float* sinks;
    void* out;
    int64_t rows, heads, kv_heads, dim, value_dim, page_tokens;
    int64_t q_token, q_head, key_page, key_head, key_token, value_page, value_head, value_token, table_row;
    int64_t window, causal, threads, bfloat16;
    double scale, softcap;

    int64_t group() const { return heads / kv_heads; }
    int64_t value_width() const { return ceil_div(value_dim, PANEL) * PANEL; }
};

// Some queries of a row, counted within the row, and one key head.
struct Task {
    int64_t row, head, begin, end;
};

// What is known of each (query, head) pair of a task after some of its tokens.
struct State {
    float *maximum, *total, *sums;  // [rows], [rows], [rows][value width]
    static size_t floats(const Problem& p) { return capacity(p) * (2 + p.value_width()); }
    static int64_t capacity(const Problem& p) { return ceil_div(std::max(TASK_ROWS, p.group()), WIDTH) * WIDTH; }
    State(float* memory, const Problem& p)
        : maximum(memory), total(memory + capacity(p)), sums(memory + 2 * capacity(p)) {}
};

// Where the keys and values of a block's tokens lie, 16 by 16.
template <class Element>
struct Place {
    int64_t tokens = 0;
    const Element *keys[BLOCK / WIDTH]{}, *values[BLOCK / WIDTH]{};
};

template <class E>
class Worker {
    using Element = typename E::Element;
    static constexpr int64_t BLOCK_LANES = BLOCK / E::PER_LANE;

  public:
    explicit Worker(const Problem& p) : p_(p), lanes_(ceil_div(ceil_div(p.dim, E::PER_LANE), WIDTH) * WIDTH) {
        static thread_local Scratch memory;
        int64_t most = State::capacity(p), tiles = ceil_div(most, TILE_ROWS);
        size_t queries = tiles * lanes_ * WIDTH, keys = lanes_ * BLOCK, values = BLOCK_LANES * p.value_width();
        int32_t* at = memory.get<int32_t>(queries + keys + values + TILE_ROWS * 2 * BLOCK + 2 * State::floats(p));
        queries_ = at;
        keys_ = queries_ + queries;
        values_ = keys_ + keys;
        scores_ = (float*)(values_ + values);
        weights_ = (Element*)(scores_ + TILE_ROWS * BLOCK);
        states_ = scores_ + TILE_ROWS * 2 * BLOCK;
    }

    State part() const { return State(states_, p_); }
    State total() const { return State(states_ + State::floats(p_), p_); }

    // `next` is the task that this worker does afterwards, if that is known: its first block is fetched early.
    void start(const Task& task, const Task* next = nullptr) {
        task_ = task;
        next_ = next;
        first_ = p_.starts[task.row];
        before_ = before(task);
        rows_ = (task.end - task.begin) * p_.group();
        for (int64_t from = 0; from < rows_; from += TILE_ROWS) {
            auto row = [&](int r) { return query(from + r); };
            int32_t* into = queries_ + from / TILE_ROWS * lanes_ * WIDTH;
            pack_rows<E>(row, std::min<int64_t>(TILE_ROWS, rows_ - from), p_.dim, into);
            std::fill(into + ceil_div(p_.dim, E::PER_LANE) * WIDTH, into + lanes_ * WIDTH, 0);
        }
    }

    // The tokens that some query of a task sees; the first counts from the begin of a block.
    int64_t seen_from(const Task& task) const { return low(before(task) + task.begin) / BLOCK * BLOCK; }
    int64_t seen_to(const Task& task) const { return p_.causal ? before(task) + task.end : p_.lengths[task.row]; }

    void attend(int64_t segment, State state) {
        clear(state);
        int64_t from = std::max(segment * SEGMENT, seen_from(task_)), to = seen_to(task_);
        for (int64_t block = from; block < std::min((segment + 1) * SEGMENT, to); block += BLOCK) {
            now_ = locate(task_, block);
            coming_ = now_;
            if (block + BLOCK < to)
                coming_ = locate(task_, block + BLOCK);
            else if (next_)
                coming_ = locate(*next_, seen_from(*next_));
            if (rows_ <= NARROW) {
                with_rows<NARROW>(rows_, [&](auto rows) { narrow_block<decltype(rows)::value>(block, state); });
                continue;
            }
            pack_keys();
            pack_values();
            for (int64_t row = 0; row < rows_; row += TILE_ROWS)
                with_rows<TILE_ROWS>(std::min<int64_t>(TILE_ROWS, rows_ - row),
                                     [&](auto rows) { tile_times_block<decltype(rows)::value>(row, block, state); });
        }
    }

    void merge(State into, State part) {
        for (int64_t r = 0; r < rows_; r++) {
            float maximum = std::max(into.maximum[r], part.maximum[r]);
            if (maximum == NOTHING) continue;
            float a = exp(into.maximum[r] - maximum), b = exp(part.maximum[r] - maximum);
            into.maximum[r] = maximum;
            into.total[r] = into.total[r] * a + part.total[r] * b;
            for (int64_t d = 0; d < p_.value_width(); d += WIDTH) {
                float* at = into.sums + r * p_.value_width() + d;
                __m512 other = _mm512_load_ps(part.sums + r * p_.value_width() + d);
                _mm512_store_ps(at, _mm512_add_ps(_mm512_mul_ps(_mm512_load_ps(at), vector(a)),
                                                  _mm512_mul_ps(other, vector(b))));
            }
        }
    }

    void clear(State state) {
        std::fill_n(state.maximum, rows_, NOTHING);
        std::fill_n(state.total, rows_, 0.0f);
        std::fill_n(state.sums, rows_ * p_.value_width(), 0.0f);
    }

    void write(State state) {
        for (int64_t r = 0; r < rows_; r++) {
            int64_t head = task_.head * p_.group() + r % p_.group();
            int64_t token = first_ + task_.begin + r / p_.group();
            float factor = 1.0f, total = state.total[r];
            if (p_.sinks) {
                float maximum = std::max(state.maximum[r], p_.sinks[head]);
                factor = exp(state.maximum[r] - maximum);
                total = total * factor + exp(p_.sinks[head] - maximum);
            }
            if (total == 0.0f) total = 1.0f;  // no keys: the answer is 0
            Element* out = (Element*)p_.out + (token * p_.heads + head) * p_.value_dim;
            for (int64_t d = 0; d < p_.value_dim; d += PANEL) {
                const float* sums = state.sums + r * p_.value_width() + d;
                __m512 low = _mm512_load_ps(sums), high = _mm512_load_ps(sums + WIDTH);
                sort_outputs(low, high);
                low = _mm512_div_ps(_mm512_mul_ps(low, vector(factor)), vector(total));
                high = _mm512_div_ps(_mm512_mul_ps(high, vector(factor)), vector(total));
                E::store(out + d, low, first(p_.value_dim - d));
                E::store(out + d + WIDTH, high, first(p_.value_dim - d - WIDTH));
            }
        }
    }

  private:
    const Element* query(int64_t r) const {
        int64_t token = first_ + task_.begin + r / p_.group();
        return (const Element*)p_.q + token * p_.q_token + (task_.head * p_.group() + r % p_.group()) * p_.q_head;
    }

    // Tokens of a task's row that come before the step's.
    int64_t before(const Task& task) const {
        return p_.lengths[task.row] - (p_.starts[task.row + 1] - p_.starts[task.row]);
    }

    // The first token that a query at `position` sees.
    int64_t low(int64_t position) const { return p_.window ? std::max<int64_t>(0, position - p_.window + 1) : 0; }

    // The token after the last that a query at `position` sees.
    int64_t end(int64_t position) const { return p_.causal ? position + 1 : p_.lengths[task_.row]; }

    Place<Element> locate(const Task& task, int64_t block) const {
        Place<Element> place;
        place.tokens = std::min(seen_to(task) - block, BLOCK);
        for (int64_t g = 0; g * WIDTH < place.tokens; g++) {
            int64_t t = block + g * WIDTH, within = t % p_.page_tokens;
            int64_t page = p_.table[task.row * p_.table_row + t / p_.page_tokens];
            place.keys[g] =
                (const Element*)p_.keys + page * p_.key_page + task.head * p_.key_head + within * p_.key_token;
            place.values[g] =
                (const Element*)p_.values + page * p_.value_page + task.head * p_.value_head + within * p_.value_token;
        }
        return place;
    }

    // How many of the 16 tokens of a group there are.
    int group_size(int64_t g) const { return std::clamp<int64_t>(now_.tokens - g * WIDTH, 0, WIDTH); }

    // Keys as panels [tokens / 32][lanes][32]; what is not there is zero.
    void pack_keys() {
        for (int64_t g = 0; g < ceil_div(now_.tokens, PANEL) * 2; g++) {
            int32_t* into = keys_ + g / 2 * lanes_ * PANEL + g % 2 * WIDTH;
            pack_rows<E>([&](int r) { return now_.keys[g] + r * p_.key_token; }, group_size(g), p_.dim, into, PANEL);
            for (int64_t k = ceil_div(p_.dim, E::PER_LANE); k < lanes_; k++)
                _mm512_store_si512(into + k * PANEL, _mm512_setzero_si512());
        }
    }

    // Values as panels [value width / 32][lanes of tokens][32]; what is not there is zero.
    void pack_values() {
        for (int64_t t = 0; t < ceil_div(now_.tokens, PANEL) * PANEL; t += E::PER_LANE)
            for (int64_t d = 0; d < p_.value_dim; d += PANEL) {
                int32_t* into = values_ + d * BLOCK_LANES + t / E::PER_LANE * PANEL;
                __m512i low, high;
                value_lane(t, d, low, high);
                _mm512_store_si512(into, low);
                _mm512_store_si512(into + WIDTH, high);
            }
    }

    // Of a lane of tokens from t on, 32 values from d on, in the order that interleaving leaves.
    inline __attribute__((always_inline)) void value_lane(int64_t t, int64_t d, __m512i& low, __m512i& high) const {
        const Element* at = now_.values[t / WIDTH] + t % WIDTH * p_.value_token + d;
        int64_t left = p_.value_dim - d;
        if (t + E::PER_LANE <= now_.tokens && left >= PANEL) return whole_value_lane(at, low, high);
        if constexpr (E::PER_LANE == 1) {
            low = t < now_.tokens ? load_lanes<E>(at, left) : _mm512_setzero_si512();
            high = t < now_.tokens ? load_lanes<E>(at + WIDTH, left - WIDTH) : _mm512_setzero_si512();
        } else {
            __m512i even = t < now_.tokens ? load_lanes<E>(at, left) : _mm512_setzero_si512();
            __m512i odd = t + 1 < now_.tokens ? load_lanes<E>(at + p_.value_token, left) : _mm512_setzero_si512();
            low = _mm512_unpacklo_epi16(even, odd);
            high = _mm512_unpackhi_epi16(even, odd);
        }
    }

    inline __attribute__((always_inline)) void whole_value_lane(const Element* at, __m512i& low, __m512i& high) const {
        if constexpr (E::PER_LANE == 1) {
            low = _mm512_loadu_si512(at);
            high = _mm512_loadu_si512(at + WIDTH);
        } else {
            __m512i even = _mm512_loadu_si512(at), odd = _mm512_loadu_si512(at + p_.value_token);
            low = _mm512_unpacklo_epi16(even, odd);
            high = _mm512_unpackhi_epi16(even, odd);
        }
    }

    // Undoes the order of `value_lane`.
    static void sort_outputs(__m512& low, __m512& high) {
        if constexpr (E::PER_LANE == 2) {
            const __m512i begin = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
            const __m512i end = _mm512_add_epi32(begin, _mm512_set1_epi32(8));
            __m512 both = _mm512_permutex2var_ps(low, begin, high);
            high = _mm512_permutex2var_ps(low, end, high);
            low = both;
        }
    }

    // A block for so few rows that keys and values are used straight from where they are, as in a decode step. Pages
    // are scattered and the processor does not guess the next one, so each step asks for a part of the coming block:
    // one cache line with each lane of keys, two with each lane of values. A burst of requests would stop the step.
    template <int ROWS>
    void narrow_block(int64_t block, State state) {
        constexpr int PANELS = ROWS < NARROW ? 2 : 1;
        int64_t tokens = ceil_div(now_.tokens, PANEL) * PANEL;
        for (int64_t g = 0; g * WIDTH < tokens; g += 2) {
            __m512 sums[ROWS][2];
#pragma GCC unroll 16
            for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_ps();
            for (int64_t k = 0; k < lanes_; k += WIDTH)
#pragma GCC unroll 16
                for (int h = 0; h < 2; h++) add_scores<ROWS>(g + h, k, h, sums);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
                for (int h = 0; h < 2; h++) _mm512_store_ps(scores_ + r * BLOCK + (g + h) * WIDTH, sums[r][h]);
        }
        float factors[ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) factors[r] = soften(0, r, block, tokens, state);
        int64_t d = 0;
        for (; PANELS == 2 && d + PANEL < p_.value_width(); d += 2 * PANEL) add_values<ROWS, PANELS>(d, factors, state);
        for (; d < p_.value_width(); d += PANEL) add_values<ROWS, 1>(d, factors, state);
    }

    template <int ROWS>
    inline __attribute__((always_inline)) void add_scores(int64_t g, int64_t k, int h, __m512 sums[ROWS][2]) {
        int size = group_size(g);
        if (!size) return;
        __m512i keys[WIDTH];
        const Element* at = now_.keys[g] + k * E::PER_LANE;
        auto next = [&] { return std::exchange(at, at + p_.key_token); };
        transposed<E>(next, size, p_.dim - k * E::PER_LANE, keys);
        const char* ahead = (const char*)(coming_.keys[g] ? coming_.keys[g] : now_.keys[g]) + k * LINE;
        const int32_t* queries = queries_ + k * WIDTH;
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) {
            _mm_prefetch(ahead + i * LINE, _MM_HINT_T1);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++)
                sums[r][h] = E::multiply_add(sums[r][h], _mm512_set1_epi32(queries[i * WIDTH + r]), keys[i]);
        }
    }

    template <int ROWS, int PANELS>
    inline __attribute__((always_inline)) void add_values(int64_t d, const float* factors, State state) {
        __m512 sums[PANELS][ROWS][2];
#pragma GCC unroll 16
        for (int p = 0; p < PANELS; p++) load_sums<ROWS>(state.sums + d + p * PANEL, factors, sums[p]);
        for (int64_t t = 0; t < now_.tokens; t += WIDTH) {
            const Element *coming = coming_.values[t / WIDTH], *now = now_.values[t / WIDTH];
            const char* ahead = (const char*)(coming ? coming : now);
            ahead += d * WIDTH / PANEL / E::PER_LANE * 2 * LINE;
            const int32_t* weights = (const int32_t*)weights_ + t / E::PER_LANE;
            bool whole = t + WIDTH <= now_.tokens && d + PANELS * PANEL <= p_.value_dim;
            const Element* at = now + d;
            for (int i = 0; i < WIDTH / E::PER_LANE; i++, at += E::PER_LANE * p_.value_token) {
#pragma GCC unroll 16
                for (int p = 0; p < PANELS; p++) {
                    _mm_prefetch(ahead + (i * PANELS + p) * 2 * LINE, _MM_HINT_T1);
                    _mm_prefetch(ahead + (i * PANELS + p) * 2 * LINE + LINE, _MM_HINT_T1);
                    __m512i low, high;
                    if (whole)
                        whole_value_lane(at + p * PANEL, low, high);
                    else
                        value_lane(t + i * E::PER_LANE, d + p * PANEL, low, high);
#pragma GCC unroll 16
                    for (int r = 0; r < ROWS; r++) {
                        __m512i weight = _mm512_set1_epi32(weights[r * BLOCK_LANES + i]);
                        sums[p][r][0] = E::multiply_add(sums[p][r][0], weight, low);
                        sums[p][r][1] = E::multiply_add(sums[p][r][1], weight, high);
                    }
                }
            }
        }
#pragma GCC unroll 16
        for (int p = 0; p < PANELS; p++) store_sums<ROWS>(state.sums + d + p * PANEL, sums[p]);
    }

    template <int ROWS>
    void load_sums(const float* from, const float* factors, __m512 sums[ROWS][2]) const {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
            for (int h = 0; h < 2; h++) {
                __m512 before = _mm512_load_ps(from + r * p_.value_width() + h * WIDTH);
                sums[r][h] = _mm512_mul_ps(before, vector(factors[r]));
            }
    }

    template <int ROWS>
    void store_sums(float* to, const __m512 sums[ROWS][2]) const {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
            for (int h = 0; h < 2; h++) _mm512_store_ps(to + r * p_.value_width() + h * WIDTH, sums[r][h]);
    }

    template <int ROWS>
    void tile_times_block(int64_t row, int64_t block, State state) {
        int64_t last = end(before_ + task_.begin + (row + ROWS - 1) / p_.group()) - 1;
        if (block > last || block + BLOCK <= low(before_ + task_.begin + row / p_.group())) return;
        int64_t tokens = std::min(BLOCK, ceil_div(last + 1 - block, PANEL) * PANEL);
        for (int64_t t = 0; t < tokens; t += PANEL) {
            __m512 sums[ROWS][2];
#pragma GCC unroll 16
            for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_ps();
            tile<E, ROWS, Fetch::NONE>(queries_ + row / TILE_ROWS * lanes_ * WIDTH, WIDTH, 1,
                                       keys_ + t * lanes_, lanes_, sums);
#pragma GCC unroll 16
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 16
                for (int h = 0; h < 2; h++) _mm512_store_ps(scores_ + r * BLOCK + t + h * WIDTH, sums[r][h]);
        }
        float factors[ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) factors[r] = soften(row, r, block, tokens, state);
        for (int64_t d = 0; d < p_.value_width(); d += PANEL) {
            __m512 sums[ROWS][2];
            load_sums<ROWS>(state.sums + row * p_.value_width() + d, factors, sums);
            tile<E, ROWS, Fetch::NONE>((const int32_t*)weights_, 1, BLOCK_LANES, values_ + d * BLOCK_LANES,
                                       tokens / E::PER_LANE, sums);
            store_sums<ROWS>(state.sums + row * p_.value_width() + d, sums);
        }
    }

    // Scores to weights for one row; returns by what earlier sums shrink.
    float soften(int64_t row, int r, int64_t block, int64_t tokens, State state) {
        float* scores = scores_ + r * BLOCK;
        int64_t query = task_.begin + (row + r) / p_.group();
        int64_t from = low(before_ + query) - block, to = end(before_ + query) - block;
        float &maximum = state.maximum[row + r], before = maximum;
        __m512 best = vector(NOTHING);
        for (int64_t t = 0; t < tokens; t += WIDTH) {
            __m512 score = _mm512_mul_ps(_mm512_load_ps(scores + t), vector(p_.scale));
            if (p_.softcap)
                score = _mm512_mul_ps(tanh(_mm512_div_ps(score, vector(p_.softcap))), vector(p_.softcap));
            __mmask16 seen = first(to - t) & ~first(from - t);
            score = _mm512_mask_mov_ps(vector(NOTHING), seen, score);
            _mm512_store_ps(scores + t, score);
            best = _mm512_max_ps(best, score);
        }
        maximum = std::max(maximum, _mm512_reduce_max_ps(best));
        __m512 sum = _mm512_setzero_ps(), shift = vector(maximum == NOTHING ? 0.0f : maximum);
        for (int64_t t = 0; t < tokens; t += WIDTH) {
            __m512 weight = exp(_mm512_sub_ps(_mm512_load_ps(scores + t), shift));
            sum = _mm512_add_ps(sum, weight);
            E::store(weights_ + r * BLOCK + t, weight);
        }
        float factor = maximum == NOTHING ? 1.0f : before == NOTHING ? 0.0f : exp(before - maximum);
        state.total[row + r] = state.total[row + r] * factor + _mm512_reduce_add_ps(sum);
        return factor;
    }

    const Problem& p_;
    int64_t lanes_;
    int32_t *queries_, *keys_, *values_;
    float *scores_, *states_;
    Element* weights_;
    Task task_{};
    const Task* next_ = nullptr;
    Place<Element> now_, coming_;
    int64_t first_ = 0, before_ = 0, rows_ = 0;
};

// How much there is to do.
int64_t work(const Problem& p) {
    int64_t sum = 0;
    for (int64_t row = 0; row < p.rows; row++) {
        int64_t queries = p.starts[row + 1] - p.starts[row];
        int64_t seen = p.window ? std::min<int64_t>(p.lengths[row], p.window + queries) : p.lengths[row];
        sum += queries * p.heads * seen * (p.dim + p.value_dim) / 32;
    }
    return sum;
}

// Tasks with the longest first.
void plan(const Problem& p, std::vector<Task>& tasks) {
    int64_t each = std::max<int64_t>(1, TASK_ROWS / p.group());
    tasks.clear();
    for (int64_t row = 0; row < p.rows; row++)
        for (int64_t end = p.starts[row + 1] - p.starts[row]; end > 0; end -= each)
            for (int64_t head = 0; head < p.kv_heads; head++)
                tasks.push_back({row, head, std::max<int64_t>(0, end - each), end});
}

template <class E>
void attend_whole(const Problem& p, const std::vector<Task>& tasks) {
    int64_t count = tasks.size(), some = std::clamp<int64_t>(count / (omp_get_num_threads() * 4), 1, 16);
    Worker<E> worker(p);
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t from = 0; from < count; from += some) {
        int64_t to = std::min(from + some, count);
        for (int64_t i = from; i < to; i++) {
            worker.start(tasks[i], i + 1 < to ? &tasks[i + 1] : nullptr);
            State total = worker.total();
            int64_t s = worker.seen_from(tasks[i]) / SEGMENT;
            worker.attend(s, total);
            while (++s * SEGMENT < worker.seen_to(tasks[i])) {
                worker.attend(s, worker.part());
                worker.merge(total, worker.part());
            }
            worker.write(total);
        }
    }
}

// For fewer tasks than threads: the segments of a task are computed side by side and merged in their order.
template <class E>
void attend_split(const Problem& p, const std::vector<Task>& tasks) {
    static thread_local Scratch memory;
    int64_t longest = *std::max_element(p.lengths, p.lengths + p.rows), segments = ceil_div(longest, SEGMENT);
    float* parts;
#pragma omp single copyprivate(parts)
    parts = memory.get<float>(tasks.size() * segments * State::floats(p));
    Worker<E> worker(p);
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (size_t i = 0; i < tasks.size(); i++)
        for (int64_t s = 0; s < segments; s++) {
            worker.start(tasks[i]);
            worker.attend(s, State(parts + (i * segments + s) * State::floats(p), p));
        }
#pragma omp for schedule(dynamic, 1) nowait
    for (size_t i = 0; i < tasks.size(); i++) {
        worker.start(tasks[i]);
        State total(parts + i * segments * State::floats(p), p);
        for (int64_t s = 1; s < segments; s++)
            worker.merge(total, State(parts + (i * segments + s) * State::floats(p), p));
        worker.write(total);
    }
}

template <class E>
void attend(const Problem& p) {
    const std::vector<Task>* tasks;
#pragma omp single copyprivate(tasks)
    {
        static thread_local std::vector<Task> planned;
        plan(p, planned);
        tasks = &planned;
    }
    if (tasks->empty()) return;
    if ((int64_t)tasks->size() >= omp_get_num_threads())
        attend_whole<E>(p, *tasks);
    else
        attend_split<E>(p, *tasks);
}

}  // namespace

void attention_by_team(const void* problem) {
    const auto& p = *static_cast<const Problem*>(problem);
    p.bfloat16 ? attend<Bfloat16>(p) : attend<Float32>(p);
}

}  // namespace llmos

extern "C" void llmos_paged_attention(const void* problem) {
    const auto& p = *static_cast<const llmos::Problem*>(problem);
    llmos::with_team(p.threads, llmos::work(p) >= llmos::SMALL, [&] { llmos::attention_by_team(problem); });
}
