// Causal attention with RoPE inside, forward and backward, for rows that hold several conversations.
//
// query [rows, length, heads, nope + rope], key_value [rows, length, heads, nope + value], key_rope [rows, length, ..]
// with its own row stride, cosine and sine [length, rope / 2]. start [rows, length] is the first key that a query may
// see. wanted [rows, length], or null, marks the queries whose output is used: blocks without one are skipped. The
// length is even; nope, rope + nope and value are multiples of 16. One thread does a whole head of a row.
#include "matrix.h"

static const int QUERIES = 48;  // a block

struct Sizes {
  int rows, length, heads, nope, rope, value;
  float scale;
  int key() const { return nope + rope; }
  int padded() const { return (length + 15) / 16 * 16 + 64; }
};

struct Inputs {
  const float *query, *key_value, *key_rope;
  int key_rope_row;
  const float *cosine, *sine;
  const int* start;
  const uint8_t* wanted;
};

// The buffers of one thread, for one head at a time. Names say how pairs are laid: along rows or columns, or turned.
struct Head {
  std::vector<float> query, key, value, scores, weights, grad_key, grad_value, grad_query, out, grad_out;
  std::vector<Pair> query_rows, query_columns, key_turned, key_columns, value_turned, value_columns, scratch;
  std::vector<Pair> weight_rows, weight_columns, score_rows, score_columns, grad_out_rows, grad_out_columns;
};

static void turn(const float* in, const float* cosine, const float* sine, int rope, float sign, float scale,
                 float* out) {
  for (int i = 0; i < rope / 2; i++) {
    float even = in[2 * i] * scale, odd = in[2 * i + 1] * scale, c = cosine[i], s = sign * sine[i];
    out[2 * i] = even * c - odd * s;
    out[2 * i + 1] = odd * c + even * s;
  }
}

// Gather one head, turn its rope parts, scale the query, and pack what the products need.
static void load_head(Head& head, const Sizes& size, const Inputs& in, int row, int which, bool backward) {
  int length = size.length, key = size.key(), value = size.value, padded = size.padded();
  float *q = at_least(head.query, (size_t)length * key), *k = at_least(head.key, (size_t)length * key);
  float* v = at_least(head.value, (size_t)length * value);
  for (int t = 0; t < length; t++) {
    size_t token = (size_t)row * length + t;
    const float* query = in.query + (token * size.heads + which) * key;
    const float* key_value = in.key_value + (token * size.heads + which) * (size.nope + value);
    const float *cosine = in.cosine + (size_t)t * size.rope / 2, *sine = in.sine + (size_t)t * size.rope / 2;
    for (int d = 0; d < size.nope; d++) q[(size_t)t * key + d] = query[d] * size.scale;
    turn(query + size.nope, cosine, sine, size.rope, 1, size.scale, q + (size_t)t * key + size.nope);
    memcpy(k + (size_t)t * key, key_value, size.nope * sizeof(float));
    turn(in.key_rope + token * in.key_rope_row, cosine, sine, size.rope, 1, 1, k + (size_t)t * key + size.nope);
    memcpy(v + (size_t)t * value, key_value + size.nope, value * sizeof(float));
  }
  pair_along_rows(length, key, q, at_least(head.query_rows, (size_t)length * key / 2));
  Pair* scratch = at_least(head.scratch, (size_t)length * std::max(key, value) / 2);
  pair_along_rows(length, key, k, scratch);
  transpose(length, key / 2, scratch, key / 2, at_least(head.key_turned, (size_t)key / 2 * padded), padded);
  if (!backward) {
    pair_along_columns(length, value, v, at_least(head.value_columns, (size_t)length / 2 * value));
    return;
  }
  pair_along_rows(length, value, v, scratch);
  transpose(length, value / 2, scratch, value / 2, at_least(head.value_turned, (size_t)value / 2 * padded), padded);
  pair_along_columns(length, key, k, at_least(head.key_columns, (size_t)length / 2 * key));
  pair_along_columns(length, key, q, at_least(head.query_columns, (size_t)length / 2 * key));
}

// Which of the keys at .. at + 15 lie in [first, end).
static inline __mmask16 visible(int at, int first, int end) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i key = _mm512_add_epi32(_mm512_set1_epi32(at), lane);
  return _mm512_cmpge_epi32_mask(key, _mm512_set1_epi32(first)) & _mm512_cmplt_epi32_mask(key, _mm512_set1_epi32(end));
}

// A block of queries and the keys that any of them sees, in whole vectors from `first_key` on.
struct Block {
  int first, count, first_key, keys, padded_keys;
  Block(int first, const Sizes& size, const int* start)
      : first(first),
        count(std::min(QUERIES, size.length - first)),
        first_key(start[first] / 16 * 16),
        keys(first + count - first_key),
        padded_keys((keys + 15) / 16 * 16) {}
  bool needed(const uint8_t* wanted) const { return !wanted || memchr(wanted + first, 1, count); }
};

