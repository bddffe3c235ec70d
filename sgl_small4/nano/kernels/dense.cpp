// RMSNorm and linear layers, forward and backward, and the orthogonalisation of Muon.
#include "matrix.h"

static const int ROW_BLOCK = 192;  // rows that stay in the second-level cache beside a weight

extern "C" {

// y [rows, width] = x / rms(x) * weight; x has a row stride; inverse [rows] is kept for the way back.
void rms_norm_forward(int rows, int width, const float* x, int x_row, const float* weight, float* y, float* inverse) {
#pragma omp parallel for schedule(static)
  for (int i = 0; i < rows; i++) {
    const float* in = x + (size_t)i * x_row;
    float squares = 0;
    for (int d = 0; d < width; d++) squares += in[d] * in[d];
    float scale = inverse[i] = 1.f / std::sqrt(squares / width + 1e-6f);
    for (int d = 0; d < width; d++) y[(size_t)i * width + d] = in[d] * scale * weight[d];
  }
}

// grad_weight is zeroed by the caller.
void rms_norm_backward(int rows, int width, const float* x, int x_row, const float* weight, const float* inverse,
                       const float* grad, float* grad_x, float* grad_weight) {
#pragma omp parallel
  {
    std::vector<float> own(width, 0.f);
#pragma omp for schedule(static)
    for (int i = 0; i < rows; i++) {
      const float *in = x + (size_t)i * x_row, *g = grad + (size_t)i * width;
      float scale = inverse[i], dot = 0;
      for (int d = 0; d < width; d++) {
        dot += g[d] * weight[d] * in[d];
        own[d] += g[d] * in[d] * scale;
      }
      float shrink = dot * scale * scale * scale / width;
      for (int d = 0; d < width; d++) grad_x[(size_t)i * width + d] = g[d] * weight[d] * scale - in[d] * shrink;
    }
#pragma omp critical
    for (int d = 0; d < width; d++) grad_weight[d] += own[d];
  }
}

// y [rows, out] = x [rows, in] weight [in, out]; in and out are multiples of 16.
void linear_forward(int rows, int in, int out, const float* x, const float* weight, float* y) {
  std::vector<Pair> packed((size_t)in / 2 * out);
  pair_along_columns(in, out, weight, packed.data());
#pragma omp parallel
  {
    static thread_local std::vector<Pair> buffer;
    Pair* left = at_least(buffer, (size_t)ROW_BLOCK * in / 2);
#pragma omp for schedule(dynamic)
    for (int first = 0; first < rows; first += ROW_BLOCK) {
      int count = std::min(ROW_BLOCK, rows - first);
      pair_along_rows(count, in, x + (size_t)first * in, left);
      multiply<Bfloat16>(count, out, in / 2, {left, in / 2, 1}, packed.data(), out, y + (size_t)first * out, out);
    }
  }
}

// grad_weight is zeroed by the caller.
void linear_backward(int rows, int in, int out, const float* x, const float* weight, const float* grad, float* grad_x,
                     float* grad_weight) {
  std::vector<float> turned((size_t)in * out);
  std::vector<Pair> packed((size_t)in * out / 2);
  transpose(in, out, weight, out, turned.data(), in);
  pair_along_columns(out, in, turned.data(), packed.data());
#pragma omp parallel
  {
    static thread_local std::vector<float> sum_buffer;
    static thread_local std::vector<Pair> row_buffer, column_buffer, x_buffer;
    float* sum = at_least(sum_buffer, (size_t)in * out);
    Pair* grad_rows = at_least(row_buffer, (size_t)ROW_BLOCK * out / 2);
    Pair* grad_columns = at_least(column_buffer, (size_t)ROW_BLOCK * out / 2);
    Pair* x_columns = at_least(x_buffer, (size_t)ROW_BLOCK * in / 2);
    memset(sum, 0, (size_t)in * out * sizeof(float));
#pragma omp for schedule(dynamic)
    for (int first = 0; first < rows; first += ROW_BLOCK) {
      int count = std::min(ROW_BLOCK, rows - first);
      pair_along_rows(count, out, grad + (size_t)first * out, grad_rows);
      pair_along_columns(count, out, grad + (size_t)first * out, grad_columns);
      pair_along_columns(count, in, x + (size_t)first * in, x_columns);
      multiply<Bfloat16>(count, in, out / 2, {grad_rows, out / 2, 1}, packed.data(), in, grad_x + (size_t)first * in,
                         in);
      multiply<Bfloat16>(in, out, (count + 1) / 2, {x_columns, 1, in}, grad_columns, out, sum, out, true);
    }
#pragma omp critical
    for (size_t i = 0; i < (size_t)in * out; i++) grad_weight[i] += sum[i];
  }
}

// Each matrix of x [count, rows, columns], rows <= columns and columns a multiple of 16, becomes its nearly orthogonal
// factor, in place: Newton-Schulz in float32 with Muon's coefficients.
void orthogonalise(int count, int rows, int columns, int steps, float* x) {
  int padded = (rows + 15) / 16 * 16;
#pragma omp parallel
  {
    static thread_local std::vector<float> turned_buffer, gram_buffer, square_buffer, product_buffer;
    float* turned = at_least(turned_buffer, (size_t)columns * padded);
    float* gram = at_least(gram_buffer, (size_t)padded * padded);
    float* square = at_least(square_buffer, (size_t)padded * padded);
    float* product = at_least(product_buffer, (size_t)rows * columns);
#pragma omp for schedule(dynamic)
    for (int at = 0; at < count; at++) {
      float *matrix = x + (size_t)at * rows * columns, squares = 1e-12f;
      for (int i = 0; i < rows * columns; i++) squares += matrix[i] * matrix[i];
      float scale = 1.f / std::sqrt(squares);
      for (int i = 0; i < rows * columns; i++) matrix[i] *= scale;
      for (int step = 0; step < steps; step++) {
        transpose(rows, columns, matrix, columns, turned, padded);
        multiply<Float32>(rows, padded, columns, {matrix, columns, 1}, turned, padded, gram, padded);
        multiply<Float32>(rows, padded, rows, {gram, padded, 1}, gram, padded, square, padded);
        for (int i = 0; i < rows * padded; i++) square[i] = -4.7750f * gram[i] + 2.0315f * square[i];
        multiply<Float32>(rows, columns, rows, {square, padded, 1}, matrix, columns, product, columns);
        for (int i = 0; i < rows * columns; i++) matrix[i] = 3.4445f * matrix[i] + product[i];
      }
    }
  }
}
}
