// The mixture of experts, forward and backward: products grouped by expert.
//
// Each token has SLOTS slots: its routed experts, and last the shared one with weight 1, which is expert count - 1.
// order [tokens * SLOTS] lists slots by expert, first [count + 1] where each expert's begin; weight [tokens, SLOTS].
// gate_up [count, hidden, 2 * inner], down [count, inner, hidden]; hidden and 2 * inner are multiples of 16 and so is
// inner.
#include "matrix.h"

static const int TOP = 4, SLOTS = TOP + 1, CHUNK = 192;  // slots of one expert that a thread takes at a time

struct ExpertSizes {
  int tokens, hidden, inner, count;
};

struct Task {
  int expert, first, slots;
};

// Largest first: the shared expert, which has every token, must not come last.
static std::vector<Task> tasks(const ExpertSizes& size, const int* first) {
  std::vector<Task> list;
  for (int e = size.count - 1; e >= 0; e--)
    for (int at = first[e]; at < first[e + 1]; at += CHUNK) list.push_back({e, at, std::min(CHUNK, first[e + 1] - at)});
  return list;
}

static void choose(const float* logits, int count, int* chosen, float* weight) {
  float best[TOP];
  std::fill(best, best + TOP, -1e30f);
  std::fill(chosen, chosen + TOP, 0);
  for (int e = 0; e < count; e++) {
    if (logits[e] <= best[TOP - 1]) continue;
    int place = TOP - 1;
    for (; place > 0 && logits[e] > best[place - 1]; place--) {
      best[place] = best[place - 1];
      chosen[place] = chosen[place - 1];
    }
    best[place] = logits[e];
    chosen[place] = e;
  }
  float total = 0;
  for (int j = 0; j < TOP; j++) total += weight[j] = std::exp(best[j] - best[0]);
  for (int j = 0; j < TOP; j++) weight[j] /= total;
}

static void sum_slots(const ExpertSizes& size, const float* by_slot, float* out) {
  int hidden = size.hidden;
#pragma omp for schedule(dynamic, 256)
  for (int n = 0; n < size.tokens; n++)
    for (int d = 0; d < hidden; d++) {
      float sum = 0;
      for (int j = 0; j < SLOTS; j++) sum += by_slot[((size_t)n * SLOTS + j) * hidden + d];
      out[(size_t)n * hidden + d] = sum;
    }
}