// One query's scores [padded_keys] become pairs of e^(score - largest); gives largest + log(sum) and 1 / sum.
static std::pair<float, float> soften(const float* scores, int first, int end, int padded_keys, uint16_t* weights) {
  int used = (end + 15) / 16 * 16;
  __m512 largest = _mm512_set1_ps(-1e30f), sum = _mm512_setzero_ps();
  for (int j = 0; j < used; j += 16)
    largest = _mm512_mask_max_ps(largest, visible(j, first, end), largest, _mm512_loadu_ps(scores + j));
  float top = _mm512_reduce_max_ps(largest);
  for (int j = 0; j < used; j += 16) {
    __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(top)));
    e = _mm512_maskz_mov_ps(visible(j, first, end), e);
    _mm256_storeu_si256((__m256i*)(weights + j), to_bfloat16(e));
    sum = _mm512_add_ps(sum, e);
  }
  memset(weights + used, 0, (padded_keys - used) * sizeof(uint16_t));
  float total = _mm512_reduce_add_ps(sum);
  return {top + std::log(total), 1.f / total};
}

static void forward_head(Head& head, const Sizes& size, const Inputs& in, int row, int which, float* out,
                         float* log_sum) {
  int key = size.key(), value = size.value, padded = size.padded();
  load_head(head, size, in, row, which, false);
  float *scores = at_least(head.scores, (size_t)QUERIES * padded), *mixed = at_least(head.out, (size_t)QUERIES * value);
  Pair* weights = at_least(head.weight_rows, (size_t)QUERIES * padded / 2);
  const int* start = in.start + (size_t)row * size.length;
  const uint8_t* wanted = in.wanted ? in.wanted + (size_t)row * size.length : nullptr;
  float inverse[QUERIES];
  for (int first = 0; first < size.length; first += QUERIES) {
    Block block(first, size, start);
    if (!block.needed(wanted)) continue;
    Left<Pair> queries{head.query_rows.data() + (size_t)first * key / 2, key / 2, 1};
    multiply<Bfloat16>(block.count, block.padded_keys, key / 2, queries, head.key_turned.data() + block.first_key,
                       padded, scores, padded);
    for (int i = 0; i < block.count; i++) {
      int t = first + i;
      auto [log_total, scale] = soften(scores + (size_t)i * padded, start[t] - block.first_key, t + 1 - block.first_key,
                                       block.padded_keys, (uint16_t*)(weights + (size_t)i * padded / 2));
      log_sum[((size_t)row * size.heads + which) * size.length + t] = log_total;
      inverse[i] = scale;
    }
    const Pair* values = head.value_columns.data() + (size_t)block.first_key / 2 * value;
    multiply<Bfloat16>(block.count, value, block.keys / 2, {weights, padded / 2, 1}, values, value, mixed, value);
    for (int i = 0; i < block.count; i++) {
      float* to = out + (((size_t)row * size.length + first + i) * size.heads + which) * value;
      for (int d = 0; d < value; d++) to[d] = mixed[(size_t)i * value + d] * inverse[i];
    }
  }
}

// Two queries' scores and the gradients of their weights become pairs of weights and of score gradients, as columns for
// the sums over queries and, of the latter, as rows for the sum over keys.
static void score_gradients(Head& head, const Block& block, int i, const int* start, const float* log_sum,
                            const float* dots, int padded) {
  for (int j = 0; j < block.padded_keys; j += 16) {
    __m512 weight[2], grad[2];
    for (int r = 0; r < 2; r++) {
      int t = block.first + i + r;
      size_t at = (size_t)(i + r) * padded + j;
      __mmask16 seen = visible(j, start[t] - block.first_key, t + 1 - block.first_key);
      __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(head.scores.data() + at), _mm512_set1_ps(log_sum[t])));
      weight[r] = _mm512_maskz_mov_ps(seen, e);
      __m512 above = _mm512_sub_ps(_mm512_loadu_ps(head.weights.data() + at), _mm512_set1_ps(dots[i + r]));
      grad[r] = _mm512_maskz_mul_ps(seen, weight[r], above);
      _mm256_storeu_si256((__m256i*)((uint16_t*)head.score_rows.data() + at), to_bfloat16(grad[r]));
    }
    size_t pair = (size_t)i / 2 * padded + j;
    _mm512_storeu_si512(head.weight_columns.data() + pair, interleave(weight[0], weight[1]));
    _mm512_storeu_si512(head.score_columns.data() + pair, interleave(grad[0], grad[1]));
  }
}

struct Gradients {
  const float *out, *log_sum, *grad_out;
  float *query, *key_value, *key_rope;  // key_rope [rows, heads, length, rope]: the caller sums over heads
};

