// What stands between the matrix products of a decoder layer. Each rounds to the element type exactly where the
// reference does; sums are of float32.
#include <cmath>
#include <cstring>

#include "functions.h"
#include "lanes.h"
#include "team.h"

namespace llmos {
namespace {

constexpr int64_t SMALL = 1 << 16;  // elements below which waking other threads costs more than they save

// f(i) for i below count, shared out among the threads of a team.
template <class F>
void each(int64_t count, F&& f) {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < count; i++) f(i);
}

// As `layers.py` packs it, 64 bits each; as are the others. Without a weight it is the sum alone.
struct Norm {
    const void *x, *residual, *weight;
    void *out, *total;
    int64_t rows, width, group, x_group, x_stride, residual_stride, unit_offset, round_first, threads, bfloat16;
    double eps;  // `group` neighbouring rows of x are `x_stride` elements apart, their groups `x_group`
};

template <class E>
void norm_row(const Norm& n, int64_t row) {
    using Element = typename E::Element;
    const Element *x = (const Element*)n.x + row / n.group * n.x_group + row % n.group * n.x_stride;
    const Element* weight = (const Element*)n.weight;
    Element *out = (Element*)n.out + row * n.width, *total = (Element*)n.total + row * n.width;
    const Element* residual = n.residual ? (const Element*)n.residual + row * n.residual_stride : nullptr;
    __m512 squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < n.width; i += WIDTH) {
        __mmask16 mask = first(n.width - i);
        __m512 value = E::load(x + i, mask);
        if (residual) {
            value = E::rounded(_mm512_add_ps(E::load(residual + i, mask), value));
            E::store(total + i, value, mask);
        }
        squares = _mm512_fmadd_ps(value, value, squares);
    }
    if (!weight) return;
    __m512 factor = vector(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / n.width + (float)n.eps));
    for (int64_t i = 0; i < n.width; i += WIDTH) {
        __mmask16 mask = first(n.width - i);
        __m512 normed = _mm512_mul_ps(E::load((residual ? total : x) + i, mask), factor);
        __m512 scale = E::load(weight + i, mask);
        if (n.unit_offset) scale = _mm512_add_ps(scale, vector(1.0f));
        if (n.round_first) {
            normed = E::rounded(normed);
            scale = E::rounded(scale);
        }
        E::store(out + i, _mm512_mul_ps(normed, scale), mask);
    }
}

struct Gate {
    const void* x;
    void* out;
    int64_t rows, width, x_stride, kind, threads, bfloat16;
};

enum Kind { SILU, GELU, GELU_TANH };

