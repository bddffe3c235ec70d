// Matrix products on bfloat16 pairs: routed experts and latent attention. Plain C interface (kernels.py).
//
// Everything rests on one product, C = A B, where a vector of 16 columns of B is multiplied by one row of A, two
// neighbours along k at a time. A is read as it lies, row by row, so its rows may be anywhere; B is kept in panels:
//   panel j holds columns 16 j to 16 j + 15 as [k / 2][16 columns][2 neighbours along k]
// 32-bit words hold the two neighbours. Sums are float32. Where the processor has no bfloat16 product, the compiler's
// vectors do the same in float32; they are lowered to whatever it has.
#include <omp.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

using bf16 = uint16_t;
typedef uint32_t __attribute__((may_alias, aligned(2))) word;         // two bfloat16, the first in the lower half
typedef float __attribute__((vector_size(64))) vec;                   // 16 columns
typedef uint32_t __attribute__((vector_size(64))) words;              // 16 columns of pairs
typedef int32_t __attribute__((vector_size(64))) ints;
typedef float __attribute__((vector_size(64), aligned(4), may_alias)) loose_vec;
typedef uint32_t __attribute__((vector_size(64), aligned(2), may_alias)) loose_words;
typedef uint16_t __attribute__((vector_size(32), aligned(2), may_alias)) loose_halves;

#ifdef __AVX512BF16__
constexpr int kRows = 6, kPanels = 4;  // 24 of 32 registers hold sums
#elif defined(__AVX512F__)
constexpr int kRows = 6, kPanels = 2;  // the two halves of each word take registers of their own
#else
constexpr int kRows = 4, kPanels = 1;  // one `vec` is two AVX or four NEON registers
#endif

inline vec load(const float* x) { return *(const loose_vec*)x; }
inline void store(float* x, vec v) { *(loose_vec*)x = v; }
inline words load_words(const word* x) { return *(const loose_words*)x; }
inline vec fill(float x) { return vec{} + x; }
inline float low(word w) { uint32_t bits = w << 16; float x; memcpy(&x, &bits, 4); return x; }
inline float high(word w) { uint32_t bits = w & 0xffff0000u; float x; memcpy(&x, &bits, 4); return x; }

inline vec multiply_pairs(vec sum, word a, words b) {
#ifdef __AVX512BF16__
  return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
#else
  sum += low(a) * (vec)(b << 16);
  return sum + high(a) * (vec)(b & 0xffff0000u);
#endif
}

inline void store_bf16(bf16* out, vec x) {  // rounds to nearest even
#ifdef __AVX512BF16__
  _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
  words bits = (words)x;
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  *(loose_halves*)out = __builtin_convertvector(bits, loose_halves);
#endif
}

inline vec load_bf16(const bf16* x) {
  return (vec)(__builtin_convertvector(*(const loose_halves*)x, words) << 16);
}

inline vec exponential(vec x) {  // of x <= 0 or moderate; 2^(x log2 e) by a sixth-order polynomial, 2e-7 relative
  x = x > fill(-87.f) ? x : fill(-87.f);
  x = x < fill(88.f) ? x : fill(88.f);
  vec z = x * 1.44269504f, whole = (z + 12582912.f) - 12582912.f, f = z - whole;
  vec p = fill(1.54035304e-4f);
  for (float c : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.f}) p = p * f + c;
  return (vec)((ints)p + (__builtin_convertvector(whole, ints) << 23));
}

// ---- the product -----------------------------------------------------------------------------------------------------

