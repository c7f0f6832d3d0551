// Products of 32 rows of numbers of 8 bits with 32 columns, by the matrix unit of a processor (AMX) or as it would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __AMX_INT8__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace llmos {

constexpr int MATRIX = 32;       // rows and columns of a product
constexpr int MATRIX_LANES = 16;  // of four numbers each that are multiplied at a time, at most

// What the unit does, number by number.
class PlainMatrix {
  public:
    explicit PlainMatrix(int lanes) : lanes_(lanes) {}
    static bool there() { return true; }
    void start() { std::memset(sums_, 0, sizeof sums_); }

    // Adds lanes of signed numbers, `stride` lanes from row to row, times unsigned ones [lanes][32][4].
    void add(const int32_t* x, ptrdiff_t stride, const uint8_t* weights) {
        for (int r = 0; r < MATRIX; r++)
            for (int k = 0; k < lanes_; k++) {
                int8_t inputs[4];
                std::memcpy(inputs, x + r * stride + k, sizeof inputs);
                for (int c = 0; c < MATRIX; c++)
                    for (int i = 0; i < 4; i++) sums_[r][c] += inputs[i] * weights[(k * MATRIX + c) * 4 + i];
            }
    }
    void finish(int32_t* to) const { std::memcpy(to, sums_, sizeof sums_); }

  private:
    int lanes_;
    int32_t sums_[MATRIX][MATRIX];
};

#ifdef __AMX_INT8__

class Matrix {
  public:
    explicit Matrix(int lanes) {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t column_bytes[16] = {};
            uint8_t rows[16] = {};
        } shape;
        for (int i = 0; i < 8; i++) shape.column_bytes[i] = 64, shape.rows[i] = 16;
        for (int i : {4, 5}) shape.column_bytes[i] = 4 * lanes;
        for (int i : {6, 7}) shape.rows[i] = lanes;
        _tile_loadconfig(&shape);
    }
    ~Matrix() { _tile_release(); }
    Matrix(const Matrix&) = delete;

    // Whether the system lets this process use the unit, which it must be asked for once.
    static bool there() {
        constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
        static const bool granted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
        return granted;
    }
    void start() {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    void add(const int32_t* x, ptrdiff_t stride, const uint8_t* weights) {
        constexpr int LANE_BYTES = 4 * MATRIX;
        _tile_loadd(4, x, stride * 4);
        _tile_loadd(5, x + MATRIX / 2 * stride, stride * 4);
        _tile_loadd(6, weights, LANE_BYTES);
        _tile_loadd(7, weights + LANE_BYTES / 2, LANE_BYTES);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    void finish(int32_t* to) const {
        _tile_stored(0, to, 4 * MATRIX);
        _tile_stored(1, to + MATRIX / 2, 4 * MATRIX);
        _tile_stored(2, to + MATRIX / 2 * MATRIX, 4 * MATRIX);
        _tile_stored(3, to + MATRIX / 2 * MATRIX + MATRIX / 2, 4 * MATRIX);
    }
};

#else

class Matrix : public PlainMatrix {
  public:
    using PlainMatrix::PlainMatrix;
    static bool there() { return false; }
};

#endif

}  // namespace llmos