static void backward_head(Head& head, const Sizes& size, const Inputs& in, const Gradients& grads, int row, int which) {
  int length = size.length, key = size.key(), value = size.value, padded = size.padded();
  load_head(head, size, in, row, which, true);
  float *scores = at_least(head.scores, (size_t)QUERIES * padded),
        *weights = at_least(head.weights, (size_t)QUERIES * padded);
  float *grad_key = at_least(head.grad_key, (size_t)length * key),
        *grad_value = at_least(head.grad_value, (size_t)length * value);
  float *grad_query = at_least(head.grad_query, (size_t)QUERIES * key),
        *grad_out = at_least(head.grad_out, (size_t)QUERIES * value);
  Pair* weight_columns = at_least(head.weight_columns, (size_t)QUERIES / 2 * padded);
  Pair* score_columns = at_least(head.score_columns, (size_t)QUERIES / 2 * padded);
  Pair* score_rows = at_least(head.score_rows, (size_t)QUERIES * padded / 2);
  Pair* grad_rows = at_least(head.grad_out_rows, (size_t)QUERIES * value / 2);
  Pair* grad_columns = at_least(head.grad_out_columns, (size_t)QUERIES / 2 * value);
  memset(grad_key, 0, (size_t)length * key * sizeof(float));
  memset(grad_value, 0, (size_t)length * value * sizeof(float));
  const int* start = in.start + (size_t)row * length;
  const uint8_t* wanted = in.wanted ? in.wanted + (size_t)row * length : nullptr;
  const float* log_sum = grads.log_sum + ((size_t)row * size.heads + which) * length;
  float dots[QUERIES];  // of each query's output with its gradient

  for (int first = 0; first < length; first += QUERIES) {
    Block block(first, size, start);
    if (!block.needed(wanted)) continue;
    int count = block.count, first_key = block.first_key;
    for (int i = 0; i < count; i++) {
      size_t at = (((size_t)row * length + first + i) * size.heads + which) * value;
      memcpy(grad_out + (size_t)i * value, grads.grad_out + at, value * sizeof(float));
      dots[i] = 0;
      for (int d = 0; d < value; d++) dots[i] += grads.grad_out[at + d] * grads.out[at + d];
    }
    pair_along_rows(count, value, grad_out, grad_rows);
    pair_along_columns(count, value, grad_out, grad_columns);
    Left<Pair> queries{head.query_rows.data() + (size_t)first * key / 2, key / 2, 1};
    multiply<Bfloat16>(count, block.padded_keys, key / 2, queries, head.key_turned.data() + first_key, padded, scores,
                       padded);
    multiply<Bfloat16>(count, block.padded_keys, value / 2, {grad_rows, value / 2, 1},
                       head.value_turned.data() + first_key, padded, weights, padded);
    for (int i = 0; i < count; i += 2) score_gradients(head, block, i, start, log_sum, dots, padded);

    int keys = block.keys;
    const Pair* query_columns = head.query_columns.data() + (size_t)first / 2 * key;
    multiply<Bfloat16>(keys, value, count / 2, {weight_columns, 1, padded}, grad_columns, value,
                       grad_value + (size_t)first_key * value, value, true);
    multiply<Bfloat16>(keys, key, count / 2, {score_columns, 1, padded}, query_columns, key,
                       grad_key + (size_t)first_key * key, key, true);
    const Pair* key_columns = head.key_columns.data() + (size_t)first_key / 2 * key;
    multiply<Bfloat16>(count, key, keys / 2, {score_rows, padded / 2, 1}, key_columns, key, grad_query, key);
    for (int i = 0; i < count; i++) {
      int t = first + i;
      float *to = grads.query + (((size_t)row * length + t) * size.heads + which) * key,
            *from = grad_query + (size_t)i * key;
      for (int d = 0; d < size.nope; d++) to[d] = from[d] * size.scale;
      turn(from + size.nope, in.cosine + (size_t)t * size.rope / 2, in.sine + (size_t)t * size.rope / 2, size.rope, -1,
           size.scale, to + size.nope);
    }
  }
  for (int t = 0; t < length; t++) {
    float* to = grads.key_value + (((size_t)row * length + t) * size.heads + which) * (size.nope + value);
    memcpy(to, grad_key + (size_t)t * key, size.nope * sizeof(float));
    memcpy(to + size.nope, grad_value + (size_t)t * value, value * sizeof(float));
    float* turned = grads.key_rope + (((size_t)row * size.heads + which) * length + t) * size.rope;
    turn(grad_key + (size_t)t * key + size.nope, in.cosine + (size_t)t * size.rope / 2,
         in.sine + (size_t)t * size.rope / 2, size.rope, -1, 1, turned);
  }
}

extern "C" {

// out [rows, length, heads, value], zero where not wanted; log_sum [rows, heads, length] for the way back.
void attention_forward(const Sizes* size, const Inputs* in, float* out, float* log_sum) {
#pragma omp parallel
  {
    static thread_local Head head;
#pragma omp for schedule(dynamic) collapse(2)
    for (int row = 0; row < size->rows; row++)
      for (int which = 0; which < size->heads; which++) forward_head(head, *size, *in, row, which, out, log_sum);
  }
}

// The query's gradient is zeroed by the caller, since skipped blocks are not written.
void attention_backward(const Sizes* size, const Inputs* in, const Gradients* grads) {
#pragma omp parallel
  {
    static thread_local Head head;
#pragma omp for schedule(dynamic) collapse(2)
    for (int row = 0; row < size->rows; row++)
      for (int which = 0; which < size->heads; which++) backward_head(head, *size, *in, *grads, row, which);
  }
}
}