extern "C" {

// logits [tokens, routed] -> chosen, weight [tokens, SLOTS], order and first. The routed experts' weights are the
// softmax over the chosen ones.
void route(int tokens, int routed, const float* logits, int* chosen, float* weight, int* order, int* first) {
#pragma omp parallel for schedule(static)
  for (int n = 0; n < tokens; n++) {
    choose(logits + (size_t)n * routed, routed, chosen + n * SLOTS, weight + n * SLOTS);
    chosen[n * SLOTS + TOP] = routed;
    weight[n * SLOTS + TOP] = 1.f;
  }
  std::vector<int> place(routed + 2, 0);
  for (int s = 0; s < tokens * SLOTS; s++) place[chosen[s] + 1]++;
  for (int e = 0; e <= routed; e++) place[e + 1] += place[e];
  std::copy(place.begin(), place.end(), first);
  for (int s = 0; s < tokens * SLOTS; s++) order[place[chosen[s]]++] = s;
}

// by_slot [tokens * SLOTS, hidden] is scratch; before [tokens * SLOTS, 2 * inner], gate and up in `order`, is kept for
// the way back; y [tokens, hidden].
void experts_forward(const ExpertSizes* sizes, const float* x, const float* weight, const int* order, const int* first,
                     const float* gate_up, const float* down, float* by_slot, float* before, float* y) {
  const ExpertSizes size = *sizes;
  const int hidden = size.hidden, inner = size.inner;
  std::vector<Task> list = tasks(size, first);
  std::vector<Pair> packed_up((size_t)size.count * hidden * inner),
      packed_down((size_t)size.count * inner * hidden / 2);
#pragma omp parallel
  {
#pragma omp for schedule(dynamic, 8)
    for (int e = 0; e < size.count; e++) {
      pair_along_columns(hidden, 2 * inner, gate_up + (size_t)e * hidden * 2 * inner,
                         packed_up.data() + (size_t)e * hidden * inner);
      pair_along_columns(inner, hidden, down + (size_t)e * inner * hidden,
                         packed_down.data() + (size_t)e * inner * hidden / 2);
    }
    static thread_local std::vector<float> active_buffer, out_buffer;
    static thread_local std::vector<Pair> x_buffer, pair_buffer;
    float *active = at_least(active_buffer, (size_t)CHUNK * inner), *out = at_least(out_buffer, (size_t)CHUNK * hidden);
    Pair *gathered = at_least(x_buffer, (size_t)CHUNK * hidden / 2),
         *pairs = at_least(pair_buffer, (size_t)CHUNK * inner / 2);
#pragma omp for schedule(dynamic)
    for (size_t at = 0; at < list.size(); at++) {
      auto [e, begin, slots] = list[at];
      const int* slot = order + begin;
      for (int i = 0; i < slots; i++)
        pair_along_rows(1, hidden, x + (size_t)(slot[i] / SLOTS) * hidden, gathered + (size_t)i * hidden / 2);
      float* kept = before + (size_t)begin * 2 * inner;
      multiply<Bfloat16>(slots, 2 * inner, hidden / 2, {gathered, hidden / 2, 1},
                         packed_up.data() + (size_t)e * hidden * inner, 2 * inner, kept, 2 * inner);
      for (int i = 0; i < slots; i++) {
        const float *gate = kept + (size_t)i * 2 * inner, *up = gate + inner;
        __m512 share = _mm512_set1_ps(weight[slot[i]]);
        for (int f = 0; f < inner; f += 16) {
          __m512 g = _mm512_loadu_ps(gate + f), silu = _mm512_mul_ps(g, sigmoid(g));
          _mm512_storeu_ps(active + (size_t)i * inner + f,
                           _mm512_mul_ps(_mm512_mul_ps(silu, _mm512_loadu_ps(up + f)), share));
        }
      }
      pair_along_rows(slots, inner, active, pairs);
      multiply<Bfloat16>(slots, hidden, inner / 2, {pairs, inner / 2, 1},
                         packed_down.data() + (size_t)e * inner * hidden / 2, hidden, out, hidden);
      for (int i = 0; i < slots; i++)
        memcpy(by_slot + (size_t)slot[i] * hidden, out + (size_t)i * hidden, hidden * sizeof(float));
    }
    sum_slots(size, by_slot, y);
  }
}

// grad [tokens, hidden] -> grad_x [tokens, hidden], grad_weight [tokens, SLOTS], grad_gate_up and grad_down, the last
// two zeroed by the caller.
void experts_backward(const ExpertSizes* sizes, const float* x, const float* weight, const int* order, const int* first,
                      const float* gate_up, const float* down, const float* before, const float* grad, float* by_slot,
                      float* grad_x, float* grad_weight, float* grad_gate_up, float* grad_down) {
  const ExpertSizes size = *sizes;
  const int hidden = size.hidden, inner = size.inner, wide = 2 * inner;
  std::vector<Task> list = tasks(size, first);
  std::vector<Pair> packed_up((size_t)size.count * hidden * inner),
      packed_down((size_t)size.count * inner * hidden / 2);
  std::vector<omp_lock_t> locks(size.count);
  for (auto& lock : locks) omp_init_lock(&lock);
#pragma omp parallel
  {
    static thread_local std::vector<float> active_buffer, grad_active_buffer, grad_wide_buffer, turned_buffer,
        sum_buffer, out_buffer;
    static thread_local std::vector<Pair> x_buffer, grad_column_buffer, grad_row_buffer, active_pair_buffer,
        wide_column_buffer, wide_row_buffer;
    float *active = at_least(active_buffer, (size_t)CHUNK * inner),
          *grad_active = at_least(grad_active_buffer, (size_t)CHUNK * inner);
    float *grad_wide = at_least(grad_wide_buffer, (size_t)CHUNK * wide),
          *turned = at_least(turned_buffer, (size_t)wide * hidden);
    float *sum = at_least(sum_buffer, (size_t)wide * hidden), *out = at_least(out_buffer, (size_t)CHUNK * hidden);
    Pair *x_columns = at_least(x_buffer, (size_t)CHUNK * hidden / 2),
         *grad_columns = at_least(grad_column_buffer, (size_t)CHUNK * hidden / 2);
    Pair *grad_rows = at_least(grad_row_buffer, (size_t)CHUNK * hidden / 2),
         *active_columns = at_least(active_pair_buffer, (size_t)CHUNK * inner / 2);
    Pair *wide_columns = at_least(wide_column_buffer, (size_t)CHUNK * inner),
         *wide_rows = at_least(wide_row_buffer, (size_t)CHUNK * inner);
#pragma omp for schedule(dynamic, 8)
    for (int e = 0; e < size.count; e++) {
      transpose(hidden, wide, gate_up + (size_t)e * hidden * wide, wide, turned, hidden);
      pair_along_columns(wide, hidden, turned, packed_up.data() + (size_t)e * hidden * inner);
      transpose(inner, hidden, down + (size_t)e * inner * hidden, hidden, turned, inner);
      pair_along_columns(hidden, inner, turned, packed_down.data() + (size_t)e * inner * hidden / 2);
    }
#pragma omp for schedule(dynamic)
    for (size_t at = 0; at < list.size(); at++) {
      auto [e, begin, slots] = list[at];
      const int *slot = order + begin, pairs = (slots + 1) / 2;
      for (int i = 0; i < slots; i++) {
        size_t token = slot[i] / SLOTS;
        pair_along_rows(1, hidden, grad + token * hidden, grad_rows + (size_t)i * hidden / 2);
        if (i % 2) continue;
        bool last = i + 1 == slots;
        size_t next = last ? 0 : slot[i + 1] / SLOTS;
        pair_two_rows(hidden, x + token * hidden, last ? nullptr : x + next * hidden,
                      x_columns + (size_t)i / 2 * hidden);
        pair_two_rows(hidden, grad + token * hidden, last ? nullptr : grad + next * hidden,
                      grad_columns + (size_t)i / 2 * hidden);
      }
      const Pair* turned_down = packed_down.data() + (size_t)e * inner * hidden / 2;
      multiply<Bfloat16>(slots, inner, hidden / 2, {grad_rows, hidden / 2, 1}, turned_down, inner, grad_active, inner);
      for (int i = 0; i < slots; i++) {
        const float *gate = before + (size_t)(begin + i) * wide, *up = gate + inner;
        __m512 share = _mm512_set1_ps(weight[slot[i]]), dot = _mm512_setzero_ps(), one = _mm512_set1_ps(1.f);
        for (int f = 0; f < inner; f += 16) {
          __m512 g = _mm512_loadu_ps(gate + f), u = _mm512_loadu_ps(up + f),
                 gradient = _mm512_loadu_ps(grad_active + (size_t)i * inner + f);
          __m512 s = sigmoid(g), silu = _mm512_mul_ps(g, s), value = _mm512_mul_ps(silu, u);
          dot = _mm512_fmadd_ps(value, gradient, dot);
          gradient = _mm512_mul_ps(gradient, share);
          _mm512_storeu_ps(active + (size_t)i * inner + f, _mm512_mul_ps(value, share));
          __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(one, s), s);  // of silu
          _mm512_storeu_ps(grad_wide + (size_t)i * wide + f, _mm512_mul_ps(_mm512_mul_ps(gradient, u), slope));
          _mm512_storeu_ps(grad_wide + (size_t)i * wide + inner + f, _mm512_mul_ps(gradient, silu));
        }
        grad_weight[slot[i]] = _mm512_reduce_add_ps(dot);
      }
      pair_along_columns(slots, inner, active, active_columns);
      multiply<Bfloat16>(inner, hidden, pairs, {active_columns, 1, inner}, grad_columns, hidden, sum, hidden);
      omp_set_lock(&locks[e]);
      for (int i = 0; i < inner * hidden; i++) grad_down[(size_t)e * inner * hidden + i] += sum[i];
      omp_unset_lock(&locks[e]);
      pair_along_columns(slots, wide, grad_wide, wide_columns);
      pair_along_rows(slots, wide, grad_wide, wide_rows);
      multiply<Bfloat16>(hidden, wide, pairs, {x_columns, 1, hidden}, wide_columns, wide, sum, wide);
      omp_set_lock(&locks[e]);
      for (int i = 0; i < wide * hidden; i++) grad_gate_up[(size_t)e * wide * hidden + i] += sum[i];
      omp_unset_lock(&locks[e]);
      multiply<Bfloat16>(slots, hidden, inner, {wide_rows, inner, 1}, packed_up.data() + (size_t)e * hidden * inner,
                         hidden, out, hidden);
      for (int i = 0; i < slots; i++)
        memcpy(by_slot + (size_t)slot[i] * hidden, out + (size_t)i * hidden, hidden * sizeof(float));
    }
    sum_slots(size, by_slot, grad_x);
  }
  for (auto& lock : locks) omp_destroy_lock(&lock);
}
}