inline __m512 activate(__m512 x, int64_t kind) {
    const __m512 one = vector(1.0f), half = vector(0.5f);
    if (kind == SILU) return _mm512_div_ps(x, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
    if (kind == GELU) {
        __m512 error = erf(_mm512_mul_ps(x, vector(0.70710678f)));
        return _mm512_mul_ps(_mm512_mul_ps(x, half), _mm512_add_ps(one, error));
    }
    __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    __m512 inner = _mm512_mul_ps(vector(0.79788456f), _mm512_fmadd_ps(vector(0.044715f), cube, x));
    return _mm512_mul_ps(_mm512_mul_ps(x, half), _mm512_add_ps(one, tanh(inner)));
}

template <class E>
void gate_row(const Gate& g, int64_t row) {
    using Element = typename E::Element;
    const Element *gate = (const Element*)g.x + row * g.x_stride, *up = gate + g.width;
    Element* out = (Element*)g.out + row * g.width;
    for (int64_t i = 0; i < g.width; i += WIDTH) {
        __mmask16 mask = first(g.width - i);
        __m512 value = E::rounded(activate(E::load(gate + i, mask), g.kind));
        E::store(out + i, _mm512_mul_ps(value, E::load(up + i, mask)), mask);
    }
}

struct Heads {
    void* at;
    int64_t count, width, token_stride, head_stride;

    template <class Element>
    Element* head(int64_t token, int64_t head) const {
        return (Element*)at + token * token_stride + head * head_stride;
    }
};

struct Pages {
    void* at;
    int64_t page_stride, head_stride;
};

struct Angles {
    const void *cos, *sin;
    int64_t rotary, cos_stride, sin_stride;
};

struct Rope {
    Heads q, k, v;
    Pages keys, values;
    Angles angles;
    const int64_t* slots;
    int64_t tokens, page_tokens, threads, bfloat16;

    template <class Element>
    Element* slot(const Pages& pages, int64_t token, int64_t head, int64_t width) const {
        int64_t page = slots[token] / page_tokens, place = slots[token] % page_tokens;
        return (Element*)pages.at + page * pages.page_stride + head * pages.head_stride + place * width;
    }
};

// One head from `from` to `to`, which may be the same place: pairs are the two halves of its first `rotary` elements.
template <class E>
void turn(const typename E::Element* from, typename E::Element* to, const typename E::Element* cos,
          const typename E::Element* sin, int64_t rotary) {
    int64_t half = rotary / 2;
    for (int64_t i = 0; i < half; i += WIDTH) {
        __mmask16 mask = first(half - i);
        __m512 low = E::load(from + i, mask), high = E::load(from + half + i, mask);
        auto part = [&](__m512 a, int64_t at, __m512 b) {
            __m512 straight = E::rounded(_mm512_mul_ps(a, E::load(cos + at, mask)));
            return _mm512_add_ps(straight, E::rounded(_mm512_mul_ps(b, E::load(sin + at, mask))));
        };
        E::store(to + i, part(low, i, _mm512_sub_ps(_mm512_setzero_ps(), high)), mask);
        E::store(to + half + i, part(high, half + i, low), mask);
    }
}

// Turns q and k in place; with slots k is put into its page instead, and v into its own. Without q and without angles
// that is a copy.
template <class E>
void rope_token(const Rope& p, int64_t t) {
    using Element = typename E::Element;
    const Element* cos = (const Element*)p.angles.cos + t * p.angles.cos_stride;
    const Element* sin = (const Element*)p.angles.sin + t * p.angles.sin_stride;
    int64_t rotary = p.angles.rotary;
    for (int64_t h = 0; h < p.q.count; h++) {
        Element* q = p.q.head<Element>(t, h);
        turn<E>(q, q, cos, sin, rotary);
    }
    for (int64_t h = 0; h < p.k.count; h++) {
        Element *k = p.k.head<Element>(t, h), *to = k;
        if (p.slots) {
            to = p.slot<Element>(p.keys, t, h, p.k.width);
            std::memcpy(to + rotary, k + rotary, (p.k.width - rotary) * sizeof(Element));
            Element* into = p.slot<Element>(p.values, t, h, p.v.width);
            std::memcpy(into, p.v.head<Element>(t, h), p.v.width * sizeof(Element));
        }
        turn<E>(k, to, cos, sin, rotary);
    }
}

}  // namespace

void norm_by_team(const void* problem) {
    const auto& n = *static_cast<const Norm*>(problem);
    each(n.rows, [&](int64_t row) { n.bfloat16 ? norm_row<Bfloat16>(n, row) : norm_row<Float32>(n, row); });
}

void gate_by_team(const void* problem) {
    const auto& g = *static_cast<const Gate*>(problem);
    each(g.rows, [&](int64_t row) { g.bfloat16 ? gate_row<Bfloat16>(g, row) : gate_row<Float32>(g, row); });
}

void rope_by_team(const void* problem) {
    const auto& p = *static_cast<const Rope*>(problem);
    each(p.tokens, [&](int64_t t) { p.bfloat16 ? rope_token<Bfloat16>(p, t) : rope_token<Float32>(p, t); });
}

}  // namespace llmos

extern "C" void llmos_norm(const void* problem) {
    const auto& n = *static_cast<const llmos::Norm*>(problem);
    llmos::with_team(n.threads, n.rows * n.width >= llmos::SMALL, [&] { llmos::norm_by_team(problem); });
}

extern "C" void llmos_gate(const void* problem) {
    const auto& g = *static_cast<const llmos::Gate*>(problem);
    llmos::with_team(g.threads, g.rows * g.width * 2 >= llmos::SMALL, [&] { llmos::gate_by_team(problem); });
}

extern "C" void llmos_rope(const void* problem) {
    const auto& p = *static_cast<const llmos::Rope*>(problem);
    int64_t elements = p.tokens * (p.q.count + 2 * p.k.count) * p.k.width;
    llmos::with_team(p.threads, elements >= llmos::SMALL, [&] { llmos::rope_by_team(problem); });
}