// c[M, 16 V] (+)= a[M rows, 2 pairs] b[V panels]
template <int M, int V>
inline void tile(int pairs, const bf16* const* a, const word* b, size_t panel, float* c, size_t ldc, bool add) {
  vec sum[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) sum[m][v] = add ? load(c + m * ldc + 16 * v) : vec{};
  for (int p = 0; p < pairs; p++) {
    words column[V];
    for (int v = 0; v < V; v++) column[v] = load_words(b + v * panel + 16 * p);
    for (int m = 0; m < M; m++)
      for (int v = 0; v < V; v++) sum[m][v] = multiply_pairs(sum[m][v], ((const word*)a[m])[p], column[v]);
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(c + m * ldc + 16 * v, sum[m][v]);
}

template <int V>
void panels(int rows, int pairs, const bf16* const* a, const word* b, size_t panel, float* c, size_t ldc, bool add) {
  int r = 0;
  for (; r + kRows <= rows; r += kRows) tile<kRows, V>(pairs, a + r, b, panel, c + r * ldc, ldc, add);
  for (; r + 2 <= rows; r += 2) tile<2, V>(pairs, a + r, b, panel, c + r * ldc, ldc, add);
  if (r < rows) tile<1, V>(pairs, a + r, b, panel, c + r * ldc, ldc, add);
}

// c[rows, columns] (+)= a b; columns is a multiple of 16, a panel of b lasts `panel` words
void product(int rows, int columns, int pairs, const bf16* const* a, const word* b, size_t panel, float* c, size_t ldc,
             bool add = false) {
  int n = 0;
  for (; n + 16 * kPanels <= columns; n += 16 * kPanels)
    panels<kPanels>(rows, pairs, a, b + n / 16 * panel, panel, c + n, ldc, add);
  for (; n < columns; n += 16) panels<1>(rows, pairs, a, b + n / 16 * panel, panel, c + n, ldc, add);
}

// 16 rows of `pairs` words to one panel [pairs][16], in blocks of 16 x 16 words
void to_panel(const bf16* const* rows, int pairs, word* panel) {
  int p = 0;
  for (; p + 16 <= pairs; p += 16) {
    words x[16], y[16];
    for (int i = 0; i < 16; i++) x[i] = load_words((const word*)rows[i] + p);
    // four rounds, each of which swaps blocks of 8, 4, 2 and 1 between rows that far apart
    const words first[4] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                            {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
                            {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
                            {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}};
    for (int round = 0; round < 4; round++) {
      int step = 8 >> round;
      words even = first[round], odd = even + (uint32_t)step;
      for (int i = 0; i < 16; i++) {
        if (i & step) continue;
        y[i] = __builtin_shuffle(x[i], x[i + step], even);
        y[i + step] = __builtin_shuffle(x[i], x[i + step], odd);
      }
      std::copy(y, y + 16, x);
    }
    for (int i = 0; i < 16; i++) *(loose_words*)(panel + 16 * (p + i)) = x[i];
  }
  for (; p < pairs; p++)
    for (int i = 0; i < 16; i++) panel[16 * p + i] = ((const word*)rows[i])[p];
}

template <class T>
T* scratch(std::vector<T>& memory, size_t size) {
  if (memory.size() < size) memory.resize(size);
  return memory.data();
}

constexpr int kChunk = 64;      // columns a task computes
constexpr int kRowBlock = 192;  // rows a task computes: their bfloat16 stay in the second-level cache

struct Block {  // rows `start` to `end` of the sorted assignments, all of one expert; columns from `column`
  int expert, start, end, column;
};

std::vector<Block> blocks(const std::vector<int>& bounds, int columns) {
  std::vector<Block> list;
  for (int e = 0; e + 1 < (int)bounds.size(); e++)
    for (int column = 0; column < columns; column += kChunk)
      for (int start = bounds[e]; start < bounds[e + 1]; start += kRowBlock)
        list.push_back({e, start, std::min(start + kRowBlock, bounds[e + 1]), column});
  return list;
}

}  // namespace

// ---- weights ---------------------------------------------------------------------------------------------------------

// [matrices, rows, columns] bfloat16, each matrix to panels, in place; rows a multiple of 16, columns even
extern "C" void small4_pack(bf16* weights, int64_t matrices, int rows, int columns) {
  const int pairs = columns / 2;
#pragma omp parallel
  {
    std::vector<bf16> copy((size_t)rows * columns);
#pragma omp for
    for (int64_t m = 0; m < matrices; m++) {
      bf16* matrix = weights + m * rows * columns;
      memcpy(copy.data(), matrix, copy.size() * 2);
      for (int r = 0; r < rows; r += 16) {
        const bf16* source[16];
        for (int i = 0; i < 16; i++) source[i] = &copy[(size_t)(r + i) * columns];
        to_panel(source, pairs, (word*)matrix + (size_t)r * pairs);
      }
    }
  }
}

// ---- experts ---------------------------------------------------------------------------------------------------------

// output[tokens, hidden_size] = sum over a token's top_k experts of weight * down(silu(gate(x)) * up(x)).
// gate_up: [experts, 2 inner, hidden_size] and down: [experts, hidden_size, inner], packed; ids: -1 is elsewhere.
extern "C" void small4_experts(bf16* output, const bf16* hidden, const bf16* gate_up, const bf16* down,
                               const float* weights, const int* ids, int tokens, int top_k, int experts,
                               int hidden_size, int inner) {
  static thread_local std::vector<bf16> activation_memory;
  static thread_local std::vector<float> result_memory;
  const int assignments = tokens * top_k;
  std::vector<int> bounds(experts + 1, 0), order(assignments), place(assignments, -1);
  for (int a = 0; a < assignments; a++)
    if (ids[a] >= 0) bounds[ids[a] + 1]++;
  for (int e = 0; e < experts; e++) bounds[e + 1] += bounds[e];
  std::vector<int> next(bounds.begin(), bounds.end() - 1);
  for (int a = 0; a < assignments; a++)
    if (ids[a] >= 0) order[place[a] = next[ids[a]]++] = a;

  bf16* activations = scratch(activation_memory, (size_t)bounds[experts] * inner);      // sorted by expert
  float* results = scratch(result_memory, (size_t)bounds[experts] * hidden_size);       // the same
  const std::vector<Block> first = blocks(bounds, inner), second = blocks(bounds, hidden_size);
  const size_t in_pairs = hidden_size / 2, inner_pairs = inner / 2;
#pragma omp parallel
  {
    std::vector<float> gate((size_t)kRowBlock * kChunk), up((size_t)kRowBlock * kChunk);
    std::vector<const bf16*> rows(kRowBlock);
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < first.size(); t++) {
      const Block& task = first[t];
      const int count = task.end - task.start, width = std::min(kChunk, inner - task.column);
      for (int r = 0; r < count; r++)
        rows[r] = hidden + (size_t)(order[task.start + r] / top_k) * hidden_size;
      const word* expert = (const word*)gate_up + task.expert * 2 * inner * in_pairs;
      product(count, width, in_pairs, rows.data(), expert + task.column * in_pairs, 16 * in_pairs, gate.data(), kChunk);
      product(count, width, in_pairs, rows.data(), expert + (inner + task.column) * in_pairs, 16 * in_pairs, up.data(),
              kChunk);
      for (int r = 0; r < count; r++)
        for (int n = 0; n < width; n += 16) {
          vec g = load(&gate[r * kChunk + n]), u = load(&up[r * kChunk + n]);
          store_bf16(activations + (size_t)(task.start + r) * inner + task.column + n, g / (1.f + exponential(-g)) * u);
        }
    }
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < second.size(); t++) {
      const Block& task = second[t];
      const int count = task.end - task.start, width = std::min(kChunk, hidden_size - task.column);
      for (int r = 0; r < count; r++) rows[r] = activations + (size_t)(task.start + r) * inner;
      const word* expert = (const word*)down + task.expert * hidden_size * inner_pairs;
      product(count, width, inner_pairs, rows.data(), expert + task.column * inner_pairs, 16 * inner_pairs,
              results + (size_t)task.start * hidden_size + task.column, hidden_size);
    }
#pragma omp for
    for (int t = 0; t < tokens; t++)
      for (int n = 0; n < hidden_size; n += 16) {
        vec sum{};
        for (int a = t * top_k; a < (t + 1) * top_k; a++)
          if (place[a] >= 0) sum += weights[a] * load(results + (size_t)place[a] * hidden_size + n);
        store_bf16(output + (size_t)t * hidden_size + n, sum);
      }
  }
}

