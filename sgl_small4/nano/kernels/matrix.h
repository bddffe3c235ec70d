// Small dense products for the trainer's operators: float32, or bfloat16 with float32 sums.
//
// A "pair" is a 32-bit word with two bfloat16 neighbours along the summed index, as AVX-512's dpbf16 takes them.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

using Pair = uint32_t;

// How one element type is loaded, spread over a vector and multiplied into float32 sums.
struct Float32 {
  using Word = float;
  using Vector = __m512;
  static Vector load(const Word* p) { return _mm512_loadu_ps(p); }
  static Vector spread(Word w) { return _mm512_set1_ps(w); }
  static __m512 add_product(__m512 sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
};
struct Bfloat16 {
  using Word = Pair;
  using Vector = __m512bh;
  static Vector load(const Word* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static Vector spread(Word w) { return (__m512bh)_mm512_set1_epi32(w); }
  static __m512 add_product(__m512 sum, Vector a, Vector b) { return _mm512_dpbf16_ps(sum, a, b); }
};

// Where the left matrix lies: element (i, k) at data[i * row + k * step], so a transposed one is read in place.
template <class Word>
struct Left {
  const Word* data;
  int row, step;
  Left down(int i) const { return {data + (size_t)i * row, row, step}; }
};

template <class Type, int ROWS, int VECTORS>
static inline void tile(int depth, Left<typename Type::Word> a, const typename Type::Word* b, int b_row, float* c,
                        int c_row, bool add) {
  __m512 sum[ROWS][VECTORS];
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < VECTORS; v++)
      sum[i][v] = add ? _mm512_loadu_ps(c + (size_t)i * c_row + 16 * v) : _mm512_setzero_ps();
  for (int k = 0; k < depth; k++) {
    typename Type::Vector right[VECTORS];
    for (int v = 0; v < VECTORS; v++) right[v] = Type::load(b + (size_t)k * b_row + 16 * v);
    for (int i = 0; i < ROWS; i++) {
      auto left = Type::spread(a.data[(size_t)i * a.row + (size_t)k * a.step]);
      for (int v = 0; v < VECTORS; v++) sum[i][v] = Type::add_product(sum[i][v], left, right[v]);
    }
  }
  for (int i = 0; i < ROWS; i++)
    for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(c + (size_t)i * c_row + 16 * v, sum[i][v]);
}

template <class Type, int VECTORS>
static inline void column_panel(int rows, int depth, Left<typename Type::Word> a, const typename Type::Word* b,
                                int b_row, float* c, int c_row, bool add) {
  int i = 0;
  for (; i + 6 <= rows; i += 6)  // 6 x 4 sums and 4 right vectors fill the 32 registers
    tile<Type, 6, VECTORS>(depth, a.down(i), b, b_row, c + (size_t)i * c_row, c_row, add);
  for (; i + 2 <= rows; i += 2) tile<Type, 2, VECTORS>(depth, a.down(i), b, b_row, c + (size_t)i * c_row, c_row, add);
  if (i < rows) tile<Type, 1, VECTORS>(depth, a.down(i), b, b_row, c + (size_t)i * c_row, c_row, add);
}

// c [rows, columns] = a [rows, depth] b [depth, columns], or += with `add`. Columns are a multiple of 16; depth counts
// words (pairs for bfloat16).
template <class Type>
static void multiply(int rows, int columns, int depth, Left<typename Type::Word> a, const typename Type::Word* b,
                     int b_row, float* c, int c_row, bool add = false) {
  int j = 0;
  for (; j + 64 <= columns; j += 64) column_panel<Type, 4>(rows, depth, a, b + j, b_row, c + j, c_row, add);
  if (j + 48 <= columns) column_panel<Type, 3>(rows, depth, a, b + j, b_row, c + j, c_row, add), j += 48;
  if (j + 32 <= columns) column_panel<Type, 2>(rows, depth, a, b + j, b_row, c + j, c_row, add), j += 32;
  if (j + 16 <= columns) column_panel<Type, 1>(rows, depth, a, b + j, b_row, c + j, c_row, add);
}

// A buffer of the calling thread that only grows.
template <class Item>
static Item* at_least(std::vector<Item>& buffer, size_t count) {
  if (buffer.size() < count) buffer.resize(count);
  return buffer.data();
}

template <class Item>
static void transpose(int rows, int columns, const Item* in, int in_row, Item* out, int out_row) {
  for (int block = 0; block < rows; block += 16)
    for (int c = 0; c < columns; c++)
      for (int r = block; r < std::min(rows, block + 16); r++)
        out[(size_t)c * out_row + r] = in[(size_t)r * in_row + c];
}

static inline __m256i to_bfloat16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

static inline __m512i interleave(__m512 low, __m512 high) {
  __m512i lifted = _mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bfloat16(high)), 16);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(to_bfloat16(low)), lifted);
}

// Pairs along each row of x [rows, columns], columns a multiple of 16.
static void pair_along_rows(int rows, int columns, const float* x, Pair* out) {
  for (size_t i = 0; i < (size_t)rows * columns; i += 16)
    _mm256_storeu_si256((__m256i*)((uint16_t*)out + i), to_bfloat16(_mm512_loadu_ps(x + i)));
}

// Pairs of two rows; the second may be missing.
static void pair_two_rows(int columns, const float* x, const float* y, Pair* out) {
  for (int c = 0; c < columns; c += 16) {
    __m512 second = y ? _mm512_loadu_ps(y + c) : _mm512_setzero_ps();
    _mm512_storeu_si512(out + c, interleave(_mm512_loadu_ps(x + c), second));
  }
}

// Pairs of neighbouring rows of x: out [(rows + 1) / 2, columns].
static void pair_along_columns(int rows, int columns, const float* x, Pair* out) {
  for (int r = 0; r < rows; r += 2) {
    const float* next = r + 1 < rows ? x + (size_t)(r + 1) * columns : nullptr;
    pair_two_rows(columns, x + (size_t)r * columns, next, out + (size_t)(r / 2) * columns);
  }
}

// e^x by 2^whole and a polynomial for the fraction; relative error about 1e-7.
static inline __m512 exponential(__m512 x) {
  x = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.f)), _mm512_set1_ps(1.44269504f));
  __m512 whole = _mm512_roundscale_ps(x, 0);
  __m512 fraction = _mm512_sub_ps(x, whole);
  const float coefficients[] = {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f};
  __m512 power = _mm512_set1_ps(1.54035304e-4f);
  for (float coefficient : coefficients) power = _mm512_fmadd_ps(power, fraction, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(power, whole);
}

static inline __m512 sigmoid(__m512 x) {
  __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exponential(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}