// ---- attention -------------------------------------------------------------------------------------------------------

namespace {

constexpr int kKeys = 64;       // keys scored at a time
constexpr int kQueries = 192;   // query rows of a task
constexpr int kMinSplit = 256;  // keys: less is not worth adding up afterwards

struct Task {  // query rows that share their keys, and the part of the keys this task attends to
  int request, head, row, rows, begin, end;  // head -1: the rows are all heads of some tokens
  int part, parts;                           // its place among the tasks of the same rows
};

struct Buffers {
  std::vector<float> scores = std::vector<float>(kQueries * kKeys), sums, top = std::vector<float>(kQueries),
                     total = std::vector<float>(kQueries);
  std::vector<bf16> weights = std::vector<bf16>(kQueries * kKeys);
  std::vector<uint32_t> keys, values;
  std::vector<const bf16*> queries = std::vector<const bf16*>(kQueries), weight_rows = std::vector<const bf16*>(kQueries);
};

// Attend with `rows` queries to keys begin to end, of which row r sees those below visible(r). Leaves, per row, the
// largest score, the sum of weights and the weighted sum of values, not yet divided.
template <class Key, class Value, class Visible>
void attend(Buffers& b, int rows, int begin, int end, int dim, int value_dim, float scale, Key key, Value value,
            Visible visible) {
  const int pairs = dim / 2;
  uint32_t* keys = scratch(b.keys, (size_t)kKeys * pairs);
  uint32_t* values = scratch(b.values, (size_t)kKeys / 2 * value_dim);
  float* sums = scratch(b.sums, (size_t)kQueries * value_dim);
  std::fill(sums, sums + (size_t)rows * value_dim, 0.f);
  std::fill(b.top.begin(), b.top.begin() + rows, -std::numeric_limits<float>::infinity());
  std::fill(b.total.begin(), b.total.begin() + rows, 0.f);
  for (int r = 0; r < rows; r++) b.weight_rows[r] = &b.weights[r * kKeys];

  for (int first = begin; first < end; first += kKeys) {
    const int count = std::min(kKeys, end - first), width = (count + 15) / 16 * 16;
    for (int k = 0; k < width; k += 16) {
      const bf16* row[16];
      for (int i = 0; i < 16; i++) row[i] = key(first + std::min(k + i, count - 1));
      to_panel(row, pairs, (word*)keys + (size_t)k * pairs);
    }
    product(rows, width, pairs, b.queries.data(), (const word*)keys, (size_t)16 * pairs, b.scores.data(), kKeys);

    for (int k = 0; k < width; k += 2) {  // two value rows to one row of pairs; beyond `count` their weight is zero
      const bf16* even = value(first + std::min(k, count - 1));
      const bf16* odd = value(first + std::min(k + 1, count - 1));
      for (int n = 0; n < value_dim; n += 16) {
        words pair = __builtin_convertvector(*(const loose_halves*)(even + n), words) |
                     (__builtin_convertvector(*(const loose_halves*)(odd + n), words) << 16);
        *(loose_words*)(values + (size_t)n * (kKeys / 2) + 16 * (k / 2)) = pair;
      }
    }
    for (int r = 0; r < rows; r++) {
      float* score = &b.scores[r * kKeys];
      const int seen = std::clamp(visible(r) - first, 0, count);
      std::fill(score + seen, score + width, -std::numeric_limits<float>::infinity());
      vec most = fill(b.top[r]);
      for (int k = 0; k < width; k += 16) {
        vec s = load(score + k) * scale;
        store(score + k, s);
        most = s > most ? s : most;
      }
      float top = most[0];
      for (int i = 1; i < 16; i++) top = std::max(top, most[i]);
      if (seen == 0) {
        std::fill(&b.weights[r * kKeys], &b.weights[r * kKeys] + width, 0);
        continue;
      }
      vec total{};
      for (int k = 0; k < width; k += 16) {
        vec s = load(score + k), e = exponential(s - top);
        e = s == fill(-std::numeric_limits<float>::infinity()) ? vec{} : e;
        total += e;
        store_bf16(&b.weights[r * kKeys + k], e);
      }
      const float shrink = std::exp(b.top[r] - top);
      b.total[r] *= shrink;
      for (int i = 0; i < 16; i++) b.total[r] += total[i];
      if (shrink != 1.f)
        for (int n = 0; n < value_dim; n += 16) {
          float* sum = sums + (size_t)r * value_dim + n;
          store(sum, load(sum) * shrink);
        }
      b.top[r] = top;
    }
    product(rows, value_dim, width / 2, b.weight_rows.data(), (const word*)values, 16 * (kKeys / 2), sums, value_dim, true);
  }
}

// One request's tokens in blocks of rows, each block's keys in parts, so that all threads have something to do.
void add_tasks(std::vector<Task>& tasks, int request, int head, int heads, int new_len, int len, double work_per_part) {
  const int rows = new_len * heads;
  for (int row = 0; row < rows; row += kQueries) {
    const int count = std::min(kQueries, rows - row);
    const int keys = len - new_len + (row + count - 1) / heads + 1;  // what the last of these rows sees
    const int most = (keys + kMinSplit - 1) / kMinSplit;
    const int parts = std::clamp((int)std::lround((double)count * keys / work_per_part), 1, std::max(1, most));
    const int length = ((keys + parts - 1) / parts + kKeys - 1) / kKeys * kKeys;
    const int used = (keys + length - 1) / length;
    for (int part = 0; part < used; part++)
      tasks.push_back({request, head, row, count, part * length, std::min(keys, (part + 1) * length), part, used});
  }
}

// Run the tasks; where rows have several parts, keep them and add them up at the end. `out(task, r)`: row r's place.
template <class Attend, class Out>
void run(const std::vector<Task>& tasks, int value_dim, Attend attend_task, Out out) {
  std::vector<size_t> offset(tasks.size() + 1, 0);  // into the kept parts, in rows
  for (size_t t = 0; t < tasks.size(); t++) offset[t + 1] = offset[t] + (tasks[t].parts > 1 ? tasks[t].rows : 0);
  std::vector<float> kept(offset.back() * (value_dim + 2));
  const size_t stride = value_dim + 2;
#pragma omp parallel
  {
    static thread_local Buffers b;
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < tasks.size(); t++) {
      const Task& task = tasks[t];
      attend_task(b, task);
      for (int r = 0; r < task.rows; r++) {
        const float* sum = &b.sums[(size_t)r * value_dim];
        if (task.parts == 1) {
          for (int n = 0; n < value_dim; n += 16) store_bf16(out(task, r) + n, load(sum + n) / b.total[r]);
        } else {
          float* row = &kept[(offset[t] + r) * stride];
          std::copy(sum, sum + value_dim, row);
          row[value_dim] = b.top[r];
          row[value_dim + 1] = b.total[r];
        }
      }
    }
#pragma omp for schedule(dynamic)
    for (size_t t = 0; t < tasks.size(); t++) {
      const Task& task = tasks[t];
      if (task.parts == 1 || task.part != 0) continue;
      for (int r = 0; r < task.rows; r++) {
        const float* row = &kept[(offset[t] + r) * stride];
        const size_t next = task.rows * stride;  // from one part of these rows to the next
        float top = row[value_dim], total = 0;
        for (int p = 1; p < task.parts; p++) top = std::max(top, row[p * next + value_dim]);
        std::vector<float> share(task.parts);
        for (int p = 0; p < task.parts; p++) {
          share[p] = std::exp(row[p * next + value_dim] - top);
          total += share[p] * row[p * next + value_dim + 1];
        }
        for (int n = 0; n < value_dim; n += 16) {
          vec sum{};
          for (int p = 0; p < task.parts; p++) sum += share[p] * load(row + p * next + n);
          store_bf16(out(task, r) + n, sum / total);
        }
      }
    }
  }
}

double work_per_part(int requests, const int* new_lens, const int* lens, int heads) {
  double work = 0;
  for (int i = 0; i < requests; i++) work += (double)new_lens[i] * heads * (lens[i] - new_lens[i] / 2.0);
  return std::max(1.0, work / (4 * omp_get_max_threads()));
}

}  // namespace

// Absorbed: output[tokens, heads, value_dim], query[tokens, heads, dim], cache[slots, dim] whose first value_dim columns
// are the values; request i's last new_lens[i] of lens[i] rows are its new tokens, its slots begin at slots[i].
extern "C" void small4_latent_attention(bf16* output, const bf16* query, const bf16* cache, const int* const* slots,
                                        const int* new_lens, const int* lens, int requests, int heads, int dim,
                                        int value_dim, float scale) {
  std::vector<Task> tasks;
  std::vector<size_t> first(requests + 1, 0);  // token
  const double work = work_per_part(requests, new_lens, lens, heads);
  for (int i = 0; i < requests; i++) {
    first[i + 1] = first[i] + new_lens[i];
    add_tasks(tasks, i, -1, heads, new_lens[i], lens[i], work);
  }
  auto attend_task = [&](Buffers& b, const Task& task) {
    const int* slot = slots[task.request];
    const int before = lens[task.request] - new_lens[task.request] + 1;
    for (int r = 0; r < task.rows; r++)
      b.queries[r] = query + (first[task.request] * heads + task.row + r) * dim;
    auto row = [&](int k) { return cache + (size_t)slot[k] * dim; };
    attend(b, task.rows, task.begin, task.end, dim, value_dim, scale, row, row,
           [&](int r) { return before + (task.row + r) / heads; });
  };
  run(tasks, value_dim, attend_task, [&](const Task& task, int r) {
    return output + (first[task.request] * heads + task.row + r) * value_dim;
  });
}

// Expanded: output[tokens, heads, value_dim], query[tokens, heads, dim], key[rows, heads, dim], value[rows, heads,
// value_dim]; request i has new_lens[i] tokens and lens[i] rows, one request after the other.
extern "C" void small4_expanded_attention(bf16* output, const bf16* query, const bf16* key, const bf16* value,
                                          const int* new_lens, const int* lens, int requests, int heads, int dim,
                                          int value_dim, float scale) {
  std::vector<Task> tasks;
  std::vector<size_t> first(requests + 1, 0), first_row(requests + 1, 0);
  const double work = work_per_part(requests, new_lens, lens, heads);
  for (int i = 0; i < requests; i++) {
    first[i + 1] = first[i] + new_lens[i];
    first_row[i + 1] = first_row[i] + lens[i];
    for (int h = 0; h < heads; h++) add_tasks(tasks, i, h, 1, new_lens[i], lens[i], work);
  }
  auto attend_task = [&](Buffers& b, const Task& task) {
    const int before = lens[task.request] - new_lens[task.request] + 1;
    for (int r = 0; r < task.rows; r++)
      b.queries[r] = query + ((first[task.request] + task.row + r) * heads + task.head) * dim;
    const size_t base = first_row[task.request];
    attend(b, task.rows, task.begin, task.end, dim, value_dim, scale,
           [&](int k) { return key + ((base + k) * heads + task.head) * dim; },
           [&](int k) { return value + ((base + k) * heads + task.head) * value_dim; },
           [&](int r) { return before + task.row + r; });
  };
  run(tasks, value_dim, attend_task, [&](const Task& task, int r) {
    return output + ((first[task.request] + task.row + r) * heads + task.head) * value_dim;
  });
}
